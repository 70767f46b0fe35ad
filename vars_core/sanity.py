"""Checks that an attack's numbers must pass before they may be believed (Carlini et al. 2019; Tramèr et al. 2020).

A defence that only hides its gradient, or an attack with a bug in it, fails some of them. Success of an image is
told by its squared distance to the hook's features, as the attacked system sees them: "reached" is half of where
it started.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn

from vars_core.attacks import fgsm, gradient, in_batches, linf, noise
from vars_core.objectives import hook
from vars_core.runtime import generator


class _OneBit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0.5).to(x)

    @staticmethod
    def backward(ctx, slope):
        return slope


class OneBit(nn.Module):
    """A deliberately broken defence: 1-bit input that passes gradients straight through."""

    def forward(self, images):
        return _OneBit.apply(images)


def check_attack(
    system: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    oblivious: torch.Tensor,
    *,
    epsilon,
    steps,
    seed,
) -> pd.DataFrame:
    """Put PGD on `system` (images → features) through the checks; rows check, passed, detail.

    `images` (N, 3, H, W), `targets` (N, D) the hooks as the system sees them, `oblivious` (N, 3, H, W) the same
    images attacked without knowledge of the defence at the same ε."""
    goal = hook(system, targets)

    def pgd(eps, k):
        def attack(objective, batch):
            return linf(objective, batch, eps, steps=k, generator=generator(seed, "sanity", eps))

        return distance(in_batches(attack, goal, images, label=f"sanity PGD-{k}@{eps}"))

    def distance(x):
        with torch.no_grad():
            return np.concatenate([-goal[r](x[r]).cpu().numpy() for r in _slices(len(x))])

    def reached(values):
        return (values < 0.5 * start).mean()

    start, strong = distance(images), pgd(epsilon, steps)
    wider, longer, whole = pgd(2 * epsilon, steps), pgd(epsilon, 2 * steps), pgd(128, max(50, 2 * steps))
    single = distance(in_batches(lambda o, b: fgsm(o, b, epsilon), goal, images))
    noisy = distance(noise(images, epsilon, generator=generator(seed, "sanity noise")))
    transferred = distance(oblivious)
    slopes = in_batches(lambda o, b: gradient(o, b), goal, images).abs().amax((1, 2, 3))
    # by a margin: the transferred images may be a second white-box run, equal but for its random start
    weaker = np.mean(strong - np.minimum(noisy, transferred) > 0.05 * start)
    rows = [
        ("iterated_beats_single_step", strong.mean() <= single.mean(), _pair(strong, single)),
        ("success_rises_with_epsilon", wider.mean() <= strong.mean(), _pair(wider, strong)),
        ("unbounded_attack_succeeds", reached(whole) >= 0.99, f"{reached(whole):.0%} reached at ε = 128"),
        (
            "more_steps_change_little",
            abs(reached(longer) - reached(strong)) < 0.01,
            f"{reached(strong):.0%} reached in {steps} steps, {reached(longer):.0%} in {2 * steps}",
        ),
        ("white_box_beats_transfer_and_noise", weaker <= 0.01, f"{weaker:.0%} of images say otherwise"),
        (
            "no_zero_gradient",
            bool((slopes > 0).all()),
            f"{int((slopes == 0).sum())} images without a gradient",
        ),
    ]
    return pd.DataFrame(rows, columns=["check", "passed", "detail"])


def check_broken_defence(extractor: nn.Module, images, targets, *, steps: int, seed: int) -> pd.DataFrame:
    """The attack must get through 1-bit input, which hides nothing from a gradient; one row as above."""
    system = nn.Sequential(OneBit(), extractor)
    goal = hook(system, targets)
    with torch.no_grad():
        start = -goal(images)
    attacked = linf(goal, images, 128, steps=max(50, steps), generator=generator(seed, "broken"))
    with torch.no_grad():
        share = (-goal(attacked) < 0.5 * start).float().mean().item()
    row = ("breaks_a_broken_defence", share >= 0.9, f"{share:.0%} reached behind 1-bit input, ε = 128")
    return pd.DataFrame([row], columns=["check", "passed", "detail"])


def _slices(n: int, batch: int = 64):
    return [slice(i, i + batch) for i in range(0, n, batch)]


def _pair(better: np.ndarray, worse: np.ndarray) -> str:
    return f"mean squared distance {better.mean():.3f}, not above {worse.mean():.3f}"
