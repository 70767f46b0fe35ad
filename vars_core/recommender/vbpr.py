"""VBPR: BPR-MF with a linear view of the photos (He and McAuley, AAAI 2016). What the study attacks first."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vars_core.recommender.base import checked_features
from vars_core.recommender.bprmf import BPRMF


class VBPR(BPRMF):
    """s(u, i) = β_i + γ_u · γ_i + θ_u · (E f_i) + β′ · f_i, trained by BPR. He & McAuley, AAAI 2016.

    Inside, f_i is divided by √D, so that its length is about 1 whatever the extractor and one learning rate
    fits all tables; `visual_matrix` gives the rows w_u = (θ_u E + β′) / √D that hold for f_i itself:
    s(u, i) = β_i + γ_u · γ_i + w_u · f_i.

    E f_i and β′ · f_i are penalised, as γ_i and β_i are, not E and β′: that would depend on D and its scale.
    All items share E, so `visual_l2` makes that part of the penalty lighter.
    """

    visual_l2: float

    def _build(self, generator=None, **sizes):
        super()._build(generator, **sizes)
        self.visual_factors = self._table(sizes["users"], sizes["visual_factors"], generator=generator)  # θ
        self.projection = self._table(sizes["dimensions"], sizes["visual_factors"], generator=generator)  # Eᵀ
        self.visual_bias = nn.Parameter(torch.zeros(sizes["dimensions"]))  # β′

    def _prepare(self, train, features, cfg, generator):
        dimensions = checked_features(features, train.shape[1]).shape[1]
        self._build(
            generator,
            users=train.shape[0],
            items=train.shape[1],
            factors=cfg.factors,
            visual_factors=cfg.visual_factors,
            dimensions=dimensions,
        )
        self._zero_unknown(train)
        with torch.no_grad():
            self.visual_factors[torch.from_numpy(np.diff(train.indptr) == 0)] = 0

    def _train(self, train, split, features, cfg, *where):
        self.visual_l2 = cfg.visual_l2
        return super()._train(train, split, features, cfg, *where)

    def _features(self, features, n_items):
        if features is None:
            raise ValueError("VBPR needs the items' features")
        features = checked_features(features, n_items).to(self.bias)
        if features.shape[1] != self.sizes["dimensions"]:
            expected = self.sizes["dimensions"]
            raise ValueError(f"features have {features.shape[1]} dimensions, this VBPR expects {expected}")
        return features

    def _score(self, users, items, features):
        scaled = features / features.shape[1] ** 0.5
        visual = self.visual_factors[users] @ (scaled @ self.projection).T + scaled @ self.visual_bias
        return super()._score(users, items, None) + visual

    def score_difference(self, users, positives, negatives, features):
        difference, penalty = super().score_difference(users, positives, negatives, None)
        taste = functional.embedding(users, self.visual_factors)
        seen, other = self._views(torch.stack([positives, negatives]), features)
        gap = seen - other
        difference = difference + (taste * gap[:, :-1]).sum(1) + gap[:, -1]
        look = (seen**2 + other**2).sum(-1).mean()
        return difference, penalty + (taste**2).sum(1).mean() + self.visual_l2 * look

    def _views(self, items, features) -> torch.Tensor:
        """(E f_i, β′ · f_i) of `items` (2, B): (2, B, factors + 1)."""
        look = torch.cat([self.projection, self.visual_bias[:, None]], dim=1) / features.shape[1] ** 0.5
        if len(features) <= items.numel():  # then projecting every item once is less work
            return functional.embedding(items, features @ look)
        return functional.embedding(items, features) @ look

    @torch.no_grad()
    def visual_matrix(self) -> torch.Tensor:
        """Rows w_u (U, D): how much user u's score changes per unit of each feature."""
        return (self.visual_factors @ self.projection.T + self.visual_bias) / self.sizes["dimensions"] ** 0.5

    @torch.no_grad()
    def base_scores(self, users=None) -> torch.Tensor:
        """β_i + γ_u · γ_i: what is left of the scores (U, I) without photos."""
        return BPRMF._score(self, self._index(users, "users"), self._index(None, "items"), None)
