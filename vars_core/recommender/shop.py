"""A shop: one recommender that serves a catalogue through a filter, and what an attacked photo does there.

Ranks are those of one changed item among everyone else's clean items; results are reported for users that the
attacker did not know (U \\ U_a).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from vars_core import paths, pretrained
from vars_core.data import arrays, catalogue, split
from vars_core.extractor import Extractor, extract
from vars_core.recommender import accuracy_metrics, attack_metrics, ranking
from vars_core.recommender.vbpr import VBPR
from vars_core.runtime import device


@dataclass(frozen=True)
class Shop:
    """`features` (I, D) are those that are served: f(R(x)) of every item; R is the identity without a filter.

    `known_users` and `reporting_users` are the two disjoint sets of users."""

    catalogue: catalogue.Catalogue
    split: split.Split
    extractor: Extractor
    recommender: VBPR
    features: np.ndarray
    known_users: np.ndarray
    reporting_users: np.ndarray
    k: int
    image_filter: nn.Module | None = None

    @classmethod
    def open(cls, recommender_cfg, attacks_cfg, seed: int) -> "Shop":
        """The shop that notebooks 1 and 2 built, with the VBPR of the first seed."""
        folder = paths.read_from("data/prepared")
        goods, parts = catalogue.load(folder), split.load(folder / "split.npz")
        models = pretrained.read_from("models/recommender")
        recommender = VBPR.load(models / f"vbpr-{seed}.safetensors", goods.fingerprint)
        if not 1 <= recommender_cfg.k <= len(goods.items):
            raise ValueError(f"recommender.k = {recommender_cfg.k} does not fit {len(goods.items)} items")
        known, reporting = split.attacker_users(len(goods.user_ids), attacks_cfg.attacker_users, seed)
        extractor, kept = Extractor.load(models / "extractor.safetensors"), models / "features.npy"
        features = arrays.load(kept) if kept.is_file() else extract(extractor, goods.photos)  # pretrained/ has none
        return cls(goods, parts, extractor, recommender.to(device()), features, known, reporting, recommender_cfg.k)

    def with_filter(self, image_filter: nn.Module) -> "Shop":
        """The same shop with every photo, attacked or not, seen through `image_filter`."""
        features = extract(self.extractor, self.catalogue.photos, through=image_filter)
        return replace(self, image_filter=image_filter, features=features)

    def photos(self, items) -> np.ndarray:
        return np.asarray(self.catalogue.photos[items])

    def served_features(self, photos: np.ndarray) -> np.ndarray:
        """Features (A, D) of uploaded uint8 photos (A, H, W, 3), as this shop sees them."""
        return extract(self.extractor, photos, through=self.image_filter)

    def _scores(self, users) -> torch.Tensor:
        return self.recommender.scores(users, self.features)

    @cached_property
    def clean_scores(self) -> torch.Tensor:
        """(U, I) for the reporting users."""
        return self._scores(self.reporting_users)

    def scores_with(self, items, features: np.ndarray) -> torch.Tensor:
        """Scores (U, A) that the items would have with these features, for the reporting users."""
        served = torch.from_numpy(features).to(device())
        return self.recommender.item_scores(self.reporting_users, items, served)

    @cached_property
    def rank_lookup(self) -> ranking.RankLookup:
        """The clean lists of the reporting users."""
        return ranking.RankLookup(self.clean_scores, self.split.train[self.reporting_users])

    def ranks_with(self, items, features: np.ndarray) -> np.ndarray:
        """Ranks (U, A) for the reporting users, each item alone with these served features (A, D)."""
        return self.rank_lookup.ranks(items, self.scores_with(items, features))

    def ranks(self, items, photos: np.ndarray | None = None) -> np.ndarray:
        """Ranks (U, A) for the reporting users, each item alone with its photo replaced (None: its own)."""
        return self.ranks_with(items, self.features[items] if photos is None else self.served_features(photos))

    def lists(self, rows, length: int) -> np.ndarray:
        """The first items of the lists of reporting users number `rows`: (len(rows), length)."""
        return ranking.top_k(self.clean_scores[rows], self.split.train[self.reporting_users[rows]], length)

    def exposed(self, items, photos: np.ndarray | None = None) -> np.ndarray:
        """1[r ≤ k] (U, A), NaN where the user has the item."""
        return attack_metrics.exposed(self.ranks(items, photos), self.k)

    def accuracy(self) -> dict[str, np.ndarray]:
        """Per-user accuracy on the held-out items, with the served features."""
        ks = sorted({k for k in (*accuracy_metrics.KS, self.k) if k <= len(self.catalogue.items)})
        return accuracy_metrics.full_ranking(self.recommender, self.features, self.split, ks)

    def hooks(self, items, n_hooks: int, generator: torch.Generator) -> np.ndarray:
        """For each item the popular training item whose looks it will copy: one of the `n_hooks` most bought
        ones, at random; the next one in order where that has the very same photo. An attacker sees bestsellers, not
        scores."""
        popularity = np.asarray(self.split.train.sum(0)).ravel()
        best = np.argsort(-popularity, kind="stable")[:n_hooks]
        drawn = torch.randint(0, len(best), (len(items),), generator=generator).numpy()
        own, theirs = self.photos(items), self.photos(best)
        for row, place in enumerate(drawn):
            others = np.roll(np.arange(len(best)), -place)
            differing = (other for other in others if not np.array_equal(own[row], theirs[other]))
            drawn[row] = next(differing, place)
        return best[drawn]

    def hook_features(self, hooks) -> torch.Tensor:
        """f(x_h) (A, D) of the hooks, raw: what the attacker can compute from the public photos."""
        return torch.from_numpy(extract(self.extractor, self.photos(hooks))).to(device())
