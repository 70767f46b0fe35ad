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
        own, place = self.owned[users].long().clamp_min(0).unique(return_inverse=True)
        lengths = (self.owned[users] >= 0).sum(1)
        order = lengths.argsort()  # histories of one length together: padding them to the longest costs the most
        width = max(1, ENTRIES // len(own))
        parts = []
        for shown in looks.split(width):
            alike = shown @ self.reference[own].T  # (items, owned items)
            scores = [self._nearest(alike, place[rows], lengths[rows]) for rows in self._together(order, lengths, shown)]
            parts.append(torch.cat(scores)[order.argsort()])
        return torch.cat(parts, 1)

    @staticmethod
    def _together(order, lengths, looks) -> list[torch.Tensor]:
        """`order`, cut where the users' histories, padded to the longest, would hold more than ENTRIES similarities."""
        parts, rest, lengths = [], order, lengths.tolist()
        while len(rest):
            n = max(1, ENTRIES // (max(lengths[rest[0]], 1) * len(looks)))
            longest = max(1, lengths[rest[min(n, len(rest)) - 1]])
            n = max(1, min(n, ENTRIES // (longest * len(looks))))
            parts.append(rest[:n])
            rest = rest[n:]
        return parts

    def _nearest(self, alike, place, lengths) -> torch.Tensor:
        """(B, A) of similarities (A, own) and the users' items as places among own (B, longest)."""
        longest = max(1, int(lengths.max()))
        close = alike[:, place[:, :longest]]  # (A, B, longest)
        missing = torch.arange(longest, device=alike.device) >= lengths[:, None]
        best = close.masked_fill(missing, -torch.inf).topk(min(self.sizes["neighbours"], longest)).values
        used = best > -torch.inf
        return (best.masked_fill(~used, 0).sum(2) / used.sum(2).clamp_min(1)).T
