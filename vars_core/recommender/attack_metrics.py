"""What a changed photo changes: exposure, rank shift, prediction shift, and how much of the lists a category holds.

Matrices over (users, items) hold NaN where a user has the item in training."""

import numpy as np
import torch
from scipy import sparse


def item_mean(values) -> float:
    """Mean over items of the mean over users (U, A), NaN entries left out: how the attack metrics average."""
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    users = known.sum(0)
    if not users.any():
        raise ValueError("no user without these items in training: nothing to average")
    sums = np.where(known, values, 0).sum(0)
    return float((sums[users > 0] / users[users > 0]).mean())


def exposed(rank, k: int) -> np.ndarray:
    """1[r ≤ k] as float (U, A), NaN kept."""
    rank = np.asarray(rank, float)
    return np.where(np.isnan(rank), np.nan, rank <= k)


def exposure_rate(rank, k: int) -> float:
    """ER@k: mean over items of the share of users (who do not have the item) with it in their top k."""
    return item_mean(exposed(rank, k))


def rank_shifts(before, after, *, log2: bool = False) -> np.ndarray:
    """r_u(i) − r_u(i′) per user and item (U, A): positive = moved up. `log2`: in doublings of the rank."""
    before, after = np.asarray(before, float), np.asarray(after, float)
    return np.log2(before) - np.log2(after) if log2 else before - after


def rank_shift(before, after, *, log2: bool = False) -> float:
    """RS: the mean rank shift, averaged over users, then over items."""
    return item_mean(rank_shifts(before, after, log2=log2))


def prediction_shift(before, after, scores=None) -> np.ndarray:
    """PS: s(u, i′) − s(u, i) per user and item (U, A); given `scores` (U, I), in units of std_j s(u, j).

    In those units NaN for a user whose scores are all alike, as visual k-NN's are for one without history."""
    shift = _numpy(after) - _numpy(before)
    if scores is None:
        return shift
    scores = torch.as_tensor(scores).detach()
    spread = scores.double().std(1, correction=0).masked_fill((scores == scores[:, :1]).all(1), torch.nan)
    return shift / spread.cpu().numpy()[:, None]


def _numpy(values) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()


def category_hit_ratio(lists, members) -> np.ndarray:
    """CHR@N per user (U,): share of the list in `lists` (U, N) that is in `members` (boolean (I,))."""
    lists = np.asarray(lists)
    return (np.asarray(members, bool)[lists] & (lists >= 0)).mean(1)


def category_ndcg(lists, members, train) -> np.ndarray:
    """nCDCG@N per user (U,): discounted hits of `members` over those of a list that starts with them all.

    NaN for a user who already has every member in training.
    """
    lists, members = np.asarray(lists), np.asarray(members, bool)
    gain = 1 / np.log2(np.arange(lists.shape[1]) + 2)
    left = members.sum() - sparse.csr_array(train).astype(np.int64) @ members.astype(np.int64)
    ideal = np.concatenate([[np.nan], np.cumsum(gain)])[np.minimum(left, lists.shape[1])]
    return ((members[lists] & (lists >= 0)) * gain).sum(1) / ideal
