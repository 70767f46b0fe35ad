"""How alike two sets of lists are: overlap and rank-biased overlap of each user's list before and after."""

import numpy as np


def _agreement(clean, other) -> np.ndarray:
    """|first d of one ∩ first d of the other| for d = 1 … k (U, k); -1 entries match nothing."""
    clean, other = np.asarray(clean), np.asarray(other)
    if clean.shape != other.shape:
        raise ValueError(f"lists of shapes {clean.shape} and {other.shape} cannot be compared")
    same = (clean[:, :, None] == other[:, None, :]) & (clean[:, :, None] >= 0)
    depth = np.maximum(*np.indices(same.shape[1:]))
    return np.stack([(same & (depth <= d)).sum((1, 2)) for d in range(clean.shape[1])], axis=1)


def overlap_at_k(clean, other) -> np.ndarray:
    """Share of each user's clean list (U, k) that the other list still holds, in any order (U,)."""
    return _agreement(clean, other)[:, -1] / np.asarray(clean).shape[1]


def rbo(clean, other, p: float = 0.9) -> np.ndarray:
    """Rank-biased overlap of lists (U, k), extrapolated past k; 1 = identical. Webber et al. 2010, eq. 32."""
    shared = _agreement(clean, other)
    depth = np.arange(1, shared.shape[1] + 1)
    agreed = shared / depth
    return (1 - p) / p * (agreed * p**depth).sum(1) + agreed[:, -1] * p ** depth[-1]
