"""Training that keeps its best epoch and goes on where it was interrupted."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toys import (
    QUICK,
    gallery,  # noqa: F401 - a fixture
    planted,
)

from vars_core import checkpoint
from vars_core.recommender import bpr, early_stopping
from vars_core.recommender.amr import AMR
from vars_core.recommender.bprmf import BPRMF
from vars_core.recommender.dvbpr import DVBPR
from vars_core.recommender.vbpr import VBPR


@pytest.fixture(scope="module")
def shop():
    return planted()


def scripted(scores, epochs=100, **options):
    """A model whose weight is the epoch's number, validated by `scores`."""
    model, left = nn.Linear(1, 1, bias=False), iter(scores)
    optimiser = torch.optim.Adam(model.parameters())

    def learn(epoch):
        nn.init.constant_(model.weight, epoch)
        return float(epoch)

    history = early_stopping.train(model, optimiser, epochs, learn, lambda: next(left), **options)
    return int(model.weight), history


def test_the_best_epoch_is_kept_and_patience_ends_it():
    kept, history = scripted([0.5, 0.7, 0.6, 0.7, 0.6, 0.6, 0.6, 0.9])
    assert kept == 4 and len(history) == 14  # looks at epochs 2, 4, …; five without a better one after epoch 4
    assert [h["validation_auc"] for h in history if "validation_auc" in h] == [0.5, 0.7, 0.6, 0.7, 0.6, 0.6, 0.6]


def test_without_validation_the_last_epoch_is_kept():
    assert scripted([None] * 9, epochs=7)[0] == 7


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("kind", [BPRMF, VBPR, AMR])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(kind, shop, tmp_path, monkeypatch):
    split, features = shop
    cfg = SimpleNamespace(**vars(QUICK) | {"epochs": 9})
    start = {"start": VBPR().fit(split, features, QUICK, seed=1)} if kind is AMR else {}
    whole = kind().fit(split, features, cfg, seed=1, **start)
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    place, learn, seen = tmp_path / "c.safetensors", bpr._epoch, []

    def failing(*arguments):
        seen.append(1)
        if len(seen) == 6:
            raise Interrupt
        return learn(*arguments)

    monkeypatch.setattr(bpr, "_epoch", failing)
    with pytest.raises(Interrupt):
        kind().fit(split, features, cfg, seed=1, checkpoint=place, **start)
    assert place.is_file()
    resumed = kind().fit(split, features, cfg, seed=1, checkpoint=place, **start)
    assert len(seen) == 10  # five epochs, the failing one, and the four that were left
    done = kind().fit(split, features, cfg, seed=1, checkpoint=place, **start)
    assert len(seen) == 10  # what is done isn't done again
    for model in (resumed, done):
        assert model.history == whole.history
        for name, table in whole.state_dict().items():
            assert torch.equal(model.state_dict()[name], table), name


def test_dvbpr_goes_on_too(gallery, tmp_path, monkeypatch):  # noqa: F811
    split, photos, extractor = gallery
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    cfg, place = SimpleNamespace(**vars(QUICK) | {"dvbpr_epochs": 4}), tmp_path / "c.safetensors"
    whole = DVBPR().fit(split, photos, cfg, seed=0, extractor=extractor)
    look, seen = bpr.validation_auc, []

    def failing(*arguments):
        seen.append(1)
        if len(seen) == 2:
            raise Interrupt
        return look(*arguments)

    monkeypatch.setattr(bpr, "validation_auc", failing)
    with pytest.raises(Interrupt):
        DVBPR().fit(split, photos, cfg, seed=0, extractor=extractor, checkpoint=place)
    resumed = DVBPR().fit(split, photos, cfg, seed=0, extractor=extractor, checkpoint=place)
    assert [h["loss"] for h in resumed.history] == pytest.approx([h["loss"] for h in whole.history], rel=1e-3)
    np.testing.assert_allclose(resumed.features_of(photos), whole.features_of(photos), atol=1e-3)


@pytest.mark.parametrize("change", ["seed", "parameter", "features", "damage"])
def test_notes_of_another_training_are_ignored(change, shop, tmp_path, monkeypatch):
    split, features = shop
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    place = tmp_path / "c.safetensors"
    VBPR().fit(split, features, QUICK, seed=1, checkpoint=place)
    cfg = SimpleNamespace(**vars(QUICK) | ({"l2": 0.5} if change == "parameter" else {}))
    other, seed = features + (change == "features"), 2 if change == "seed" else 1
    if change == "damage":
        place.write_bytes(place.read_bytes()[:100])
    fresh = VBPR().fit(split, other, cfg, seed=seed)
    noted = VBPR().fit(split, other, cfg, seed=seed, checkpoint=place)
    assert noted.history == fresh.history and torch.equal(noted.item, fresh.item)
