"""Peers' settings by name, and what VAR's ε really was."""

import numpy as np
import pytest
import torch
from test_attacks import CrossEntropy, Linear, interior, network, pgd, photos, steps_of, weights
from test_feature_black_box import EXTRACTOR, TASTE, DetectorScore
from torchvision import transforms

from vars_core.attacks import objectives, promotion
from vars_core.attacks.as_published import MEAN, STD, realised, round_trip, var_as_published
from vars_core.attacks.engine import quantise
from vars_core.attacks.presets import PRESETS, attack, preset
from vars_core.extractor import to_images
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


def draw():
    return generator(0, "pgd")


def test_the_presets_of_the_protocol_with_their_settings():
    assert set(PRESETS) == {"taamr-pgd10", "normann-pgd", "aip-insa", "aip-expa", "cohen-bb", "var-as-published"}
    taamr = preset("taamr-pgd10")
    assert (taamr.algorithm, taamr.steps, taamr.step) == ("pgd", 10, pytest.approx(1 / 6))
    assert preset("normann-pgd").step * preset("normann-pgd").steps == pytest.approx(1)
    for setting in PRESETS.values():
        assert hasattr(objectives, setting.objective) or setting.objective in promotion.AIMS
        assert setting.source and setting.differs


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="'deepfool'; there are taamr-pgd10, normann-pgd, aip-insa"):
        attack("deepfool", Linear(weights()), interior(), 8, generator=draw())


def test_sign_presets_are_pgd_with_the_papers_steps():
    images, objective = interior().double(), CrossEntropy(network().double().eval(), torch.arange(4))
    taamr = attack("taamr-pgd10", objective, images, 12, generator=draw())
    torch.testing.assert_close(taamr.images, pgd(objective, images, 12, step=2))
    normann = attack("normann-pgd", objective, images, 8, steps=4, generator=draw())
    expected = pgd(objective, images, 8, steps=4, step=2, random_start=False)
    torch.testing.assert_close(normann.images, expected)
    assert taamr.queries.tolist() == [10] * 4 and normann.queries.tolist() == [4] * 4
    torch.testing.assert_close(taamr.value, objective(taamr.images))
    mixed = attack("taamr-pgd10", objective, images, torch.tensor([2.0, 4.0, 8.0, 12.0]), generator=draw())
    assert np.abs(steps_of(mixed.images, images)).max((1, 2, 3)).tolist() == [2, 4, 8, 12]


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"var-as-published"}))
def test_presets_raise_their_objective_within_the_budget(name):
    images, objective = to_images(photos()), DetectorScore(TASTE)
    steps = {"aip-insa": 80, "aip-expa": 80, "cohen-bb": 6}.get(name)
    result = attack(name, objective, images, 8, steps=steps, features=EXTRACTOR, generator=draw())
    assert torch.equal(result.images, quantise(result.images))
    assert 0 < np.abs(steps_of(result.images, images)).max() <= 8
    if name != "aip-insa":  # a random start of +ε nearly everywhere and a rate of 1e-4: it may end below
        assert (result.value > objective(images)).all()
    else:
        longer = attack(name, objective, images, 8, steps=800, generator=draw())
        assert (longer.value > result.value).all()


def test_the_black_box_needs_the_public_extractor():
    with pytest.raises(ValueError, match="cohen-bb needs `features`"):
        attack("cohen-bb", DetectorScore(TASTE), interior(), 8, generator=draw())


# Trap: ε added after normalisation, so that a nominal 4/8/16 is 0.92/1.83/3.66 grey levels, and truncated.
@pytest.mark.parametrize(("epsilon", "levels", "down", "up"), [(4, 0.92, -1, 0), (8, 1.83, -2, 1), (16, 3.66, -4, 3)])
def test_what_vars_epsilon_really_was(epsilon, levels, down, up):
    assert max(realised(epsilon)) == pytest.approx(levels, abs=0.005)
    images, objective = interior(), Linear(weights())
    for settings in ({}, {"steps": 1, "ratio": 1}):  # PGD and FGSM
        change = steps_of(var_as_published(objective, images, epsilon, **settings), images)
        rising = np.broadcast_to((objective.weights > 0).permute(1, 2, 0).numpy(), change.shape)
        assert set(np.unique(change)) == {down, up}  # one-sided, where ±ε was announced
        assert (change[~rising] == down).all() and (change[rising] == up).all()
    result = attack("var-as-published", objective, images, epsilon, generator=draw())
    honest = attack("taamr-pgd10", objective, images, epsilon, generator=draw())
    assert (result.value < honest.value).all()


# Trap: truncation instead of rounding: 24 % of untouched pixels change by −1.
def test_vars_path_changes_pixels_that_nobody_touched():
    """The path is torchvision's, step by step as published; on all levels alike 29 % fall, on product photos 24 %."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    normalise = transforms.Normalize(MEAN, STD)
    denormalise = transforms.Normalize([-m / s for m, s in zip(MEAN, STD, strict=True)], [1 / s for s in STD])
    theirs = denormalise(normalise(transforms.ToTensor()(levels))).clamp(0, 1)
    theirs = (theirs.permute(1, 2, 0).numpy() * 255).astype("uint8").astype(int) - levels
    ours = steps_of(round_trip(to_images(levels[None])), to_images(levels[None]))[0]
    assert np.array_equal(ours, theirs)
    assert set(np.unique(ours)) == {-1, 0}
    assert (ours == -1).mean() == pytest.approx(0.29, abs=0.01)
    assert (steps_of(quantise(to_images(levels[None])), to_images(levels[None])) == 0).all()
