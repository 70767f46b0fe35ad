"""Scores of a defence's detector: its logit, others from its embedding. Those behind one filter share one pass."""

from abc import abstractmethod

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from vars_core.defence import Defence
from vars_core.detectors import looked_at
from vars_core.rival_detectors import Evidence, Rival


class Behind(Rival):
    """A score of what the detector of `defence` looks at behind its filter."""

    def __init__(self, defence: Defence):
        super().__init__(defence.extractor)
        self.defence = defence

    @abstractmethod
    def read(self, seen: tuple[torch.Tensor, ...]) -> np.ndarray:
        """(n,) of one batch of what `looked_at` gives."""

    def score(self, photos):
        return together({"": self}, photos)[""]


class Logit(Behind):
    """The detector's own score."""

    def _learn(self, evidence: Evidence, generator: torch.Generator) -> None:
        """The defence comes trained."""

    def read(self, seen):
        return self.defence.detector(*seen).float().cpu().numpy()


class Prototypes(Behind):
    """cos(z, p₁) − cos(z, p₀), p the mean embeddings of attacked and honest training photos (Snell et al. 2017)."""

    def _learn(self, evidence: Evidence, generator: torch.Generator) -> None:
        means = [embeddings(self.defence, part).mean(0) for part in (evidence.honest, evidence.attacked)]
        honest, attacked = (mean / np.linalg.norm(mean) for mean in means)
        self.axis = attacked - honest

    def read(self, seen):
        return _embedded(self.defence, seen) @ self.axis


class NearestClean(Behind):
    """Distance of z to the k-th nearest clean training photo's (Sun et al. 2022)."""

    def __init__(self, defence: Defence, k: int = 10):
        super().__init__(defence)
        self.k = k

    def _learn(self, evidence: Evidence, generator: torch.Generator) -> None:
        bank = embeddings(self.defence, evidence.clean)
        self.bank = NearestNeighbors(n_neighbors=min(self.k, len(bank))).fit(bank)

    def read(self, seen):
        return self.bank.kneighbors(_embedded(self.defence, seen))[0][:, -1]


def embeddings(defence: Defence, photos: np.ndarray) -> np.ndarray:
    """The detector's unit embeddings (N, 64) of uint8 photos (N, H, W, 3)."""
    parts = looked_at(defence.purifier, defence.extractor, photos)
    return np.concatenate([_embedded(defence, seen) for seen in parts])


def _embedded(defence: Defence, seen) -> np.ndarray:
    with torch.no_grad():
        return defence.detector.embed(*seen)[0].cpu().numpy()


@torch.no_grad()
def together(judges: dict[str, Rival], photos: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (N,) of uint8 photos by each judge; filter and extractor run once for all `Behind` the same filter."""
    found = {name: judge.score(photos) for name, judge in judges.items() if not isinstance(judge, Behind)}
    groups: dict[int, dict[str, Behind]] = {}
    for name, judge in judges.items():
        if isinstance(judge, Behind):
            groups.setdefault(id(judge.defence.purifier), {})[name] = judge
    for group in groups.values():
        shared = next(iter(group.values())).defence
        parts = [
            {name: judge.read(seen) for name, judge in group.items()}
            for seen in looked_at(shared.purifier, shared.extractor, photos)
        ]
        found |= {name: np.concatenate([part[name] for part in parts]) for name in group}
    return {name: found[name] for name in judges}
