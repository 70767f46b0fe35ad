"""The checks of an attack's numbers find masked gradients and planted bugs, and pass where all is well."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from toys import extractor, smooth_photos

from vars_core.attacks.apgd import apgd
from vars_core.attacks.engine import gradient, linf, quantise
from vars_core.attacks.objectives import hook, untargeted
from vars_core.attacks.sanity import OneBitInput, ZeroGradientFirst, check_attack, check_broken_defence
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor"]  # a fixture


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(smooth_photos(12, seed=4)).permute(0, 3, 1, 2).float() / 255


def checked_features(system, surrogate, images, attack=linf, epsilon=16, steps=40):
    targets = system(images.flip(0)).detach()
    blind = hook(surrogate, surrogate(images.flip(0)).detach())
    oblivious = linf(blind, images, epsilon, steps=steps, generator=generator(1))
    options = {"epsilon": epsilon, "steps": steps, "seed": 0, "most": 4}
    table = check_attack(attack, hook(system, targets), images, transferred={"T0": oblivious}, **options)
    assert list(table) == ["check", "passed", "detail"] and table.detail.str.len().min() > 0
    return dict(zip(table.check, table.passed, strict=True))


def failed(found):
    return {name for name, passed in found.items() if not passed}


class Masked(nn.Module):
    """Rounds to 4 levels: its gradient is zero everywhere."""

    def forward(self, images):
        return (images * 3).round() / 3 + 0 * images


class Shattered(nn.Module):
    """Adds ripples too small to see, and so steep that the gradient tells of nothing else."""

    def forward(self, images):
        return images + 0.004 * torch.sin(5000 * images)


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


@pytest.mark.parametrize("attack", [linf, apgd])
def test_a_plain_smooth_network_passes_with_either_attack(extractor, images, attack):
    other = copy.deepcopy(extractor)  # the attack that transfers comes from another network
    with torch.no_grad():
        other[0][0].weight.copy_(other[0][0].weight.flip(0))
    found = checked_features(extractor, other, images, attack)
    assert len(found) == 11 and not failed(found) - {"more_steps_change_little"}, found


def test_a_defence_that_does_nothing_passes(extractor, images):
    """Then the oblivious attack *is* a white-box attack with another start: a tie, decided by chance per image."""
    assert checked_features(extractor, extractor, images)["white_box_beats_transfer_and_noise"]


def test_a_masked_gradient_is_found(extractor, images):
    found = failed(checked_features(nn.Sequential(Masked(), extractor), extractor, images))
    assert {"no_zero_gradient", "unbounded_attack_succeeds", "white_box_beats_transfer_and_noise"} <= found
    assert "white_box_beats_black_box" in found  # Square doesn't need what was hidden


def test_a_shattered_gradient_is_found(extractor, images):
    found = failed(checked_features(nn.Sequential(Shattered(), extractor), extractor, images, epsilon=4))
    assert "no_zero_gradient" not in found  # there is one, only of the ripples
    assert "white_box_beats_transfer_and_noise" in found


def test_a_system_with_a_wrong_gradient_is_found(extractor, images):
    found = failed(checked_features(nn.Sequential(Backwards(), extractor), extractor, images))
    assert {"unbounded_attack_succeeds", "white_box_beats_transfer_and_noise", "white_box_beats_black_box"} <= found


def stale(objective, images, epsilon, *, steps, generator):
    """A loop index that stands still: every image runs towards the first one's hook."""
    return linf(
        objective[torch.zeros(len(images), dtype=torch.long)], images, epsilon, steps=steps, generator=generator
    )


def wrong_sign(objective, images, epsilon, *, steps, generator):
    return linf(-objective, images, epsilon, steps=steps, generator=generator)


def cut_off(objective, images, epsilon, *, steps, generator):
    """VAR's and torchattacks' files: the fraction is cut off, so that hardly anything gets brighter."""
    x = images + (linf(objective, images, epsilon, steps=steps, generator=generator) - images) * 0.9
    return x.mul(255).floor().div(255)


