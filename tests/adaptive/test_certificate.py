"""Bounds of the certificate: by hand, by simulation, and under attack where the truth is known in closed form."""

import math

import numpy as np
import pytest
from scipy import stats

from vars_core.adaptive import certificate


def test_the_radius_of_a_grey_level():
    assert certificate.radius(1, (3, 64, 64)) == pytest.approx(0.4348, abs=1e-4)
    assert certificate.radius(4, (3, 64, 64)) == pytest.approx(4 * math.sqrt(12288) / 255)
    assert certificate.radius(0, (3, 64, 64)) == 0


def test_clopper_pearson_by_hand():
    # no hit in n: (1 − p)^n = error
    assert certificate.chance_bound(0, 340, 1e-3) == pytest.approx(1 - 1e-3 ** (1 / 340))
    # all of n but none missing: 1; one of two: P(X ≤ 1) = 1 − p² = error
    assert certificate.chance_bound([2, 1], 2, 0.19).tolist() == pytest.approx([1, 0.9])


@pytest.mark.parametrize("chance", [0.0, 0.003, 0.05, 0.4, 0.97])
def test_chance_bounds_hold_as_often_as_they_say(chance):
    rng = np.random.default_rng(0)
    bounds = certificate.chance_bound(rng.binomial(200, chance, 20_000), 200, 0.05)
    missed = (bounds < chance).mean()
    assert missed <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 20_000)
    assert chance in (0.0, 0.97, 0.003) or missed > 0.02  # and are no wider than need be


def test_share_bounds_by_hand():
    # Bin(3, ½): P(0) = ⅛, above 0.9 / 20: no count is that rare
    hits = np.array([[0.0, 2], [1, np.nan], [3, 0], [0, 1]])
    assert certificate.share_bound(hits, 3, 0.5, 0.9) == 1
    # Bin(10, ½): P(0) = 1/1024, P(≤ 1) = 11/1024; 0.04 / 20 lies between. Above 0: two of four, two of three
    wide = certificate.share_bound(hits, 10, 0.5, 0.04)
    assert wide == pytest.approx((2 / 4 + 2 / 3) / 2 / (1 - 1 / 1024 / 0.04))
    # 0.25 / 20 is above 11/1024: one hit isn't enough now
    assert certificate.share_bound(hits, 10, 0.5, 0.25) == pytest.approx((1 / 4 + 1 / 3) / 2 / (1 - 11 / 1024 / 0.25))


@pytest.mark.parametrize("together", [False, True])
def test_share_bounds_hold_as_often_as_they_say(together):
    """Half of the users have just the chance in question, for whom it is hardest; drawn apart, or all at once."""
    rng, missed, error, draws, chance = np.random.default_rng(3), 0, 0.05, 60, 0.1
    chances = np.where(np.arange(40) < 20, chance, 0.01)[:, None]
    for _ in range(2000):
        uniform = rng.random((1 if together else 40, draws))
        hits = (uniform < chances).sum(1, keepdims=True).astype(float)
        missed += certificate.share_bound(hits, draws, chance, error) < 0.5
    assert missed / 2000 <= error + 3 * math.sqrt(error * (1 - error) / 2000)


def test_share_bounds_are_tighter_than_one_for_each_user():
    rng, draws, error = np.random.default_rng(4), 480, 1e-4
    hits = rng.binomial(draws, rng.beta(0.05, 5, (1000, 30))).astype(float)
    for chance in (0.04, 0.2):
        each = (certificate.chance_bound(hits, draws, error / hits.size) >= chance).mean()
        assert (hits / draws >= chance).mean() < certificate.share_bound(hits, draws, chance, error) < each


DRAWS = {
    "rare": lambda rng, n: rng.random(n) < 0.004,
    "half": lambda rng, n: rng.random(n) < 0.5,
    "narrow": lambda rng, n: rng.uniform(0.01, 0.03, n),
    "skewed": lambda rng, n: rng.beta(0.1, 4, n),
}
MEANS = {"rare": 0.004, "half": 0.5, "narrow": 0.02, "skewed": 0.1 / 4.1}


@pytest.mark.parametrize("kind", DRAWS)
def test_mean_bounds_hold_as_often_as_they_say(kind):
    rng = np.random.default_rng(1)
    bounds = np.array([certificate.mean_bound(DRAWS[kind](rng, 400), 0.05) for _ in range(1500)])
    assert (bounds < MEANS[kind]).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
    hoeffding = MEANS[kind] + math.sqrt(math.log(20) / 800)
    assert np.median(bounds) < (hoeffding + 0.01 if kind == "half" else hoeffding - 0.01)  # rare ones cost little


