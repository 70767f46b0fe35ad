"""BPR-MF: matrix factorisation trained by Bayesian personalised ranking (Rendle et al., UAI 2009)."""

import numpy as np
import torch
from torch.nn import functional

from vars_core.recommender.base import Recommender


class BPRMF(Recommender):
    """s(u, i) = β_i + γ_u · γ_i, trained by BPR. Rendle et al., UAI 2009."""

    def _build(self, generator=None, **sizes):
        super()._build(**sizes)
        self.user = self._table(sizes["users"], sizes["factors"], generator=generator)
        self.item = self._table(sizes["items"], sizes["factors"], generator=generator)

    def _prepare(self, train, features, cfg, generator):
        self._build(generator, users=train.shape[0], items=train.shape[1], factors=cfg.factors)
        self._zero_unknown(train)

    @torch.no_grad()
    def _zero_unknown(self, train) -> None:
        # They are in no triple, so their gradient is 0 and Adam leaves them at 0.
        self.user[torch.from_numpy(np.diff(train.indptr) == 0)] = 0
        self.item[torch.from_numpy(np.bincount(train.indices, minlength=train.shape[1]) == 0)] = 0

    def _score(self, users, items, features):
        return self.bias[items] + self.user[users] @ self.item[items].T

    def score_difference(self, users, positives, negatives, features):
        user = functional.embedding(users, self.user)
        item = functional.embedding(positives, self.item)
        other = functional.embedding(negatives, self.item)
        bias = functional.embedding(torch.stack([positives, negatives]), self.bias[:, None])[..., 0]
        difference = bias[0] - bias[1] + (user * (item - other)).sum(1)
        penalty = (user**2 + item**2 + other**2).sum(1).mean() + (bias**2).sum(0).mean()
        return difference, penalty
