"""Simulated feedback: people choose by what they can see, by how popular a thing is, and by chance."""

import copy

import numpy as np
import pandas as pd

from vars_core.data import split, taste_features
from vars_core.data.folder import CatalogueError
from vars_core.data.textures import PALETTE

# How much each visible attribute matters at taste_strength 1, as standard deviations of a user's log-odds.
# Tuned so that photos are worth having; see data/README.md.
WEIGHTS = {"category": 2.4, "colour": 1.6, "pattern": 0.3, "style": 0.8, "texture": 0.6}
OTHER_WEIGHT = 0.8  # of any other column that data.taste_columns names
MOST_KINDS = 1000  # distinct values of such a column; one with a value per item (a title) is no taste
STATISTICS_WEIGHT = 0.8  # per standard deviation of one photo statistic
COLOUR_REACH = 0.35  # distance in RGB (0 to 1) over which a taste for one colour extends to its neighbours
POPULARITY_EXPONENT = 0.3  # Zipf: weight of the item of rank r is r ** -exponent
ACTIVITY_SPREAD = 0.8  # sigma of the log-normal activity of users
CHUNK = 256  # users at a time: bounds memory at CHUNK × items
KEPT = 0.8  # share of the items that shall be in the k-core, where the number of users is ours to choose
GROWTH, MOST, FEWEST = 1.5, 10, 20  # users from one try to the next; users per item at most; users at least


def simulate(items, photos, cfg, rng):
    """Interactions (user, item: integer codes) of `cfg.users` people with `items`, the rows of `photos`.

    A user's log-odds for an item are cfg.taste_strength × (tastes over visible attributes and looks) + the item's
    popularity; items are drawn without replacement with these odds (Gumbel top-k). Looks are the features of
    cfg.taste_extractor where one is named, else photo statistics. How many a user draws is heavy-tailed with mean
    cfg.interactions_per_user. There are no timestamps. Where cfg.users is None there is a user for every item, and
    more until 80 % of the items are in the k-core (ten for every item at most). Raises CatalogueError when the
    extractor or a column of cfg.taste_columns can't be had.
    """
    visible = attributes(items, photos, cfg)
    if sees_with_extractor(cfg):
        looks = taste_features.components(photos, cfg, int(rng.integers(2**63)))
        spread = cfg.taste_features / np.sqrt(looks.shape[1])
    else:
        looks, spread = _standardise(photo_statistics(photos)), STATISTICS_WEIGHT
    if cfg.users is not None:
        return _choices(visible, looks, spread, cfg.users, cfg, rng)
    n_users = max(len(items), FEWEST)
    while True:
        frame = _choices(visible, looks, spread, n_users, cfg, copy.deepcopy(rng))
        kept = frame["item"][split.k_core(*frame[["user", "item"]].to_numpy().T, cfg.k_core)].nunique()
        if kept >= KEPT * len(items) or n_users >= MOST * len(items):
            return frame
        n_users = min(round(GROWTH * n_users), MOST * len(items))


def _choices(visible, looks, spread, n_users, cfg, rng):
    """What `n_users` people choose by what is `visible` (a column per attribute) and by `looks` (I, L)."""
    n_items = len(looks)
    popularity = -POPULARITY_EXPONENT * np.log1p(rng.permutation(n_items))
    counts = _activity(n_users, cfg.interactions_per_user, cfg.k_core, n_items, rng)
    tastes = {name: _tastes(name, values, n_users, rng) for name, values in visible.items()}
    leanings = rng.normal(0, spread, (n_users, looks.shape[1]))
    codes = {name: visible[name].factorize(sort=True)[0] for name in visible}
    rows = []
    for start in range(0, n_users, CHUNK):
        block = slice(start, min(start + CHUNK, n_users))
        appeal = leanings[block] @ looks.T
        for name, taste in tastes.items():
            appeal += taste[block][:, codes[name]]
        odds = cfg.taste_strength * appeal + popularity + rng.gumbel(size=appeal.shape)
        ranked = np.argsort(-odds, axis=1)
        rows += [(user, ranked[user - start, : counts[user]]) for user in range(block.start, block.stop)]
    users = np.concatenate([np.full(len(chosen), user) for user, chosen in rows])
    return pd.DataFrame({"user": users, "item": np.concatenate([chosen for _, chosen in rows])})


def sees_with_extractor(cfg):
    """Do simulated users see with an extractor?"""
    return bool(cfg.taste_extractor) and cfg.taste_features > 0


