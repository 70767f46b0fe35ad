"""Objectives that push an item into lists: *insa*, *promote*, *reach*, and *demote*, in a shop's VBPR or in any
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

AIMS = ("insa", "promote", "reach")


def push(shop: Shop, items, features: nn.Module, aim: str, served: torch.Tensor | None = None) -> Push:
    """The objective `aim` of AIMS for `items` (A,), one per image, through `features`, on the users known to
    attackers. `served` (U, I): what all items score there, for those users, if not what the shop's features say."""
    scores = shop.recommender.scores(shop.known_users, shop.features).to(device())
    owned = torch.as_tensor(np.asarray(shop.split.train[shop.known_users].todense())).to(device())
    weights = shop.recommender.visual_matrix()[shop.known_users]
    own = torch.from_numpy(shop.features[items]).to(device())
    # s^(k): only below the k-th best of the others is there no place left in the list
    thresholds = ranking.last_place_scores(scores if served is None else served.to(device()), owned, shop.k)
    offsets = scores[:, items] - weights @ own.T
    return Push(features, weights, offsets, thresholds, aim, reach_temperature(scores))


@dataclass(frozen=True)
class Push(Objective):
    """What an item's scores s(u, i′) are worth to a pusher, over the known users; see `worth`.

    `weights` (U, D) and `offsets` (U, N) are the recommender's linear visual head, s(u, i) = offset + w_u·f_i;
    `thresholds` (U,) the k-th best score of each known user; `aim` one of AIMS, *reach* with its `temperature`.
    """

    looks = ("features",)

    features: nn.Module
    weights: torch.Tensor
    offsets: torch.Tensor
    thresholds: torch.Tensor
    aim: str = "promote"
    temperature: float = 1.0

    def __getitem__(self, rows):
        return replace(self, offsets=self.offsets[:, rows])

    def __call__(self, images):
        scores = self.offsets + self.weights @ self.features(images).T
        return worth(scores, self.thresholds, self.aim, self.temperature)


def worth(scores: torch.Tensor, thresholds: torch.Tensor, aim: str, temperature: float = 1.0) -> torch.Tensor:
    """What `scores` (U, N) of N pushed items are worth, (N,), where user u's last place scores `thresholds` (U,).

    *insa*: log Σ_u exp s(u, i), AIP's insider (Liu and Larson 2021) but for the logarithm, which changes neither the
    best photo nor the direction of a gradient and does not overflow. Users who score the item highest count most.
    *promote*: mean_u log σ(m), m = s(u, i) − threshold. Far below the lists it is a straight line: it lifts the item
    for everybody alike, mostly from one hopeless place to another. *reach*: log mean_u σ(m / temperature), a soft
    count of the lists that hold the item; it goes where lists are near. The last two are ours."""
    if aim == "insa":
        return scores.logsumexp(0)
    margins = scores - thresholds[:, None]
    if aim == "promote":
        return F.logsigmoid(margins).mean(0)
    if aim == "reach":
        return F.logsigmoid(margins / temperature).logsumexp(0) - math.log(len(margins))
    raise ValueError(f"unknown aim {aim!r}; known: {', '.join(AIMS)}")


def reach_temperature(scores: torch.Tensor) -> float:
    """The temperature of *reach*: 0.3 of what separates two items for a user, of scores (U, I)."""
    return 0.3 * scores.std(1).mean().item()


@dataclass(frozen=True)
class PushByScores(Objective):
    """`Push` in any recommender whose `item_scores(users, items, features)` is differentiable in the features.

    For victims that are not linear in them (visual k-NN), and for DVBPR, whose `features` are its own `network`.
    `items` (A,) are the pushed ones, one per image, `users` (U,) those the attacker knows. `sign` −1 demotes."""

    looks = ("features", "recommender")
    per_image = ("items",)

    features: nn.Module
    recommender: nn.Module
    users: torch.Tensor
    items: torch.Tensor
    thresholds: torch.Tensor
    aim: str = "promote"
    temperature: float = 1.0
    sign: float = 1.0

    def __call__(self, images):
        scores = self.recommender.item_scores(self.users, self.items, self.features(images))
        return worth(self.sign * scores, self.sign * self.thresholds, self.aim, self.temperature)


def push_by_scores(
    features: nn.Module, recommender, users, items, served, owned, k: int, aim: str = "promote"
) -> PushByScores:
    """The objective `aim` of AIMS in `recommender`, whose list has `k` places.

    `served` (I, D) are the features that it serves now, `owned` (U, I) what the users of `users` (U,) have."""
    scores = recommender.scores(users, served)
    owned = torch.as_tensor(owned, dtype=torch.bool, device=scores.device)
    users, items = (torch.as_tensor(numbers, device=scores.device) for numbers in (users, items))
    thresholds = ranking.last_place_scores(scores, owned, k)
    return PushByScores(features, recommender, users, items, thresholds, aim, reach_temperature(scores))


def demote(objective: Push | PushByScores) -> Push | PushByScores:
    """The reverse of *promote*: mean over the known users of log σ(s_u^(k) − s(u, i′)), which pushes hardest where
    the item is in the list. (−promote would push least there: its slope is gone where the item is safely in.)"""
    if isinstance(objective, PushByScores):
        return replace(objective, sign=-objective.sign, aim="promote")
    sides = {name: -getattr(objective, name) for name in ("weights", "offsets", "thresholds")}
    return replace(objective, **sides, aim="promote")
