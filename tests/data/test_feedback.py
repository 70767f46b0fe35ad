"""Simulated feedback: reproducible, without repeats, heavy-tailed, and led by what can be seen."""

import numpy as np
import pandas as pd
import pytest

from vars_core import params
from vars_core.data import feedback, split, synthetic
from vars_core.data.folder import CatalogueError


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


def test_a_drawn_catalogue_has_the_tastes_that_are_drawn(shop):
    drawn = [name for name in feedback.WEIGHTS if name in shop[1]]
    assert list(feedback.attributes(shop[1], shop[0], config())) == drawn and "colour" in drawn


def of_folder(shop, seed=0, **changes):
    photos, items = shop
    cfg = config(source="folder", path="shop", **changes)
    return feedback.simulate(items, photos, cfg, np.random.default_rng(seed))


def test_photo_only_folders_have_tastes_too(shop):
    photos, items = shop
    visible = feedback.attributes(items, photos, config(source="folder", path="shop"))
    assert list(visible.columns) == ["category", "colour", "texture"] and visible["texture"].nunique() == 4
    agree = (visible["colour"] == items["colour"])[items["pattern"] == "plain"].mean()
    assert agree > 0.25  # light, shadow and background included; chance is 1 in 14
    read = visible["colour"].to_numpy()
    assert concentration(of_folder(shop), read) > concentration(of_folder(shop, taste_strength=0.0), read) + 0.03


def test_columns_of_a_folder_count_only_where_they_are_named(shop):
    photos, items = shop
    bare = items[["item_id", "category"]]
    named = items.assign(colour="no such", style="x", brand=np.arange(len(items)) % 4)
    silent = of_folder((photos, bare))
    assert of_folder((photos, named)).equals(silent)
    by_brand = concentration(of_folder((photos, named), taste_columns=["brand"]), named["brand"].to_numpy())
    assert by_brand > concentration(silent, named["brand"].to_numpy()) + 0.02
    seen = feedback.attributes(items, photos, config(source="folder", path="x", taste_columns=["colour"]))
    assert list(seen) == ["category", "colour", "texture"] and (seen["colour"] == items["colour"]).all()


@pytest.mark.parametrize(
    ("column", "found"),
    [("size", "no column 'size' beside item_id and category; there are: name"), ("category", "no column 'category'"),
     ("name", "'name' has 1,200 values in 1,200 items; a column of kinds is expected, of 1,000 at most")],
)  # fmt: skip
def test_columns_that_are_no_taste_are_refused(column, found):
    items = pd.DataFrame({"item_id": range(1200), "category": "a", "name": [f"n{i}" for i in range(1200)]})
    with pytest.raises(CatalogueError, match=f"data.taste_columns: {found}"):
        feedback.attributes(items, np.zeros((1200, 4, 4, 3), np.uint8), config(taste_columns=[column]))


@pytest.mark.parametrize("changes", [{}, {"taste_strength": 2.0}, {"interactions_per_user": 8}])
def test_users_grow_with_items_until_four_fifths_have_enough(shop, changes):
    frame, items = simulate(shop, users=None, k_core=5, **changes), shop[1]
    kept = split.k_core(*frame[["user", "item"]].to_numpy().T, 5)
    assert frame["user"].nunique() >= len(items) and frame["item"][kept].nunique() >= 0.8 * len(items)
    assert simulate(shop, users=None, k_core=5, **changes).equals(frame)


def test_users_are_ten_for_every_item_at_most(shop):
    photos, items = shop
    few = items.head(30)
    frame = feedback.simulate(few, photos[:30], config(users=None, k_core=500), np.random.default_rng(0))
    assert frame["user"].nunique() == 300


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
