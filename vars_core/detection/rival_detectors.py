"""Detectors that others proposed, under one interface: fit, score, threshold at a false-alarm rate.

All see what ours sees: the same clean photos of training items, the same attacked ones, and validation photos that
no detector was fitted on. None of their banks holds a photo of an item that is tested (a bank with the clean twin
of an attacked photo would give it away).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from vars_core.detection.calibration import conformal_threshold
from vars_core.detection.detectors import FeatureSqueezing, score_photos
from vars_core.detection.honest import honest_versions
from vars_core.extractor import Extractor, batches, extract, to_images
from vars_core.reconstruction.classics import JPEG
from vars_core.runtime import device


@dataclass(frozen=True)
class DetectorData:
    """What detectors are fitted on, uint8 photos (·, H, W, 3): `clean` ones with their categories `labels` (N,), and
    of *other* items `honest` (clean, edited or noisy) and `attacked` ones. `validation` photos, clean, set the
    threshold in their `honest_versions`."""

    clean: np.ndarray
    labels: np.ndarray
    honest: np.ndarray
    attacked: np.ndarray
    validation: np.ndarray

    @cached_property
    def uploads(self) -> list[np.ndarray]:
        """The honest versions of `validation`."""
        return list(honest_versions(self.validation))


class RivalDetector(ABC):
    """A detector: higher scores are more adversarial."""

    def __init__(self, extractor: Extractor):
        self.extractor, self.validation_scores = extractor, None

    def fit(self, evidence: DetectorData, generator: torch.Generator) -> "RivalDetector":
        """Learn what the method learns, then note the scores of the validation photos, (n, versions)."""
        self._learn(evidence, generator)
        self.validation_scores = np.stack([self.score(photos) for photos in evidence.uploads], 1)
        return self

    @abstractmethod
    def _learn(self, evidence: DetectorData, generator: torch.Generator) -> None:
        """Set what `score` needs."""

    @abstractmethod
    def score(self, photos: np.ndarray) -> np.ndarray:
        """(N,) of uint8 photos (N, H, W, 3)."""

    def threshold(self, fpr: float) -> float:
        """τ that honest photos exceed with probability `fpr` at most (split conformal). Needs `fit`."""
        if self.validation_scores is None:
            raise ValueError("fit the detector before asking for a threshold")
        return conformal_threshold(self.validation_scores, fpr)


class PretrainedDetector(RivalDetector):
    """A detector that comes trained as a module (N, 3, H, W) → (N,): ours, its BCE twin, feature squeezing."""

    def __init__(self, module: nn.Module):
        self.module, self.validation_scores = module, None

    def _learn(self, evidence, generator):
        """Nothing is left to learn."""

    def score(self, photos):
        return score_photos(self.module, photos)


class JPEGDifference(nn.Module):
    """Mean |f(x) − f(JPEG(x))|: the trivial floor every detector must beat."""

    def __init__(self, extractor: Extractor, quality: int = 75):
        super().__init__()
        self.extractor, self.codec = extractor, JPEG(quality)

    def forward(self, images):
        return (self.extractor(images) - self.extractor(self.codec(images))).abs().mean(1)


class MagNet(RivalDetector):
    """Reconstruction error of an autoencoder trained on clean photos with a little noise (Meng and Chen 2017: three
    3×3 convolutions with sigmoids, noise of standard deviation 0.025; the error is squared).

    `steps` of training on batches of 32."""

    def __init__(self, extractor: Extractor, steps: int = 300, width: int = 32):
        super().__init__(extractor)
        self.steps, self.width = steps, width

    def _learn(self, evidence, generator):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            layers = [
                nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, self.width), (self.width, self.width), (self.width, 3))
            ]
        net = nn.Sequential(*(step for layer in layers for step in (layer, nn.Sigmoid())))
        self.net = net.to(device(), memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(self.steps):
            rows = torch.randint(0, len(evidence.clean), (32,), generator=generator).numpy()
            images = to_images(evidence.clean[rows])
            noisy = images + 0.025 * torch.randn(images.shape, generator=generator).to(images)
            loss = (net(noisy.clamp(0, 1)) - images).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        self.net.eval().requires_grad_(False)

    def score(self, photos):
        return score_photos(_Error(self.net), photos)


class _Error(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return (self.net(images) - images).square().mean((1, 2, 3))


class KNNDistance(RivalDetector):
    """Distance to the k-th nearest clean training photo in f, features of unit length (Sun et al. 2022)."""

    def __init__(self, extractor: Extractor, k: int = 10):
        super().__init__(extractor)
        self.k = k

    def _unit(self, photos):
        features = extract(self.extractor, photos)
        return features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)

    def _learn(self, evidence, generator):
        self.bank = NearestNeighbors(n_neighbors=min(self.k, len(evidence.clean))).fit(self._unit(evidence.clean))

    def score(self, photos):
        return self.bank.kneighbors(self._unit(photos))[0][:, -1]


class LayerwiseDetector(RivalDetector):
    """A number per layer and photo, weighed by logistic regression on honest and attacked photos."""

    def _learn(self, evidence, generator):
        self.layers = resolution_layers(self.extractor)
        self._describe(layer_means(self.extractor, self.layers, evidence.clean), evidence.labels)
        seen = np.concatenate([self._columns(evidence.honest), self._columns(evidence.attacked)])
        truth = np.repeat([0, 1], [len(evidence.honest), len(evidence.attacked)])
        self.weigh = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        self.weigh.fit(seen, truth)

    @abstractmethod
    def _describe(self, clean: list[np.ndarray], labels: np.ndarray) -> None:
        """Keep what the columns need of the clean activations, one (N, C) per layer."""

    @abstractmethod
    def _column(self, layer: int, activations: np.ndarray) -> np.ndarray:
        """(N,) of one layer's activations (N, C)."""

    def _columns(self, photos):
        found = layer_means(self.extractor, self.layers, photos)
        return np.stack([self._column(layer, values) for layer, values in enumerate(found)], 1)

    def score(self, photos):
        return self.weigh.decision_function(self._columns(photos))


