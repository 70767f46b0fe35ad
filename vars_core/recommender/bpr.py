"""Training by Bayesian personalised ranking: triples of a user, an item they have, and one they have not."""

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional

from vars_core import runtime
from vars_core.recommender import accuracy_metrics, early_stopping, ranking


def loss(difference: torch.Tensor) -> torch.Tensor:
    """−log σ(x) per pair, x = s(u, i) − s(u, j): its slope goes to −1 as x → −∞. Rendle et al. 2009."""
    return functional.softplus(-difference)


class NegativeSampler:
    """Draws, for each given user, one item that has training interactions, none of them the user's."""

    def __init__(self, train: sparse.csr_array):
        self.items = np.unique(train.indices)
        rows = np.repeat(np.arange(train.shape[0]), np.diff(train.indptr))
        self.n_items = train.shape[1]
        self.owned = np.sort(rows * self.n_items + train.indices.astype(np.int64))
        self.saturated = np.diff(train.indptr) >= len(self.items)  # users who have them all

    def draw(self, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn = self.items[rng.integers(len(self.items), size=len(users))]
        again = np.flatnonzero(self.contains(users, drawn))
        while len(again):
            drawn[again] = self.items[rng.integers(len(self.items), size=len(again))]
            again = again[self.contains(users[again], drawn[again])]
        return drawn

    def contains(self, users, items) -> np.ndarray:
        """Whether each user (n,) has the item beside it in training."""
        keys = users * self.n_items + items
        at = np.searchsorted(self.owned, keys)
        return self.owned[np.minimum(at, len(self.owned) - 1)] == keys


def training_pairs(interactions, negatives: NegativeSampler) -> tuple[np.ndarray, np.ndarray]:
    """Users and their training items (n,), without the users who have every item."""
    users = np.repeat(np.arange(interactions.shape[0]), np.diff(interactions.indptr))
    usable = ~negatives.saturated[users]
    if not usable.any():
        raise ValueError("every user has every item in training: there is nothing to tell apart")
    return users[usable], interactions.indices[usable].astype(np.int64)


def train(model, interactions, validation, features, cfg, seed: int, checkpoint=None) -> None:
    """Fit `model` to `interactions` (sparse boolean (U, I)); leaves it at the epoch of best validation AUC.

    `cfg` gives epochs, batch_size, learning_rate, l2. Without validation items every epoch is trained.
    """
    negatives = NegativeSampler(interactions)
    users, positives = training_pairs(interactions, negatives)
    device = model.bias.device
    unknown = torch.ones(interactions.shape[1], dtype=torch.bool, device=device)
    unknown[torch.from_numpy(negatives.items).to(device)] = False
    features = model._features(features, interactions.shape[1])
    optimiser = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate, fused=True)

    def learn(epoch: int) -> float:
        rng = runtime.rng(seed, "negatives", epoch)
        order = rng.permutation(len(users))
        triples = np.stack([users[order], positives[order], negatives.draw(users[order], rng)])
        loss = _epoch(model, torch.from_numpy(triples).to(device), features, cfg, optimiser)
        _guess_bias(model, unknown)
        model.refresh(features)
        return loss

    def validate() -> float | None:
        return validation_auc(model, interactions, validation, features)

    model.history = early_stopping.train(model, optimiser, cfg.epochs, learn, validate, checkpoint)


def _epoch(model, triples, features, cfg, optimiser) -> float:
    total = torch.zeros((), device=triples.device)
    for users, positives, negatives in (part.unbind() for part in triples.split(cfg.batch_size, dim=1)):
        error, penalty = model.training_loss(users, positives, negatives, features)
        optimiser.zero_grad(set_to_none=True)
        (error + cfg.l2 * penalty).backward()
        optimiser.step()
        total += error.detach() * len(users)
    optimiser.zero_grad(set_to_none=True)
    return float(total) / triples.shape[1]


@torch.no_grad()
def _guess_bias(model, unknown) -> None:
    if unknown.any():
        model.bias[unknown] = model.bias[~unknown].mean()


def validation_auc(model, interactions, validation, features) -> float | None:
    users = np.flatnonzero(np.asarray(validation) >= 0)
    if not len(users):
        return None
    values = []
    for part in np.array_split(users, -(-len(users) // 2048)):
        scores, owned = model.scores(part, features), interactions[part]
        rank = ranking.ranks(scores, np.asarray(validation)[part], owned)
        candidates = interactions.shape[1] - np.diff(owned.indptr) - 1
        values.append(accuracy_metrics.from_ranks(rank, candidates, ())["auc"])
    return float(np.nanmean(np.concatenate(values)))
