"""Attackers of a shop that adds noise, by what they know: budgets, what each tier holds, what a detector stops."""

import numpy as np
import pytest
import torch
from toys import ITEMS, extractor, shop, smooth_photos

from vars_core.adaptive import noisy_tiers, noisy_ways, ways
from vars_core.adaptive.randomised import RandomisedShop
from vars_core.adaptive.scene import Scene
from vars_core.attacks.engine import evaluate
from vars_core.detection.defence import Defence
from vars_core.detection.detectors import Detector
from vars_core.extractor import to_images
from vars_core.reconstruction.classics import GaussianBlur, Median
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


@pytest.fixture
def scene(shop):
    torch.manual_seed(0)
    defence = Defence(Median(), Detector(shop.features.shape[1]).eval().requires_grad_(False), shop.extractor)
    defence.calibrate(smooth_photos(120, seed=3))
    return Scene.build(shop, defence, ITEMS, np.array([0, 1, 3]))


@pytest.fixture
def noisy(shop):
    return RandomisedShop(shop, GaussianBlur(1), 0.1, draws=9)


def attacked(noisy, scene, **options):
    settings = dict(steps=2, draws=3, penalties=[0.1, 1.0], queries=4, seed=0)
    return noisy_tiers.attacks_by_tier(noisy, scene, 8, **settings | options)


def test_tiers_hold_what_lower_ones_hold_and_keep_the_budget(noisy, scene):
    foreign = scene.undefended.photos(ITEMS)
    known = {"T0": {"PGD on f": foreign}, "T4": {"Square": foreign, "own extractor": foreign}}
    found = attacked(noisy, scene, surrogate=Median(), known=known)
    assert list(found) == ["T0", "T1", "T2", "T3", "T4"]
    assert set(found["T0"]) < set(found["T1"]) < set(found["T2"]) < set(found["T3"])
    assert set(found["T4"]) == {"Square", "own extractor"} and found["T4"]["Square"] is not foreign
    clean = foreign.astype(int)
    for pool in found.values():
        for name, photos in pool.items():
            moved = np.abs(photos - clean).max()
            assert photos.dtype == np.uint8 and (moved <= 8 if photos is foreign else 0 < moved <= 8), name
    assert "T1" not in attacked(noisy, scene) and set(attacked(noisy, scene)["T4"]) == {"Square"}


def test_the_same_seed_gives_the_same_photos(noisy, scene):
    one, other = (attacked(noisy, scene)["T3"] for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_heavy_penalty_lowers_the_detectors_score(noisy, scene):
    scene.defence.thresholds["1"] = -1e3  # so that every score is worth lowering
    careless, careful = (
        noisy_tiers.past_detector(noisy, scene, 8, 10, 3, weight, generator(0)) for weight in (0.0, 1e3)
    )
    scored = [scene.defence.screen(photos)[1] for photos in (careless, careful)]
    assert (scored[1] < scored[0]).all()


def test_outcomes_are_lists_and_lists_that_are_not_flagged(noisy, scene):
    photos = scene.undefended.photos(ITEMS)
    listed, passed = noisy_tiers.outcomes_by_tier(noisy, scene, {"T2": {"one": photos}})["T2"]["one"]
    np.testing.assert_array_equal(listed, noisy.exposed(ITEMS, photos))
    flagged = scene.flagged(photos)
    assert not np.nansum(passed[:, flagged])
    np.testing.assert_array_equal(passed[:, ~flagged], listed[:, ~flagged])


def test_more_knowledge_is_worth_more(noisy, scene):
    """By the objective itself: averaged over draws, knowing the filter beats knowing f alone."""
    blind = ways.oblivious(scene, 8, 15, generator(0), "reach")
    knowing = attacked(noisy, scene, steps=15, draws=8)["T2"]["reach"]
    goal = noisy_ways.objective(noisy, ITEMS, "reach", 64, generator(1, "judge"))
    assert evaluate(goal, to_images(knowing)).mean() > evaluate(goal, to_images(blind)).mean()
