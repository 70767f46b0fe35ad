"""Scores of a defence's detector: its logit, others from its embedding. Those behind one filter share one pass."""

from abc import abstractmethod

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from vars_core.detection.defence import Defence
from vars_core.detection.detectors import detector_inputs
from vars_core.detection.rival_detectors import DetectorData, RivalDetector


class DetectorVariant(RivalDetector):
    """A score of what the detector of `defence` looks at behind its filter."""

    def __init__(self, defence: Defence):
        super().__init__(defence.extractor)
        self.defence = defence

    @abstractmethod
    def from_inputs(self, seen: tuple[torch.Tensor, ...]) -> np.ndarray:
        """(n,) of one batch of what `detector_inputs` gives."""

    def score(self, photos):
        return score_all({"": self}, photos)[""]


class Logit(DetectorVariant):
    """The detector's own score."""

    def _learn(self, evidence: DetectorData, generator: torch.Generator) -> None:
        """The defence comes trained."""

    def from_inputs(self, seen):
        return self.defence.detector(*seen).float().cpu().numpy()


class Prototypes(DetectorVariant):
    """cos(z, p₁) − cos(z, p₀), p the mean embeddings of attacked and honest training photos (Snell et al. 2017)."""

    def _learn(self, evidence: DetectorData, generator: torch.Generator) -> None:
        means = [embeddings(self.defence, part).mean(0) for part in (evidence.honest, evidence.attacked)]
        honest, attacked = (mean / np.linalg.norm(mean) for mean in means)
        self.axis = attacked - honest

    def from_inputs(self, seen):
        return _embedded(self.defence, seen) @ self.axis


class NearestClean(DetectorVariant):
    """Distance of z to the k-th nearest clean training photo's (Sun et al. 2022)."""

    def __init__(self, defence: Defence, k: int = 10):
        super().__init__(defence)
        self.k = k

    def _learn(self, evidence: DetectorData, generator: torch.Generator) -> None:
        bank = embeddings(self.defence, evidence.clean)
        self.bank = NearestNeighbors(n_neighbors=min(self.k, len(bank))).fit(bank)

    def from_inputs(self, seen):
        return self.bank.kneighbors(_embedded(self.defence, seen))[0][:, -1]


def embeddings(defence: Defence, photos: np.ndarray) -> np.ndarray:
    """The detector's unit embeddings (N, 64) of uint8 photos (N, H, W, 3)."""
    parts = detector_inputs(defence.image_filter, defence.extractor, photos)
    return np.concatenate([_embedded(defence, seen) for seen in parts])


def _embedded(defence: Defence, seen) -> np.ndarray:
    with torch.no_grad():
        return defence.detector.embed(*seen)[0].cpu().numpy()


@torch.no_grad()
def score_all(detectors: dict[str, RivalDetector], photos: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (N,) of uint8 photos by each of `detectors`; filter and extractor run once for all `DetectorVariant` the
    same filter."""
    found = {
        name: detector.score(photos)
        for name, detector in detectors.items()
        if not isinstance(detector, DetectorVariant)
    }
    groups: dict[int, dict[str, DetectorVariant]] = {}
    for name, detector in detectors.items():
        if isinstance(detector, DetectorVariant):
            groups.setdefault(id(detector.defence.image_filter), {})[name] = detector
    for group in groups.values():
        shared = next(iter(group.values())).defence
        parts = [
            {name: detector.from_inputs(seen) for name, detector in group.items()}
            for seen in detector_inputs(shared.image_filter, shared.extractor, photos)
        ]
        found |= {name: np.concatenate([part[name] for part in parts]) for name in group}
    return {name: found[name] for name in detectors}
