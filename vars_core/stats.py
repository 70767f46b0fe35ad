"""Intervals and tests: bootstrap over users and items, Wilson, Student, Holm.

Bootstrap weights are drawn once as counts and applied by matrix products, so a thousand resamples of a
(users, items) matrix cost two products. Arms that are compared share their resamples (paired).
"""

import numpy as np
import pandas as pd
from scipy import stats as distributions

_BLOCK = 250  # resamples weighted at once: bounds memory at 250 × users


def _generator(rng) -> np.random.Generator:
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)


def _counts(rng, n: int, size: int) -> np.ndarray:
    """How often each of `size` rows is drawn, in n bootstrap samples: float (n, size)."""
    drawn = rng.integers(size, size=(n, size)) + size * np.arange(n)[:, None]  # ten times as fast as multinomial
    return np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size).astype(float)


def resampled_means(*arms, n: int = 1000, rng=0) -> np.ndarray:
    """Means of each arm under the same n bootstrap resamples: (len(arms), n).

    An arm is (users,) or (users, items), NaN = left out; all arms have one shape. Rows are resampled, and of
    a matrix the columns too; a matrix is averaged over users first, then over items, as `attack_metrics.item_mean`.
    Any statistic of several arms (a difference, a ratio) can be computed from the result, paired.
    """
    arms = [np.asarray(arm, float) for arm in arms]
    shape = arms[0].shape
    if any(arm.shape != shape for arm in arms) or len(shape) not in (1, 2) or 0 in shape:
        raise ValueError(f"arms must share one non-empty (users,) or (users, items) shape: {[a.shape for a in arms]}")
    arms = [arm.reshape(shape[0], -1) for arm in arms]
    known = [~np.isnan(arm) for arm in arms]
    if not all(k.any() for k in known):
        raise ValueError("an arm holds no value at all, only NaN")
    filled = [np.where(k, arm, 0) for arm, k in zip(arms, known, strict=True)]
    rng, out = _generator(rng), []
    for start in range(0, n, _BLOCK):
        size = min(_BLOCK, n - start)
        users = _counts(rng, size, shape[0])
        items = _counts(rng, size, shape[1]) if len(shape) == 2 else np.ones((size, 1))
        out.append([_weighted(users, items, f, k) for f, k in zip(filled, known, strict=True)])
    return np.concatenate(out, axis=1)


def _weighted(users, items, filled, known) -> np.ndarray:
    # (n, items): how many known values of the item the resample holds
    drawn = users.sum(1, keepdims=True) if known.all() else users @ known
    per_item = users @ filled / np.maximum(drawn, 1)
    items = items * (drawn > 0)
    total = items.sum(1)
    return np.where(total > 0, (per_item * items).sum(1) / np.maximum(total, 1), np.nan)


def _percentiles(replicates, level) -> tuple[float, float]:
    low, high = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_ci(values, n: int = 1000, rng=0, *, paired=None, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean of `values`, or of its difference to `paired` (same users and items).

    `values` (n,) or (users, items); NaN = left out. `rng` is a Generator or a seed. Deterministic for a seed.
    """
    arms = [values] if paired is None else [values, paired]
    means = resampled_means(*arms, n=n, rng=rng)
    return _percentiles(means[0] if paired is None else means[0] - means[1], level)


def difference(values, paired, rng=0) -> dict[str, float]:
    """The same numbers as `estimate`'s, of how much larger `values` are than `paired` (the same users and items)."""
    one, other = estimate(values, rng), estimate(paired, rng)
    low, high = bootstrap_ci(values, rng=rng, paired=paired)
    return {"value": one["value"] - other["value"], "ci_low": low, "ci_high": high, "n": one["n"]}


def bootstrap_p(values, paired, n: int = 2000, rng=0) -> float:
    """Two-sided bootstrap p-value of "the paired difference is 0", never below 2 / (n + 1)."""
    first, second = resampled_means(values, paired, n=n, rng=rng)
    difference = first - second
    tail = min((difference <= 0).sum(), (difference >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (n + 1)))


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of k successes in n trials. Wilson 1927. Raises ValueError unless 0 ≤ k ≤ n, n ≥ 1."""
    interval = distributions.binomtest(k, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def rate_text(k: int, n: int) -> str:
    """A rate as a reader should see it: "≤ 3/n" for none of n (the rule of three), else per cent."""
    return f"≤ 3/{n}" if k == 0 else f"{k / n:.1%}"


def mean_ci(values, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of a few independent values, such as seeds; of one value that value."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("no values to average")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    low, high = distributions.t.interval(level, len(values) - 1, values.mean(), distributions.sem(values))
    return float(low), float(high)


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """mean, ci_low and ci_high (Student's t) of `value` over the rows of each `measure`, in their order."""
    values = rows.groupby("measure", sort=False).value.apply(list)
    table = {measure: (np.mean(found), *mean_ci(found)) for measure, found in values.items()}
    return pd.DataFrame(table, index=["mean", "ci_low", "ci_high"]).T.rename_axis("measure")


def holm(p_values) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given. Holm 1979."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def estimate(values, rng=0) -> dict[str, float]:
    """A row's numbers: value, ci_low, ci_high, n of values (users,) or (users, items), as `bootstrap_ci`.

    n is the number of items of a matrix, of users of a vector, that hold any value."""
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    columns = values.reshape(len(values), -1)
    per_item = np.nanmean(columns[:, known.reshape(len(values), -1).any(0)], axis=0)
    low, high = bootstrap_ci(values, rng=rng)
    n = len(per_item) if values.ndim == 2 else int(known.sum())
    return {"value": float(per_item.mean()), "ci_low": low, "ci_high": high, "n": n}
