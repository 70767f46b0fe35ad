"""Other scores from the contrastive embedding: the margin between prototypes, the distance to clean photos."""

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from vars_core.defence import Defence
from vars_core.extractor import to_images
from vars_core.rival_detectors import BATCH, Evidence, Rival


@torch.no_grad()
def embeddings(defence: Defence, photos: np.ndarray) -> np.ndarray:
    """The detector's unit embeddings (N, 64) of uint8 photos (N, H, W, 3)."""
    parts = []
    for start in range(0, len(photos), BATCH):
        images = to_images(photos[start : start + BATCH])
        filtered = defence.purifier(images)
        seen = (images, filtered, defence.extractor(images), defence.extractor(filtered))
        parts.append(defence.detector.embed(*seen)[0].cpu().numpy())
    return np.concatenate(parts)


class _Embedded(Rival):
    def __init__(self, defence: Defence):
        super().__init__(defence.extractor)
        self.defence = defence


class Prototypes(_Embedded):
    """cos(z, p₁) − cos(z, p₀), p the mean embeddings of attacked and honest training photos (Snell et al. 2017)."""

    def _learn(self, evidence: Evidence, generator: torch.Generator) -> None:
        means = [embeddings(self.defence, part).mean(0) for part in (evidence.honest, evidence.attacked)]
        honest, attacked = (mean / np.linalg.norm(mean) for mean in means)
        self.axis = attacked - honest

    def score(self, photos):
        return embeddings(self.defence, photos) @ self.axis


class NearestClean(_Embedded):
    """Distance of z to the k-th nearest clean training photo's (Sun et al. 2022)."""

    def __init__(self, defence: Defence, k: int = 10):
        super().__init__(defence)
        self.k = k

    def _learn(self, evidence: Evidence, generator: torch.Generator) -> None:
        bank = embeddings(self.defence, evidence.clean)
        self.bank = NearestNeighbors(n_neighbors=min(self.k, len(bank))).fit(bank)

    def score(self, photos):
        return self.bank.kneighbors(embeddings(self.defence, photos))[0][:, -1]
