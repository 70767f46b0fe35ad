"""What counted draws let a shop promise: the two bounds of `certificate`, by item and budget, in one table."""

import numpy as np
import pandas as pd

from vars_core.adaptive import certificate
from vars_core.adaptive.randomised import Hits


def promises(
    hits: Hits, sigma: float, epsilons, shape: tuple[int, ...], *, error: float, served_error: float
) -> pd.DataFrame:
    """Shares of lists that no change within ε exceeds, for `hits` of photos of `shape`, such as (3, 64, 64), as they
    are: one row per item (its place among those of `hits`), ε and rule of serving, with `bound`, and `point`, what it
    would be if the counted shares were exact. Means of bounds over items are bounds of the means.

    All bounds of the table hold together with probability ≥ 1 − `error`: half of it goes to each rule, and there in
    equal parts to items (*one*) or to users and items (*median*). A user whose chance is below a half gets an item by
    the median of finitely many draws, still, with probability ≤ `served_error`; that much is added: it bounds the
    expected share of such lists."""
    counts, pairs = hits.counts, np.isfinite(hits.counts)
    chances = np.where(pairs, 1.0, np.nan)
    chances[pairs] = certificate.chance_bound(counts[pairs], hits.draws, error / 2 / pairs.sum())
    means = np.array([certificate.mean_bound(shares, error / 2 / len(hits.by_draw)) for shares in hits.by_draw])
    tables = []
    for epsilon in epsilons:
        radius = certificate.radius(epsilon, shape)
        median, median_point, one, one_point = (
            np.nanmean(certificate.within_reach(chances, radius, sigma), axis=0) + served_error,
            np.nanmean(certificate.within_reach(hits.shares, radius, sigma), axis=0),
            *(certificate.expected_exposure(values, radius, sigma) for values in (means, hits.by_draw.mean(1))),
        )
        about = {"item": np.arange(counts.shape[1]), "sigma": sigma, "epsilon": float(epsilon)}
        for rule, bound, point in (("one", one, one_point), ("median", median, median_point)):
            tables.append(pd.DataFrame(about | {"rule": rule, "bound": np.minimum(bound, 1.0), "point": point}))
    return pd.concat(tables, ignore_index=True)
