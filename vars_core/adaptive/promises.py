"""What counted draws let a shop promise: the two bounds of `certificate`, over items and budgets, in one table."""

import numpy as np
import pandas as pd

from vars_core.adaptive import certificate
from vars_core.adaptive.randomised import Hits


def promises(
    hits: Hits, sigma: float, epsilons, shape: tuple[int, ...], *, error: float, served_error: float
) -> pd.DataFrame:
    """Shares of lists that no change within ε reaches, for `hits` of photos of `shape`, such as (3, 64, 64), as they
    are: one row per ε and rule, with `bound` and what the bound would be if the counted shares were exact (`point`).

    All bounds of the table hold together with probability ≥ 1 − `error`: half of it goes to each rule, and there in
    equal parts to items (*one*) or to users and items (*median*). A user whose chance is below a half gets an item by
    the median of finitely many draws, still, with probability ≤ `served_error`; that much is added: it bounds the
    expected share of such lists."""
    counts, pairs = hits.counts, np.isfinite(hits.counts)
    chances = np.where(pairs, 1.0, np.nan)
    chances[pairs] = certificate.chance_bound(counts[pairs], hits.draws, error / 2 / pairs.sum())
    means = np.array([certificate.mean_bound(shares, error / 2 / len(hits.by_draw)) for shares in hits.by_draw])
    rows = []
    for epsilon in epsilons:
        radius = certificate.radius(epsilon, shape)
        bounds = {"median": (_reached(chances, radius, sigma) + served_error, _reached(hits.shares, radius, sigma))}
        bounds["one"] = tuple(
            certificate.expected_exposure(values, radius, sigma).mean() for values in (means, hits.by_draw.mean(1))
        )
        for rule, (bound, point) in bounds.items():
            row = {"sigma": sigma, "epsilon": epsilon, "rule": rule, "bound": min(1.0, bound), "point": point}
            rows.append(row | {"draws": hits.draws, "n": counts.shape[1]})
    return pd.DataFrame(rows)


def _reached(chances, radius: float, sigma: float) -> float:
    """The share of users within reach, averaged over items."""
    return float(np.nanmean(certificate.within_reach(chances, radius, sigma), axis=0).mean())
