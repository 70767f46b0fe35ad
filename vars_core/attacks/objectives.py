"""What an attacker wants: callables (N, 3, H, W) → (N,), maximised by the engine.

Every objective belongs to a row of images and is narrowed with `objective[rows]`. `features` is whatever
the attacker differentiates through: the extractor alone (T0) or the extractor behind a filter (T2).

Objectives are added and weighted: `promote + 0.1 * hook`, `objective - penalty * other` with one penalty per image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F


class Objective:
    """What all objectives share: sums and weights, which narrow with their parts.

    A kind of objective names its fields that look at images (`looks`, modules or other objectives) and those that
    hold something per image (`per_image`)."""

    looks: ClassVar[tuple[str, ...]] = ()
    per_image: ClassVar[tuple[str, ...]] = ()

    @property
    def modules(self) -> tuple:
        """The modules that images go through, each once: an attack puts them in eval mode."""
        found = (getattr(self, name) for name in self.looks)
        return tuple(dict.fromkeys(m for f in found for m in ((f,) if isinstance(f, nn.Module) else f.modules)))

    def __getitem__(self, rows):
        return replace(self, **{name: getattr(self, name)[rows] for name in self.per_image})

    def __add__(self, other):
        return Sum((*_terms(self), *_terms(other))) if isinstance(other, Objective) else NotImplemented

    def __mul__(self, weight):
        if isinstance(weight, Objective):
            return NotImplemented
        return Sum(tuple((weight * own, objective) for own, objective in _terms(self)))

    __rmul__ = __mul__

    def __neg__(self):
        return -1.0 * self

    def __sub__(self, other):
        return self + -other if isinstance(other, Objective) else NotImplemented


def _terms(objective: Objective) -> tuple:
    return objective.terms if isinstance(objective, Sum) else ((1.0, objective),)


@dataclass(frozen=True)
class Sum(Objective):
    """Σ weight · objective; a weight is one number or one per image (N,)."""

    terms: tuple

    @property
    def modules(self):
        every = [module for _, objective in self.terms for module in objective.modules]
        return tuple(dict.fromkeys(every))  # once each: two objectives mostly share an extractor

    def __getitem__(self, rows):
        return Sum(tuple((w[rows] if _per_image(w) else w, objective[rows]) for w, objective in self.terms))

    def __call__(self, images):
        return sum(weight * objective(images) for weight, objective in self.terms)


def _per_image(value) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 1


@dataclass(frozen=True)
class WithThreshold(Objective):
    """The same objective, and the value that is enough for the attacker: one per image (N,). Attacks that look at it
    judge success by it, and the Square attack then stops asking."""

    looks = ("objective",)
    per_image = ("objective", "success_threshold")

    objective: Objective
    success_threshold: torch.Tensor

    def __call__(self, images):
        return self.objective(images)


@dataclass(frozen=True)
class FeatureDistance(Objective):
    """−‖f(x′) − t‖² / D, one target (N, D) per image: *hook* (item → item) when t are a popular item's features
    (AIP-EXPA, the expert of Liu and Larson 2021; Normann et al. 2022). With `sign` −1 it runs away: *untargeted* from
    the image's own features. `sign` may be one value per image."""

    looks = ("features",)
    per_image = ("targets", "sign")

    features: nn.Module
    targets: torch.Tensor
    sign: torch.Tensor

    def __call__(self, images):
        return -self.sign * (self.features(images) - self.targets).square().mean(1)


def hook(features: nn.Module, targets: torch.Tensor) -> FeatureDistance:
    return FeatureDistance(features, targets, torch.ones(len(targets), device=targets.device))


def untargeted(features: nn.Module, own: torch.Tensor) -> FeatureDistance:
    return FeatureDistance(features, own, -torch.ones(len(own), device=own.device))


@dataclass(frozen=True)
class FeatureCosine(Objective):
    """cos(f(x′), t), one target (N, D) per image: *hook* by direction alone (Normann et al. 2022)."""

    looks = ("features",)
    per_image = ("targets",)

    features: nn.Module
    targets: torch.Tensor

    def __call__(self, images):
        return F.cosine_similarity(self.features(images), self.targets, dim=1)


@dataclass(frozen=True)
class TargetClass(Objective):
    """−CE(c(x′), t): *class → class* (TAaMR, Di Noia et al. 2020). `classifier` maps images to logits (N, C),
    `labels` (N,) are the classes wanted."""

    looks = ("classifier",)
    per_image = ("labels",)

    classifier: nn.Module
    labels: torch.Tensor

    def __call__(self, images):
        return -F.cross_entropy(self.classifier(images), self.labels, reduction="none")


@dataclass(frozen=True)
class Evade(Objective):
    """J − λ·relu(d − τ + m): reach the objective *and* stay under the detector's threshold (tier T3).

    λ is one value per image, so that a search over λ is one batch."""

    looks = ("objective", "score")
    per_image = ("objective", "penalty")

    objective: Objective
    score: nn.Module
    threshold: float
    margin: float
    penalty: torch.Tensor

    def __call__(self, images):
        excess = F.relu(self.score(images) - self.threshold + self.margin)
        return self.objective(images) - self.penalty * excess
