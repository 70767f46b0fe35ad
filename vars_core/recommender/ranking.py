"""Where items stand in people's lists: full ranking, pessimistic ties, changed items, the lists themselves.

The rank of item i for user u, with I_u⁺ the *training* items of u:

    r_u(i) = 1 + |{ j ∈ I \\ (I_u⁺ ∪ {i}) : s(u, j) ≥ s(u, i) }|

Scores may be numpy arrays or torch tensors. Matrices over (users, items) use NaN where a user is left out
(no held-out item, or the item is already in I_u⁺), so that `stats.bootstrap_ci` can resample both axes.
"""

import numpy as np
import torch
from scipy import sparse

_CHUNK = 1 << 24  # entries of a score block held at once: 64 MB in float32


def finite_tensor(values, name: str) -> torch.Tensor:
    """`values` as floating point, without a gradient. Raises ValueError, saying `name` and where, if one isn't
    finite."""
    tensor = torch.as_tensor(values).detach()
    if not tensor.is_floating_point():
        tensor = tensor.double()
    least, most = tensor.aminmax() if tensor.numel() else (tensor.sum(),) * 2  # one pass; both are NaN if any is
    if not torch.isfinite(least + most):
        bad = tuple(int(v) for v in (~torch.isfinite(tensor)).nonzero()[0])
        raise ValueError(f"{name} hold NaN or infinite values, first at {bad}")
    return tensor


def check_list_length(k: int, n_items: int) -> None:
    """Raise ValueError unless a list of `k` places fits a catalogue of `n_items`."""
    if not 1 <= k <= n_items:
        raise ValueError(f"k = {k} does not fit a catalogue of {n_items} items (1 ≤ k ≤ {n_items})")


def _check_shapes(scores, train) -> None:
    if tuple(scores.shape) != train.shape:
        raise ValueError(f"scores have shape {tuple(scores.shape)}, the training matrix {train.shape}")


def user_blocks(n_users: int, n_items: int):
    """Slices of users, each with as many scores (users, items) as are held at once."""
    step = max(1, _CHUNK // max(n_items, 1))
    return (slice(start, min(start + step, n_users)) for start in range(0, n_users, step))


def true_entries(matrix, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column indices of a sparse block's true entries."""
    coo = sparse.coo_array(matrix)
    keep = coo.data != 0
    rows, columns = coo.row[keep].astype(np.int64), coo.col[keep].astype(np.int64)
    return torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)


def ranks(scores, targets, train, *, first_user: int = 0) -> np.ndarray:
    """r_u(targets[u]) for every user, float64 (U,); NaN where targets[u] is -1.

    `scores` (U, I), `targets` (U,) item indices, `train` sparse boolean (U, I); errors count users from `first_user`.
    Raises ValueError on non-finite scores and on a target that the user has in training.
    """
    scores = torch.as_tensor(scores)
    _check_shapes(scores, train)
    train, targets = sparse.csr_array(train), np.asarray(targets, dtype=np.int64)
    n_users, n_items = train.shape
    if targets.shape != (n_users,) or targets.max(initial=-1) >= n_items or targets.min(initial=0) < -1:
        raise ValueError(f"targets must be {n_users} item indices below {n_items}, or -1 for none")
    out = np.full(n_users, np.nan)
    for block in user_blocks(n_users, n_items):
        number = first_user + block.start
        out[block] = _rank_block(finite_tensor(scores[block], "scores"), targets[block], train[block], number)
    return out


def _rank_block(block, targets, train, first_user) -> np.ndarray:
    wanted = torch.from_numpy(targets).to(block.device)
    own = block.gather(1, wanted.clamp(min=0)[:, None])
    at_least = (block >= own).sum(1)  # counts the target itself, which stands for the formula's 1
    rows, columns = true_entries(train, block.device)
    clash = (wanted[rows] == columns).nonzero().flatten()
    if len(clash):
        user = int(rows[clash[0]])
        raise ValueError(f"the held-out item {targets[user]} of user {first_user + user} is in training")
    masked = (block[rows, columns] >= own[rows, 0]).long()
    at_least = at_least.index_add(0, rows, masked, alpha=-1).cpu().numpy()
    return np.where(targets >= 0, at_least, np.nan)


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
    for block in user_blocks(n_users, n_items):
        out[block] = RankLookup(scores[block], train[block]).ranks(items, new_scores[block])
    return out


class RankLookup:
    """What changed items are ranked among: clean `scores` (U, I), sorted per user once for any number of changes.

    `train` (U, I) sparse boolean. Holds two matrices of the scores' size; ValueError for non-finite scores."""

    def __init__(self, scores, train):
        _check_shapes(scores, train)
        self._masked = finite_tensor(scores, "scores").clone()
        rows, columns = true_entries(train, self._masked.device)
        self._masked[rows, columns] = -torch.inf  # finite new scores are above it, so a masked item never competes
        self._ordered = self._masked.sort(dim=1).values

    def ranks(self, items, new_scores) -> np.ndarray:
        """As `item_ranks`: float64 (U, A), NaN where i ∈ I_u⁺."""
        items, new = (
            np.asarray(items, dtype=np.int64),
            finite_tensor(new_scores, "new scores").to(self._masked.device),
        )
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


def top_k(scores, train, k: int) -> np.ndarray:
    """Every user's list (U, k): the k best items outside I_u⁺, best first, ties by index, -1 past the end."""
    scores = torch.as_tensor(scores)
    _check_shapes(scores, train)
    check_list_length(k, train.shape[1])
    train = sparse.csr_array(train)
    out = np.empty((train.shape[0], k), dtype=np.int64)
    for block in user_blocks(*train.shape):
        masked = finite_tensor(scores[block], "scores").clone()
        masked[true_entries(train[block], masked.device)] = -torch.inf
        best = masked.sort(dim=1, descending=True, stable=True)
        lists = best.indices[:, :k].masked_fill(best.values[:, :k] == -torch.inf, -1)
        out[block] = lists.cpu().numpy()
    return out


def last_place_scores(scores: torch.Tensor, owned: torch.Tensor, k: int) -> torch.Tensor:
    """s_u^(k) (U,): each user's k-th best score, of `scores` (U, I) without what they own (boolean (U, I))."""
    return scores.masked_fill(owned, -torch.inf).topk(k, dim=1).values[:, -1]


def entry_scores(scores: torch.Tensor, owned: torch.Tensor, items, k: int) -> torch.Tensor:
    """The k-th best score of a user's other items, which each of `items` (A,) must exceed to be in the list: (U, A).

    `scores` (U, I) are everybody's; `owned` (U, I), boolean, what users have: infinite there, as it enters no list.
    Minus infinite where a user has fewer than k others. An item is in the list exactly where `item_ranks` is ≤ k."""
    check_list_length(k, scores.shape[1])
    masked = scores.masked_fill(owned, -torch.inf)
    best = masked.topk(min(k + 1, scores.shape[1]), dim=1).values
    last = best[:, k - 1 : k]
    beyond = best[:, k:] if best.shape[1] > k else torch.full_like(last, -torch.inf)
    needed = torch.where(masked[:, items] >= last, beyond, last)
    return needed.masked_fill(owned[:, items], torch.inf)
