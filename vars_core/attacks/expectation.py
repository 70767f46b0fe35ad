"""Attacks on randomness: an objective's expectation over the noise that a shop adds to each photo (EOT).

Expectation over transformation (Athalye et al. 2018): each look at the objective is the mean over K fresh draws, so
that its gradient is that of the mean. An attacker who follows one draw a step learns that draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from vars_core.attacks.objectives import Objective


@dataclass(frozen=True)
class Expectation(Objective):
    """log mean exp of `objective` over `draws` images x + η, η ~ N(0, `sigma`² I); with `counts` False the mean.

    *reach* and *insa* are logs of sums over users. Summed over draws inside the log they are what they were: a soft
    count of lists, now over users and draws. η comes from `generator`, anew at each call, the same for all images of
    a batch, so that how one ends doesn't depend on the others. With `seed` it is the same at every call, too: common
    random numbers, or a shop whose noise is known. Raises ValueError for less than one draw or a negative sigma."""

    looks = ("objective",)
    per_image = ("objective",)

    objective: Objective
    sigma: float
    draws: int
    generator: torch.Generator | None = None
    seed: int | None = None
    counts: bool = True

    def __post_init__(self):
        if self.draws < 1 or not self.sigma >= 0:
            raise ValueError(f"at least one draw and no negative sigma are needed; got {self.draws}, {self.sigma}")
        if (self.generator is None) == (self.seed is None):
            raise ValueError("noise comes from a generator or from a seed; got both or none")

    def __call__(self, images):
        n, source = len(images), self.generator
        if source is None:
            source = torch.Generator().manual_seed(self.seed)
        rows = torch.arange(n, device=images.device).repeat(self.draws)
        noise = torch.randn((self.draws, 1, *images.shape[1:]), generator=source).to(images)
        seen = (images + self.sigma * noise).flatten(0, 1)
        values = self.objective[rows](seen).view(self.draws, n)
        return values.logsumexp(0) - math.log(self.draws) if self.counts else values.mean(0)
