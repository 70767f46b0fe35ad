"""Where items stand in people's lists: full ranking, pessimistic ties, and what attacks change.

The rank of item i for user u, with I_u⁺ the *training* items of u:

    r_u(i) = 1 + |{ j ∈ I \\ (I_u⁺ ∪ {i}) : s(u, j) ≥ s(u, i) }|

Scores may be numpy arrays or torch tensors. Matrices over (users, items) use NaN where a user is left out
(no held-out item, or the item is already in I_u⁺), so that `stats.bootstrap_ci` can resample both axes.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

KS = (5, 10, 20, 50)
_CHUNK = 1 << 24  # entries of a score block held at once: 64 MB in float32


def _tensor(values, name: str) -> torch.Tensor:
    tensor = torch.as_tensor(values).detach()
    if not tensor.is_floating_point():
        tensor = tensor.double()
    least, most = tensor.aminmax() if tensor.numel() else (tensor.sum(),) * 2  # one pass; both are NaN if any is
    if not torch.isfinite(least + most):
        bad = tuple(int(v) for v in (~torch.isfinite(tensor)).nonzero()[0])
        raise ValueError(f"{name} hold NaN or infinite values, first at {bad}")
    return tensor


def _check_k(k: int, n_items: int) -> None:
    if not 1 <= k <= n_items:
        raise ValueError(f"k = {k} does not fit a catalogue of {n_items} items (1 ≤ k ≤ {n_items})")


def _check_shapes(scores, train) -> None:
    if tuple(scores.shape) != train.shape:
        raise ValueError(f"scores have shape {tuple(scores.shape)}, the training matrix {train.shape}")


def _blocks(n_users: int, n_items: int):
    step = max(1, _CHUNK // max(n_items, 1))
    return (slice(start, min(start + step, n_users)) for start in range(0, n_users, step))


def _pairs(matrix, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column indices of a sparse block's true entries."""
    coo = sparse.coo_array(matrix)
    keep = coo.data != 0
    rows, columns = coo.row[keep].astype(np.int64), coo.col[keep].astype(np.int64)
    return torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)


def ranks(scores, targets, train) -> np.ndarray:
    """r_u(targets[u]) for every user, float64 (U,); NaN where targets[u] is -1.

    `scores` (U, I), `targets` (U,) item indices, `train` sparse boolean (U, I).
    Raises ValueError on non-finite scores and on a target that the user has in training.
    """
    scores = torch.as_tensor(scores)
    _check_shapes(scores, train)
    train, targets = sparse.csr_array(train), np.asarray(targets, dtype=np.int64)
    n_users, n_items = train.shape
    if targets.shape != (n_users,) or targets.max(initial=-1) >= n_items or targets.min(initial=0) < -1:
        raise ValueError(f"targets must be {n_users} item indices below {n_items}, or -1 for none")
    out = np.full(n_users, np.nan)
    for block in _blocks(n_users, n_items):
        out[block] = _rank_block(_tensor(scores[block], "scores"), targets[block], train[block], block.start)
    return out


def _rank_block(block, targets, train, first_user) -> np.ndarray:
    wanted = torch.from_numpy(targets).to(block.device)
    own = block.gather(1, wanted.clamp(min=0)[:, None])
    at_least = (block >= own).sum(1)  # counts the target itself, which stands for the formula's 1
    rows, columns = _pairs(train, block.device)
    clash = (wanted[rows] == columns).nonzero().flatten()
    if len(clash):
        user = int(rows[clash[0]])
        raise ValueError(f"the held-out item {targets[user]} of user {first_user + user} is in training")
    masked = (block[rows, columns] >= own[rows, 0]).long()
    at_least = at_least.index_add(0, rows, masked, alpha=-1).cpu().numpy()
    return np.where(targets >= 0, at_least, np.nan)


def from_ranks(rank, n_candidates, ks=KS) -> dict[str, np.ndarray]:
    """Per-user accuracy from ranks (U,): hr@k, ndcg@k, auc, mrr. `n_candidates` = |I \\ (I_u⁺ ∪ {i_u})|."""
    rank, n_candidates = np.asarray(rank, float), np.asarray(n_candidates, float)
    known = ~np.isnan(rank)
    values = {}
    for k in ks:
        hit = np.where(known, rank <= k, np.nan)
        values[f"hr@{k}"] = hit
        values[f"ndcg@{k}"] = hit / np.log2(1 + rank)
    values["auc"] = np.where(n_candidates > 0, 1 - (rank - 1) / np.maximum(n_candidates, 1), np.nan)
    values["mrr"] = 1 / rank
    return values


def accuracy(recommender, features, split, ks=KS, part: str = "test") -> dict[str, np.ndarray]:
    """Per-user arrays (U,) over the whole catalogue: rank, hr@k, ndcg@k, auc, mrr, cold_auc.

    `part` is "test" or "validation". Users without a held-out item (or cold positive) are NaN.
    """
    n_users, n_items = split.train.shape
    for k in ks:
        _check_k(k, n_items)
    train, targets = sparse.csr_array(split.train), np.asarray(getattr(split, part), dtype=np.int64)
    cold_positives = sparse.csr_array(split.cold_positives)
    rank, cold = np.full(n_users, np.nan), np.full(n_users, np.nan)
    for block in _blocks(n_users, n_items):
        scores = _tensor(recommender.scores(np.arange(block.start, block.stop), features), "scores")
        rank[block] = _rank_block(scores, targets[block], train[block], block.start)
        cold[block] = cold_auc(scores, split.cold, cold_positives[block])
    owned = np.diff(train.indptr)
    return {"rank": rank} | from_ranks(rank, n_items - owned - 1, ks) | {"cold_auc": cold}


