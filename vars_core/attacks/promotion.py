"""Objectives that push an item into lists: *promote*, *reach* and their reverse, in a shop's VBPR or in any
recommender.

All are optimised on the users whom the attacker knows; results are reported on the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vars_core.attacks.objectives import Objective
from vars_core.recommender import ranking
from vars_core.recommender.shop import Shop
from vars_core.runtime import device


def promote(shop: Shop, items, features: nn.Module) -> Promote:
    """*promote* for `items` (A,), one per image, through `features`, optimised on the users known to attackers."""
    scores = shop.recommender.scores(shop.known_users, shop.features).to(device())
    owned = torch.as_tensor(np.asarray(shop.split.train[shop.known_users].todense())).to(device())
    weights = shop.recommender.visual_matrix()[shop.known_users]
    own = torch.from_numpy(shop.features[items]).to(device())
    # s^(k): only below the k-th best of the others is there no place left in the list
    thresholds = ranking.last_place_scores(scores, owned, shop.k)
    return Promote(features, weights, scores[:, items] - weights @ own.T, thresholds)


def reach(shop: Shop, items, features: nn.Module) -> Promote:
    """*reach* for `items`: as `promote`, but a soft count of the lists (see `promotion_value`)."""
    scores = shop.recommender.scores(shop.known_users, shop.features)
    return replace(promote(shop, items, features), temperature=reach_temperature(scores))


@dataclass(frozen=True)
class Promote(Objective):
    """mean over the known users of log σ(s(u, i′) − s_u^(k)) (AIP-INSA, Liu and Larson 2021).

    `weights` (U, D) and `offsets` (U, N) are the recommender's linear visual head, s(u, i) = offset + w_u·f_i;
    `thresholds` (U,) the k-th best score of each known user. With a `temperature` it is *reach* instead, see
    `promotion_value`.
    """

    looks = ("features",)

    features: nn.Module
    weights: torch.Tensor
    offsets: torch.Tensor
    thresholds: torch.Tensor
    temperature: float | None = None

    def __getitem__(self, rows):
        return replace(self, offsets=self.offsets[:, rows])

    def __call__(self, images):
        scores = self.offsets + self.weights @ self.features(images).T
        return promotion_value(scores - self.thresholds[:, None], self.temperature)


def promotion_value(margins: torch.Tensor, temperature: float | None) -> torch.Tensor:
    """What `margins` (U, N) of scores over users' last places are worth to a pusher, (N,).

    *promote* (no temperature) is the mean of log σ(margin), as AIP has it. Far below the lists it is a straight
    line: it lifts the item for everybody alike, mostly from one hopeless place to another. *reach* is the log of the
    mean of σ(margin / temperature): a soft count of the lists that hold the item; it goes where lists are near. Ours.
    """
    if temperature is None:
        return F.logsigmoid(margins).mean(0)
    return F.logsigmoid(margins / temperature).logsumexp(0) - math.log(len(margins))


def reach_temperature(scores: torch.Tensor) -> float:
    """The temperature of *reach*: 0.3 of what separates two items for a user, of scores (U, I)."""
    return 0.3 * scores.std(1).mean().item()


@dataclass(frozen=True)
class PromoteByScores(Objective):
    """`Promote` in any recommender whose `item_scores(users, items, features)` is differentiable in the features.

    For victims that are not linear in them (visual k-NN), and for DVBPR, whose `features` are its own `network`.
    `items` (A,) are the pushed ones, one per image, `users` (U,) those the attacker knows. `sign` −1 demotes."""

    looks = ("features", "recommender")
    per_image = ("items",)

    features: nn.Module
    recommender: nn.Module
    users: torch.Tensor
    items: torch.Tensor
    thresholds: torch.Tensor
    sign: float = 1.0
    temperature: float | None = None

    def __call__(self, images):
        scores = self.recommender.item_scores(self.users, self.items, self.features(images))
        return promotion_value(self.sign * (scores - self.thresholds[:, None]), self.temperature)


def promote_by_scores(
    features: nn.Module, recommender, users, items, served, owned, k: int, *, reach: bool = False
) -> PromoteByScores:
    """The promote objective in `recommender`, whose list has `k` places; or *reach*, see `promotion_value`.

    `served` (I, D) are the features that it serves now, `owned` (U, I) what the users of `users` (U,) have."""
    scores = recommender.scores(users, served)
    owned = torch.as_tensor(owned, dtype=torch.bool, device=scores.device)
    users, items = (torch.as_tensor(numbers, device=scores.device) for numbers in (users, items))
    temperature = reach_temperature(scores) if reach else None
    return PromoteByScores(
        features, recommender, users, items, ranking.last_place_scores(scores, owned, k), temperature=temperature
    )


def demote(objective: Promote | PromoteByScores) -> Promote | PromoteByScores:
    """The reverse: mean over the known users of log σ(s_u^(k) − s(u, i′)), which pushes hardest where the item is in
    the list. (−promote would push least there: its slope is gone where the item is safely in.)"""
    if isinstance(objective, PromoteByScores):
        return replace(objective, sign=-objective.sign, temperature=None)
    sides = {name: -getattr(objective, name) for name in ("weights", "offsets", "thresholds")}
    return replace(objective, **sides, temperature=None)
