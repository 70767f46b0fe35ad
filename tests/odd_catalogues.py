"""Small catalogues as shops have them and as they go wrong: white ground, duplicates, few items, skewed tastes.

`KINDS` names functions (rng, n items) → (photos, categories, interactions or None)."""

import numpy as np
import pandas as pd
from PIL import Image

SIDE = 32  # pixels


def write(folder, photos, categories, interactions=None):
    """A catalogue folder of uint8 `photos` (N, S, S, 3), their `categories` and pairs (user, item[, part])."""
    (folder / "images").mkdir(parents=True)
    names = [f"i{number:03d}" for number in range(len(photos))]
    for name, photo in zip(names, photos, strict=True):
        Image.fromarray(photo).save(folder / "images" / f"{name}.png")
    pd.DataFrame({"item_id": names, "category": categories}).to_csv(folder / "items.csv", index=False)
    if interactions is not None:
        frame = pd.DataFrame(interactions, columns=["user_id", "item_id", "part"][: len(interactions[0])])
        frame["user_id"] = frame["user_id"].map("u{:03d}".format)
        frame["item_id"] = frame["item_id"].map(names.__getitem__)
        frame.to_csv(folder / "interactions.csv", index=False)
    return folder


def textured(rng, n):
    """Photos of coloured noise on a coloured ground: all different."""
    ground = rng.integers(40, 216, (n, 1, 1, 3))
    return np.clip(ground + rng.normal(0, 25, (n, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def on_white(rng, n, empty=0.3):
    """Products of light colours on white ground; a share `empty` is white all over."""
    photos = np.full((n, SIDE, SIDE, 3), 255, np.uint8)
    for row in np.flatnonzero(rng.random(n) >= empty):
        top, left = rng.integers(2, 12, 2)
        photos[row, top : top + 14, left : left + 14] = rng.integers(0, 255, 3)  # some light, some dark
    return photos


def pairs(rng, users, items, each, weights=None):
    """`each` distinct items for every user."""
    rows = []
    for user in range(users):
        rows += [(user, int(item)) for item in rng.choice(items, min(each, items), replace=False, p=weights)]
    return rows


def _half(n):
    return np.where(np.arange(n) % 2, "shirt", "shoe")


def _white(rng, n):
    return on_white(rng, n), _half(n), pairs(rng, 4 * n, n, 6)


def _all_white(rng, n):
    return np.full((n, SIDE, SIDE, 3), 255, np.uint8), _half(n), pairs(rng, 4 * n, n, 6)


def _duplicates(rng, n):
    photos = textured(rng, n)
    photos[n // 3 :] = photos[0]
    return photos, _half(n), pairs(rng, 4 * n, n, 6)


def _near_duplicates(rng, n):
    photos = np.repeat(textured(rng, 1), n, 0)
    photos[np.arange(n), 0, 0] += (np.arange(n) % 5).astype(np.uint8)[:, None]
    return photos, _half(n), pairs(rng, 4 * n, n, 6)


def _skewed(rng, n):
    weights = 1 / np.arange(1, n + 1) ** 1.5
    return textured(rng, n), _half(n), pairs(rng, 12 * n, n, 6, weights / weights.sum())


def _one_each(rng, n):
    return textured(rng, n), [f"kind {number}" for number in range(n)], pairs(rng, 4 * n, n, 6)


def _everything(rng, n):
    others = [(user + 20, item) for user, item in pairs(rng, 2 * n, n, 6)]
    return textured(rng, n), _half(n), pairs(rng, 20, n, n) + others


def _outfits(rng, n):
    """Users are outfits of three to five items, as in sets of garments."""
    rows = [(user, int(item)) for user in range(8 * n) for item in rng.choice(n, rng.integers(3, 6), replace=False)]
    return on_white(rng, n), _half(n), rows


def _own_split(rng, n):
    """A split of its own in which some users have no training row."""
    rows = []
    for user in range(4 * n):
        chosen = rng.choice(n, 6, replace=False)
        parts = ["train"] * 4 + ["validation", "test"] if user % 5 else ["validation", "test"] + [None] * 4
        rows += [(user, int(item), part) for item, part in zip(chosen, parts, strict=True) if part]
    return textured(rng, n), _half(n), rows


def _simulated(rng, n):
    return on_white(rng, n), _half(n), None


def _few_users(rng, n):
    return textured(rng, n), _half(n), pairs(rng, 12, n, max(6, n // 2))


KINDS = {
    "white": _white, "all white": _all_white, "duplicates": _duplicates, "near duplicates": _near_duplicates,
    "skewed": _skewed, "a category each": _one_each, "users with everything": _everything, "outfits": _outfits,
    "own split": _own_split, "simulated": _simulated, "few users": _few_users,
}  # fmt: skip