class LID(LayerwiseDetector):
    """Local intrinsic dimensionality (Ma et al. 2018): at each layer −1 / mean log(r_i / r_k) over the k nearest of a
    bank of clean photos."""

    def __init__(self, extractor: Extractor, k: int = 20):
        super().__init__(extractor)
        self.k = k

    def _describe(self, clean, labels):
        self.banks = [NearestNeighbors(n_neighbors=min(self.k, len(c))).fit(c) for c in clean]

    def _column(self, layer, activations):
        return dimensionality(self.banks[layer].kneighbors(activations)[0])


def dimensionality(distances: np.ndarray) -> np.ndarray:
    """The maximum-likelihood estimate (N,) from ascending distances (N, k) to the k nearest (Amsaleg et al. 2015)."""
    distances = np.maximum(distances, 1e-12)
    means = np.log(distances / distances[:, -1:]).mean(1)
    return -1 / np.minimum(means, -1e-12)


class Mahalanobis(LayerwiseDetector):
    """Distance to the nearest category's mean under one covariance for all categories, layer by layer (Lee et al.
    2018, without their input pre-processing). The covariance is shrunk (Ledoit and Wolf 2004): there are more
    channels than some catalogues have photos for."""

    def _describe(self, clean, labels):
        kinds = [labels == label for label in np.unique(labels)]
        self.means, self.precisions = [], []
        for values in clean:
            means = np.stack([values[rows].mean(0) for rows in kinds])
            centred = np.concatenate([values[rows] - mean for rows, mean in zip(kinds, means, strict=True)])
            self.means.append(means)
            self.precisions.append(LedoitWolf(assume_centered=True).fit(centred).precision_)

    def _column(self, layer, activations):
        gaps = activations[:, None] - self.means[layer][None]
        return np.einsum("nkc,cd,nkd->nk", gaps, self.precisions[layer], gaps, optimize=True).min(1)


def resolution_layers(extractor: Extractor) -> list[nn.Module]:
    """The last module of each spatial resolution, in the order of computation; none where there are no maps."""
    last: dict[int, nn.Module] = {}

    def note(module, _, output):
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[-1] > 1:
            last[output.shape[-1]] = module

    hooks = [module.register_forward_hook(note) for module in extractor.backbone.modules()]
    try:
        with torch.no_grad():
            extractor(torch.zeros(1, 3, 64, 64, device=extractor.feature_mean.device))
    finally:
        for hook in hooks:
            hook.remove()
    return list(last.values())


@torch.no_grad()
def layer_means(extractor: Extractor, layers: list[nn.Module], photos: np.ndarray) -> list[np.ndarray]:
    """Spatial means (N, C) of each layer's maps, and f itself (N, D) as the last."""
    found: list[list] = [[] for _ in range(len(layers) + 1)]

    def keeper(place):
        return lambda module, _, output: found[place].append(output.float().mean((2, 3)).cpu().numpy())

    hooks = [layer.register_forward_hook(keeper(place)) for place, layer in enumerate(layers)]
    try:
        for images in batches(photos):
            found[-1].append(extractor(images).cpu().numpy())
    finally:
        for hook in hooks:
            hook.remove()
    return [np.concatenate(parts) for parts in found]


def rivals(extractor: Extractor, *, magnet_steps: int) -> dict[str, RivalDetector]:
    """The rivals by the names that tables and metrics give them, not fitted; only MagNet is trained by gradients."""
    return {
        "squeezing": PretrainedDetector(FeatureSqueezing(extractor)),
        "magnet": MagNet(extractor, magnet_steps),
        "lid": LID(extractor),
        "mahalanobis": Mahalanobis(extractor),
        "knn": KNNDistance(extractor),
        "jpeg": PretrainedDetector(JPEGDifference(extractor)),
    }
