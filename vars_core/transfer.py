"""Transfer: what photos that were attacked on one model do in another one.

Victims other than the shop's VBPR see the same catalogue, each with features of its own kind, and are told for the
same users. Extractors other than the shop's see the same pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vars_core import paths, ranking
from vars_core.attacks import in_batches, linf
from vars_core.extractor import Extractor, extract, to_images, to_photos, train_on_categories
from vars_core.objectives import promote_in
from vars_core.recommenders import Recommender
from vars_core.runtime import device, generator
from vars_core.shop import Shop
from vars_core.victims import MODELS


@dataclass(frozen=True)
class Victim:
    """A recommender, the module `eye` that it sees photos with, and the features `served` (I, D) of the catalogue."""

    name: str
    recommender: Recommender
    eye: nn.Module
    served: np.ndarray

    @classmethod
    def load(cls, shop: Shop, name: str, seed: int) -> "Victim":
        """A victim of notebook 2 in the shop's catalogue; ValueError, naming the victims, for an unknown one."""
        if name not in MODELS:
            raise ValueError(f"no recommender is called {name!r}; there are {', '.join(MODELS)}")
        if name == "vbpr":
            return cls(name, shop.recommender, shop.extractor, shop.features)
        file = paths.inp("models/victims") / f"{name}-{seed}.safetensors"
        model = MODELS[name].load(file, shop.catalogue.fingerprint).to(device())
        if name == "dvbpr":
            return cls(name, model, model.eye.eval(), model.looks(np.asarray(shop.catalogue.photos)))
        return cls(name, model, shop.extractor, shop.features)

    def ranks(self, shop: Shop, items, photos: np.ndarray | None = None) -> np.ndarray:
        """Ranks (U, A) for the shop's reporting users, each item alone with its photo replaced (None: its own)."""
        seen = self.served[items] if photos is None else extract(self.eye, photos)
        new = self.recommender.item_scores(shop.reporting, items, torch.from_numpy(seen).to(device()))
        clean = self.recommender.scores(shop.reporting, self.served)
        return ranking.item_ranks(clean, shop.split.train[shop.reporting], items, new)

    def attack(self, shop: Shop, items, epsilon: int, steps: int, seed: int) -> np.ndarray:
        """Photos uint8 of `items` after white-box *reach* through this victim, on the users the attacker knows."""
        owned = np.asarray(shop.split.train[shop.known].todense(), bool)
        goal = promote_in(self.eye, self.recommender, shop.known, items, self.served, owned, shop.k, reach=True)
        draw = generator(seed, "white box", self.name, epsilon)

        def run(objective, images):
            return linf(objective, images, epsilon, steps=steps, generator=draw)

        return to_photos(in_batches(run, goal, to_images(shop.photos(items)), batch=16, label=self.name))


def second_extractor(shop: Shop, epochs: int, seed: int) -> Extractor:
    """A small CNN of another seed, trained on the catalogue's categories: what an attacker without f may build.

    With one category only, or no epochs, it stays untrained. Its scaler is frozen on the warm items."""
    photos, labels = (
        np.asarray(shop.catalogue.photos),
        np.asarray(shop.catalogue.items["category"].astype("category").cat.codes),
    )
    warm = np.setdiff1d(np.arange(len(photos)), shop.split.cold)
    draw = generator(seed, "second extractor")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=draw)))
        other = Extractor("small_cnn")
        if epochs and len(np.unique(labels[warm])) > 1:
            train_on_categories(other, photos[warm], labels[warm], epochs, draw)
    other = other.to(device()).eval().requires_grad_(False)
    other.freeze_scaler(photos[warm])
    return other


def hooked(goal, photos: np.ndarray, epsilon: int, steps: int, seed: int) -> np.ndarray:
    """Photos uint8 (A, H, W, 3) after PGD on `goal`, which may look through any extractor."""
    draw = generator(seed, "second extractor", epsilon)

    def run(objective, images):
        return linf(objective, images, epsilon, steps=steps, generator=draw)

    return to_photos(in_batches(run, goal, to_images(photos), label=f"hook@{epsilon}"))