def half_the_budget(objective, images, epsilon, *, steps, generator):
    return linf(objective, images, epsilon // 2, steps=steps, generator=generator)


def too_much(objective, images, epsilon, *, steps, generator):
    return linf(objective, images, min(255, epsilon + 2), steps=steps, generator=generator)


def off_the_grid(objective, images, epsilon, *, steps, generator):
    x = linf(objective, images, epsilon, steps=steps, generator=generator)
    return images + (x - images) * 0.999


def gives_up(objective, images, epsilon, *, steps, generator):
    """BEYOND's OPGD: where it didn't arrive, the untouched image comes back."""
    x = linf(objective, images, epsilon, steps=steps, generator=generator)
    return torch.where((objective(x) > -1e-3).view(-1, 1, 1, 1), x, images)


def momentum_without_a_floor(objective, images, epsilon, *, steps, generator):
    """torchattacks' MIFGSM: 0/0 in the first step, NaN ever after."""
    x, velocity = images, torch.zeros_like(images)
    for _ in range(steps):
        slope = gradient(objective, x)
        velocity = velocity + slope / slope.abs().mean((1, 2, 3), keepdim=True)
        x = (x + 2.5 * epsilon / 255 / steps * velocity.sign()).clamp(images - epsilon / 255, images + epsilon / 255)
    return quantise(x.clamp(0, 1))


def leaves_gradients(objective, images, epsilon, *, steps, generator):
    objective.modules[0].train()
    x = images.clone().requires_grad_(True)
    objective(x).sum().backward()
    return linf(objective, images, epsilon, steps=steps, generator=generator)


# Traps: every bug here was seen in a peer's code, and made a defence look good or a result look better.
@pytest.mark.parametrize(
    ("attack", "found_by"),
    [
        (stale, {"unbounded_attack_succeeds", "white_box_beats_transfer_and_noise"}),
        (wrong_sign, {"iterated_beats_single_step", "success_rises_with_epsilon", "unbounded_attack_succeeds"}),
        (cut_off, {"uses_the_budget_both_ways"}),
        (half_the_budget, {"uses_the_budget_both_ways"}),
        (too_much, {"stays_in_budget_and_on_grid"}),
        (off_the_grid, {"stays_in_budget_and_on_grid"}),
        (gives_up, {"uses_the_budget_both_ways", "iterated_beats_single_step"}),
        (momentum_without_a_floor, {"recovers_from_zero_gradient"}),
        (leaves_gradients, {"gives_flags_and_gradients_back"}),
    ],
)
def test_a_planted_bug_is_found(extractor, images, attack, found_by):
    net = copy.deepcopy(extractor).eval()
    net.requires_grad_(True)
    found = failed(checked_features(net, extractor, images, attack))
    assert found_by <= found, found


def test_too_few_steps_are_found(extractor, images):
    assert "more_steps_change_little" in failed(checked_features(extractor, extractor, images, epsilon=8, steps=1))


def test_a_goal_without_a_best_value_is_refused(extractor, images):
    with pytest.raises(ValueError, match="best value of an objective is 0"):
        check_attack(linf, untargeted(extractor, extractor(images).detach()), images, epsilon=8, steps=2, seed=0)


# Trap: an adaptive attack that fails silently makes every defence look good.
def test_the_attack_breaks_a_deliberately_broken_defence(extractor, images):
    def row(net, attack=linf):
        return check_broken_defence(attack, net, images, steps=50, seed=0).iloc[0]

    assert row(extractor).passed and row(extractor).check == "breaks_a_broken_defence"
    assert not row(nn.Sequential(Backwards(), extractor)).passed
    assert not row(extractor, stale).passed


def test_one_bit_hides_the_image_but_not_the_gradient(images):
    x = images.clone().requires_grad_(True)
    seen = OneBitInput()(x)
    assert set(np.unique(seen.detach().numpy())) <= {0.0, 1.0}
    (seen * 3).sum().backward()
    assert (x.grad == 3).all()


def test_the_first_gradient_is_zero_and_the_second_is_not(extractor, images):
    objective = hook(extractor, extractor(images.flip(0)).detach())
    flat = ZeroGradientFirst(objective)[slice(0, 3)]
    assert (gradient(flat, images[:3]) == 0).all()
    assert torch.equal(gradient(flat, images[:3]), gradient(objective[slice(0, 3)], images[:3]))


def test_copies_of_the_hooks_photo_are_left_out_and_counted(extractor, images):
    mixed = torch.cat([images[:3], images[:1]])  # the last one is the hook's own photo
    goal = hook(extractor, extractor(images[:1]).detach().expand(4, -1))
    table = check_attack(linf, goal, mixed, epsilon=8, steps=3, seed=0, most=1, queries=10).set_index("check")
    assert table.detail["has_something_to_reach"].startswith("2 of 4 photos") and len(table) == 12
    alike = images[:1].expand(4, -1, -1, -1)
    nothing = check_attack(linf, goal, alike, epsilon=8, steps=3, seed=0)
    assert nothing.check.tolist() == ["has_something_to_reach"] and not nothing.passed.any()


@pytest.mark.parametrize("ground", [1.0, 0.0, 0.8])
def test_a_broken_defence_is_broken_on_photos_that_are_one_colour_in_1_bit(extractor, ground):
    light = torch.full((6, 3, 16, 16), ground)
    light[1:, :, 4:9, 4:9] = 0.55 if ground > 0.5 else 0.45
    table = check_broken_defence(linf, extractor, (light * 255).round() / 255, steps=20, seed=0)
    assert table.check.tolist() == ["breaks_a_broken_defence"] and table.passed.all()


def test_what_an_extractor_cannot_tell_apart_is_left_out(images):
    class Blind(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :4]

    table = check_broken_defence(linf, Blind(), images[:4], steps=3, seed=0)
    assert table.check.tolist() == ["has_something_to_reach"] and not table.passed.any()
