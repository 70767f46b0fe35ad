"""What every attack with an `AttackResult` must keep: budget, grid, queries, flags, independence of the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attacks import CrossEntropy, Linear, Raises, interior, network, photos, steps_of, weights
from torch import nn

from vars_core.attacks.apgd import apgd
from vars_core.attacks.carlini_wagner import cw_l2
from vars_core.attacks.engine import AttackResult, linf, quantise, run_attack
from vars_core.attacks.feature_black_box import feature_black_box
from vars_core.attacks.objectives import Objective, WithThreshold
from vars_core.attacks.square import square
from vars_core.extractor import to_images
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


class Means(nn.Module):
    """A public extractor with an exact slope: the means of 2 × 2 blocks."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images, min(2, *images.shape[2:])).flatten(1)


def draw():
    return generator(0, "engine")


BOUNDED = {
    "apgd": lambda o, x, e: apgd(o, x, e, steps=6, generator=draw()),
    "apgd-restarts": lambda o, x, e: apgd(o, x, e, steps=4, restarts=2, generator=draw()),
    "square": lambda o, x, e: square(o, x, e, queries=30, generator=draw()),
    "black-box": lambda o, x, e: feature_black_box(o, Means(), x, e, steps=3, examples=4, step=3, generator=draw()),
}
ALL = BOUNDED | {
    "cw": lambda o, x, e: cw_l2(o, x, threshold=1e9, steps=4, search_steps=3, learning_rate=0.05, generator=draw())
}
QUERIES = {"apgd": 8, "apgd-restarts": 12, "square": 30, "black-box": 16, "cw": 12}


class Asked(CrossEntropy):
    """Counts the images it is asked about."""

    rows = 0

    def __call__(self, images):
        self.rows += len(images)
        return super().__call__(images)


@pytest.mark.parametrize("name", ALL)
def test_queries_are_counted_exactly_and_values_are_those_of_the_rounded_images(name):
    objective, images = Asked(network().eval(), torch.arange(4)), to_images(photos())
    result = ALL[name](objective, images, 8)
    assert result.queries.tolist() == [QUERIES[name]] * 4
    assert objective.rows == 4 * QUERIES[name]
    assert torch.equal(result.images, quantise(result.images)) and not torch.equal(result.images, images)
    with torch.no_grad():
        torch.testing.assert_close(result.value, objective(result.images))
    if name == "cw":
        assert not result.success.any()  # no value of 1e9 is in reach
    else:
        assert result.success is None


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_attack_leaves_its_budget_or_the_grid(data):
    n, height, width = (data.draw(st.integers(1, top)) for top in (3, 9, 9))
    budgets = torch.tensor([float(data.draw(st.integers(1, 255))) for _ in range(n)])
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    images = torch.from_numpy(rng.integers(0, 256, (n, 3, height, width), np.uint8)).float() / 255
    objective = Linear(torch.from_numpy(rng.normal(size=(3, height, width))).float())
    result = BOUNDED[data.draw(st.sampled_from(sorted(BOUNDED)))](objective, images, budgets)
    assert result.images.shape == images.shape and result.images.dtype == images.dtype
    assert torch.equal(result.images, quantise(result.images))
    change = np.abs(steps_of(result.images, images)).max((1, 2, 3))
    assert (change <= budgets.numpy()).all()


@pytest.mark.parametrize("name", BOUNDED)
def test_the_linear_optimum_bounds_every_attack(name):
    """max ⟨w, x + δ⟩ − ⟨w, x⟩ = ε ‖w‖₁ / 255, and Auto-PGD is there."""
    images, objective = quantise(interior().double()), Linear(weights().double())
    result = BOUNDED[name](objective, images, 8)
    optimum = (8 / 255 * objective.weights.abs().sum()).expand(4)
    gain = result.value - objective(images)
    assert (gain <= optimum * (1 + 1e-9)).all() and (gain > 0).all()
    if name.startswith("apgd"):
        torch.testing.assert_close(gain, optimum)


