"""What a detector's scores are worth: thresholds by conformal prediction, AUROC and rates with intervals."""

import numpy as np
from scipy.optimize import brentq
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from vars_core import stats
from vars_core.errors import InputError

RATES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5)  # false-alarm rates that a defence holds thresholds for


class CalibrationError(InputError, ValueError):
    """A threshold that can't be set from the photos at hand; the message says how many the rate needs."""


def conformal_threshold(honest_scores: np.ndarray, rate: float) -> float:
    """τ with P(honest score > τ) ≤ `rate`, from *validation* scores (n,), or (n, m) of n photos in m versions, of
    which a new photo comes in any one, equally likely: the ⌈m(n+1)(1−rate)⌉-th smallest of the m·n (split conformal
    prediction, Vovk et al. 2005; with versions, that of Lee, Barber and Willett 2023 for groups). An image is flagged
    when its score is above τ.

    Raises CalibrationError when n is too small for the rate, as τ would be infinite and nothing ever flagged, and for
    scores that are not finite."""
    scores = np.asarray(honest_scores)
    scores = scores[:, None] if scores.ndim == 1 else scores
    n, versions = scores.shape
    place = _place(n, rate, versions)
    broken = int((~np.isfinite(scores)).any(1).sum())
    if broken:
        raise CalibrationError(f"scores of {broken:,} of {n:,} calibration photos are not finite: no threshold")
    if place > n * versions:
        raise CalibrationError(
            f"{100 * rate:g} % false alarms need at least {photos_needed(rate):,} calibration photos; there are {n:,}"
        )
    return float(np.sort(scores, axis=None)[place - 1])


def photos_needed(rate: float) -> int:
    """The fewest calibration photos that give a threshold at `rate`: 1/rate − 1, rounded up as the place is."""
    n = max(1, int(1 / rate) - 3 if 0 < rate < 1 else 1)
    while _place(n, rate) > n:
        n += 1
    return n


def available_rates(n: int, wanted=RATES) -> list[float]:
    """Those of the rates `wanted` for which `n` calibration photos give a threshold."""
    return [rate for rate in wanted if n >= photos_needed(rate)]


def _place(n: int, rate: float, versions: int = 1) -> int:
    if not 0 < rate < 1:
        raise CalibrationError(f"a false-alarm rate lies between 0 and 100 %; got {100 * rate:g} %")
    return int(np.ceil(versions * (n + 1) * (1 - rate)))


def auroc(clean: np.ndarray, attacked: np.ndarray) -> float:
    """P(attacked image scores higher than clean one), ties counting half."""
    labels = np.r_[np.zeros(len(clean)), np.ones(len(attacked))]
    return float(roc_auc_score(labels, np.r_[clean, attacked]))


def auroc_estimate(clean: np.ndarray, attacked: np.ndarray, seed: int = 0) -> dict:
    """AUROC with its 95 % bootstrap interval (clean and attacked images resampled): value, ci_low, ci_high, n."""
    return stats.estimate(scores_higher(clean, attacked), seed) | {"n": len(attacked)}


def scores_higher(clean: np.ndarray, attacked: np.ndarray) -> np.ndarray:
    """1 where an attacked image scores above a clean one, ½ where they are level, else 0: (attacked, clean).

    AUROC is its mean, so that resampling is two products; two detectors that scored the same images are compared by
    the difference of their matrices (`stats.bootstrap_ci` with `paired`)."""
    return (attacked[:, None] > clean).astype(float) + 0.5 * (attacked[:, None] == clean)


def rate_estimate(flagged: np.ndarray) -> dict:
    """Share of flagged images with its Wilson interval: value, ci_low, ci_high, n."""
    low, high = stats.wilson(int(flagged.sum()), len(flagged))
    return {"value": float(flagged.mean()), "ci_low": low, "ci_high": high, "n": len(flagged)}


def equal_error_rate(clean: np.ndarray, attacked: np.ndarray) -> float:
    """The rate at which as many clean images are flagged as attacked ones pass, on the interpolated ROC curve."""
    labels = np.r_[np.zeros(len(clean)), np.ones(len(attacked))]
    false, true, _ = roc_curve(labels, np.r_[clean, attacked])
    return float(brentq(lambda rate: 1 - rate - np.interp(rate, false, true), 0, 1))


def average_precision(clean: np.ndarray, attacked: np.ndarray, prevalence: float = 1e-3) -> float:
    """Area under the precision-recall curve where a share `prevalence` of all uploads is attacked."""
    labels = np.r_[np.zeros(len(clean)), np.ones(len(attacked))]
    shares = ((1 - prevalence, clean), (prevalence, attacked))
    weights = np.concatenate([np.full(len(found), share / len(found)) for share, found in shares])
    return float(average_precision_score(labels, np.r_[clean, attacked], sample_weight=weights))
