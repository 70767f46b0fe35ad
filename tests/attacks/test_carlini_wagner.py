"""Carlini and Wagner's L2: the smallest change by hand, saturated pixels, and what happens out of reach."""

import pytest
import torch
from test_attacks import CrossEntropy, Linear, interior, network, steps_of, weights

from vars_core.attacks.carlini_wagner import cw_l2
from vars_core.attacks.engine import ObjectiveFn
from vars_core.attacks.objectives import WithThreshold
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


def attack(objective: ObjectiveFn, images, **options):
    return cw_l2(objective, images, **{"steps": 60, "search_steps": 8, "generator": generator(0, "cw"), **options})


def length(images, clean):
    return (images - clean).square().sum((1, 2, 3)).sqrt()


def test_the_shortest_way_on_a_linear_objective():
    """min ‖δ‖ with ⟨w, x + δ⟩ ≥ ⟨w, x⟩ + m is m / ‖w‖; rounding costs little at several grey levels per pixel."""
    images, objective = interior().double(), Linear(weights().double())
    margin = torch.tensor([4.0, 6.0, 8.0, 12.0]).double()
    result = attack(objective, images, threshold=objective(images) + margin, steps=150)
    shortest = margin / objective.weights.norm()
    assert result.success.all()
    assert (length(result.images, images) >= shortest * (1 - 1e-9)).all()
    assert (length(result.images, images) <= 1.05 * shortest).all()


# Trap: C&W's atanh cannot move saturated pixels, so white product photos look robust.
def test_the_white_half_of_a_photo_is_perturbed():
    images = interior(2)
    images[:, :, :4] = 1
    images[1, :, 4:] = 0
    objective = Linear(-torch.ones(3, 8, 8))
    result = attack(objective, images, threshold=objective(images) + 3)
    change = steps_of(result.images, images)
    assert result.success.all()
    assert (change[:, :4] < 0).mean() > 0.9  # white falls
    assert (change[1, 4:] == 0).all() and (change[0, 4:] < 0).mean() > 0.9  # black cannot


class Margin(CrossEntropy):
    """Above 0 where the network names another class."""

    def __call__(self, images):
        logits = self.net(images)
        own = logits.gather(1, self.labels[:, None])[:, 0]
        return logits.scatter(1, self.labels[:, None], -torch.inf).amax(1) - own


def test_changes_are_as_small_as_foolboxs():
    foolbox = pytest.importorskip("foolbox")
    net, images = network(2).double().eval(), interior(8).double()
    labels = net(images).argmax(1)
    result = attack(Margin(net, labels), images, threshold=0.0, steps=100)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=8, steps=100, confidence=1e-4)
    _, reference, done = theirs(model, images, labels, epsilons=None)
    assert result.success.all() and done.all()
    assert (net(result.images).argmax(1) != labels).all()
    assert length(result.images, images).mean() <= 1.05 * length(reference, images).mean()


def test_out_of_reach_the_best_try_is_given_and_called_a_failure():
    images, objective = interior(), CrossEntropy(network().eval(), torch.arange(4))
    result = attack(objective, images, threshold=torch.tensor([20.0, 0.0, 20.0, 20.0]), steps=20)
    assert result.success.tolist() == [False, True, False, False]
    assert torch.equal(result.images[1], images[1])  # was there already: the smallest change is none
    assert (result.value > objective(images) + 0.1)[[0, 2, 3]].all()


def test_confidence_asks_for_more_than_the_threshold():
    images, objective = interior(), Linear(weights())
    threshold = objective(images) + 3
    plain, sure = (attack(objective, images, threshold=threshold, confidence=c) for c in (0.0, 2.0))
    assert plain.success.all() and (sure.value >= threshold + 2).all()
    assert (length(sure.images, images) > length(plain.images, images)).all()


def test_the_scale_of_the_objective_does_not_matter():
    images, objective = interior(), Linear(weights())
    small = Linear(weights() / 2**14)
    ours = attack(objective, images, threshold=objective(images) + 3)
    assert torch.equal(ours.images, attack(small, images, threshold=small(images) + 3 / 2**14).images)


def test_a_flat_start_is_left_behind():
    images = interior(2)
    result = attack(lambda x: (x - images).square().sum((1, 2, 3)), images, threshold=0.02)
    assert result.success.all() and (result.value < 0.04).all()


def test_the_objectives_own_threshold_is_used():
    images, objective = interior().double(), Linear(weights().double())
    enough = objective(images) + 3
    given, own = attack(objective, images, threshold=enough), attack(WithThreshold(objective, enough), images)
    assert torch.equal(given.images, own.images)
    with pytest.raises(ValueError, match="needs a threshold"):
        attack(objective, images)
