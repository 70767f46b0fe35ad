"""What a detector's scores are worth: thresholds by conformal prediction, AUROC and rates with intervals."""

import numpy as np
from scipy.optimize import brentq
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from vars_core import stats


def conformal_threshold(clean_scores: np.ndarray, rate: float) -> float:
    """τ with P(clean score > τ) ≤ `rate`: the ⌈(n+1)(1−rate)⌉-th smallest of n clean *validation* scores
    (split conformal prediction; Vovk et al. 2005). An image is flagged when its score is above τ. Infinite,
    nothing is flagged, when n is too small for the rate."""
    place = int(np.ceil((len(clean_scores) + 1) * (1 - rate)))
    return float(np.sort(clean_scores)[place - 1]) if place <= len(clean_scores) else float("inf")


def auroc(clean: np.ndarray, attacked: np.ndarray) -> float:
    """P(attacked image scores higher than clean one), ties counting half."""
    labels = np.r_[np.zeros(len(clean)), np.ones(len(attacked))]
    return float(roc_auc_score(labels, np.r_[clean, attacked]))


def auroc_estimate(clean: np.ndarray, attacked: np.ndarray, seed: int = 0) -> dict:
    """AUROC with its 95 % bootstrap interval (clean and attacked images resampled): value, ci_low, ci_high, n.

    AUROC is the mean of a matrix, who scores higher in each pair, so that resampling it is two products."""
    higher = (attacked[:, None] > clean).astype(float) + 0.5 * (attacked[:, None] == clean)
    return stats.estimate(higher, seed) | {"n": len(attacked)}


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
