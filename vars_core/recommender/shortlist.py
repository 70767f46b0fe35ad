"""The second protocol, for comparison with papers on item promotion: re-ranking of a short list.

Another recommender (BPR-MF) proposes the candidates: each user's top 1000 without what they have in training, plus
the held-out item once, plus one cold item that is pushed. Liu & Larson (AIP, WWW 2021) report attacks this way; full
ranking stays the study's own protocol, since candidates that others chose hide most of the catalogue.
"""

import numpy as np
import torch
from scipy import sparse

from vars_core.recommender import ranking

SIZE = 1000


def candidates(proposer_scores, train, targets, size: int = SIZE) -> np.ndarray:
    """Items that `proposer_scores` (U, I) put first (U, n), n ≤ size; -1 in place of the held-out `targets` (U,).

    The held-out item is always a candidate, so it must not be there twice. Lists are shorter than `size` where the
    catalogue is; unused places are -1.
    """
    size = min(size, train.shape[1])
    lists = ranking.top_k(proposer_scores, train, size)
    return np.where(lists == np.asarray(targets)[:, None], -1, lists)


def ranks(scores, lists, targets, items, new_scores) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the held-out and of the pushed items among `lists` (U, n), the held-out one, and one pushed item.

    `scores` (U, I) are the re-ranker's, `targets` (U,) held-out items or -1, `items` (A,) pushed items, each alone,
    with `new_scores` (U, A). Ties count against the item. Returns (U, A) twice: the held-out item's rank (NaN where
    there is none) and the pushed item's. Raises ValueError on a pushed item that is somebody's held-out item.
    """
    scores, new = torch.as_tensor(scores).double(), torch.as_tensor(new_scores).double()
    lists, targets, items = np.asarray(lists), np.asarray(targets, np.int64), np.asarray(items, np.int64)
    clash = np.intersect1d(items, targets)
    if len(clash):
        raise ValueError(f"pushed items are cold, but {clash[0]} is somebody's held-out item")
    index, wanted = torch.from_numpy(lists).to(scores.device), torch.from_numpy(targets).to(scores.device)
    known = scores.gather(1, index.clamp_min(0)).masked_fill(index < 0, -torch.inf)
    own = scores.gather(1, wanted.clamp_min(0)[:, None]).masked_fill(wanted[:, None] < 0, -torch.inf)[:, 0]
    held_out, pushed = torch.empty_like(new), torch.empty_like(new)
    for column, item in enumerate(items):
        mine = new[:, column].to(scores.device)
        others = known.masked_fill(index == item, -torch.inf)  # the pushed item is a candidate once, as it is now
        pushed[:, column] = 1 + (others >= mine[:, None]).sum(1) + (own >= mine)
        held_out[:, column] = 1 + (others >= own[:, None]).sum(1) + (mine >= own)
    held_out[torch.from_numpy(targets < 0)] = torch.nan
    return held_out.cpu().numpy(), pushed.cpu().numpy()


def accuracy(recommender, features, split, proposer_scores, items, k: int, size: int = SIZE) -> dict[str, np.ndarray]:
    """Per user (U,), averaged over the pushed `items`: hr@k of the held-out item and exposure@k of the pushed one."""
    train = sparse.csr_array(split.train)
    lists = candidates(proposer_scores, train, split.test, size)
    scores = recommender.scores(None, features)
    held_out, pushed = ranks(scores, lists, split.test, items, scores[:, torch.as_tensor(items)])
    hit = np.where(np.isnan(held_out), np.nan, held_out <= k)
    return {f"hr@{k}": hit.mean(1), f"exposure@{k}": (pushed <= k).mean(1)}
