"""The victims: gradients, invariances, bad input, and what they learn from planted tastes."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import sparse
from toys import CFG, QUICK, Split, planted

from vars_core import checkpoint
from vars_core.recommender import accuracy_metrics, bpr, ranking
from vars_core.recommender.bprmf import BPRMF
from vars_core.recommender.popularity import Popularity
from vars_core.recommender.vbpr import VBPR
from vars_core.recommender.victims import FITTED_ON_FEATURES


@pytest.fixture(scope="module")
def shop():
    return planted()


@pytest.fixture(scope="module")
def vbpr(shop):
    split, features = shop
    return VBPR().fit(split, features, CFG, seed=0)


def test_vbpr_learns_planted_looks_and_bprmf_cannot_see_cold_items(shop, vbpr):
    split, features = shop
    blind = BPRMF().fit(split, features, CFG, seed=0)
    seen = accuracy_metrics.full_ranking(vbpr, features, split)
    unseen = accuracy_metrics.full_ranking(blind, features, split)
    assert np.nanmean(seen["cold_auc"]) > 0.8
    assert np.nanmean(unseen["cold_auc"]) == pytest.approx(0.5)
    assert np.nanmean(seen["auc"]) > 0.85 and np.nanmean(unseen["auc"]) > 0.85


def test_bpr_gradient():
    x = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], requires_grad=True)
    bpr.loss(x).sum().backward()
    assert x.grad.tolist() == pytest.approx([-1, -1, -0.5, 0, 0], abs=1e-6)
    assert bpr.loss(torch.tensor(-1e4)).item() == pytest.approx(1e4)


@pytest.mark.parametrize("kind", [BPRMF, VBPR])
def test_parameter_gradients_match_the_formula(kind, shop):
    """dL/dθ_u = −σ(−x) E (f_i − f_j), and so on: one triple, by hand."""
    split, features = shop
    model = kind().fit(split, features, QUICK, seed=0).double().requires_grad_(True)
    seen = torch.from_numpy(features).double()
    user, positive, negative = (torch.tensor([n]) for n in (3, 5, 7))
    x, _ = model.score_difference(user, positive, negative, seen)
    bpr.loss(x).sum().backward()
    slope = -torch.sigmoid(-x).item()
    gap = model.item[5] - model.item[7]
    torch.testing.assert_close(model.user.grad[3], slope * gap)
    torch.testing.assert_close(model.item.grad[7], -slope * model.user[3])
    assert model.bias.grad[5].item() == pytest.approx(slope)
    assert not model.user.grad[[0, 1, 2]].any()
    expected = model.scores([3], seen)[0]
    assert x.item() == pytest.approx((expected[5] - expected[7]).item())
    if kind is VBPR:
        look = (seen[5] - seen[7]) / 32**0.5
        torch.testing.assert_close(model.visual_factors.grad[3], slope * model.projection.T @ look)
        torch.testing.assert_close(model.projection.grad, slope * torch.outer(look, model.visual_factors[3]))
        torch.testing.assert_close(model.visual_bias.grad, slope * look)


def test_scores_are_base_plus_visual_matrix(shop, vbpr):
    _, features = shop
    expected = vbpr.base_scores() + vbpr.visual_matrix() @ torch.from_numpy(features).T
    torch.testing.assert_close(vbpr.scores(None, features), expected, atol=1e-5, rtol=1e-5)
    users, items = np.array([4, 2, 9]), np.array([7, 0])
    part = vbpr.item_scores(users, items, torch.from_numpy(features[items]))
    torch.testing.assert_close(part, expected[users][:, items], atol=1e-5, rtol=1e-5)


def test_item_scores_are_differentiable_and_leave_no_gradient_behind(shop, vbpr):
    _, features = shop
    photo = torch.from_numpy(features[[3]]).requires_grad_(True)
    vbpr.item_scores([5], [3], photo).sum().backward()
    torch.testing.assert_close(photo.grad[0], vbpr.visual_matrix()[5], atol=1e-6, rtol=1e-5)
    assert all(p.grad is None and not p.requires_grad for p in vbpr.parameters())


def test_attacking_one_item_leaves_every_other_score_bit_identical(shop, vbpr):
    _, features = shop
    attacked = features.copy()
    attacked[11] = 1e3
    before, after = vbpr.scores(None, features), vbpr.scores(None, attacked)
    others = np.arange(len(features)) != 11
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.isclose(before[:, 11], after[:, 11]).any()


def test_cold_items_are_never_negatives(shop):
    split, _ = shop
    negatives = bpr.NegativeSampler(split.train)
    users = np.repeat(np.arange(400), 200)
    drawn = negatives.draw(users, np.random.default_rng(0))
    assert not np.isin(drawn, split.cold).any()
    assert not split.train.toarray()[users, drawn].any()
    assert len(np.unique(drawn)) == 150 - len(split.cold)  # and all the others are


def test_negatives_are_uniform_over_what_a_user_has_not():
    train = sparse.csr_array(np.array([[1, 0, 0, 0, 0], [1, 1, 1, 1, 0]], bool))  # item 4 is cold
    negatives = bpr.NegativeSampler(train)
    assert negatives.saturated.tolist() == [False, True]
    drawn = negatives.draw(np.zeros(6000, int), np.random.default_rng(0))
    assert np.bincount(drawn, minlength=5) / 6000 == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0], abs=0.03)


def test_unknown_items_and_users_stay_neutral(shop):
    split, features = shop
    train = split.train.tolil()
    train[8] = False
    lonely = Split(sparse.csr_array(train), np.where(np.arange(400) == 8, -1, split.validation), split.test)
    model = VBPR().fit(lonely, features, QUICK, seed=0)
    warm = np.setdiff1d(np.arange(150), split.cold)
    assert not model.item[split.cold].any() and model.item[warm].any(1).all()
    assert model.bias[split.cold].unique().item() == pytest.approx(model.bias[warm].mean().item(), abs=1e-6)
    assert not model.user[8].any() and not model.visual_factors[8].any()


@pytest.mark.parametrize("kind", [BPRMF, VBPR])
def test_same_seed_same_model(kind, shop):
    split, features = shop
    one, two = (kind().fit(split, features, QUICK, seed=3).scores(None, features) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, kind().fit(split, features, QUICK, seed=4).scores(None, features))


def test_training_keeps_the_epoch_of_best_validation_auc(shop):
    split, _ = shop
    wild = SimpleNamespace(**{**vars(CFG), "learning_rate": 0.5, "l2": 0.0, "epochs": 60})
    model = BPRMF().fit(split, None, wild, seed=0)
    looks = [h["validation_auc"] for h in model.history if "validation_auc" in h]
    now = np.nanmean(accuracy_metrics.full_ranking(model, None, split, part="validation")["auc"])
    assert len(model.history) < 60  # stopped early
    assert now == pytest.approx(max(looks)) and now > looks[-1]


def test_no_validation_items_trains_every_epoch(shop):
    split, features = shop
    blind = Split(split.train, np.full(400, -1), split.test)
    assert len(BPRMF().fit(blind, features, QUICK, seed=0).history) == 2


def test_popularity_counts_training_interactions(shop):
    split, _ = shop
    scores = Popularity().fit(split).scores([0, 1])
    assert scores.tolist() == [split.train.sum(0).tolist()] * 2


@pytest.mark.parametrize("name", FITTED_ON_FEATURES)
def test_save_and_load(name, shop, tmp_path):
    split, features = shop
    model = FITTED_ON_FEATURES[name]().fit(split, features, QUICK, seed=0)
    path = model.save(tmp_path / f"{name}.safetensors", "abc")
    again = FITTED_ON_FEATURES[name].load(path, "abc")
    assert torch.equal(model.scores(None, features), again.scores(None, features))
    assert again.fingerprint == "abc" and again.sizes == model.sizes
    assert not any(p.requires_grad for p in again.parameters())


def test_loading_refuses_other_things(shop, vbpr, tmp_path):
    path = vbpr.save(tmp_path / "vbpr.safetensors", "abc")
    with pytest.raises(ValueError, match=r"another catalogue \(abc, not xyz\)"):
        VBPR.load(path, "xyz")
    with pytest.raises(ValueError, match="holds a VBPR, not a BPRMF"):
        BPRMF.load(path)

    class Hostile:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match="not a safetensors file of the study"):
        VBPR.load(path)
    assert not (tmp_path / "ran").exists()
    torch.save(vbpr.state_dict(), path)
    with pytest.raises(ValueError, match="not a safetensors file of the study"):
        VBPR.load(path)
    with pytest.raises(FileNotFoundError):
        VBPR.load(tmp_path / "none.safetensors")


FULL = sparse.csr_array(np.ones((2, 3), bool))


def with_nan(features):
    broken = features.copy()
    broken[4, 2] = np.nan
    return broken


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s, f, m: VBPR().fit(s, with_nan(f), QUICK), "NaN .* item 4, dimension 2"),
        (lambda s, f, m: m.scores(None, with_nan(f)), "NaN .* item 4, dimension 2"),
        (lambda s, f, m: m.scores(None, f[:-1]), r"shape \(149, 32\), not \(150"),
        (lambda s, f, m: m.scores(None, f[:, :5]), "5 dimensions, this VBPR expects 32"),
        (lambda s, f, m: m.scores(None), "needs the items' features"),
        (lambda s, f, m: m.scores([400], f), "users must be numbers from 0 to 399"),
        (lambda s, f, m: m.item_scores([0], [-1], f[:1]), "items must be numbers from 0 to 149"),
        (lambda s, f, m: VBPR().scores(None, f), "not been fitted"),
        (lambda s, f, m: BPRMF().fit(Split(s.train * False, s.validation, s.test), f, QUICK), "no training"),
        (lambda s, f, m: BPRMF().fit(Split(FULL, [-1] * 2, None), f, CFG), "every user has every item"),
    ],
)
def test_bad_input_is_named(call, says, shop, vbpr):
    with pytest.raises(ValueError, match=says):
        call(*shop, vbpr)


def test_bprmf_ranks_as_well_as_cornacs(shop):
    """The same planted data and split in cornac's BPR, an independent implementation; metrics are equal."""
    cornac = pytest.importorskip("cornac")
    split, features = shop
    rows, columns = split.train.nonzero()
    theirs_train = cornac.data.Dataset.from_uir(
        [*zip(rows, columns, np.ones(len(rows)), strict=True), *((0, int(i), 1.0) for i in split.cold)],
        seed=0,
    )
    theirs = cornac.models.BPR(
        k=8, max_iter=100, learning_rate=0.05, lambda_reg=0.01, seed=0, num_threads=1, verbose=False
    ).fit(theirs_train)
    users, items = theirs_train.uid_map, theirs_train.iid_map
    scores = np.empty(split.train.shape)
    for user in range(len(scores)):
        scores[user] = theirs.score(users[user])[[items[i] for i in range(scores.shape[1])]]
    owned = np.diff(split.train.indptr)
    rank = ranking.ranks(scores, split.test, split.train)
    their_auc = accuracy_metrics.from_ranks(rank, scores.shape[1] - owned - 1)["auc"]
    ours = accuracy_metrics.full_ranking(BPRMF().fit(split, features, CFG, seed=0), features, split)
    assert np.nanmean(ours["auc"]) > np.nanmean(their_auc) - 0.03

    metrics = cornac.metrics
    for user in range(0, len(scores), 29):  # no ties here, so both conventions agree
        candidates = np.setdiff1d(np.arange(scores.shape[1]), split.train[[user]].indices)
        order = candidates[np.argsort(-scores[user, candidates])]
        own = {"gt_pos": np.array([split.test[user]]), "pd_rank": order}
        reference = {
            "auc": metrics.AUC().compute(item_indices=candidates, pd_scores=scores[user, candidates], **own),
            "hr@20": metrics.HitRatio(k=20).compute(**own),
            "mrr": metrics.MRR().compute(**own),
            "ndcg@20": metrics.NDCG(k=20).compute(**own),
        }
        values = accuracy_metrics.from_ranks(rank, scores.shape[1] - owned - 1)
        assert {k: values[k][user] for k in reference} == pytest.approx(reference, abs=1e-9)


@pytest.mark.parametrize(
    ("notes", "tensors"),
    [({}, {}), ({"sizes": {"items": "many"}}, {}), ({"sizes": {"users": 2, "items": 3, "factors": -1}}, {}),
     ({"sizes": {"users": 2, "items": 3, "factors": 4}}, {"user": torch.zeros(2, 4)}),
     ({"sizes": {"users": 10**10, "items": 10**10, "factors": 100}}, {"user": torch.zeros(2, 4)}),
     ({"sizes": {"users": 2, "items": 3, "factors": 4}},
      {"user": torch.full((2, 4), torch.nan), "item": torch.zeros(3, 4), "bias": torch.zeros(3)})],
    ids=["no sizes", "sizes of another kind", "negative", "tables missing", "more than memory", "not a number"],
)  # fmt: skip
def test_a_hostile_file_of_a_recommender_is_one_line_that_names_it(notes, tensors, tmp_path):
    path = tmp_path / "bprmf.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, {"notes": json.dumps({"class": "BPRMF", **notes})}))
    with pytest.raises(checkpoint.ModelFileError, match=r"bprmf\.safetensors") as raised:
        BPRMF.load(path)
    assert "\n" not in str(raised.value)
