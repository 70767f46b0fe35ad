"""The table of promises: by hand where counts are small, and never below what is true where draws are simulated."""

import numpy as np
import pytest
from scipy import stats

from vars_core.adaptive import certificate
from vars_core.adaptive.promises import promises
from vars_core.adaptive.randomised import Hits

SHAPE = (3, 4, 4)


def test_by_hand():
    counts = np.array([[0, 0], [0, np.nan], [0, 900], [1000, 0]])
    by_draw = np.full((2, 1000), 0.25)
    found = promises(Hits(counts, by_draw, 1000), 0.5, [0.5, 255], SHAPE, error=0.01, served_error=0.001)
    rows = found.groupby(["rule", "epsilon"])[["bound", "point"]].mean()
    # a change of half a grey level: r = .0136; a chance of a half less a little is needed. One of four, one of three
    assert rows.bound["median", 0.5] == pytest.approx((1 / 4 + 1 / 3) / 2 + 0.001)
    assert rows.point["median", 0.5] == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert rows.bound["median", 255] == 1 and rows.bound["one", 255] == pytest.approx(1)
    limit = certificate.mean_bound(by_draw[0], 0.01 / 2 / 2)
    radius = 0.5 * np.sqrt(48) / 255
    assert rows.bound["one", 0.5] == pytest.approx(stats.norm.cdf(stats.norm.ppf(limit) + radius / 0.5))
    assert (found.bound >= found.point).all() and found.item.tolist() == [0, 1] * 4
    first = found.query("item == 0 and rule == 'median'").bound
    np.testing.assert_allclose(first, [1 / 4 + 0.001, 1.0])


def test_where_scores_are_linear_the_true_reach_is_below_the_bound():
    rng = np.random.default_rng(0)
    chances = rng.beta(0.2, 4, (50, 6))
    draws, sigma = 400, 0.25
    told = promises(
        Hits(rng.binomial(draws, chances).astype(float), np.clip(rng.normal(0.05, 0.01, (6, draws)), 0, 1), draws),
        sigma, [1, 4, 8], SHAPE, error=0.001, served_error=0.0,
    ).query("rule == 'median'").groupby("epsilon")[["bound", "point"]].mean()  # fmt: skip
    for epsilon in (1, 4, 8):
        needed = certificate.chance_needed(certificate.radius(epsilon, SHAPE), sigma)
        assert (chances >= needed).mean() <= told.bound[epsilon]
    assert told.bound.is_monotonic_increasing and (told.point <= told.bound).all()
