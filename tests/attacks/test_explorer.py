"""What readers try out: shares, ranks, lists, photos and scores are those of the shop that they are of."""

import json

import numpy as np
import pytest
from torch import nn
from toys import ITEMS, extractor, shop

from vars_core.attacks import explorer
from vars_core.attacks.engine import noise
from vars_core.extractor import to_images, to_photos
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


def noised(shop, epsilon):
    return to_photos(noise(to_images(shop.photos(ITEMS)), epsilon, generator=generator(0, epsilon)))


@pytest.fixture
def made(shop):
    return {("reach", "none", e): noised(shop, e) for e in (2, 8)} | {("reach", "filter", 8): noised(shop, 7)}


def test_what_is_collected_is_what_the_shops_say(shop, made):
    behind = shop.with_filter(nn.AvgPool2d(3, 1, 1))
    score = lambda photos: photos.reshape(len(photos), -1).mean(1)  # noqa: E731
    data = explorer.collect(shop, ITEMS, made, {"filter": behind}, score, threshold=100.0, rate="1")
    assert json.loads(json.dumps(data)) == data and data["epsilons"] == [2, 8] and data["goals"] == ["reach"]
    for (goal, knows, epsilon), photos in made.items():
        for name, place in {"none": shop, "filter": behind}.items():
            expected = np.nanmean(place.exposed(ITEMS, photos), 0)
            found = [item["outcomes"].get(f"{goal}|{knows}|{epsilon}|{name}") for item in data["items"]]
            if knows == "none" or knows == name:
                np.testing.assert_allclose([share for share, _ in found], expected, rtol=1e-3)
            else:
                assert found == [None] * len(ITEMS)
        for item, photo, own in zip(data["items"], photos, shop.photos(ITEMS), strict=True):
            case = item["cases"][f"{goal}|{knows}|{epsilon}"]
            change = explorer._decoded(case["change"]).astype(int) - 128
            assert np.array_equal(explorer._decoded(item["photo"]), own) and np.array_equal(own + change, photo)
            assert case["score"] == pytest.approx(photo.mean(), rel=1e-3)
    assert all(len(item["lists"][name]) == min(8, shop.k) for item in data["items"] for name in ("none", "filter"))
    assert "flagged, as the threshold is 100.00" in explorer.shown(data, 0, "reach", 8, "none", knows=False)


def test_without_a_defence_nothing_is_said_of_one(shop, made):
    data = explorer.collect(shop, ITEMS, {key: photos for key, photos in made.items() if key[1] == "none"})
    assert data["defences"] == ["none"] and data["threshold"] is None
    assert "detector" not in explorer.shown(data, 0, "reach", 8, "none", knows=False)
    box = explorer.widget(data)
    place, goal, epsilon, view = box.children
    epsilon.value = 8
    assert explorer.shown(data, 0, "reach", 8, "none", False) == view.value and (place.value, goal.value) == (
        0,
        "reach",
    )