# Trap: results depend on batch composition (torchattacks' C&W).
@pytest.mark.parametrize("name", ALL)
def test_an_image_alone_is_the_same_image_in_a_batch(name):
    images, objective = interior(5).double(), CrossEntropy(network().double().eval(), torch.arange(5))
    together = ALL[name](objective, images, 8)
    for rows in (slice(0, 1), slice(3, 5)):
        apart = ALL[name](objective[rows], images[rows], 8)
        assert torch.equal(apart.images, together.images[rows])
        assert torch.equal(apart.queries, together.queries[rows])


@pytest.mark.parametrize("name", BOUNDED)
def test_several_budgets_in_one_batch(name):
    images, objective = interior().double(), CrossEntropy(network().double().eval(), torch.arange(4))
    together = BOUNDED[name](objective, images, torch.tensor([1.0, 4.0, 8.0, 16.0]))
    for row, epsilon in enumerate((1, 4, 8, 16)):
        alone = BOUNDED[name](objective[row : row + 1], images[row : row + 1], epsilon)
        assert torch.equal(together.images[row], alone.images[0])


# Trap: dropout on while attacking; flags not restored, also when the attack raises; gradients left behind.
@pytest.mark.parametrize("name", ALL)
def test_flags_and_gradients_are_left_as_they_were(name):
    net = network().train().requires_grad_(True)
    net[1].eval()
    flags, images, labels = [m.training for m in net.modules()], interior(), torch.arange(4)
    once, again = (ALL[name](CrossEntropy(net, labels), images, 8).images for _ in range(2))
    assert [m.training for m in net.modules()] == flags
    with pytest.raises(RuntimeError, match="planted"):
        ALL[name](Raises(net, labels), images, 8)
    assert [m.training for m in net.modules()] == flags
    assert torch.equal(once, again)
    assert all(p.grad is None for p in net.parameters())
    assert images.grad is None and not images.requires_grad and not once.requires_grad


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("wrong", [lambda x: x.sum(), lambda x: x.sum((1, 2, 3))[:-1]])
def test_an_objective_gives_one_value_per_image(name, wrong):
    with pytest.raises(ValueError, match="one value per image"):
        ALL[name](wrong, interior(), 8)


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("epsilon", [0, 2.5, 300, float("nan"), torch.tensor([8.0, 8.0, 0.0, 8.0])])
def test_budgets_outside_the_range_are_refused(name, epsilon):
    with pytest.raises(ValueError, match="8-bit steps"):
        BOUNDED[name](Linear(weights()), interior(), epsilon)


class Error(CrossEntropy, Objective):
    """Cross entropy as one of the study's own objectives."""

    modules = ()  # each has its own

    def __getitem__(self, rows):
        return Error(self.net, self.labels[rows])


def test_run_makes_a_result_of_either_kind_of_attack():
    images, net = interior(6).double(), network().double().eval()
    objective = Error(net, torch.arange(6) % 5)
    enough = torch.full((6,), objective(images).median().item(), dtype=torch.float64)

    def pgd(objective, batch):
        return linf(objective, batch, 8, steps=5, random_start=False, generator=draw())

    def strong(objective, batch):
        return apgd(objective, batch, 8, steps=5, generator=draw())

    for attack, queries in ((pgd, 5), (strong, 7)):
        whole = run_attack(attack, objective, images)
        assert isinstance(whole, AttackResult) and whole.success is None
        assert whole.queries.tolist() == [queries] * 6
        torch.testing.assert_close(whole.value, objective(whole.images))
        parts = run_attack(attack, WithThreshold(objective, enough), images, batch=4)
        assert torch.equal(parts.images, whole.images)
        assert torch.equal(parts.success, parts.value >= enough) and parts.success.any()
    assert torch.equal(run_attack(pgd, objective, images).images, pgd(objective, images))
