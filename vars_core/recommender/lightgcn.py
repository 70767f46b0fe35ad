"""A graph victim: LightGCN with a visual branch, as MMGCN has one for each kind of content."""

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional

from vars_core import runtime
from vars_core.recommender.base import Recommender, checked_features

LAYERS = 2  # of propagation, beside the embeddings themselves


class VisualLightGCN(Recommender):
    """s(u, i) = β_i + x_u · x_i, where x = [γ, v] are what a graph of users and their training items makes of them.

    γ are free embeddings, as in LightGCN (He et al., SIGIR 2020); v starts from θ_u and E f_i / √D, as a branch of
    MMGCN (Wei et al., MM 2019) does. Each layer is the product with Ã = D^(−½) A D^(−½) and nothing else, and x is
    the mean over LAYERS + 1 layers. An item without edges keeps what it starts with: the mean would count zeros.

    As a shop has it: users and the messages that items get from their neighbours are computed from the catalogue's
    photos and cached; a changed photo changes its own item's part of v at once. So s is linear in f_i, s(u, i) =
    β_i + γ_u·γ_i + v_u·(m_i + o_i E f_i / √D) with m_i the messages and o_i the weight of the item's own part."""

    def _build(self, generator=None, **sizes):
        super()._build(**sizes)
        users, items = sizes["users"], sizes["items"]
        free, seen = sizes["factors"], sizes["visual_factors"]
        self.user = self._table(users, free, generator=generator)
        self.item = self._table(items, free, generator=generator)
        self.visual_factors = self._table(users, seen, generator=generator)  # θ
        self.projection = self._table(sizes["dimensions"], seen, generator=generator)  # Eᵀ
        # what is served: γ and v after propagation, messages and own weights
        self.register_buffer("user_served", torch.zeros(users, free))
        self.register_buffer("item_served", torch.zeros(items, free))
        self.register_buffer("taste", torch.zeros(users, seen))
        self.register_buffer("messages", torch.zeros(items, seen))
        self.register_buffer("own", torch.zeros(items, 1))

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
        with torch.no_grad():  # nobody's gradient reaches them
            self.user[torch.from_numpy(np.diff(train.indptr) == 0)] = 0
            self.visual_factors[torch.from_numpy(np.diff(train.indptr) == 0)] = 0
            self.item[torch.from_numpy(np.bincount(train.indices, minlength=train.shape[1]) == 0)] = 0

    def _train(self, train, split, features, cfg, seed, device, checkpoint):
        self.visual_l2 = cfg.visual_l2
        self.graph = _Graph(train, torch.device(device or runtime.device()))
        try:
            return super()._train(train, split, features, cfg, seed, device, checkpoint)
        finally:
            del self.graph  # what is served holds what it is needed for

    def _features(self, features, n_items):
        if features is None:
            raise ValueError("VisualLightGCN needs the items' features")
        features = checked_features(features, n_items).to(self.bias)
        if features.shape[1] != self.sizes["dimensions"]:
            expected = self.sizes["dimensions"]
            raise ValueError(f"features have {features.shape[1]} dimensions, this VisualLightGCN expects {expected}")
        return features

    def _look(self, features) -> torch.Tensor:
        return features @ self.projection / features.shape[1] ** 0.5

    def _propagated(self, features) -> tuple[torch.Tensor, torch.Tensor]:
        """[γ, v] of users (U, F) and items (I, F) after propagation."""
        users = torch.cat([self.user, self.visual_factors], 1)
        start = torch.cat([users, torch.cat([self.item, self._look(features)], 1)])
        total = layer = start
        for _ in range(LAYERS):
            layer = torch.sparse.mm(self.graph.matrix, layer)
            total = total + layer
        mean = torch.where(self.graph.isolated, start, total / (LAYERS + 1))
        return mean[: len(users)], mean[len(users) :]

    def score_difference(self, users, positives, negatives, features):
        every_user, every_item = self._propagated(features)
        user, both = functional.embedding(users, every_user), torch.stack([positives, negatives])
        item, other = functional.embedding(both, every_item)
        bias = functional.embedding(both, self.bias[:, None])[..., 0]
        difference = bias[0] - bias[1] + (user * (item - other)).sum(1)
        free = functional.embedding(users, self.user), functional.embedding(both, self.item)
        taste = functional.embedding(users, self.visual_factors)
        look = functional.embedding(both, self._look(features))
        penalty = (free[0] ** 2).sum(1).mean() + 2 * (free[1] ** 2).sum(-1).mean() + (bias**2).sum(0).mean()
        penalty = penalty + (taste**2).sum(1).mean()
        return difference, penalty + 2 * self.visual_l2 * (look**2).sum(-1).mean()

    @torch.no_grad()
    def refresh(self, features) -> None:
        """What is served, from what is learned."""
        users, items = self._propagated(features)
        factors = self.sizes["factors"]
        self.user_served.copy_(users[:, :factors])
        self.item_served.copy_(items[:, :factors])
        self.taste.copy_(users[:, factors:])
        self.own.copy_(self.graph.own)
        self.messages.copy_(items[:, factors:] - self.own * self._look(features))

    def _score(self, users, items, features):
        seen = self.messages[items] + self.own[items] * self._look(features)
        return self.bias[items] + self.user_served[users] @ self.item_served[items].T + self.taste[users] @ seen.T


class _Graph:
    """Ã of users and items as a sparse matrix, the nodes without edges, and o_i, an item's own weight in its mean."""

    def __init__(self, train: sparse.csr_array, device):
        edges = train.astype(np.float32)
        adjacency = sparse.block_array([[None, edges], [edges.T, None]]).tocsr()
        degree = np.asarray(adjacency.sum(1)).ravel()
        scale = sparse.diags_array(np.where(degree > 0, np.maximum(degree, 1) ** -0.5, 0).astype(np.float32))
        normalised = (scale @ adjacency @ scale).tocsr()
        places = np.stack(normalised.tocoo().coords).astype(np.int64)
        values, shape = torch.from_numpy(normalised.data), normalised.shape
        with torch.sparse.check_sparse_tensor_invariants(
            enable=False
        ):  # scipy has checked them; said, else torch warns
            matrix = torch.sparse_coo_tensor(torch.from_numpy(places), values, shape)
            self.matrix = matrix.coalesce().to(device)
        self.isolated = torch.from_numpy(degree == 0)[:, None].to(device)
        # (I + Ã + Ã²) / 3 on the diagonal: a bipartite graph has no way of one step back
        back = np.asarray(normalised.power(2).sum(1)).ravel()
        own = np.where(degree == 0, 1.0, (1 + back) / (LAYERS + 1)).astype(np.float32)
        self.own = torch.from_numpy(own)[train.shape[0] :, None].to(device)
