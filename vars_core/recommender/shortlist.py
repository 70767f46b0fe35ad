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
    scores, new = torch.as_tensor(scores), torch.as_tensor(new_scores)
    common = torch.promote_types(scores.dtype, new.dtype)
    scores, new = scores.to(common), new.to(scores.device, common).contiguous()
    lists, targets, items = np.asarray(lists), np.asarray(targets, np.int64), np.asarray(items, np.int64)
    clash = np.intersect1d(items, targets)
    if len(clash):
        raise ValueError(f"pushed items are cold, but {clash[0]} is somebody's held-out item")
    index, wanted, pushed = (torch.from_numpy(n).to(scores.device) for n in (lists, targets, items))
    ordered = scores.gather(1, index.clamp_min(0)).masked_fill(index < 0, -torch.inf).sort(1).values
    own = scores.gather(1, wanted.clamp_min(0)[:, None]).masked_fill(wanted[:, None] < 0, -torch.inf)
    listed = torch.zeros(scores.shape[0], scores.shape[1] + 1, dtype=torch.bool, device=scores.device)
    listed.scatter_(1, index.masked_fill(index < 0, scores.shape[1]), True)
    # a pushed item is a candidate once, as it is now: what it was, where it is in the list, doesn't count
    before = scores[:, pushed].masked_fill(~listed[:, pushed], -torch.inf)

    def at_least(limits):
        return ordered.shape[1] - torch.searchsorted(ordered, limits) - (before >= limits).long()

    rank = 1 + at_least(new) + (own >= new)
    held_out = 1 + at_least(own.expand_as(new).contiguous()) + (new >= own)
    held_out = held_out.double().masked_fill(wanted[:, None] < 0, torch.nan)
    return held_out.cpu().numpy(), rank.double().cpu().numpy()


def accuracy(scores, split, proposer_scores, items, k: int, size: int = SIZE) -> dict[str, np.ndarray]:
    """Per user (U,), averaged over the pushed `items`: hr@k of the held-out item and exposure@k of the pushed one,
    re-ranked by `scores` (U, I)."""
    train = sparse.csr_array(split.train)
    lists = candidates(proposer_scores, train, split.test, size)
    held_out, pushed = ranks(scores, lists, split.test, items, torch.as_tensor(scores)[:, torch.as_tensor(items)])
    hit = np.where(np.isnan(held_out), np.nan, held_out <= k)
    return {f"hr@{k}": hit.mean(1), f"exposure@{k}": (pushed <= k).mean(1)}
