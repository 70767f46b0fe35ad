"""Popularity: everybody gets what most people bought. It sees neither users nor photos."""

import numpy as np
import torch
from scipy import sparse

from vars_core import runtime
from vars_core.recommender.base import Recommender


class Popularity(Recommender):
    """s(u, i) = number of training interactions of i."""

    def fit(self, split, features=None, cfg=None, seed: int = 0, *, device=None, checkpoint=None):
        train = sparse.csr_array(split.train)
        self._build(users=train.shape[0], items=train.shape[1])
        counts = np.asarray(train.astype(np.int64).sum(0)).ravel()
        self.bias.data = torch.from_numpy(counts).float()
        return self.to(torch.device(device or runtime.device())).requires_grad_(False)
