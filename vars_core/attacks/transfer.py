"""Transfer: what photos that were attacked on one model do in another one.

Victims other than the shop's VBPR see the same catalogue, each with features of its own kind, and results are for the
same users. Extractors other than the shop's see the same pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vars_core import paths
from vars_core.attacks.engine import attack_photos, linf
from vars_core.attacks.promotion import push_by_scores
from vars_core.extractor import Extractor, extract, to_images, train_on_categories
from vars_core.recommender import ranking
from vars_core.recommender.base import Recommender
from vars_core.recommender.shop import Shop
from vars_core.recommender.victims import RECOMMENDERS
from vars_core.runtime import device, generator


@dataclass(frozen=True)
class Victim:
    """A recommender, the module `network` that it sees photos with, and the features `served` (I, D) of the
    catalogue."""

    name: str
    recommender: Recommender
    network: nn.Module
    served: np.ndarray

    @classmethod
    def load(cls, shop: Shop, name: str, seed: int) -> "Victim":
        """A victim of notebook 2 in the shop's catalogue; ValueError, naming the victims, for an unknown one."""
        if name not in RECOMMENDERS:
            raise ValueError(f"no recommender is called {name!r}; there are {', '.join(RECOMMENDERS)}")
        if name == "vbpr":
            return cls(name, shop.recommender, shop.extractor, shop.features)
        file = paths.read_from("models/victims") / f"{name}-{seed}.safetensors"
        model = RECOMMENDERS[name].load(file, shop.catalogue.fingerprint).to(device())
        if name == "dvbpr":
            return cls(name, model, model.network.eval(), model.features_of(np.asarray(shop.catalogue.photos)))
        return cls(name, model, shop.extractor, shop.features)

    def ranks(self, shop: Shop, items, photos: np.ndarray | None = None) -> np.ndarray:
        """Ranks (U, A) for the shop's reporting users, each item alone with its photo replaced (None: its own)."""
        seen = self.served[items] if photos is None else extract(self.network, photos)
        new = self.recommender.item_scores(shop.reporting_users, items, torch.from_numpy(seen).to(device()))
        clean = self.recommender.scores(shop.reporting_users, self.served)
        return ranking.item_ranks(clean, shop.split.train[shop.reporting_users], items, new)

    def attack(self, shop: Shop, items, epsilon: int, steps: int, seed: int) -> np.ndarray:
        """Photos uint8 of `items` after white-box *reach* through this victim, on the users the attacker knows."""
        owned = np.asarray(shop.split.train[shop.known_users].todense(), bool)
        objective = push_by_scores(
            self.network, self.recommender, shop.known_users, items, self.served, owned, shop.k, "reach"
        )
        draw = generator(seed, "white box", self.name, epsilon)
        options = dict(steps=steps, generator=draw, batch=16, label=self.name)
        return attack_photos(linf, objective, to_images(shop.photos(items)), epsilon, **options)


def second_extractor(shop: Shop, cfg, epochs: int, seed: int) -> Extractor:
    """What an attacker without f sees with: the extractor that `cfg` (params.Attacks) names, or a small CNN of
    another seed, which is trained on the catalogue's categories for `epochs`.

    With one category only, or no epochs, that one stays untrained. The scaler is frozen on the warm items."""
    photos, labels = (
        np.asarray(shop.catalogue.photos),
        np.asarray(shop.catalogue.items["category"].astype("category").cat.codes),
    )
    warm = np.setdiff1d(np.arange(len(photos)), shop.split.cold)
    draw = generator(seed, "second extractor")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=draw)))
        named = ("attacks.other_extractor", "attacks.other_pretrained")
        other = Extractor(cfg.other_extractor or "small_cnn", cfg.other_pretrained, named)
        if not cfg.other_extractor and epochs and len(np.unique(labels[warm])) > 1:
            train_on_categories(other, photos[warm], labels[warm], epochs, draw)
    other = other.to(device()).eval().requires_grad_(False)
    other.freeze_scaler(photos[warm])
    return other


def attacked_photos(objective, photos: np.ndarray, epsilon: int, steps: int, seed: int) -> np.ndarray:
    """Photos uint8 (A, H, W, 3) after PGD on `objective`, which may look through any extractor."""
    draw = generator(seed, "second extractor", epsilon)
    options = dict(steps=steps, generator=draw, label=f"hook@{epsilon}")
    return attack_photos(linf, objective, to_images(photos), epsilon, **options)
