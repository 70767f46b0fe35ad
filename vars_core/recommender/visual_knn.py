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
        step = max(1, ENTRIES // (self.sizes["longest"] * max(len(looks), 1)))
        return torch.cat([self._nearest(self.owned[part].long(), looks) for part in users.split(step)])

    def _nearest(self, history, looks) -> torch.Tensor:
        known = history >= 0
        own, place = history.clamp_min(0).unique(return_inverse=True)
        alike = self.reference[own] @ looks.T
        close = alike[place].masked_fill(~known[..., None], -torch.inf)
        best = close.topk(min(self.sizes["neighbours"], close.shape[1]), dim=1).values
        used = best > -torch.inf
        return best.masked_fill(~used, 0).sum(1) / used.sum(1).clamp_min(1)
