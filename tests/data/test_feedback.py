"""Simulated feedback: reproducible, without repeats, heavy-tailed, and led by what can be seen."""

import numpy as np
import pandas as pd
import pytest

from vars_core import params
from vars_core.data import feedback, synthetic


@pytest.fixture(scope="module")
def shop():
    return synthetic.draw(300, 16, np.random.default_rng(1))


def config(**changes):
    return params.Data(**{"users": 300, "interactions_per_user": 20, "k_core": 3} | changes)


def simulate(shop, seed=0, **changes):
    return feedback.simulate(shop[1], shop[0], config(**changes), np.random.default_rng(seed))


def test_seeded(shop):
    assert simulate(shop).equals(simulate(shop))
    assert not simulate(shop).equals(simulate(shop, seed=1))


def test_no_repeats_no_times_valid_codes(shop):
    frame = simulate(shop)
    assert list(frame.columns) == ["user", "item"]
    assert not frame.duplicated().any()
    assert frame["user"].nunique() == 300 and frame["item"].between(0, 299).all()


def test_chunks_do_not_change_who_has_what(shop, monkeypatch):
    counts = simulate(shop)["user"].value_counts().sort_index()
    monkeypatch.setattr(feedback, "CHUNK", 7)
    assert simulate(shop)["user"].value_counts().sort_index().equals(counts)


def test_activity_and_popularity_are_heavy_tailed(shop):
    frame = simulate(shop)
    activity = frame["user"].value_counts()
    assert abs(activity.mean() - 20) < 2 and activity.max() > 3 * activity.median() and activity.min() >= 3
    popularity = frame["item"].value_counts()
    assert popularity.head(30).sum() > 0.15 * len(frame)


def concentration(frame, labels):
    """Mean share of a user's items that are in the user's most frequent class."""
    table = pd.crosstab(frame["user"], labels[frame["item"]])
    return (table.max(axis=1) / table.sum(axis=1)).mean()


@pytest.mark.parametrize("column", ["category", "colour"])
def test_taste_strength(shop, column):
    labels = shop[1][column].to_numpy()
    strengths = [concentration(simulate(shop, taste_strength=s), labels) for s in (0.0, 1.0, 2.0)]
    assert strengths[0] + 0.03 < strengths[1] < strengths[2]


def test_photo_only_folders_have_tastes_too(shop):
    photos, items = shop
    undefended = items[["item_id", "category"]]
    visible = feedback.attributes(undefended, photos)
    assert list(visible.columns) == ["category", "colour", "texture"] and visible["texture"].nunique() == 4
    agree = (visible["colour"] == items["colour"])[items["pattern"] == "plain"].mean()
    assert agree > 0.25  # light, shadow and background included; chance is 1 in 14
    frame = feedback.simulate(undefended, photos, config(), np.random.default_rng(0))
    read = visible["colour"].to_numpy()
    none = feedback.simulate(undefended, photos, config(taste_strength=0.0), np.random.default_rng(0))
    assert concentration(frame, read) > concentration(none, read) + 0.03


def test_statistics_measure_what_they_say():
    photos = np.zeros((4, 16, 16, 3), np.uint8)
    photos[1] = 255
    photos[2] = (255, 0, 0)
    photos[3, ::2] = 255
    luminance, saturation, contrast, detail = feedback.photo_statistics(photos).T
    assert luminance.tolist()[:2] == pytest.approx([0, 255], abs=0.1)
    assert saturation[2] == 255 and saturation[[0, 1, 3]].max() == 0
    assert contrast[3] == pytest.approx(127.5, abs=0.1) and detail[3] > 100 > detail[:3].max()


def test_few_items():
    photos, items = synthetic.draw(20, 16, np.random.default_rng(0))
    frame = feedback.simulate(items, photos, config(interactions_per_user=50), np.random.default_rng(0))
    assert frame["user"].value_counts().max() <= 10
