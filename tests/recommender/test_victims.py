"""AMR, visual k-NN and DVBPR: what is particular to each."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from toys import CFG, QUICK, Split, gallery, planted

from vars_core.extractor import extract, to_images
from vars_core.recommender import accuracy_metrics, bpr
from vars_core.recommender.amr import AMR
from vars_core.recommender.dvbpr import DVBPR, FeatureNetwork
from vars_core.recommender.vbpr import VBPR
from vars_core.recommender.victims import fit
from vars_core.recommender.visual_knn import VisualKNN

__all__ = ["gallery"]  # a fixture


@pytest.fixture(scope="module")
def shop():
    return planted()


@pytest.fixture(scope="module")
def amr(shop):
    split, features = shop
    return AMR().fit(split, features, CFG, seed=0)


def triples(split, seed=0):
    users = torch.arange(40)
    train = split.train.toarray()
    positives = torch.tensor([np.flatnonzero(train[u])[0] for u in users])
    negatives = torch.tensor([np.flatnonzero(~train[u])[seed] for u in users])
    return users, positives, negatives


# Trap: AMR perturbs features in the helping direction, un-normalised; or ID embeddings; or one item only.
def test_amr_adds_the_worst_change_of_length_epsilon_to_both_items(shop, amr):
    """The closed form against autograd: Γ = ∂ loss / ∂ f of each item, Δ = ε Γ / ‖Γ‖ as a constant."""
    split, features = shop
    users, positives, negatives = triples(split)
    amr.requires_grad_(True)
    looks = torch.from_numpy(features)
    scale = amr.sizes["dimensions"] ** 0.5

    def score(items, seen):  # s(u, i) per triple with features `seen` (B, D)
        visual = (amr.visual_factors[users] @ amr.projection.T + amr.visual_bias) / scale
        return amr.bias[items] + (amr.user[users] * amr.item[items]).sum(1) + (visual * seen).sum(1)

    own, other = looks[positives].clone().requires_grad_(), looks[negatives].clone().requires_grad_()
    clean = bpr.loss(score(positives, own) - score(negatives, other))
    slopes = torch.autograd.grad(clean.sum(), (own, other), retain_graph=True)
    length = amr.epsilon * scale  # in features: amr_epsilon is in units of √D
    deltas = [length * slope / slope.norm(dim=1, keepdim=True) for slope in slopes]
    for delta in deltas:
        assert delta.norm(dim=1).tolist() == pytest.approx([length] * len(users), rel=1e-5)
    hurt = bpr.loss(score(positives, looks[positives] + deltas[0]) - score(negatives, looks[negatives] + deltas[1]))
    assert (hurt > clean).all()
    expected = clean.mean() + amr.weight * hurt.mean()
    error, _ = amr.training_loss(users, positives, negatives, looks)
    assert error.item() == pytest.approx(expected.item(), rel=1e-4)
    parameters = [amr.visual_factors, amr.projection, amr.visual_bias, amr.user, amr.item, amr.bias]
    slopes = (torch.autograd.grad(value, parameters) for value in (error, expected))
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-3)
    amr.requires_grad_(False)


def test_amr_is_less_sensitive_than_vbpr_and_still_ranks(shop, amr):
    split, features = shop
    plain = VBPR().fit(split, features, CFG, seed=0)
    assert amr.visual_matrix().norm(dim=1).mean() < 0.9 * plain.visual_matrix().norm(dim=1).mean()
    clean, robust = (np.nanmean(accuracy_metrics.full_ranking(m, features, split)["auc"]) for m in (plain, amr))
    assert robust > clean - 0.03


def test_amr_without_an_adversary_is_vbpr_trained_on(shop):
    split, features = shop
    off = SimpleNamespace(**{**vars(QUICK), "amr_weight": 0.0})
    model = AMR().fit(split, features, off, seed=0)
    users, positives, negatives = triples(split)
    error, _ = model.training_loss(users, positives, negatives, torch.from_numpy(features))
    difference, _ = model.score_difference(users, positives, negatives, torch.from_numpy(features))
    assert error.item() == pytest.approx(bpr.loss(difference).mean().item())


def test_visual_knn_by_hand():
    features = np.array([[1, 0], [0, 2], [3, 3], [-1, 0]], np.float32)
    train = sparse.csr_array(np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool))
    split = Split(train, np.full(3, -1), np.full(3, -1))
    half = 0.5**0.5
    two = VisualKNN().fit(split, features, SimpleNamespace(neighbours=2)).scores(None, features)
    expected = [[0.5, 0.5, half, -0.5], [-1, 0, -half, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(two, expected, atol=1e-6)
    one = VisualKNN().fit(split, features, SimpleNamespace(neighbours=1)).scores(None, features)
    np.testing.assert_allclose(one, [[1, 1, half, 0], [-1, 0, -half, 1], [0, 0, 0, 0]], atol=1e-6)


def test_visual_knn_equals_a_slow_reference(shop):
    split, features = shop
    model = VisualKNN().fit(split, features, CFG)
    scores, unit = model.scores(None, features), functional.normalize(torch.from_numpy(features), dim=1)
    for user in (0, 7, 399):
        history = split.train[[user]].indices
        alike = np.sort((unit[history] @ unit.T).numpy(), axis=0)[::-1]
        np.testing.assert_allclose(scores[user], alike[: CFG.neighbours].mean(0), atol=1e-5)


def test_visual_knn_is_better_than_chance_on_cold_items(shop):
    split, features = shop
    seen = accuracy_metrics.full_ranking(VisualKNN().fit(split, features[:, :4], CFG), features[:, :4], split)
    assert np.nanmean(seen["cold_auc"]) > 0.65


# Trap: attacking one item changes every other item's score.
@pytest.mark.parametrize("kind", [AMR, VisualKNN])
def test_attacking_one_item_leaves_every_other_score_bit_identical(kind, shop):
    split, features = shop
    model = kind().fit(split, features, QUICK, seed=0)
    attacked = features.copy()
    attacked[5] += 3
    before, after = model.scores(None, features), model.scores(None, attacked)
    others = np.arange(150) != 5
    assert torch.equal(before[:, others], after[:, others]) and not torch.equal(before[:, 5], after[:, 5])
    alone = model.item_scores(None, [5], torch.from_numpy(attacked[[5]]))
    torch.testing.assert_close(alone[:, 0], after[:, 5])


@pytest.mark.parametrize("kind", [AMR, VisualKNN])
def test_item_scores_are_differentiable(kind, shop):
    split, features = shop
    model = kind().fit(split, features, QUICK, seed=0)
    own = torch.from_numpy(features[:4]).requires_grad_()
    (slope,) = torch.autograd.grad(model.item_scores(None, range(4), own).sum(), own)
    assert slope.abs().sum(1).min() > 0 and all(p.grad is None for p in model.parameters())


@pytest.fixture(scope="module")
def dvbpr(gallery):
    split, photos, extractor = gallery
    return DVBPR().fit(split, photos, CFG, seed=0, extractor=extractor)


def test_dvbpr_learns_to_see(gallery, dvbpr):
    split, photos, extractor = gallery
    seen = accuracy_metrics.full_ranking(dvbpr, dvbpr.features_of(photos), split, ks=(5,))
    assert np.nanmean(seen["auc"]) > 0.8 and np.nanmean(seen["cold_auc"]) > 0.7
    assert any(
        not torch.equal(a, b)
        for a, b in zip(dvbpr.network.backbone.parameters(), extractor.parameters(), strict=True)
    )


def test_dvbpr_leaves_the_extractor_it_started_from_alone(gallery):
    split, photos, extractor = gallery
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    DVBPR().fit(split, photos, QUICK, seed=0, extractor=extractor)
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())


# Trap: dropout on at inference; statistics that depend on the batch.
def test_what_dvbpr_sees_in_a_photo_depends_on_that_photo_alone(gallery, dvbpr):
    _, photos, _ = gallery
    images = to_images(photos[:8])
    dvbpr.network.train()
    with torch.no_grad():
        together, again = dvbpr.network(images), dvbpr.network(images)
        alone = dvbpr.network(images[3:4])
    assert torch.equal(together, again) and not any(m.training for m in dvbpr.network.modules())
    torch.testing.assert_close(alone[0], together[3], atol=1e-5, rtol=1e-4)


def test_attacks_go_through_dvbprs_own_network(gallery, dvbpr):
    _, photos, _ = gallery
    images = to_images(photos[50:54]).requires_grad_()
    (slope,) = torch.autograd.grad(dvbpr.item_scores(None, range(50, 54), dvbpr.network(images)).sum(), images)
    assert (slope.flatten(1).abs().sum(1) > 0).all() and all(p.grad is None for p in dvbpr.network.parameters())


def test_dvbpr_is_the_same_for_a_seed_and_survives_a_file(gallery, dvbpr, tmp_path):
    split, photos, extractor = gallery
    one, two = (DVBPR().fit(split, photos, QUICK, seed=3, extractor=extractor) for _ in range(2))
    assert (
        torch.equal(one.visual_factors, two.visual_factors)
        and (one.features_of(photos) == two.features_of(photos)).all()
    )
    again = DVBPR.load(dvbpr.save(tmp_path / "dvbpr.safetensors", "abc"), "abc")
    np.testing.assert_allclose(again.features_of(photos), extract(dvbpr.network, photos), atol=1e-5)
    assert isinstance(again.network, FeatureNetwork) and torch.equal(again.visual_factors, dvbpr.visual_factors)
    assert not any(p.requires_grad for p in again.parameters())


def test_dvbpr_wants_the_photos(gallery):
    split, photos, extractor = gallery
    with pytest.raises(ValueError, match="the 60 items' photos"):
        DVBPR().fit(split, photos[:3], QUICK, seed=0, extractor=extractor)


class Operations(TorchDispatchMode):
    """Names of the operations that run within."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["bprmf", "vbpr", "amr", "dvbpr"])
def test_training_sums_nothing_in_any_order(name, gallery):
    """index_put, out of place, is the gradient of indexing: on several threads it differs from run to run."""
    split, photos, extractor = gallery
    features = extract(extractor, photos)
    with Operations() as operations:
        fit(name, split, features, photos, extractor, QUICK, 0)
    assert "embedding_dense_backward.default" in operations.seen
    assert "index_put.default" not in operations.seen
