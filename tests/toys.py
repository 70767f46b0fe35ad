"""Toys that tests of several rooms share: photos, an extractor, planted tastes, a shop."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage, sparse
from torch import nn

from vars_core.extractor import Extractor, extract
from vars_core.recommender.shop import Shop
from vars_core.recommender.vbpr import VBPR
from vars_core.reconstruction.training import TERMS, FilterLoss
from vars_core.runtime import generator

ITEMS = np.array([2, 5, 11])  # that the toy shop's attackers push

CFG = SimpleNamespace(factors=8, visual_factors=8, epochs=30, batch_size=512, learning_rate=1e-2, l2=3e-2,
                      visual_l2=0.3, amr_epsilon=0.3, amr_weight=1.0, neighbours=3, dvbpr_epochs=60)  # fmt: skip

QUICK = SimpleNamespace(**{**vars(CFG), "epochs": 2, "dvbpr_epochs": 4})


@dataclass
class Split:
    """What recommenders need of `vars_core.data.split.Split`."""

    train: sparse.csr_array
    validation: np.ndarray
    test: np.ndarray
    cold: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    cold_positives: sparse.csr_array = None


def smooth_photos(n=48, side=16, seed=0):
    """Coloured gradients: what an attack adds to them does not belong."""
    raw = np.random.default_rng(seed).normal(size=(n, side, side, 3))
    blurred = ndimage.gaussian_filter(raw, (0, side / 5, side / 5, 0), mode="wrap")
    return np.clip(128 + 40 * blurred / blurred.std(), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def extractor():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.Tanh(), nn.Conv2d(12, 12, 3, 2, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )
    with torch.no_grad():  # standardised, as the study's extractors are
        for layer in (net[0], net[2]):
            layer.weight.mul_(3)
        seen = net(torch.from_numpy(smooth_photos()).permute(0, 3, 1, 2).float() / 255)
    scale = nn.BatchNorm1d(seen.shape[1], affine=False)
    scale.running_mean, scale.running_var = seen.mean(0), seen.var(0)
    return nn.Sequential(net, scale).eval().requires_grad_(False)


def loss(extractor, **options):
    dim = extractor(torch.zeros(1, 3, 16, 16)).shape[1]
    weights = {f"{term}_weight": 1.0 for term in TERMS}
    return FilterLoss(extractor, **({"ranking": torch.eye(dim)} | weights | options))


def planted(n_users=400, n_items=150, n_cold=25, seed=0):
    """Users like what they see: tastes over 4 of 32 features. Leave one out, `n_cold` cold items."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_items, 32)).astype(np.float32)
    score = 2 * rng.normal(size=(n_users, 4)) @ features[:, :4].T
    liked = np.argsort(-(score + rng.gumbel(size=score.shape)), axis=1)[:, :15]
    cold = np.sort(rng.choice(n_items, n_cold, replace=False))
    train, removed = np.zeros((2, n_users, n_items), bool)
    held = np.full((2, n_users), -1)
    for user, items in enumerate(liked):
        warm = rng.permutation(items[~np.isin(items, cold)])
        held[:, user], train[user, warm[2:]] = warm[:2], True
        removed[user, items[np.isin(items, cold)]] = True
    split = Split(sparse.csr_array(train), held[0], held[1], cold, sparse.csr_array(removed))
    return split, features


@pytest.fixture(scope="module")
def gallery():
    """Photos whose colour decides who likes them, and a small untrained extractor."""
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (60, 3))
    photos = np.clip(colours[:, None, None] + rng.normal(0, 12, (60, 16, 16, 3)), 0, 255).astype(np.uint8)
    tastes = rng.normal(size=(120, 3))
    score = tastes @ ((colours - 128) / 50).T + 0.3 * rng.gumbel(size=(120, 60))
    cold = np.arange(50, 60)
    train, removed, held = np.zeros((120, 60), bool), np.zeros((120, 60), bool), np.full((2, 120), -1)
    for user, items in enumerate(np.argsort(-score, axis=1)[:, :14]):
        warm = rng.permutation(items[items < 50])
        held[:, user], train[user, warm[2:]] = warm[:2], True
        removed[user, items[items >= 50]] = True
    torch.manual_seed(0)
    extractor = Extractor("small_cnn")
    extractor.freeze_scaler(photos)
    split = Split(sparse.csr_array(train), held[0], held[1], cold, sparse.csr_array(removed))
    return split, photos, extractor.requires_grad_(False)


@pytest.fixture
def shop(extractor):
    """40 users, 30 items of smooth photos, a random VBPR that looks at them."""
    photos, draw = smooth_photos(30), generator(0, "shop")
    features = extract(extractor, photos)
    model = VBPR()
    model._build(draw, users=40, items=30, factors=2, visual_factors=4, dimensions=features.shape[1])
    with torch.no_grad():
        for table in (model.visual_factors, model.projection):
            table.mul_(20)
    train = np.random.default_rng(0).random((40, 30)) < 0.1
    train[:, ITEMS] = False
    train[0, ITEMS[0]] = True
    held = np.array([np.flatnonzero(~row)[u % 5] for u, row in enumerate(train)])
    parts = SimpleNamespace(
        train=sparse.csr_array(train),
        test=held,
        validation=held,
        cold=ITEMS,
        cold_positives=sparse.csr_array((40, 30), dtype=bool),
    )
    items = pd.DataFrame({"category": [f"kind {item % 3}" for item in range(30)]})
    catalogue = SimpleNamespace(photos=photos, items=items, name="toy", simulated=True)
    users = np.arange(40)
    return Shop(catalogue, parts, extractor, model.requires_grad_(False), features, users[::2], users[1::2], k=5)
