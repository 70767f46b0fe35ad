"""What a filter gives back and what it takes: feature and exposure recovery, and the price on clean photos."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from vars_core import ranking, stats
from vars_core.campaign import visibility
from vars_core.extractor import batches, to_photos
from vars_core.shop import Shop


def squared(change: np.ndarray) -> np.ndarray:
    """Mean squared change per image (A,) of standardised features (A, D)."""
    return np.square(change).mean(1)


def feature_recovery(clean, attacked, filtered, resamples: int = 1000, seed: int = 0) -> dict:
    """FR = 1 − E‖f(R(x′)) − f(x)‖² / E‖f(x′) − f(x)‖² from features (A, D); a row with its paired interval.

    1 = undone, 0 = nothing done, below 0 = worse than the attack."""
    left, harm = squared(filtered - clean), squared(attacked - clean)
    draws = stats.resampled_means(left, harm, n=resamples, rng=seed)
    low, high = np.quantile(1 - draws[0] / np.maximum(draws[1], 1e-12), [0.025, 0.975])
    return {"value": 1 - left.mean() / harm.mean(), "ci_low": low, "ci_high": high, "n": len(clean)}


def exposure_recovery(bare_clean, bare_attacked, filtered_clean, filtered_attacked, seed: int = 0) -> dict | None:
    """Rec = 1 − |ER(attacked, filtered) − ER(clean, filtered)| / |ER(attacked, none) − ER(clean, none)|.

    Arguments are exposure indicators (U, A). A row with its paired bootstrap interval over users and items, or
    None where the denominator does not exceed its own interval: no harm, nothing to recover."""
    arms = (bare_clean, bare_attacked, filtered_clean, filtered_attacked)
    draws = stats.resampled_means(*arms, rng=seed)
    harm = draws[1] - draws[0]
    low, high = np.quantile(harm, [0.025, 0.975])
    if low <= 0 <= high:
        return None
    clean, attacked, kept, left = (ranking.item_mean(arm) for arm in arms)
    value = 1 - abs(left - kept) / abs(attacked - clean)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without any harm is left out
        sample = 1 - np.abs(draws[3] - draws[2]) / np.abs(harm)
    low, high = np.quantile(sample[np.isfinite(sample)], [0.025, 0.975])
    return {"value": value, "ci_low": low, "ci_high": high, "n": bare_clean.shape[1]}


def clean_cost(bare: Shop, filtered: Shop, items) -> dict[str, dict]:
    """The price of a defence where nobody attacks: rows for clean_psnr (dB, over `items`), clean_feature_mse (over
    `items`), clean_ndcg_loss and clean_hr_loss (relative, over users, paired). `filtered` may differ from `bare` by a
    filter, an extractor or a recommender; what it leaves alone has no row."""
    photos = bare.photos(items)
    rows = {}
    if filtered.purifier is not None:
        psnr = visibility(photos, through(filtered.purifier, photos)).get("psnr")
        if psnr is not None:
            rows["clean_psnr"] = stats.estimate(psnr)
    if filtered.features is not bare.features:
        change = filtered.features[items] - bare.features[items]
        rows["clean_feature_mse"] = stats.estimate(squared(change))
    before, after = bare.accuracy(), filtered.accuracy()
    for name in ("ndcg", "hr"):
        key = f"{name}@{bare.k}"
        draws = stats.resampled_means(before[key], after[key])
        low, high = np.nanquantile(1 - draws[1] / np.where(draws[0] > 0, draws[0], np.nan), [0.025, 0.975])
        old, new = np.nanmean(before[key]), np.nanmean(after[key])
        if old > 0:
            n = int((~np.isnan(before[key])).sum())
            rows[f"clean_{name}_loss"] = {"value": 1 - new / old, "ci_low": low, "ci_high": high, "n": n}
    return rows


def through(purifier: nn.Module, photos: np.ndarray) -> np.ndarray:
    """uint8 photos after the filter (N, H, W, 3)."""
    return np.concatenate([to_photos(purifier(images)) for images in batches(photos)])


@dataclass(frozen=True)
class Harm:
    """What attacks do to an undefended shop, by name: the mark that every defence is measured against."""

    bare: Shop
    items: np.ndarray
    photos: dict[str, np.ndarray]
    served: dict[str, np.ndarray]  # f(x′) (A, D)
    exposed: dict[str, np.ndarray]  # (U, A)
    untouched: np.ndarray  # the same of the clean photos

    @classmethod
    def of(cls, bare: Shop, items, attacked: dict[str, np.ndarray]) -> "Harm":
        served = {name: bare.served(photos) for name, photos in attacked.items()}
        exposed = {name: ranking.exposed(bare.ranks_as(items, f), bare.k) for name, f in served.items()}
        return cls(bare, items, attacked, served, exposed, bare.exposed(items))


def recoveries(harm: Harm, filtered: Shop) -> list[dict]:
    """Tidy rows feature_recovery (where `filtered` sees photos otherwise) and exposure_recovery for each attack."""
    clean, kept = harm.bare.features[harm.items], filtered.exposed(harm.items)
    rows = []
    for name, photos in harm.photos.items():
        repaired = filtered.served(photos)
        left = ranking.exposed(filtered.ranks_as(harm.items, repaired), filtered.k)
        values = {"exposure_recovery": exposure_recovery(harm.untouched, harm.exposed[name], kept, left)}
        if filtered.features is not harm.bare.features:
            values = {"feature_recovery": feature_recovery(clean, harm.served[name], repaired)} | values
        rows += [{"attack": name, "metric": m, **row} for m, row in values.items() if row is not None]
    return rows
