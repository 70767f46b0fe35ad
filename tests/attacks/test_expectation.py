"""Expectation over noise: values by hand, draws, narrowing, and what more draws are worth."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from vars_core.attacks.engine import gradient, linf
from vars_core.attacks.expectation import Expectation, MeanFeatures
from vars_core.attacks.objectives import Objective
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


@dataclass(frozen=True)
class Linear(Objective):
    """scale_n · w·x + height · cos(rate · x_1), per image: the wave has no part in the mean, and all in one draw."""

    per_image = ("scale",)

    scale: torch.Tensor
    weights: torch.Tensor
    height: float = 0.0
    rate: float = 60.0

    def __call__(self, images):
        wave = (self.rate * images).cos().sum((1, 2, 3))
        return self.scale * (images * self.weights).sum((1, 2, 3)) + self.height * wave


def linear(n=3, height=0.0):
    weights = torch.randn(3, 4, 4, generator=generator(0, "w"))
    return Linear(torch.arange(1.0, n + 1), weights, height)


IMAGES = torch.rand(3, 3, 4, 4, generator=generator(0, "x")).mul(255).round() / 255


def test_without_noise_it_is_the_objective():
    for counts in (True, False):
        seen = Expectation(linear(), 0.0, 5, seed=0, counts=counts)
        torch.testing.assert_close(seen(IMAGES), linear()(IMAGES))


def test_two_draws_by_hand():
    noise = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(7))
    one, two = (linear()(IMAGES + 0.5 * eta) for eta in noise)
    torch.testing.assert_close(Expectation(linear(), 0.5, 2, seed=7, counts=False)(IMAGES), (one + two) / 2)
    torch.testing.assert_close(Expectation(linear(), 0.5, 2, seed=7)(IMAGES), ((one.exp() + two.exp()) / 2).log())


def test_draws_are_new_from_a_generator_and_known_from_a_seed():
    fresh, known = Expectation(linear(), 0.5, 2, generator(0, "n")), Expectation(linear(), 0.5, 2, seed=0)
    assert not torch.equal(fresh(IMAGES), fresh(IMAGES)) and torch.equal(known(IMAGES), known(IMAGES))
    assert not torch.equal(replace(known, seed=1)(IMAGES), known(IMAGES))


def test_it_narrows_with_its_objective_whatever_the_batch():
    seen = Expectation(linear(), 0.5, 4, seed=0)
    for rows in (slice(0, 1), slice(1, 3), torch.tensor([2, 0])):
        torch.testing.assert_close(seen[rows](IMAGES[rows]), seen(IMAGES)[rows])


def test_the_mean_of_a_linear_objective_is_its_value():
    seen = Expectation(linear(), 0.3, 4000, generator(0, "n"), counts=False)
    spread = 0.3 * linear().scale * linear().weights.norm() / math.sqrt(4000)
    assert ((seen(IMAGES) - linear()(IMAGES)).abs() < 4 * spread).all()
    torch.testing.assert_close(gradient(seen, IMAGES)[1], 2 * linear().weights)


def test_an_attack_gains_with_draws_where_one_draw_says_little():
    """The wave's slope at one draw is twelve times that of the mean, and has another sign at the next one."""
    calm, loud = linear(), linear(height=0.5)
    gains = []
    for draws in (1, 8, 64):
        seen = Expectation(loud, 0.2, draws, generator(0, "n"), counts=False)
        found = linf(seen, IMAGES, 8, steps=20, generator=generator(0, "start"))
        gains.append((calm(found) - calm(IMAGES)).sum().item())
    best = (calm(linf(calm, IMAGES, 8, steps=20, generator=generator(0, "start"))) - calm(IMAGES)).sum().item()
    assert gains[0] < 0.8 * gains[1] < 0.8 * gains[2] <= 0.8 * best


def test_mean_features_by_hand():
    class Squares(nn.Module):
        def forward(self, images):
            return images.flatten(1).square()

    noise = torch.randn(3, 1, 3, 4, 4, generator=torch.Generator().manual_seed(7))
    wanted = torch.stack([Squares()(IMAGES + 0.5 * eta) for eta in noise]).mean(0)
    torch.testing.assert_close(MeanFeatures(Squares(), 0.5, 3, seed=7)(IMAGES), wanted)
    # E (x + η)² = x² + σ²
    many = MeanFeatures(Squares(), 0.5, 20_000, generator(0, "n"))(IMAGES[:1])
    torch.testing.assert_close(many, IMAGES[:1].flatten(1).square() + 0.25, atol=0.03, rtol=0)
    with pytest.raises(ValueError, match="got 0"):
        MeanFeatures(Squares(), 0.5, 0, seed=7)


@pytest.mark.parametrize(
    "options",
    [{"draws": 0, "seed": 0}, {"sigma": -0.1, "seed": 0}, {}, {"seed": 0, "generator": torch.Generator()}],
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match="got"):
        Expectation(linear(), **{"sigma": 0.1, "draws": 2} | options)
