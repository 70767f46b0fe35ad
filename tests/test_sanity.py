"""The checks of an attack's numbers find a masked gradient and a planted bug, and pass where all is well."""

import copy

import numpy as np
import pytest
import torch
from test_training import extractor, smooth_photos
from torch import nn

from vars_core.attacks import linf
from vars_core.objectives import hook
from vars_core.runtime import generator
from vars_core.sanity import OneBit, check_attack, check_broken_defence

__all__ = ["extractor"]  # a fixture


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setenv("VARS_DEVICE", "cpu")
    monkeypatch.setenv("VARS_QUIET", "1")


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(smooth_photos(12, seed=4)).permute(0, 3, 1, 2).float() / 255


def checked(system, surrogate, images, epsilon=16, steps=20):
    targets = system(images.flip(0)).detach()
    blind = hook(surrogate, surrogate(images.flip(0)))
    oblivious = linf(blind, images, epsilon, steps=steps, generator=generator(1))
    table = check_attack(system, images, targets, oblivious, epsilon=epsilon, steps=steps, seed=0)
    assert list(table) == ["check", "passed", "detail"] and table.detail.str.len().min() > 0
    return dict(zip(table.check, table.passed.map(bool), strict=True))


class Masked(nn.Module):
    """Rounds to 4 levels: its gradient is zero everywhere."""

    def forward(self, images):
        return (images * 3).round() / 3 + 0 * images


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return -slope


class Backwards(nn.Module):
    """A planted bug: the gradient's sign is wrong."""

    def forward(self, images):
        return _Backwards.apply(images)


def test_a_plain_smooth_network_passes(extractor, images):
    other = copy.deepcopy(extractor)  # the attack that transfers comes from another network
    with torch.no_grad():
        other[0][0].weight.copy_(other[0][0].weight.flip(0))
    found = checked(extractor, other, images)
    assert all(passed for name, passed in found.items() if name != "more_steps_change_little"), found
    assert {"iterated_beats_single_step", "unbounded_attack_succeeds", "no_zero_gradient"} <= set(found)


def test_a_defence_that_does_nothing_passes(extractor, images):
    """Then the oblivious attack *is* a white-box attack with another start: a tie, decided by chance per image."""
    assert checked(extractor, extractor, images)["white_box_beats_transfer_and_noise"]


def test_a_masked_gradient_is_found(extractor, images):
    found = checked(nn.Sequential(Masked(), extractor), extractor, images)
    assert not found["no_zero_gradient"]
    assert not found["unbounded_attack_succeeds"]
    assert not found["white_box_beats_transfer_and_noise"]


def test_a_planted_bug_is_found(extractor, images):
    found = checked(nn.Sequential(Backwards(), extractor), extractor, images)
    assert found["no_zero_gradient"]  # the gradient is there, only wrong
    assert not found["unbounded_attack_succeeds"]
    assert not found["white_box_beats_transfer_and_noise"]


def test_too_few_steps_are_found(extractor, images):
    assert not checked(extractor, extractor, images, epsilon=8, steps=1)["more_steps_change_little"]


# Trap: an adaptive attack that fails silently makes every defence look good.
def test_the_attack_breaks_a_deliberately_broken_defence(extractor, images):
    def row(net):
        behind = nn.Sequential(OneBit(), net)
        with torch.no_grad():
            targets = behind(images.flip(0))
        return check_broken_defence(net, images, targets, steps=50, seed=0).iloc[0]

    assert row(extractor).passed and row(extractor).check == "breaks_a_broken_defence"
    assert not row(nn.Sequential(Backwards(), extractor)).passed


def test_one_bit_hides_the_image_but_not_the_gradient(images):
    x = images.clone().requires_grad_(True)
    seen = OneBit()(x)
    assert set(np.unique(seen.detach().numpy())) <= {0.0, 1.0}
    (seen * 3).sum().backward()
    assert (x.grad == 3).all()
