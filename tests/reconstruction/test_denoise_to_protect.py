"""The nearest rival: its photos keep their budgets, and it learns to undo what it was shown."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import extractor, shop

from vars_core.attacks.promotion import push
from vars_core.extractor import to_images
from vars_core.reconstruction import denoise_to_protect
from vars_core.reconstruction.filters import UNetDenoiser

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures
CFG = SimpleNamespace(epsilons=[8], attack_steps=3, batch_size=8, learning_rate=5e-3)


def test_its_photos_are_attacked_by_the_insider_within_fifteen_grey_levels(shop, monkeypatch):
    monkeypatch.setattr(denoise_to_protect, "BATCH", 4)
    items = np.arange(0, 30, 2)
    clean, attacked = shop.photos(items), denoise_to_protect.attacked_photos(shop, items, 5, seed=0)
    change = np.abs(attacked.astype(int) - clean).max((1, 2, 3))
    assert change.min() >= 1 and change.max() <= denoise_to_protect.LARGEST and len(set(change)) > 5
    goal = push(shop, items, shop.extractor, "insa")
    with torch.no_grad():
        assert (goal(to_images(attacked)) > goal(to_images(clean))).all()
    assert np.array_equal(clean, shop.photos(items))  # the catalogue's own stay as they are


def test_it_learns_to_undo_its_attacks(shop):
    items = np.arange(30)
    torch.manual_seed(0)
    model, dim = UNetDenoiser(width=6), shop.features.shape[1]
    history = denoise_to_protect.train(model, shop, items, torch.eye(dim) / dim, CFG, steps=120, seed=0)
    assert len(history) == 120 and (history.ranking[:60] == 0).all() and (history.ranking[60:] > 0).all()
    assert (history[["pixel", "identity", "gate"]] == 0).all().all()
    attacked = denoise_to_protect.attacked_photos(shop, items, CFG.attack_steps, seed=0)
    before = np.square(shop.served_features(attacked) - shop.features).mean()
    after = np.square(shop.with_filter(model).served_features(attacked) - shop.features).mean()
    assert after < 0.6 * before
