"""Attackers who know the defence, in a toy shop: budgets, tiers, worst cases, the gate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toys import ITEMS, extractor, shop, smooth_photos

from vars_core.adaptive import tiers, ways
from vars_core.adaptive.scene import DEFENCES, GATE_MARGIN, Scene
from vars_core.attacks.engine import evaluate, value_and_gradient
from vars_core.attacks.objectives import hook
from vars_core.detection.defence import Defence
from vars_core.detection.detectors import Detector, DetectorScore
from vars_core.extractor import to_images, to_photos
from vars_core.recommender import attack_metrics
from vars_core.reconstruction import recovery
from vars_core.reconstruction.classics import Median
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


# Trap: the minimum (or maximum) of means instead of the worst case per example.
def test_worst_case_is_per_item():
    nan = np.nan
    one = np.array([[1, 0, 0], [1, 0, nan], [1, 0, 1]])  # means 1, 0, 0.5
    two = np.array([[0, 1, 0], [0, 1, nan], [1, 0, 0]])  # means 1/3, 2/3, 0
    worst = tiers.worst_case([one, two])
    assert np.array_equal(worst, [[1, 1, 0], [1, 1, nan], [1, 0, 1]], equal_nan=True)
    assert attack_metrics.item_mean(worst) == pytest.approx((1 + 2 / 3 + 0.5) / 3)
    assert attack_metrics.item_mean(worst) > max(attack_metrics.item_mean(one), attack_metrics.item_mean(two))


@pytest.fixture
def scene(shop):
    torch.manual_seed(0)
    detector = Detector(shop.features.shape[1]).eval().requires_grad_(False)
    defence = Defence(Median(), detector, shop.extractor)
    defence.calibrate(smooth_photos(120, seed=3))
    return Scene.build(shop, defence, ITEMS, np.array([0, 1, 3]))


@pytest.mark.parametrize("aim", ("hook", "insa", "promote", "reach"))
def test_adaptive_attacks_keep_the_budget(scene, aim):
    clean, draw = scene.undefended.photos(ITEMS).astype(int), generator(0)
    found = [ways.oblivious(scene, 8, 2, draw, aim), ways.through_filter(scene, 8, 2, draw, aim)]
    for defended in (True, False):
        several = ways.through_detector(scene, 8, 2, [0.1, 1.0], draw, defended, aim)
        assert len(several) == 2
        found += several
    for photos in found:
        assert photos.dtype == np.uint8 and photos.shape == clean.shape
        assert 0 < np.abs(photos - clean).max() <= 8


# Trap: filter tested obliviously only; adaptive attacks that do not use what they know.
def test_knowing_the_filter_helps(scene):
    def left(photos):
        return recovery.feature_mse(scene.filtered.served_features(photos) - scene.filtered_targets.numpy()).mean()

    blind = ways.oblivious(scene, 8, 10, generator(0))
    knowing = ways.through_filter(scene, 8, 10, generator(0))
    assert left(knowing) < left(blind) < left(scene.undefended.photos(ITEMS))


def test_a_heavy_penalty_lowers_the_detectors_score(scene):
    scene.defence.thresholds["1"] = -1e3  # so that every score is worth lowering
    careless, careful = ways.through_detector(scene, 8, 10, [0.0, 1e3], generator(0))
    scored = [scene.defence.screen(photos)[1] for photos in (careless, careful)]
    assert (scored[1] < scored[0]).all()


def test_flagged_items_reach_nobody(scene):
    photos = scene.undefended.photos(ITEMS)
    reached = scene.undefended.exposed(ITEMS, photos)
    scene.defence.thresholds["1"] = np.inf
    served = scene.filtered.exposed(ITEMS, photos)
    for name, expected in (("none", reached), ("detector", reached), ("filter", served), ("both", served)):
        assert np.array_equal(scene.exposed_by_defence(photos)[name], expected, equal_nan=True)
    scene.defence.thresholds["1"] = -np.inf
    for name in ("detector", "both"):
        blocked = scene.exposed_by_defence(photos)[name]
        assert np.nansum(blocked) == 0 and np.array_equal(np.isnan(blocked), np.isnan(reached))
    assert np.array_equal(scene.exposed_by_defence(photos)["filter"], served, equal_nan=True)


def test_every_tier_and_defence_has_its_own_worst_case(scene):
    pools = tiers.attacks_by_tier(scene, "reach", 8, steps=2, penalties=[0.1], queries=5, seed=0)
    found = tiers.worst_cases(tiers.outcomes_by_tier(scene, pools))
    assert set(found) == {(tier, defence) for tier in pools for defence in DEFENCES}
    by_hand = tiers.worst_case([scene.exposed_by_defence(photos)["both"] for photos in pools["T3"].values()])
    assert np.array_equal(found["T3", "both"], by_hand, equal_nan=True)
    for defence in DEFENCES:  # whoever may use more cannot reach less, item by item
        means = [np.nanmean(found[tier, defence], axis=0) for tier in ("T0", "T2", "T3")]
        assert (means[0] <= means[1]).all() and (means[1] <= means[2]).all()


# Trap: one tier only; a higher tier that may use less than a lower one.
def test_tiers_hold_what_lower_ones_hold(scene):
    options = dict(steps=2, penalties=[0.1, 1.0], queries=5, seed=0)
    other_objective = scene.objective(False, "hook")
    pools = tiers.attacks_by_tier(scene, "reach", 8, surrogate=scene, other_objective=other_objective, **options)
    assert [len(pools[t]) for t in ("T0", "T1", "T2", "T3", "T4")] == [3, 5, 8, 16, 2]
    for lower, higher in (("T0", "T1"), ("T1", "T2"), ("T2", "T3")):
        assert all(pools[higher][kind] is photos for kind, photos in pools[lower].items())
    clean = scene.undefended.photos(ITEMS).astype(int)
    for photos in (*pools["T3"].values(), *pools["T4"].values()):
        assert photos.dtype == np.uint8 and 0 < np.abs(photos - clean).max() <= 8
    again = tiers.attacks_by_tier(scene, "reach", 8, reuse=pools, **options)
    assert again["T0"] is pools["T0"] and again["T1"] is pools["T1"]
    without = tiers.attacks_by_tier(scene, "hook", 8, **options)
    assert "T1" not in without and len(without["T4"]) == 1


class Gated(nn.Module):
    """Takes everything out of what is noisy. Its gate is steep: open, it has no slope to follow."""

    gate = True

    def forward_with_gate(self, images):
        smooth = nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        logit = 30 * (255 * (images - smooth).abs().mean((1, 2, 3)) - 3)
        flat = images.mean((2, 3), keepdim=True)
        return images + logit.sigmoid().view(-1, 1, 1, 1) * (flat - images), logit

    def forward(self, images):
        return self.forward_with_gate(images)[0]


@pytest.fixture
def gated(scene):
    defence = Defence(Gated(), scene.defence.detector, scene.defence.extractor, scene.defence.thresholds)
    return Scene.build(scene.undefended, defence, ITEMS, scene.hooks)


# Trap: a gradient that is there and says little. Who knows the filter shuts its gate and is let through.
def test_who_knows_the_gate_shuts_it(gated):
    def answered(photos):
        left = recovery.feature_mse(gated.filtered.served_features(photos) - gated.filtered_targets.numpy())
        return left.mean(), gated.defence.image_filter.forward_with_gate(to_images(photos))[1]

    clean, at_first = answered(gated.undefended.photos(ITEMS))
    assert (at_first < -GATE_MARGIN).all()
    blind, opened = answered(ways.oblivious(gated, 8, 20, generator(0)))
    _, followed = answered(ways.through_filter(gated, 8, 20, generator(0)))
    passed, shut = answered(ways.through_filter(gated, 8, 20, generator(0), shut=True))
    assert (opened > 0).all() and (followed > 0).any() and (shut < 0).all()
    assert passed < 0.9 * clean and passed < blind


def test_the_strongest_attack_keeps_of_each_photo_what_gets_furthest(gated, monkeypatch):
    objective, clean = gated.objective(True, "hook"), gated.images()
    found = ways.strongest(gated)(objective, clean, 8, steps=10, generator=generator(0))
    assert (found - clean).abs().max().mul(255) <= 8.001 and torch.equal(found, to_images(to_photos(found)))
    first = ways.through_filter(gated, 8, 10, generator(0))  # the same draw
    values = [evaluate(objective, images) for images in (to_images(first), found)]
    assert (values[1] >= values[0]).all() and (values[1] > values[0]).any()

    def one(which):  # a way that gets one photo to its hook and leaves the others alone
        to, chosen = (
            to_images(gated.undefended.photos(gated.hooks)),
            (torch.arange(len(ITEMS)) == which).view(-1, 1, 1, 1),
        )
        return lambda objective, images, epsilon, **_: torch.where(chosen, to, images)

    monkeypatch.setattr(ways, "filter_ways", lambda _: [("first", one(0), False), ("second", one(1), True)])
    found = ways.strongest(gated)(objective, clean, 255, steps=1, generator=generator(0))
    moved = (found != clean).flatten(1).any(1)
    assert moved.tolist() == [True, True] + [False] * (len(clean) - 2)


def test_goal_and_detector_share_what_they_ask_of_filter_and_extractor(gated):
    """Two passes of the extractor instead of three, and the same value and gradient."""
    images, eye = gated.images(), gated.undefended.extractor
    objective = gated.evading_detector(gated.objective(True, "hook"), [0.5])
    plain = replace(
        objective,
        objective=hook(nn.Sequential(Gated(), eye), gated.filtered_targets),
        score=DetectorScore(gated.defence.detector, Gated(), eye).eval(),
    )
    wanted, asked = value_and_gradient(plain, images), []
    with eye.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0])):
        found = value_and_gradient(objective, images)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert found[1].abs().amax() > 0 and len(asked) == 2
    moved = value_and_gradient(objective, (images + 8 / 255).clamp(0, 1))  # other photos: nothing is remembered
    assert not torch.equal(moved[0], found[0])


def test_a_gated_filter_is_attacked_at_its_gate_in_every_tier_that_knows_it(gated, scene):
    options = dict(steps=2, penalties=[0.1, 1.0], queries=5, seed=0)
    with_gate, without = (tiers.attacks_by_tier(place, "reach", 8, **options) for place in (gated, scene))
    extra = {tier: with_gate[tier].keys() - without[tier].keys() for tier in with_gate}
    assert extra["T0"] == extra["T4"] == set()
    assert extra["T2"] == {"gate shut", "gate shut, short steps"}
    evading = {"λ = 0.1, gate shut", "λ = 1.0, gate shut", "λ = 1.0, gate shut, short steps"}
    assert extra["T3"] == extra["T2"] | evading


def test_goal_detector_and_gate_share_one_pass_of_the_filter(gated):
    passes = []
    gated.defence.image_filter.module.forward_with_gate = lambda images: (
        passes.append(1) or Gated().forward_with_gate(images)
    )
    objective = gated.holding_gate_shut(gated.evading_detector(gated.objective(True, "reach"), [1.0]), len(ITEMS))
    images = gated.images().requires_grad_(True)
    value = objective(images)
    (slope,) = torch.autograd.grad(value.sum(), images)
    assert len(passes) == 1 and (slope != 0).any()
    with torch.no_grad():
        assert torch.allclose(objective(images), value)  # without a graph: made anew
        objective(images + 1 / 255)
    assert len(passes) == 3


def test_a_scene_can_be_narrowed(scene):
    less = scene.first(2)
    assert len(less.items) == len(less.hooks) == len(less.targets) == 2 and len(less.images()) == 2


def test_feature_matching_copies_what_detector_and_extractor_see(scene):
    seen = ways._Seen(scene.defence, 1.0).eval()
    wanted = seen(to_images(scene.undefended.photos(scene.hooks)))
    photos = ways.feature_matching(scene, 16, 20, generator(0))
    left, before = ((seen(to_images(p)) - wanted).square().sum(1) for p in (photos, scene.undefended.photos(ITEMS)))
    assert (left < 0.8 * before).all()