def cold_auc(scores, cold, cold_positives) -> np.ndarray:
    """Per user (U,): mean over the user's cold positives of the share of cold non-positives scoring lower.

    A tie counts one half, as in Mann and Whitney's statistic: a recommender that knows nothing of cold items
    scores them all alike, which is chance (0.5), not the worst ranking possible (0).
    NaN for users with no cold positive, or with no cold item left to compare.
    `scores` (U, I), `cold` item indices (C,), `cold_positives` sparse boolean (U, I).
    """
    cold = np.asarray(cold, dtype=np.int64)
    out = np.full(scores.shape[0], np.nan)
    positives = sparse.csr_array(cold_positives)[:, cold]
    rows, columns = _pairs(positives, torch.as_tensor(scores).device)
    if not len(rows):
        return out
    block = _tensor(torch.as_tensor(scores)[:, torch.from_numpy(cold)], "scores")
    own, mine = block[rows, columns], torch.full(block.shape, torch.inf, dtype=block.dtype, device=block.device)
    mine[rows, columns] = own
    others = block.index_put((rows, columns), own.new_tensor(torch.inf)).sort(dim=1).values  # positives past the end
    lower = torch.searchsorted(others, mine)[rows, columns]
    equal = torch.searchsorted(others, mine, right=True)[rows, columns] - lower
    below = lower.double() + equal.double() / 2
    total = torch.zeros(len(block), dtype=torch.float64, device=block.device).index_add(0, rows, below)
    n_own = torch.bincount(rows, minlength=len(block))
    pairs = n_own * (len(cold) - n_own)
    some = (pairs > 0).cpu().numpy()
    out[some] = (total[pairs > 0] / pairs[pairs > 0]).cpu().numpy()
    return out


def item_ranks(scores, train, items, new_scores) -> np.ndarray:
    """Rank of each item for each user when its score *alone* is replaced; float64 (U, A), NaN where i ∈ I_u⁺.

    `scores` (U, I) are everybody's clean scores, `items` (A,) indices, `new_scores` (U, A). The item's own
    clean score is not among its competitors. `item_ranks(s, train, items, s[:, items])` are clean ranks.
    """
    scores, new_scores = torch.as_tensor(scores), torch.as_tensor(new_scores)
    _check_shapes(scores, train)
    train, items = sparse.csr_array(train), np.asarray(items, dtype=np.int64)
    n_users, n_items = train.shape
    out = np.empty((n_users, _checked(items, new_scores, n_users, n_items)))
    for block in _blocks(n_users, n_items):
        out[block] = Standings(scores[block], train[block]).ranks(items, new_scores[block])
    return out


class Standings:
    """What changed items are ranked among: clean `scores` (U, I), sorted per user once for any number of changes.

    `train` (U, I) sparse boolean. Holds two matrices of the scores' size; ValueError for non-finite scores."""

    def __init__(self, scores, train):
        _check_shapes(scores, train)
        self._masked = _tensor(scores, "scores").clone()
        rows, columns = _pairs(train, self._masked.device)
        self._masked[rows, columns] = -torch.inf  # finite new scores are above it, so a masked item never competes
        self._ordered = self._masked.sort(dim=1).values

    def ranks(self, items, new_scores) -> np.ndarray:
        """As `item_ranks`: float64 (U, A), NaN where i ∈ I_u⁺."""
        items, new = np.asarray(items, dtype=np.int64), _tensor(new_scores, "new scores").to(self._masked.device)
        _checked(items, new, *self._masked.shape)
        common = torch.promote_types(self._masked.dtype, new.dtype)
        new, ordered = new.to(common).contiguous(), self._ordered.to(common)
        own = self._masked[:, torch.from_numpy(items).to(new.device)].to(common)
        competitors = ordered.shape[1] - torch.searchsorted(ordered, new) - (own >= new).long()
        rank = (1 + competitors).double()
        return rank.masked_fill(own == -torch.inf, torch.nan).cpu().numpy()


def _checked(items, new_scores, n_users: int, n_items: int) -> int:
    """How many items there are."""
    if tuple(new_scores.shape) != (n_users, len(items)):
        raise ValueError(f"new scores have shape {tuple(new_scores.shape)}, not {(n_users, len(items))}")
    if len(items) and not 0 <= items.min() <= items.max() < n_items:
        raise ValueError(f"items must be indices below {n_items}")
    return len(items)


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


def exposure(rank, k: int) -> float:
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
    """PS: s(u, i′) − s(u, i) per user and item (U, A); given `scores` (U, I), in units of std_j s(u, j)."""
    shift = _numpy(after) - _numpy(before)
    return shift if scores is None else shift / _numpy(scores).std(1, keepdims=True)


def _numpy(values) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()


def top_k(scores, train, k: int) -> np.ndarray:
    """Every user's list (U, k): the k best items outside I_u⁺, best first, ties by index, -1 past the end."""
    scores = torch.as_tensor(scores)
    _check_shapes(scores, train)
    _check_k(k, train.shape[1])
    train = sparse.csr_array(train)
    out = np.empty((train.shape[0], k), dtype=np.int64)
    for block in _blocks(*train.shape):
        masked = _tensor(scores[block], "scores").clone()
        masked[_pairs(train[block], masked.device)] = -torch.inf
        best = masked.sort(dim=1, descending=True, stable=True)
        lists = best.indices[:, :k].masked_fill(best.values[:, :k] == -torch.inf, -1)
        out[block] = lists.cpu().numpy()
    return out


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
