"""Attacks on randomness: an objective's expectation over the noise that a shop adds to each photo (EOT).

Expectation over transformation (Athalye et al. 2018): each look at the objective is the mean over K fresh draws,
so that its gradient is that of the mean. An attacker who follows one draw a step learns that draw.

`Expectation` averages what an attacker wants, `MeanFeatures` what the networks see: the first suits a shop that
serves by one draw, the second one that serves by the mean or the median of many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

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
        _check(self.sigma, self.draws, self.generator, self.seed)

    def __call__(self, images):
        rows = torch.arange(len(images), device=images.device).repeat(self.draws)
        seen = _noisy(images, self.sigma, self.draws, self.generator, self.seed)
        values = self.objective[rows](seen).view(self.draws, len(images))
        return values.logsumexp(0) - math.log(self.draws) if self.counts else values.mean(0)


class MeanFeatures(nn.Module):
    """The mean of `features` (a module, (N, 3, H, W) → (N, D)) over `draws` images x + η; noise as `Expectation` has
    it."""

    def __init__(
        self,
        features: nn.Module,
        sigma: float,
        draws: int,
        generator: torch.Generator | None = None,
        seed: int | None = None,
    ):
        super().__init__()
        _check(sigma, draws, generator, seed)
        self.features, self.sigma, self.draws, self.generator, self.seed = features, sigma, draws, generator, seed

    def forward(self, images):
        seen = _noisy(images, self.sigma, self.draws, self.generator, self.seed)
        return self.features(seen).unflatten(0, (self.draws, len(images))).mean(0)


def _check(sigma, draws, generator, seed) -> None:
    if draws < 1 or not sigma >= 0:
        raise ValueError(f"at least one draw and no negative sigma are needed; got {draws}, {sigma}")
    if (generator is None) == (seed is None):
        raise ValueError("noise comes from a generator or from a seed; got both or none")


def _noisy(images, sigma, draws, generator, seed) -> torch.Tensor:
    """(draws · N, 3, H, W): all images under the first draw, then all under the second, and so on."""
    source = torch.Generator().manual_seed(seed) if generator is None else generator
    noise = torch.randn((draws, 1, *images.shape[1:]), generator=source).to(images)
    return (images + sigma * noise).flatten(0, 1)
