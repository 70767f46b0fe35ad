"""Threats beyond L∞: budgets hold after rounding, goals are reached, and a sticker stays where it is."""

import numpy as np
import pytest
import torch
from toys import ITEMS, extractor, shop, smooth_photos

from vars_core.attacks.beyond_linf import Light, l2, light, sticker, threats
from vars_core.attacks.engine import attack_photos, evaluate, quantise
from vars_core.attacks.objectives import hook
from vars_core.attacks.promotion import push
from vars_core.extractor import to_images
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


class Linear:
    """⟨w, x⟩ per image."""

    modules = ()

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, images):
        return (images * self.weights).sum((1, 2, 3))


@pytest.fixture
def images():
    return to_images(smooth_photos(6, seed=3))


def goal(extractor, images):
    with torch.no_grad():
        return hook(extractor, extractor(images).roll(1, 0))


@pytest.mark.parametrize("radius", [0.05, 0.5, 3.0])
def test_the_l2_budget_holds_after_rounding_and_is_used(extractor, images, radius):
    objective = goal(extractor, images)
    found = l2(objective, images, radius, steps=20, generator=generator(0))
    lengths = (found - images).flatten(1).norm(dim=1)
    assert torch.equal(found, quantise(found)) and (lengths <= radius + 1e-6).all()
    assert (lengths > 0.8 * radius).all()
    assert (evaluate(objective, found) > evaluate(objective, images)).all()


def test_l2_finds_the_best_of_a_linear_goal():
    images = quantise(torch.full((2, 3, 8, 8), 0.5))
    weights = torch.randn(3, 8, 8, generator=generator(1))
    found = l2(Linear(weights), images, 1.0, steps=30, generator=generator(0))
    best = weights.norm()  # along w, of length 1
    assert ((Linear(weights)(found) - Linear(weights)(images)) > 0.98 * best).all()


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_a_sticker_changes_its_square_and_nothing_else(extractor, images, share):
    objective = goal(extractor, images)
    found = sticker(objective, images, share, steps=20, generator=generator(0))
    changed = (found != images).any(1)
    for photo in changed:
        rows, columns = photo.any(1).nonzero(), photo.any(0).nonzero()
        side = round((share * 256) ** 0.5)
        assert rows.max() - rows.min() < side and columns.max() - columns.min() < side
    assert torch.equal(found, quantise(found))
    assert (evaluate(objective, found) >= evaluate(objective, images)).float().mean() > 0.5


def test_more_places_are_never_worse(extractor, images):
    objective = goal(extractor, images)
    one, four = (
        evaluate(objective, sticker(objective, images, 0.05, steps=10, places=n, generator=generator(0)))
        for n in (1, 4)
    )
    assert (four >= one).all() and (four > one).any()


def test_light_by_hand():
    image = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    settings = torch.zeros(1, 10)
    assert torch.allclose(Light().apply(image, settings), image)
    settings[0, 0], settings[0, 4], settings[0, 9] = 1, -1, 0
    seen = Light().apply(image, settings).flatten()
    assert seen.tolist() == pytest.approx([0.22, 0.35, 0.6])  # red by a tenth, green by 0.05 down
    settings = torch.zeros(1, 10)
    settings[0, 9] = 1
    assert Light().apply(image, settings).flatten().tolist() == pytest.approx([0.15, 0.4, 0.65])


def test_light_gains_within_its_limits(extractor, images):
    objective, limits = goal(extractor, images), Light(gain=0.05, offset=0.02, gamma=0.0, saturation=0.0)
    found = light(objective, images, limits, steps=20, generator=generator(0))
    assert (evaluate(objective, found) > evaluate(objective, images)).all()
    assert ((found - images).abs() <= 0.05 * images + 0.02 + 0.5 / 255 + 1e-6).all()
    # one colour stays one colour: no shape changes
    flat = torch.full((1, 3, 8, 8), 0.5)
    one = light(Linear(torch.randn(3, 8, 8, generator=generator(2))), flat, generator=generator(0))
    assert (one.flatten(2).amax(2) == one.flatten(2).amin(2)).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda images: l2(Linear(1.0), images, 0, generator=generator(0)),
        lambda images: sticker(Linear(1.0), images, 1.0, generator=generator(0)),
        lambda images: sticker(Linear(1.0), images, -0.1, generator=generator(0)),
    ],
)
def test_what_makes_no_sense_is_refused(call, images):
    with pytest.raises(ValueError, match="got"):
        call(images)


def test_threats_run_like_any_other_attack(shop):
    goal, photos = push(shop, ITEMS, shop.extractor, "reach"), shop.photos(ITEMS)
    images = to_images(photos)
    found = {
        name: attack_photos(attack, goal, images, 4, steps=3, generator=generator(0))
        for name, attack in threats(0.7).items()
    }
    assert list(found) == ["L2, r = 0.70", "sticker, 2% of the area", "sticker, 5% of the area", "light and colour"]
    change = {name: to_images(made) - images for name, made in found.items()}
    assert 0 < change["L2, r = 0.70"].flatten(1).norm(dim=1).max() <= 0.7
    shares = [(change[f"sticker, {n}% of the area"].abs().amax(1) > 0).float().mean().item() for n in (2, 5)]
    assert 0 < shares[0] < shares[1] < 0.08
    assert all(made.dtype == np.uint8 and made.shape == photos.shape for made in found.values())
