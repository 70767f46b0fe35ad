"""What an attacker wants: callables (N, 3, H, W) → (N,), maximised by the engine.

Every objective belongs to a row of images and is narrowed with `objective[rows]`. `features` is whatever
the attacker differentiates through: the extractor alone (T0) or the extractor behind a filter (T2).

Objectives are added and weighted: `promote + 0.1 * hook`, `goal - penalty * other` with one penalty per image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F


class Goal:
    """What all objectives share: sums and weights, which narrow with their parts."""

    def __add__(self, other):
        return Sum((*_terms(self), *_terms(other))) if isinstance(other, Goal) else NotImplemented

    def __mul__(self, weight):
        if isinstance(weight, Goal):
            return NotImplemented
        return Sum(tuple((weight * own, goal) for own, goal in _terms(self)))

    __rmul__ = __mul__

    def __neg__(self):
        return -1.0 * self

    def __sub__(self, other):
        return self + -other if isinstance(other, Goal) else NotImplemented


def _terms(goal: Goal) -> tuple:
    return goal.terms if isinstance(goal, Sum) else ((1.0, goal),)


@dataclass(frozen=True)
class Sum(Goal):
    """Σ weight · objective; a weight is one number or one per image (N,)."""

    terms: tuple

    @property
    def modules(self):
        every = [module for _, goal in self.terms for module in goal.modules]
        return tuple(dict.fromkeys(every))  # once each: two goals mostly share an extractor

    def __getitem__(self, rows):
        return Sum(tuple((w[rows] if _per_image(w) else w, goal[rows]) for w, goal in self.terms))

    def __call__(self, images):
        return sum(weight * goal(images) for weight, goal in self.terms)


def _per_image(value) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 1


@dataclass(frozen=True)
class Until(Goal):
    """The same objective, and the value at which the attacker has `enough`: one per image (N,). Attacks that look at
    it tell success by it, and the Square attack then stops asking."""

    goal: Goal
    enough: torch.Tensor

    @property
    def modules(self):
        return self.goal.modules

    def __getitem__(self, rows):
        return replace(self, goal=self.goal[rows], enough=self.enough[rows])

    def __call__(self, images):
        return self.goal(images)


@dataclass(frozen=True)
class Approach(Goal):
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
class Align(Goal):
    """cos(f(x′), t), one target (N, D) per image: *hook* by direction alone (Normann et al. 2022)."""

    features: nn.Module
    targets: torch.Tensor

    @property
    def modules(self):
        return (self.features,)

    def __getitem__(self, rows):
        return replace(self, targets=self.targets[rows])

    def __call__(self, images):
        return F.cosine_similarity(self.features(images), self.targets, dim=1)


def cosine_hook(features: nn.Module, targets: torch.Tensor) -> Align:
    return Align(features, targets)


@dataclass(frozen=True)
class TargetClass(Goal):
    """−CE(c(x′), t): *class → class* (TAaMR, Di Noia et al. 2020). `classifier` maps images to logits (N, C),
    `labels` (N,) are the classes wanted."""

    classifier: nn.Module
    labels: torch.Tensor

    @property
    def modules(self):
        return (self.classifier,)

    def __getitem__(self, rows):
        return replace(self, labels=self.labels[rows])

    def __call__(self, images):
        return -F.cross_entropy(self.classifier(images), self.labels, reduction="none")


def target_class(classifier: nn.Module, labels: torch.Tensor) -> TargetClass:
    return TargetClass(classifier, labels)


@dataclass(frozen=True)
class Promote(Goal):
    """mean over the known users of log σ(s(u, i′) − s_u^(k)) (AIP-INSA, Liu and Larson 2021).

    `weights` (U, D) and `offsets` (U, N) are the recommender's linear visual head, s(u, i) = offset + w_u·f_i;
    `thresholds` (U,) the k-th best score of each known user. With a `temperature` it is *reach* instead, see `push`.
    """

    features: nn.Module
    weights: torch.Tensor
    offsets: torch.Tensor
    thresholds: torch.Tensor
    temperature: float | None = None

    @property
    def modules(self):
        return (self.features,)

    def __getitem__(self, rows):
        return replace(self, offsets=self.offsets[:, rows])

    def __call__(self, images):
        scores = self.offsets + self.weights @ self.features(images).T
        return push(scores - self.thresholds[:, None], self.temperature)


def push(margins: torch.Tensor, temperature: float | None) -> torch.Tensor:
    """What `margins` (U, N) of scores over users' last places are worth to a pusher, (N,).

    *promote* (no temperature) is the mean of log σ(margin), as AIP has it. Far below the lists it is a straight
    line: it lifts the item for everybody alike, mostly from one hopeless place to another. *reach* is the log of the
    mean of σ(margin / temperature): a soft count of the lists that hold the item; it goes where lists are near. Ours.
    """
    if temperature is None:
        return F.logsigmoid(margins).mean(0)
    return F.logsigmoid(margins / temperature).logsumexp(0) - math.log(len(margins))


def softness(scores: torch.Tensor) -> float:
    """The temperature of *reach*: 0.3 of what separates two items for a user, of scores (U, I)."""
    return 0.3 * scores.std(1).mean().item()


def last_place(scores: torch.Tensor, owned: torch.Tensor, k: int) -> torch.Tensor:
    """s_u^(k) (U,): each user's k-th best score, of `scores` (U, I) without what they own (boolean (U, I))."""
    return scores.masked_fill(owned, -torch.inf).topk(k, dim=1).values[:, -1]


