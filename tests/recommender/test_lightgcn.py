"""The graph victim: propagation by hand, linear in the photo, cold items served, learned looks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from toys import CFG, planted

from vars_core.recommender import accuracy_metrics
from vars_core.recommender.lightgcn import LAYERS, VisualLightGCN

pytestmark = pytest.mark.usefixtures("on_cpu")


@pytest.fixture(scope="module")
def world():
    return planted()


@pytest.fixture(scope="module")
def fitted(world):
    split, features = world
    return VisualLightGCN().fit(split, features, CFG, seed=0)


def small(epochs=1):
    """Three users, four items; item 3 has no edges."""
    train = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]], bool)
    split = SimpleNamespace(train=sparse.csr_array(train), validation=np.full(3, -1))
    features = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    cfg = SimpleNamespace(**{**vars(CFG), "epochs": epochs, "factors": 2, "visual_factors": 3, "learning_rate": 0.1})
    return train, features, VisualLightGCN().fit(split, features, cfg, seed=0)


def test_propagation_as_the_papers_write_it():
    train, features, model = small()
    a = np.zeros((7, 7))
    a[:3, 3:], a[3:, :3] = train, train.T
    degree = a.sum(1)
    scale = np.divide(1, np.sqrt(degree), where=degree > 0, out=np.zeros(7))
    step = scale[:, None] * a * scale
    visual = features @ model.projection.numpy() / 5**0.5
    start = np.concatenate(
        [np.c_[model.user.numpy(), model.visual_factors.numpy()], np.c_[model.item.numpy(), visual]]
    )
    mean = sum(np.linalg.matrix_power(step, n) @ start for n in range(LAYERS + 1)) / (LAYERS + 1)
    mean[degree == 0] = start[degree == 0]
    wanted = model.bias.numpy() + mean[:3] @ mean[3:].T
    np.testing.assert_allclose(model.scores(None, features).numpy(), wanted, rtol=1e-4, atol=1e-6)
    # the item's own part of what it ends with
    own = sum(np.diag(np.linalg.matrix_power(step, n)) for n in range(LAYERS + 1)) / (LAYERS + 1)
    np.testing.assert_allclose(model.own[:3, 0].numpy(), own[3:6], rtol=1e-5)
    assert model.own[3] == 1


def test_a_changed_photo_changes_its_own_item_at_once_and_in_a_straight_line(world, fitted):
    _, features = world
    features = torch.from_numpy(features)
    clean = fitted.scores(None, features)
    items, change = [3, 40, 90], torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fitted.item_scores(None, items, features[items]), clean[:, items])
    once = fitted.item_scores(None, items, features[items] + change) - clean[:, items]
    twice = fitted.item_scores(None, items, features[items] + 2 * change) - clean[:, items]
    torch.testing.assert_close(twice, 2 * once, rtol=1e-3, atol=1e-4)
    changed = features.clone()
    changed[3] += change[0]
    after = fitted.scores(None, changed)
    others = np.delete(np.arange(len(features)), 3)
    assert torch.equal(after[:, others], clean[:, others]) and not torch.equal(after[:, 3], clean[:, 3])


def test_it_learns_planted_looks_and_serves_cold_items(world, fitted):
    split, features = world
    values = accuracy_metrics.full_ranking(fitted, torch.from_numpy(features), split)
    assert np.nanmean(values["auc"]) > 0.75 and np.nanmean(values["cold_auc"]) > 0.75


def test_same_seed_same_model_and_saved_is_loaded(world, fitted, tmp_path):
    split, features = world
    again = VisualLightGCN().fit(split, features, CFG, seed=0)
    for name, table in fitted.state_dict().items():
        assert torch.equal(table, again.state_dict()[name]), name
    fitted.save(tmp_path / "m.safetensors", "abc")
    loaded = VisualLightGCN.load(tmp_path / "m.safetensors", "abc")
    looks = torch.from_numpy(features)
    assert torch.equal(loaded.scores(None, looks), fitted.scores(None, looks))


def test_gradients_reach_photos_and_nothing_else(world, fitted):
    features = torch.from_numpy(world[1])[:2].requires_grad_(True)
    (slope,) = torch.autograd.grad(fitted.item_scores([0, 1], [0, 1], features).sum(), features)
    assert slope.abs().sum() > 0 and all(p.grad is None for p in fitted.parameters())


@pytest.mark.parametrize("features", [None, np.zeros((150, 31), np.float32), np.zeros((9, 32), np.float32)])
def test_wrong_features_are_named(fitted, features):
    with pytest.raises(ValueError, match=r"features"):
        fitted.scores(None, features)
