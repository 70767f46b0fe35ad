"""What counted draws let a shop promise: the two bounds of `certificate`, by budget, in one table."""

import numpy as np
import pandas as pd

from vars_core.adaptive import certificate
from vars_core.adaptive.randomised import Hits


def promises(
    hits: Hits, sigma: float, epsilons, shape: tuple[int, ...], *, error: float, served_error: float
) -> pd.DataFrame:
    """Shares of lists that no change within ε exceeds, on average over the items of `hits`, which counts photos of
    `shape`, such as (3, 64, 64), as they are: one row per ε and rule of serving, with `bound`, and `point`, what it
    would be if the counted shares were exact. By the median the counts are of the draws that vote on an upload.

    All bounds of the table hold together with probability ≥ 1 − `error`: half of it goes to each rule, and by the
    median in equal parts to the budgets. By one draw the bound is that of the items' mean exposure, which is no less
    than the mean of theirs, as Φ(Φ⁻¹(g) + r/σ) is concave in g. A user whose chance is below a half gets an item by
    the median of finitely many draws, still, with probability ≤ `served_error`; that much is added: it bounds the
    expected share of such lists."""
    mean = certificate.mean_bound(hits.by_draw.mean(0), error / 2)
    rows = []
    for epsilon in epsilons:
        radius = certificate.radius(epsilon, shape)
        needed = certificate.chance_needed(radius, sigma)
        median = certificate.share_bound(hits.counts, hits.draws, needed, error / 2 / len(epsilons)) + served_error
        median_point = np.nanmean(certificate.within_reach(hits.shares, radius, sigma), axis=0).mean()
        one, one_point = (
            certificate.expected_exposure(value, radius, sigma) for value in (mean, hits.by_draw.mean())
        )
        about = {"sigma": sigma, "epsilon": float(epsilon)}
        for rule, bound, point in (("one", one, one_point), ("median", median, median_point)):
            rows.append(about | {"rule": rule, "bound": float(min(bound, 1.0)), "point": float(point)})
    return pd.DataFrame(rows)
