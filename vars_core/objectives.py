"""What an attacker wants: callables (N, 3, H, W) → (N,), maximised by the engine.

Every objective belongs to a row of images and is narrowed with `objective[rows]`. `features` is whatever
the attacker differentiates through: the extractor alone (T0) or the extractor behind a filter (T2).
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Approach:
    """−‖f(x′) − t‖² / D, one target (N, D) per image: *hook* (item → item) when t are a popular item's features
    (AIP-EXPA, Liu and Larson 2021; Normann et al. 2022). With `sign` −1 it runs away: *untargeted* from the
    image's own features. `sign` may be one value per image."""

    features: nn.Module
    targets: torch.Tensor
    sign: torch.Tensor

    @property
    def modules(self):
        return (self.features,)

    def __getitem__(self, rows):
        return replace(self, targets=self.targets[rows], sign=self.sign[rows])

    def __call__(self, images):
        return -self.sign * (self.features(images) - self.targets).square().mean(1)


def hook(features: nn.Module, targets: torch.Tensor) -> Approach:
    return Approach(features, targets, torch.ones(len(targets), device=targets.device))


def untargeted(features: nn.Module, own: torch.Tensor) -> Approach:
    return Approach(features, own, -torch.ones(len(own), device=own.device))


@dataclass(frozen=True)
class Promote:
    """mean over the known users of log σ(s(u, i′) − s_u^(k)) (AIP-INSA, Liu and Larson 2021).

    `weights` (U, D) and `offsets` (U, N) are the recommender's linear visual head, s(u, i) = offset + w_u·f_i;
    `thresholds` (U,) the k-th best score of each known user."""

    features: nn.Module
    weights: torch.Tensor
    offsets: torch.Tensor
    thresholds: torch.Tensor

    @property
    def modules(self):
        return (self.features,)

    def __getitem__(self, rows):
        return replace(self, offsets=self.offsets[:, rows])

    def __call__(self, images):
        scores = self.offsets + self.weights @ self.features(images).T
        return F.logsigmoid(scores - self.thresholds[:, None]).mean(0)


class Through(nn.Module):
    """f∘R: the extractor behind a filter, as an adaptive attacker differentiates it (tier T2)."""

    def __init__(self, extractor: nn.Module, purifier: nn.Module):
        super().__init__()
        self.extractor, self.purifier = extractor, purifier

    def forward(self, images):
        return self.extractor(self.purifier(images))


@dataclass(frozen=True)
class Evade:
    """J − λ·relu(d − τ + m): reach the goal *and* stay under the detector's threshold (tier T3).

    λ is one value per image, so that a search over λ is one batch."""

    goal: Approach | Promote
    score: nn.Module
    threshold: float
    margin: float
    penalty: torch.Tensor

    @property
    def modules(self):
        return (*self.goal.modules, self.score)

    def __getitem__(self, rows):
        return replace(self, goal=self.goal[rows], penalty=self.penalty[rows])

    def __call__(self, images):
        excess = F.relu(self.score(images) - self.threshold + self.margin)
        return self.goal(images) - self.penalty * excess
