"""Auto-PGD: its schedule, its steps, and that more of anything doesn't hurt."""

import numpy as np
import pytest
import torch
from test_attacks import Bumpy, CrossEntropy, interior, network, pgd, steps_of, weights

from vars_core.attacks.apgd import apgd, checkpoints
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


def attack(objective, images, epsilon=8, **options):
    return apgd(objective, images, epsilon, **{"steps": 20, "generator": generator(0, "apgd"), **options})


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]


class Near:
    """−Σ (x − t)²: an optimum inside the ball, which only small steps meet."""

    def __init__(self, target):
        self.target = target

    def __call__(self, images):
        return -(images - self.target).square().sum((1, 2, 3))


def test_steps_are_halved_until_an_inner_optimum_is_met():
    images = interior(3).double()
    target = images + torch.tensor([3, -7, 11]).view(3, 1, 1, 1) / 255
    found = attack(Near(target), images, 64, steps=100)
    off = np.abs(steps_of(found.images, target))
    assert off.max() <= 1 and off.mean() < 0.1  # grey levels
    fixed = np.abs(steps_of(pgd(Near(target), images, 64, steps=100), target))  # 1.6 grey levels, always
    assert off.mean() < 0.2 * fixed.mean()


class Far(Near):
    """Runs from the target: at the target itself there is no gradient."""

    def __call__(self, images):
        return -super().__call__(images)


def test_a_zero_gradient_sample_recovers():
    images = interior(2)
    stuck = pgd(Far(images), images, 8, random_start=False)
    assert torch.equal(stuck, images)  # the sign of zero is zero
    away = attack(Far(images), images, 8, random_start=False).images
    assert (np.abs(steps_of(away, images)) == 8).all()


@pytest.fixture(scope="module")
def smooth():
    return CrossEntropy(network(1).double().eval(), torch.arange(12) % 5), interior(12).double()


def test_more_steps_budget_or_restarts_do_not_hurt(smooth):
    objective, images = smooth
    by_budget = [attack(objective, images, e).value.mean().item() for e in (1, 2, 4, 8, 16)]
    assert by_budget == sorted(by_budget) and by_budget[-1] > by_budget[0]
    by_steps = [attack(objective, images, steps=k).value.mean().item() for k in (1, 5, 20, 80)]
    assert all(later >= earlier - 1e-3 for earlier, later in zip(by_steps, by_steps[1:], strict=False))
    one, three = attack(objective, images, restarts=1), attack(objective, images, restarts=3)
    assert (three.value >= one.value).all()


def test_restarts_are_merged_per_sample():
    images, objective = interior(6), Bumpy(weights())
    starts = [attack(objective, images, steps=4, restarts=r).value for r in (1, 2, 3, 4, 5)]
    assert all((more >= fewer).all() for fewer, more in zip(starts, starts[1:], strict=False))
    gains = torch.stack([more > fewer for fewer, more in zip(starts, starts[1:], strict=False)])
    assert gains.any() and not gains.all(0).any()  # some images gain, in different restarts


def test_it_is_no_weaker_than_pgd_with_the_same_steps(smooth):
    objective, images = smooth
    fixed = objective(pgd(objective, images, 8, steps=20))
    assert attack(objective, images, steps=20).value.mean() >= fixed.mean() - 1e-3
