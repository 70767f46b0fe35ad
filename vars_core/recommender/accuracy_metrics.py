"""Accuracy of full rankings: HR@k, NDCG@k, AUC, MRR of held-out items, AUC among cold items. No sampled negatives."""

import numpy as np
import torch
from scipy import sparse

from vars_core.recommender import ranking

KS = (5, 10, 20, 50)


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


def full_ranking(recommender, features, split, ks=KS, part: str = "test") -> dict[str, np.ndarray]:
    """Per-user arrays (U,) over the whole catalogue: rank, hr@k, ndcg@k, auc, mrr, cold_auc.

    `part` is "test" or "validation". Users without a held-out item (or cold positive) are NaN.
    """
    n_users, n_items = split.train.shape
    for k in ks:
        ranking.check_list_length(k, n_items)
    train, targets = sparse.csr_array(split.train), np.asarray(getattr(split, part), dtype=np.int64)
    cold_positives = sparse.csr_array(split.cold_positives)
    rank, cold = np.full(n_users, np.nan), np.full(n_users, np.nan)
    for block in ranking.user_blocks(n_users, n_items):
        scores = ranking.finite_tensor(recommender.scores(np.arange(block.start, block.stop), features), "scores")
        rank[block] = ranking.ranks(scores, targets[block], train[block], first_user=block.start)
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
    rows, columns = ranking.true_entries(positives, torch.as_tensor(scores).device)
    if not len(rows):
        return out
    block = ranking.finite_tensor(torch.as_tensor(scores)[:, torch.from_numpy(cold)], "scores")
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
