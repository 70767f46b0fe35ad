"""DVBPR: preferences and the network that sees, trained end to end (Kang et al., ICDM 2017)."""

import copy

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.nn import functional

from vars_core import runtime
from vars_core.extractor import Extractor, extract, to_images
from vars_core.recommender import bpr, early_stopping
from vars_core.recommender.base import Recommender, checked_features

GROUP = 128  # items per step
TRIES = 20  # at a negative within the group
NETWORK_RATE = 1e-3  # the network starts from trained weights; tables learn at cfg.learning_rate


class FeatureNetwork(nn.Module):
    """Φ: images (N, 3, H, W) in [0, 1] → (N, K). A convolutional network and a linear layer; normalisation inside.

    BatchNorm keeps the statistics that the network came with and there is no dropout, so Φ of a photo depends on that
    photo alone, in training and after."""

    def __init__(self, extractor: Extractor, dimensions: int):
        super().__init__()
        self.backbone = copy.deepcopy(extractor)
        self.top = nn.Linear(extractor.dim, dimensions)
        self.name, self.dim = f"dvbpr-{extractor.name}", dimensions

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.top(self.backbone(images) / self.backbone.dim**0.5)

    def train(self, mode: bool = True):
        return super().train(False)


class DVBPR(Recommender):
    """s(u, i) = θ_u · Φ(x_i): no item factors and no biases, as in the paper (eq. 5), trained by BPR through Φ.

    The features of this victim are those of its *own* network: `network` is Φ, `scores(users, Φ(x))` takes what
    `extract(model.network, photos)` gives, and an attack differentiates through `network`. Negatives, early
    stopping and the penalty are those of the other victims.

    A step takes a random group of items and all training interactions with them; negatives come from the same group,
    which over the epochs is as good as drawing them from all items. So an epoch sees every interaction once and every
    photo once, where triples drawn at random would take two photos each through the network."""

    def _build(self, generator=None, extractor: Extractor | None = None, **sizes):
        self.sizes = sizes
        self.network = FeatureNetwork(extractor or Extractor(sizes["network"]), sizes["dimensions"])
        self.visual_factors = self._table(sizes["users"], sizes["dimensions"], generator=generator)  # θ
        self.register_buffer("bias", torch.zeros(sizes["items"]))  # fixed: the paper has none

    def fit(self, split, photos=None, cfg=None, seed: int = 0, *, extractor: Extractor, device=None, checkpoint=None):
        """Train on `split.train` and uint8 `photos` (I, H, W, 3), from the weights of `extractor`."""
        train = self._history(split)
        if photos is None or len(photos) != train.shape[1]:
            raise ValueError(f"DVBPR needs the {train.shape[1]} items' photos")
        sizes = {"users": train.shape[0], "items": train.shape[1], "dimensions": cfg.visual_factors}
        torch.manual_seed(seed)  # of the linear layer
        self._build(runtime.generator(seed, "DVBPR"), extractor, **sizes, network=extractor.name)
        with torch.no_grad():
            self.visual_factors[torch.from_numpy(np.diff(train.indptr) == 0)] = 0
        self.to(torch.device(device or runtime.device())).requires_grad_(True)
        noted = self._checkpoint(checkpoint, train, split.validation, photos, cfg, seed)
        self._learn(train, split.validation, photos, cfg, seed, noted)
        self.network.eval()
        return self.requires_grad_(False)

    def _learn(self, train, validation, photos, cfg, seed: int, checkpoint) -> None:
        negatives, owners = bpr.NegativeSampler(train), sparse.csc_array(train)
        groups = [{"params": [self.visual_factors]}, {"params": self.network.top.parameters()},
                  {"params": self.network.backbone.parameters(), "lr": NETWORK_RATE}]  # fmt: skip
        optimiser = torch.optim.Adam(groups, lr=cfg.learning_rate)

        def learn(epoch: int) -> float:
            rng = runtime.rng(seed, "groups", epoch)
            known = rng.permutation(negatives.items)
            parts = np.array_split(known, -(-len(known) // GROUP))
            drawn = [_triples(part, owners, negatives, rng) for part in parts]
            losses = [self._step(part, *t, photos, cfg.l2, optimiser) for part, t in zip(parts, drawn, strict=True)]
            return float(np.nanmean(losses))

        def validate() -> float | None:
            return bpr.validation_auc(self, train, validation, self.features_of(photos))

        self.history = early_stopping.train(self, optimiser, cfg.dvbpr_epochs, learn, validate, checkpoint)
        optimiser.zero_grad(set_to_none=True)  # an attacker's graph must not find a trace of training

    def _step(self, items, users, positives, negatives, photos, l2: float, optimiser) -> float:
        if not len(users):
            return np.nan
        images = to_images(photos[items]).contiguous(memory_format=torch.channels_last)
        with runtime.mixed_precision(images):
            looks = self.network(images)
        place = torch.from_numpy(np.stack([positives, negatives])).to(looks.device)
        # embedding, not indexing: the gradient of indexing is summed in any order, and no two trainings would agree
        seen = functional.embedding(place, looks.float())
        taste = functional.embedding(torch.from_numpy(users).to(looks.device), self.visual_factors)
        error = bpr.loss((taste * (seen[0] - seen[1])).sum(1)).mean()
        penalty = (taste**2).sum(1).mean() + (seen**2).sum(-1).mean()
        optimiser.zero_grad(set_to_none=True)
        (error + l2 * penalty).backward()
        optimiser.step()
        return error.item()

    def features_of(self, photos: np.ndarray) -> np.ndarray:
        """Φ of uint8 photos (N, H, W, 3): the features that `scores` takes, (N, K)."""
        return extract(self.network, photos)

    def _features(self, features, n_items):
        if features is None:
            raise ValueError("DVBPR needs Φ of the photos, as `features_of` gives it")
        return checked_features(features, n_items).to(self.visual_factors)

    def _score(self, users, items, features):
        return self.visual_factors[users] @ features.T

    @torch.no_grad()
    def visual_matrix(self) -> torch.Tensor:
        """Rows θ_u (U, K): how much user u's score changes per unit of each entry of Φ."""
        return self.visual_factors.detach()


def _triples(items, owners, negatives, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For all interactions with `items`: the user, the item's place in `items`, and that of one the user has not."""
    bought = sparse.coo_array(owners[:, items])
    users, positives = bought.row.astype(np.int64), bought.col.astype(np.int64)
    drawn = rng.integers(len(items), size=len(users))
    for _ in range(TRIES):
        again = np.flatnonzero(negatives.contains(users, items[drawn]))
        if not len(again):
            break
        drawn[again] = rng.integers(len(items), size=len(again))
    free = ~negatives.contains(users, items[drawn])  # who has nearly all of the group is left out
    return users[free], positives[free], drawn[free]
