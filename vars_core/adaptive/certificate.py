"""What no attack within a budget can exceed: certified exposure of a shop that adds Gaussian noise to each photo.

A photo x is served through x + η, η ~ N(0, σ²I), and whatever follows: filter, extractor, recommender, detector. Two
promises for every change ‖δ‖₂ ≤ r, neither of which asks what those are or what the attacker knows of them:

*A draw per serving.* h(z) in [0, 1] is the share of lists that z enters, g(x) = E h(x + η). Φ⁻¹∘g is 1/σ-Lipschitz
(Salman et al. 2019, Lemma 2), so g(x + δ) ≤ Φ(Φ⁻¹(g(x)) + r/σ).

*The median of n draws.* p_u(x) is the chance that x + η enters user u's list. By the same lemma p_u(x + δ) is at
least ½ only where p_u(x) ≥ Φ(−r/σ) (median smoothing: Chiang et al. 2020); the share of those users is the most that
any change can reach.

g and p_u are estimated from draws of the photo as it is. Every bound is one-sided and holds at its confidence for any
number of draws: a sampling error makes a promise weaker, never stronger.
"""

import math

import numpy as np
from scipy import optimize, stats


def radius(epsilon: float, shape: tuple[int, ...]) -> float:
    """The ℓ2 radius r, in [0, 1] units, of every change of at most `epsilon` grey levels a value: ε √d / 255.

    `shape` is an image's, such as (3, 64, 64). Colours end at 0 and 1, so r may be more than is needed."""
    if not epsilon >= 0:
        raise ValueError(f"epsilon is a number of grey levels, at least 0; got {epsilon}")
    return epsilon * math.sqrt(math.prod(shape)) / 255


def chance_bound(hits, draws: int, error: float) -> np.ndarray:
    """Upper Clopper–Pearson bounds of the chances behind `hits` among `draws`, an array of whole numbers.

    Each is below the chance with probability ≤ `error`; for many at once the caller divides (Bonferroni)."""
    hits = np.asarray(hits)
    if draws < 1 or (hits < 0).any() or (hits > draws).any():
        raise ValueError(f"hits are from 0 to the number of draws, {draws}; got {hits.min()} to {hits.max()}")
    _check_error(error)
    bound = stats.beta.isf(error, hits + 1, np.maximum(draws - hits, 1))
    return np.where(hits == draws, 1.0, bound)


def share_bound(hits, draws: int, chance: float, error: float) -> float:
    """An upper bound of the share of users whose chance of a hit is `chance` or more, averaged over items, from their
    counts `hits` (U, A) among `draws`, NaN where the user has the item. It is too low with probability ≤ `error`,
    however users and items hang together.

    Let c be the largest count with B = P(Bin(`draws`, `chance`) ≤ c) ≤ `error` / 20. Of a share D of such users at
    most D·B is expected to have c hits or fewer, so by Markov's inequality D·B / `error` or more has them with
    probability ≤ `error`. All others are among the share H with more than c hits: D ≤ H / (1 − B / `error`). Bounds
    for each user (Clopper and Pearson, Bonferroni) would have to hold for all of them at once, and exclude fewer."""
    hits = np.asarray(hits, np.float64)
    known = np.isfinite(hits)
    if draws < 1 or hits.ndim != 2 or not known.any() or (hits[known] < 0).any() or (hits[known] > draws).any():
        raise ValueError(f"hits (U, A) are from 0 to the number of draws, {draws}; got shape {hits.shape}")
    _check_error(error)
    below = stats.binom.cdf(np.arange(draws + 1), draws, chance)  # P(≤ c), by c
    few = np.flatnonzero(below <= error / 20)
    if not len(few):
        return 1.0
    more = np.where(known, hits > few[-1], np.nan)[:, known.any(0)]
    return min(1.0, float(np.nanmean(more, axis=0).mean() / (1 - below[few[-1]] / error)))


def mean_bound(values, error: float) -> float:
    """An upper bound of the mean behind `values` (n,), independent draws in [0, 1]; it is too low with probability ≤
    `error`.

    By betting (Waudby-Smith and Ramdas 2024, section 4): the capital Π (1 + λ_i (m − x_i)), with stakes λ_i set
    before x_i is seen, is a supermartingale where the mean is m or more; m is ruled out when it reaches 1 / `error`.
    It grows with m, so one root is the bound."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"values are draws in [0, 1], shape (n,); got shape {values.shape}")
    _check_error(error)
    counted = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (counted + 1)
    spread = (0.25 + np.cumsum((values - means) ** 2)) / (counted + 1)
    before = np.concatenate([[0.25], spread[:-1]])  # of what was seen before x_i
    stakes = np.sqrt(2 * math.log(1 / error) / (len(values) * before))

    def ruled_out(m):
        bets = np.minimum(stakes, 0.9 / (1 - m))  # less than all that can be lost
        return np.log1p(bets * (m - values)).sum() + math.log(error)

    low, high = float(values.mean()), 1 - 1e-9
    return 1.0 if ruled_out(high) < 0 else float(optimize.brentq(ruled_out, low, high))


def expected_exposure(bound, radius: float, sigma: float) -> np.ndarray:
    """The most that a change of ℓ2 length `radius` makes of an expected exposure of at most `bound`, with noise of
    standard deviation `sigma`: Φ(Φ⁻¹(bound) + r/σ)."""
    return stats.norm.cdf(stats.norm.ppf(bound) + radius / _sigma(sigma))


def chance_needed(radius: float, sigma: float) -> float:
    """Φ(−r/σ): the chance that an untouched photo must have for a change of length `radius` to bring it to a half."""
    return float(stats.norm.cdf(-radius / _sigma(sigma)))


def within_reach(bound, radius: float, sigma: float) -> np.ndarray:
    """1 where a change of ℓ2 length `radius` may bring the chance to a half, else 0. `bound`, of any shape, are upper
    bounds of the chances of untouched photos; NaN, where the user has the item, stays NaN."""
    bound = np.asarray(bound, np.float64)
    return np.where(np.isnan(bound), np.nan, bound >= chance_needed(radius, sigma))


def votes_needed(draws: int, error: float) -> int:
    """How many of `draws` must say yes before an item is served: one whose chance is below a half gets so many with
    probability ≤ `error`, by the binomial distribution. ValueError when all of them would not be enough."""
    _check_error(error)
    if 0.5**draws > error:
        raise ValueError(
            f"{draws} draws can't rule out a half at an error of {error:g}; got fewer than {-math.log2(error):.0f}"
        )
    return int(stats.binom.isf(error, draws, 0.5)) + 1


def draws_needed(radius: float, sigma: float, error: float) -> int:
    """How many draws without a single hit exclude a user at `error`: below Φ(−r/σ) by Clopper–Pearson."""
    _check_error(error)
    return math.ceil(math.log(error) / math.log1p(-chance_needed(radius, sigma)))


def _check_error(error: float) -> None:
    if not 0 < error < 1:
        raise ValueError(f"the error is a probability between 0 and 1; got {error}")


def _sigma(sigma: float) -> float:
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma is a standard deviation above 0; got {sigma}")
    return sigma