def label(cfg):
    """What simulated feedback is called in tables."""
    return f"simulated, with tastes for what {cfg.taste_extractor} sees" if sees_with_extractor(cfg) else "simulated"


def attributes(items, photos, cfg):
    """What a shopper sees, a column per attribute: category, and the columns of `items` that tastes go by.

    Those are the ones that cfg.taste_columns names; where it is None all that is drawn of a drawn catalogue, none of
    a folder, whose columns may hold anything. Of a folder, and wherever columns are named, colour and texture are
    read off the photos unless a named column has them.
    Raises CatalogueError for a column that isn't there, or that has too many values for a taste."""
    drawn = cfg.source == "synthetic"
    named = [name for name in WEIGHTS if drawn and name in items and name != "category"]
    named = named if cfg.taste_columns is None else list(cfg.taste_columns)
    for name in named:
        if name not in items or name in ("item_id", "category"):
            known = ", ".join(column for column in items if column not in ("item_id", "category")) or "none"
            raise CatalogueError(
                f"data.taste_columns: no column {name!r} beside item_id and category; there are: {known}"
            )
        if (kinds := items[name].nunique()) > MOST_KINDS:
            raise CatalogueError(
                f"data.taste_columns: {name!r} has {kinds:,} values in {len(items):,} items; a column of kinds is "
                f"expected, of {MOST_KINDS:,} at most"
            )
    seen = items[["category", *named]].astype(str).reset_index(drop=True)
    if "style" in seen:  # a round watch says nothing about round glasses
        seen["style"] = seen["category"] + " " + seen["style"]
    if drawn and cfg.taste_columns is None:
        return seen
    if "colour" not in seen:
        seen["colour"] = dominant_colours(photos)
    if "texture" not in seen and not sees_with_extractor(cfg):  # features tell it
        detail = pd.Series(photo_statistics(photos)[:, 3])
        seen["texture"] = detail.rank(pct=True).mul(4).apply(np.ceil).astype(int).astype(str)
    return seen


def photo_statistics(photos):
    """(N, 4): luminance, saturation, contrast and high-frequency energy of each photo, in grey levels."""
    rows = np.empty((len(photos), 4))
    for start in range(0, len(photos), 512):
        x = np.asarray(photos[start : start + 512], np.float32)
        luminance = x @ np.array([0.299, 0.587, 0.114], np.float32)
        detail = np.abs(luminance[:, 1:-1, 1:-1] - _neighbours(luminance))
        rows[start : start + len(x)] = np.stack(
            [luminance.mean((1, 2)), (x.max(3) - x.min(3)).mean((1, 2)), luminance.std((1, 2)), detail.mean((1, 2))],
            axis=1,
        )
    return rows


def dominant_colours(photos):
    """Name of the palette colour nearest to most pixels in the middle of each photo, where the product is."""
    names = np.array(list(PALETTE))
    palette = np.array([PALETTE[name] for name in names], np.float32)
    side = photos.shape[1]
    middle = slice(side // 4, side - side // 4)
    best = []
    for photo in photos:
        pixels = np.asarray(photo)[middle, middle].reshape(-1, 3).astype(np.float32)
        nearest = ((pixels[:, None] - palette) ** 2).sum(2).argmin(1)
        best.append(np.bincount(nearest, minlength=len(names)).argmax())
    return names[best]


def _tastes(name, values, n_users, rng):
    """(users, distinct values, sorted): what each value of an attribute is worth to each user."""
    distinct = sorted(values.unique())
    tastes = rng.normal(0, WEIGHTS.get(name, OTHER_WEIGHT), (n_users, len(distinct)))
    if name == "colour" and set(distinct) <= set(PALETTE):
        rgb = np.array([PALETTE[value] for value in distinct]) / 255
        alike = np.exp(-((rgb[:, None] - rgb) ** 2).sum(2) / (2 * COLOUR_REACH**2))
        tastes = tastes @ np.linalg.cholesky(alike + 1e-6 * np.eye(len(rgb))).T
    return tastes


def _neighbours(grey):
    return (grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]) / 4


def _standardise(values):
    return (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)


def _activity(n_users, mean, least, n_items, rng):
    least = min(least + 2, mean)  # so that most users survive the k-core and keep something to hold out
    extra = rng.lognormal(-(ACTIVITY_SPREAD**2) / 2, ACTIVITY_SPREAD, n_users)
    return np.clip(np.round(least + (mean - least) * extra).astype(int), 1, max(1, n_items // 2))
