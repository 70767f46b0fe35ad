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
    by_draw = np.stack([np.full(1000, 0.2), np.full(1000, 0.3)])
    hits = Hits(counts, by_draw, 1000)
    found = promises(hits, 0.5, [0.5, 255], SHAPE, error=0.01, served_error=0.001).set_index(["rule", "epsilon"])
    # a change of half a grey level: r = .0136; a chance of a half less a little is needed. One of four, one of three
    assert found.point["median", 0.5] == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert found.bound["median", 0.5] == pytest.approx((1 / 4 + 1 / 3) / 2 + 0.001, rel=0.06)
    assert found.bound["median", 0.5] > (1 / 4 + 1 / 3) / 2 + 0.001
    assert found.bound["median", 255] == 1 and found.bound["one", 255] == pytest.approx(1)
    limit, radius = certificate.mean_bound(np.full(1000, 0.25), 0.01 / 2), 0.5 * np.sqrt(48) / 255
    assert found.bound["one", 0.5] == pytest.approx(stats.norm.cdf(stats.norm.ppf(limit) + radius / 0.5))
    assert found.point["one", 0.5] == pytest.approx(stats.norm.cdf(stats.norm.ppf(0.25) + radius / 0.5))
    assert (found.bound >= found.point).all() and (found.sigma == 0.5).all()
    first = promises(hits.first(1), 0.5, [0.5], SHAPE, error=0.01, served_error=0.0).set_index("rule")
    assert first.point["median"] == 1 / 4 and first.point["one"] < found.point["one", 0.5]


@pytest.mark.parametrize("radius", [0.05, 0.4, 1.5])
def test_the_mean_of_bounds_by_item_is_no_more_than_that_of_the_mean(radius):
    shares = np.random.default_rng(1).beta(0.2, 3, 50)
    by_item = certificate.expected_exposure(shares, radius, 0.25).mean()
    assert by_item <= certificate.expected_exposure(shares.mean(), radius, 0.25)


def test_where_scores_are_linear_the_true_reach_is_below_the_bound():
    rng = np.random.default_rng(0)
    chances = rng.beta(0.2, 4, (50, 6))
    draws, sigma = 400, 0.25
    told = promises(
        Hits(rng.binomial(draws, chances).astype(float), np.clip(rng.normal(0.05, 0.01, (6, draws)), 0, 1), draws),
        sigma, [1, 4, 8], SHAPE, error=0.001, served_error=0.0,
    ).query("rule == 'median'").set_index("epsilon")  # fmt: skip
    for epsilon in (1, 4, 8):
        needed = certificate.chance_needed(certificate.radius(epsilon, SHAPE), sigma)
        assert (chances >= needed).mean() <= told.bound[epsilon]
    assert told.bound.is_monotonic_increasing and (told.point <= told.bound).all()
