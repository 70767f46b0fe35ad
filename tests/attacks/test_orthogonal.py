"""Orthogonal projected gradients, on objectives of a few numbers."""

import pytest
import torch
from torch import nn
from toys import extractor, shop

from vars_core.attacks.engine import linf
from vars_core.attacks.objectives import Objective
from vars_core.attacks.orthogonal import orthogonal_pgd
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


class Sum(nn.Module):
    """A toy detector: the mean of the upper half; and a toy objective: the mean of everything."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, images):
        return images[:, :, self.rows].mean((1, 2, 3))


class Brighter(Objective):
    modules = ()

    def __call__(self, images):
        return images.mean((1, 2, 3))


def test_orthogonal_gradients_reach_the_goal_without_the_alarm():
    """All may get brighter, but the upper half must stay below 0.405: only the lower one goes up."""
    grey = torch.full((3, 3, 8, 8), 102 / 255)
    alarm = Sum(slice(0, 4))
    found = orthogonal_pgd(Brighter(), alarm, 0.405, grey, 8, steps=20, generator=generator(0))
    assert (alarm(found) <= 0.405).all()
    assert ((found - grey).abs() * 255).max() <= 8 + 1e-3
    assert (found[:, :, 4:].mean((1, 2, 3)) > 108 / 255).all()
    careless = linf(Brighter(), grey, 8, steps=20, generator=generator(0))
    assert (alarm(careless) > 0.405).all()


def test_where_no_alarm_can_be_avoided_the_lowest_is_kept():
    grey = torch.full((2, 3, 8, 8), 102 / 255)
    alarm = Sum(slice(0, 8))
    found = orthogonal_pgd(Brighter(), alarm, 0.0, grey, 8, steps=20, generator=generator(0))
    assert (alarm(found) < 0.375).all()
