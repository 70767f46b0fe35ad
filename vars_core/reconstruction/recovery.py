"""What a filter gives back and what it takes: feature and exposure recovery, and the price on clean photos."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from vars_core import stats
from vars_core.attacks.campaign import perceptual_metrics
from vars_core.extractor import batches, to_photos
from vars_core.recommender import attack_metrics
from vars_core.recommender.shop import Shop


def feature_mse(change: np.ndarray) -> np.ndarray:
    """Mean squared change per image (A,) of standardised features (A, D)."""
    return np.square(change).mean(1)


def feature_recovery(clean, attacked, filtered, resamples: int = 1000, seed: int = 0) -> dict | None:
    """FR = 1 − E‖f(R(x′)) − f(x)‖² / E‖f(x′) − f(x)‖² from features (A, D); a row with its paired interval.

    1 = undone, 0 = nothing done, below 0 = worse than the attack. None where the attack moved no feature: no harm,
    nothing to recover."""
    left, harm = feature_mse(filtered - clean), feature_mse(attacked - clean)
    if not harm.any():
        return None
    draws = stats.resampled_means(left, harm, n=resamples, rng=seed)
    low, high = np.quantile(1 - draws[0] / np.maximum(draws[1], 1e-12), [0.025, 0.975])
    return {"value": 1 - left.mean() / harm.mean(), "ci_low": low, "ci_high": high, "n": len(clean)}


def exposure_recovery(
    undefended_clean, undefended_attacked, filtered_clean, filtered_attacked, seed: int = 0
) -> dict | None:
    """Rec = 1 − |ER(attacked, filtered) − ER(clean, filtered)| / |ER(attacked, none) − ER(clean, none)|.

    Arguments are exposure indicators (U, A). A row with its paired bootstrap interval over users and items, or
    None where the denominator does not exceed its own interval: no harm, nothing to recover."""
    arms = (undefended_clean, undefended_attacked, filtered_clean, filtered_attacked)
    draws = stats.resampled_means(*arms, rng=seed)
    harm = draws[1] - draws[0]
    low, high = np.quantile(harm, [0.025, 0.975])
    if low <= 0 <= high:
        return None
    clean, attacked, kept, left = (attack_metrics.item_mean(arm) for arm in arms)
    value = 1 - abs(left - kept) / abs(attacked - clean)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without any harm is left out
        sample = 1 - np.abs(draws[3] - draws[2]) / np.abs(harm)
    low, high = np.quantile(sample[np.isfinite(sample)], [0.025, 0.975])
    return {"value": value, "ci_low": low, "ci_high": high, "n": undefended_clean.shape[1]}


def clean_cost(undefended: Shop, filtered: Shop, items) -> dict[str, dict]:
    """The price of a defence where nobody attacks: rows for clean_psnr (dB, over `items`), clean_feature_mse (over
    `items`), clean_ndcg_loss and clean_hr_loss (relative, over users, paired). `filtered` may differ from
    `undefended` by a filter, an extractor or a recommender; what it leaves alone has no row."""
    photos = undefended.photos(items)
    rows = {}
    if filtered.image_filter is not None:
        psnr = perceptual_metrics(photos, filtered_photos(filtered.image_filter, photos)).get("psnr")
        if psnr is not None:
            rows["clean_psnr"] = stats.estimate(psnr)
    if filtered.features is not undefended.features:
        change = filtered.features[items] - undefended.features[items]
        rows["clean_feature_mse"] = stats.estimate(feature_mse(change))
    before, after = undefended.accuracy(), filtered.accuracy()
    for name in ("ndcg", "hr"):
        key = f"{name}@{undefended.k}"
        draws = stats.resampled_means(before[key], after[key])
        low, high = np.nanquantile(1 - draws[1] / np.where(draws[0] > 0, draws[0], np.nan), [0.025, 0.975])
        old, new = np.nanmean(before[key]), np.nanmean(after[key])
        if old > 0:
            n = int((~np.isnan(before[key])).sum())
            rows[f"clean_{name}_loss"] = {"value": 1 - new / old, "ci_low": low, "ci_high": high, "n": n}
    return rows


def filtered_photos(image_filter: nn.Module, photos: np.ndarray) -> np.ndarray:
    """uint8 photos after the filter (N, H, W, 3)."""
    return np.concatenate([to_photos(image_filter(images)) for images in batches(photos)])


@dataclass(frozen=True)
class UndefendedOutcome:
    """What attacks do to an undefended shop, by name: the mark that every defence is measured against."""

    undefended: Shop
    items: np.ndarray
    photos: dict[str, np.ndarray]
    served: dict[str, np.ndarray]  # f(x′) (A, D)
    exposed: dict[str, np.ndarray]  # (U, A)
    untouched: np.ndarray  # the same of the clean photos

    @classmethod
    def of(cls, undefended: Shop, items, attacked: dict[str, np.ndarray]) -> "UndefendedOutcome":
        served = {name: undefended.served_features(photos) for name, photos in attacked.items()}
        exposed = {
            name: attack_metrics.exposed(undefended.ranks_with(items, f), undefended.k) for name, f in served.items()
        }
        return cls(undefended, items, attacked, served, exposed, undefended.exposed(items))


def recoveries(undefended: UndefendedOutcome, filtered: Shop) -> list[dict]:
    """Tidy rows feature_recovery (where `filtered` sees photos otherwise) and exposure_recovery for each attack."""
    clean, kept = undefended.undefended.features[undefended.items], filtered.exposed(undefended.items)
    rows = []
    for name, photos in undefended.photos.items():
        repaired = filtered.served_features(photos)
        left = attack_metrics.exposed(filtered.ranks_with(undefended.items, repaired), filtered.k)
        values = {"exposure_recovery": exposure_recovery(undefended.untouched, undefended.exposed[name], kept, left)}
        if filtered.features is not undefended.undefended.features:
            values = {"feature_recovery": feature_recovery(clean, undefended.served[name], repaired)} | values
        rows += [{"attack": name, "metric": m, **row} for m, row in values.items() if row is not None]
    return rows
