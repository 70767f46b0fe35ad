"""Visual k-NN: what looks like what a user has. No training; the floor that a trained visual model must beat."""

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional

from vars_core import runtime
from vars_core.recommender.base import Recommender, checked_features

ENTRIES = 1 << 25  # similarities held at once: users × longest history × items


class VisualKNN(Recommender):
    """s(u, i) = mean of the `neighbours` largest cos(f_i, f_j) over the items j that u has (all if u has fewer).

    Item-to-item similarity of photos, as in "visually similar" shelves (McAuley et al., SIGIR 2015, uses a learned
    metric; this is the plain cosine). The features of the user's own items are those of the photos at fit time: an
    uploaded photo changes the score of its own item only. A user without history gets 0 everywhere."""

    def _build(self, generator=None, **sizes):
        self.sizes = sizes
        longest, shape = sizes["longest"], (sizes["items"], sizes["dimensions"])
        self.register_buffer("owned", torch.full((sizes["users"], longest), -1, dtype=torch.int32))
        self.register_buffer("reference", torch.zeros(shape))  # unit length
        self.register_buffer("bias", torch.zeros(sizes["items"]))  # the device, and nothing else

    def fit(self, split, features=None, cfg=None, seed: int = 0, *, device=None, checkpoint=None):
        train = sparse.csr_array(self._history(split))
        features = checked_features(features, train.shape[1]).float()
        lengths = np.diff(train.indptr)
        sizes = {"users": train.shape[0], "items": train.shape[1], "dimensions": features.shape[1]}
        self._build(**sizes, longest=int(lengths.max()), neighbours=cfg.neighbours)
        place = np.arange(train.nnz) - np.repeat(train.indptr[:-1], lengths)
        users = np.repeat(np.arange(train.shape[0]), lengths)
        self.owned[users, place] = torch.from_numpy(train.indices.astype(np.int32))
        self.reference = functional.normalize(features, dim=1)
        return self.to(torch.device(device or runtime.device())).requires_grad_(False)

    def _features(self, features, n_items):
        if features is None:
            raise ValueError("VisualKNN needs the items' features")
        return checked_features(features, n_items).to(self.reference)

    def _score(self, users, items, features):
        looks = functional.normalize(features, dim=1)
        history = self.owned[users].long()
        own, place = history.clamp_min(0).unique(return_inverse=True)
        place = place.masked_fill(history < 0, len(own))  # a column of its own, like nothing
        lengths = (history >= 0).sum(1)
        order = lengths.argsort()  # those of one length together: a block is as wide as its longest history
        columns = []
        for part in looks.split(max(1, ENTRIES // (len(own) + 1))):
            alike = functional.pad(part @ self.reference[own].T, (0, 1), value=-torch.inf)  # (items, own + 1)
            blocks = self._blocks(order, lengths, len(part))
            columns.append(torch.cat([self._nearest(alike, place[b, : max(1, int(lengths[b[-1]]))]) for b in blocks]))
        return torch.cat(columns, 1)[order.argsort()]

    @staticmethod
    def _blocks(order, lengths, n_items: int) -> list[torch.Tensor]:
        """`order`, users by length of history, in blocks of at most ENTRIES similarities, or of one user."""
        lengths, cuts, start = lengths[order].clamp_min(1).tolist(), [], 0
        for end, longest in enumerate(lengths, 1):
            if end - start > 1 and (end - start) * longest * n_items > ENTRIES:
                cuts.append(end - 1)
                start = end - 1
        return list(order.tensor_split(cuts))

    def _nearest(self, alike, place) -> torch.Tensor:
        """Scores (B, A) by similarities (A, own + 1) and histories (B, longest) as places among own."""
        close = alike.index_select(1, place.flatten()).view(len(alike), *place.shape)
        best = close.topk(min(self.sizes["neighbours"], place.shape[1])).values
        used = best > -torch.inf
        return (best.masked_fill(~used, 0).sum(2) / used.sum(2).clamp_min(1)).T
