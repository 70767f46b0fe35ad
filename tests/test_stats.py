"""Intervals against scipy, and against loops that resample one row at a time."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from vars_core import stats
from vars_core.recommender import attack_metrics


def test_bootstrap_of_a_vector_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=200)
    low, high = stats.bootstrap_ci(values, n=4000, rng=1)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.15 * (high - low))


def test_matrix_means_are_those_of_resampled_rows_and_columns():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 4))
    values[0, 1] = values[3, 3] = np.nan
    found = stats.resampled_means(values, n=50, rng=5)[0]
    again = np.random.default_rng(5)
    users, items = again.integers(7, size=(50, 7)), again.integers(4, size=(50, 4))
    for sample in range(50):
        drawn = values[np.ix_(users[sample], items[sample])]
        assert found[sample] == pytest.approx(attack_metrics.item_mean(drawn), abs=1e-9)


def test_resampling_items_too_widens_the_interval():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(1, 10)), 500, axis=0) + 0.1 * rng.normal(size=(500, 10))
    low, high = stats.bootstrap_ci(values, rng=0)
    expected = 2 * 1.96 * values.mean(0).std() / np.sqrt(10)
    assert high - low == pytest.approx(expected, rel=0.15)


def test_paired_difference_cancels_what_arms_share():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(300, 20)) + rng.normal(size=(300, 1))
    better = common + 0.1
    low, high = stats.bootstrap_ci(better, paired=common, rng=0)
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)
    assert stats.bootstrap_p(better, common) < 0.01
    assert stats.bootstrap_p(common, common) == 1


def test_coverage_is_near_nominal():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = stats.bootstrap_ci(rng.normal(size=80), n=400, rng=trial)
        hits += low <= 0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_same_seed_same_interval():
    values = np.random.default_rng(0).normal(size=(30, 5))
    assert stats.bootstrap_ci(values, rng=3) == stats.bootstrap_ci(values, rng=np.random.default_rng(3))
    assert stats.bootstrap_ci(values, rng=3) != stats.bootstrap_ci(values, rng=4)


@pytest.mark.parametrize(("k", "n"), [(0, 20), (20, 20), (3, 50), (481, 1000)])
def test_wilson_agrees_with_scipy(k, n):
    theirs = scipy_stats.binomtest(k, n).proportion_ci(method="wilson")
    assert stats.wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_rates_of_zero_are_bounds():
    assert stats.rate_text(0, 150) == "≤ 3/150"
    assert stats.rate_text(3, 150) == "2.0%"


def test_mean_ci_agrees_with_scipy():
    values = np.array([0.1, 0.4, 0.2])
    theirs = scipy_stats.ttest_1samp(values, 0).confidence_interval()
    assert stats.mean_ci(values) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert stats.mean_ci([0.3]) == (0.3, 0.3)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: stats.bootstrap_ci(np.full(3, np.nan)), "no value"),
        (lambda: stats.bootstrap_ci(np.zeros(3), paired=np.zeros(4)), "share one non-empty"),
        (lambda: stats.bootstrap_ci([]), "non-empty"),
        (lambda: stats.wilson(3, 2), "k \\(3\\) must not be greater than n \\(2\\)"),
        (lambda: stats.mean_ci([]), "no values"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_over_seeds_by_hand():
    rows = pd.DataFrame({"measure": ["b", "a", "b", "a"], "value": [1.0, 5.0, 3.0, 5.0]})
    table = stats.over_seeds(rows)
    assert list(table.index) == ["b", "a"] and table["mean"].tolist() == [2, 5]
    half = 12.706 * np.sqrt(2) / np.sqrt(2)  # t of one degree of freedom, standard deviation √2
    assert table.loc["b"].tolist() == pytest.approx([2, 2 - half, 2 + half], rel=1e-3)
    assert table.loc["a"].tolist() == [5, 5, 5]


def test_a_difference_is_paired_and_has_its_sign():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(60, 12))
    row = stats.difference(base + 0.3 + 0.01 * rng.normal(size=base.shape), base)
    assert row["value"] == pytest.approx(0.3, abs=0.005) and row["n"] == 12
    assert 0.29 < row["ci_low"] < row["value"] < row["ci_high"] < 0.31
    apart = stats.difference(rng.normal(size=(60, 12)) + 0.3, base)
    assert apart["ci_high"] - apart["ci_low"] > 10 * (row["ci_high"] - row["ci_low"])