@dataclass(frozen=True)
class PromoteIn(Goal):
    """`Promote` in any recommender whose `item_scores(users, items, features)` is differentiable in the features.

    For victims that are not linear in them (visual k-NN), and for DVBPR, whose `features` are its own `eye`. `items`
    (A,) are the pushed ones, one per image, `users` (U,) those the attacker knows. `sign` −1 demotes."""

    features: nn.Module
    recommender: nn.Module
    users: torch.Tensor
    items: torch.Tensor
    thresholds: torch.Tensor
    sign: float = 1.0
    temperature: float | None = None

    @property
    def modules(self):
        return (self.features, self.recommender)

    def __getitem__(self, rows):
        return replace(self, items=self.items[rows])

    def __call__(self, images):
        scores = self.recommender.item_scores(self.users, self.items, self.features(images))
        return push(self.sign * (scores - self.thresholds[:, None]), self.temperature)


def promote_in(
    features: nn.Module, recommender, users, items, served, owned, k: int, *, reach: bool = False
) -> PromoteIn:
    """The promote objective in `recommender`, whose list has `k` places; or *reach*, see `push`.

    `served` (I, D) are the features that it serves now, `owned` (U, I) what the users of `users` (U,) have."""
    scores = recommender.scores(users, served)
    owned = torch.as_tensor(owned, dtype=torch.bool, device=scores.device)
    users, items = (torch.as_tensor(numbers, device=scores.device) for numbers in (users, items))
    temperature = softness(scores) if reach else None
    return PromoteIn(features, recommender, users, items, last_place(scores, owned, k), temperature=temperature)


def demote(goal: Promote | PromoteIn) -> Promote | PromoteIn:
    """The reverse: mean over the known users of log σ(s_u^(k) − s(u, i′)), which pushes hardest where the item is in
    the list. (−promote would push least there: its slope is gone where the item is safely in.)"""
    if isinstance(goal, PromoteIn):
        return replace(goal, sign=-goal.sign, temperature=None)
    sides = {name: -getattr(goal, name) for name in ("weights", "offsets", "thresholds")}
    return replace(goal, **sides, temperature=None)


class Through(nn.Module):
    """f∘R: the extractor behind a filter, as an adaptive attacker differentiates it (tier T2)."""

    def __init__(self, extractor: nn.Module, purifier: nn.Module):
        super().__init__()
        self.extractor, self.purifier = extractor, purifier

    def forward(self, images):
        return self.extractor(self.purifier(images))


@dataclass(frozen=True)
class Evade(Goal):
    """J − λ·relu(d − τ + m): reach the goal *and* stay under the detector's threshold (tier T3).

    λ is one value per image, so that a search over λ is one batch."""

    goal: Goal
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