def test_mean_bounds_at_the_ends():
    assert certificate.mean_bound(np.ones(50), 0.01) == 1
    assert certificate.mean_bound(np.zeros(2000), 1e-3) < 0.01
    assert certificate.mean_bound([0.3], 1e-3) == 1  # one draw says nothing


def test_what_the_promises_say_by_hand():
    # Φ(Φ⁻¹(0.0228) + 2) = ½
    assert certificate.expected_exposure(stats.norm.cdf(-2), 0.5, 0.25) == pytest.approx(0.5)
    assert certificate.expected_exposure(0.0, 9.0, 0.1) == 0 and certificate.expected_exposure(1.0, 0.0, 0.1) == 1
    assert certificate.chance_needed(0.5, 0.25) == pytest.approx(0.02275, abs=1e-5)
    got = certificate.within_reach([0.01, 0.03, np.nan, 0.5], 0.5, 0.25)
    np.testing.assert_array_equal(got, [0, 1, np.nan, 1])


@pytest.mark.parametrize("sigma", [0.1, 0.25, 1.0])
def test_promises_weaken_with_the_budget_and_strengthen_with_noise(sigma):
    rng, radii = np.random.default_rng(2), np.linspace(0, 2, 9)
    bounds = rng.beta(0.3, 3, 500)
    reached = [np.nanmean(certificate.within_reach(bounds, r, sigma)) for r in radii]
    expected = [certificate.expected_exposure(bounds.mean(), r, sigma) for r in radii]
    assert (np.diff(reached) >= 0).all() and (np.diff(expected) >= 0).all() and expected[0] < expected[1]
    assert all(
        np.nanmean(certificate.within_reach(bounds, r, 2 * sigma)) <= now
        for r, now in zip(radii, reached, strict=True)
    )
    assert reached[0] == (bounds >= 0.5).mean()


def test_votes_and_draws():
    assert certificate.votes_needed(2, 0.25) == 2 and certificate.votes_needed(2, 0.75) == 1
    for draws, error in ((10, 1e-3), (64, 1e-4), (1000, 1e-6)):
        votes = certificate.votes_needed(draws, error)
        assert stats.binom.sf(votes - 1, draws, 0.5) <= error < stats.binom.sf(votes - 2, draws, 0.5)
        assert votes <= draws / 2 + math.sqrt(draws * math.log(1 / error) / 2) + 1  # Hoeffding's
    with pytest.raises(ValueError, match="10 draws can't rule out a half"):
        certificate.votes_needed(10, 1e-6)
    n = certificate.draws_needed(1.0, 0.5, 1e-6)
    needed = certificate.chance_needed(1.0, 0.5)
    assert certificate.chance_bound(0, n, 1e-6) <= needed < certificate.chance_bound(0, n - 1, 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_no_change_exceeds_its_bound_where_scores_are_linear(seed):
    """A linear score w·(x + η) has p_u = Φ((w·x − t) / (σ‖w‖)), and the worst change of length r is r·w/‖w‖: that one
    meets the bound, and no other gets further."""
    rng = np.random.default_rng(seed)
    sigma, length, d, users = 0.3, 0.5, 20, 40
    x, heads, limits = rng.normal(size=d), rng.normal(size=(users, d)), rng.normal(2, 2, users)
    norms = np.linalg.norm(heads, axis=1)
    chance = stats.norm.cdf((heads @ x - limits) / (sigma * norms))
    reachable = certificate.within_reach(chance, length, sigma).astype(bool)
    for user in range(users):
        worst = x + length * heads[user] / norms[user]
        assert ((heads[user] @ worst - limits[user]) >= 0) == reachable[user]
    for change in rng.normal(size=(300, d)):
        moved = x + length * change / np.linalg.norm(change)
        assert not ((heads @ moved >= limits) & ~reachable).any()


@pytest.mark.parametrize(
    "call",
    [
        lambda: certificate.radius(-1, (3, 8, 8)),
        lambda: certificate.radius(math.nan, (3, 8, 8)),
        lambda: certificate.chance_bound([3], 2, 0.1),
        lambda: certificate.chance_bound([-1], 2, 0.1),
        lambda: certificate.chance_bound([1], 2, 0),
        lambda: certificate.share_bound([1, 2], 2, 0.1, 0.1),
        lambda: certificate.share_bound([[3]], 2, 0.1, 0.1),
        lambda: certificate.share_bound([[math.nan]], 2, 0.1, 0.1),
        lambda: certificate.mean_bound([], 0.1),
        lambda: certificate.mean_bound([0.5, 1.5], 0.1),
        lambda: certificate.mean_bound([0.5, math.nan], 0.1),
        lambda: certificate.chance_needed(1, 0),
        lambda: certificate.votes_needed(10, 1),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError, match="got"):
        call()
