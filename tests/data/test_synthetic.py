"""The synthetic photos: reproducible, varied, not flat, and what items.csv says is what can be seen."""

import numpy as np
import pytest

from vars_core.data import feedback, silhouettes, synthetic, textures


@pytest.fixture(scope="module")
def drawn():
    return synthetic.draw(400, 32, np.random.default_rng(5))


def test_same_seed_same_bytes_and_first_items_do_not_depend_on_the_total(drawn):
    photos, items = drawn
    few, rows = synthetic.draw(15, 32, np.random.default_rng(5))
    assert (few == photos[:15]).all() and rows.equals(items.head(15))
    other, _ = synthetic.draw(15, 32, np.random.default_rng(6))
    assert (other != few).mean() > 0.5


def test_many_workers_draw_the_same_items(drawn, monkeypatch):
    monkeypatch.setattr(synthetic, "POOL_FROM", 20)
    photos, items = synthetic.draw(24, 32, np.random.default_rng(5))
    assert (photos == drawn[0][:24]).all() and items.equals(drawn[1].head(24))


def test_shapes_and_columns(drawn):
    photos, items = drawn
    assert photos.shape == (400, 32, 32, 3) and photos.dtype == np.uint8
    assert items["item_id"].is_unique and items["category"].nunique() >= 10
    assert items["category"].value_counts().min() >= 5
    assert set(items["colour"]) == set(textures.PALETTE) and set(items["pattern"]) == set(textures.PATTERNS)
    assert items["jpeg_quality"].between(50, 98).all() and items["jpeg_quality"].nunique() > 30
    assert set(items["background"]) == set(textures.BACKGROUNDS)


@pytest.mark.parametrize("size", [16, 64, 100, 128])
def test_sizes(size):
    photo, _ = synthetic.draw_one(1, 2, size)
    assert photo.shape == (size, size, 3)


@pytest.mark.parametrize("category", synthetic.CATEGORIES)
def test_every_style_has_an_outline(category):
    rng = np.random.default_rng(0)
    for style in silhouettes.STYLES[category]:
        parts = silhouettes.outline(category, style, rng)
        assert any(role == "body" for _, role in parts)
        for points, role in parts:
            assert points.ndim == 2 and points.shape[1] == 2 and np.isfinite(points).all()
            assert role in {"body", "plain", "trim", "hole"} | set(synthetic.FIXED)


def test_categories_can_be_told_apart_from_thumbnails(drawn):
    photos, items = drawn
    grey = photos.mean(3).reshape(400, 8, 4, 8, 4).mean((2, 4)).reshape(400, 64)
    grey = np.abs(grey - np.median(grey, axis=1, keepdims=True))  # object against background, either polarity
    labels, train = items["category"].to_numpy(), np.arange(400) % 2 == 0
    names = np.unique(labels)
    centres = np.stack([grey[train & (labels == name)].mean(0) for name in names])
    guess = names[((grey[~train, None] - centres) ** 2).sum(2).argmin(1)]
    assert (guess == labels[~train]).mean() > 2 / len(names)


def test_photos_are_not_flat(drawn):
    photos, _ = drawn
    detail = feedback.photo_statistics(photos)[:, 3]
    assert np.median(detail) > 4 and np.quantile(detail, 0.05) > 1
    pixels = photos.astype(float)
    # a 3 × 3 mean, the simplest denoiser, removes far more than the sensor put there
    smooth = sum(np.roll(pixels, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    assert np.median((pixels - smooth).std((1, 2, 3))) > 8


def test_photos_differ(drawn):
    photos, _ = drawn
    assert len({photo.tobytes() for photo in photos}) == len(photos)
    assert photos.astype(float).std(0).mean() > 40


def test_the_named_colour_is_in_the_picture():
    photos, items = synthetic.draw(300, 64, np.random.default_rng(5))
    names = [name for name in textures.PALETTE if name not in ("black", "grey", "white")]
    chosen = (items["pattern"] == "plain") & (items["category"] != "glasses") & items["colour"].isin(names)
    palette = np.array([textures.PALETTE[name] for name in names], float)
    palette /= palette.sum(1, keepdims=True)  # light and shadow change brightness, not chromaticity
    right, wrong = [], []
    for photo, name in zip(photos[chosen], items["colour"][chosen], strict=True):
        pixels = photo.reshape(-1, 3).astype(float)
        chroma = pixels / np.maximum(pixels.sum(1, keepdims=True), 1)
        share = (np.linalg.norm(chroma[:, None] - palette, axis=2) < 0.09).mean(0)
        right.append(share[names.index(name)])
        wrong.append(np.delete(share, names.index(name)).mean())
    assert np.mean(np.array(right) > 0.05) > 0.9 and np.mean(right) > 3 * np.mean(wrong)


def test_jpeg_history_is_in_the_pixels(drawn):
    photos, items = drawn
    x = photos.astype(float).mean(3)
    steps = np.abs(np.diff(x, axis=2))
    blocky = steps[:, :, 7::8].mean((1, 2)) / steps.mean((1, 2))
    low, high = items["jpeg_quality"] < 60, items["jpeg_quality"] > 88
    assert blocky[low].mean() > blocky[high].mean()


def test_patterns_follow_their_name():
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, 64, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    for name in textures.PATTERNS:
        albedo = textures.pattern(name, u, v, np.float32([1, 0, 0]), np.float32([0, 0, 1]), rng)
        share = albedo[..., 2].mean()
        assert albedo.dtype == np.float32 and albedo.shape == (64, 64, 3)
        assert share == 0 if name == "plain" else 0.05 < share < 0.7, name
