"""A toy shop: who is attacked and told about, what a filter gives back, and what attackers reach who know it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from test_training import extractor, smooth_photos
from torch import nn

from vars_core import adaptive, campaign, ranking, recovery
from vars_core.attacks import evaluate, linf, value_and_gradient
from vars_core.classics import Median
from vars_core.defence import Defence
from vars_core.detectors import Detector, Score
from vars_core.extractor import extract, to_images, to_photos
from vars_core.objectives import Goal, Promote, Through, hook
from vars_core.orthogonal import orthogonal_pgd
from vars_core.recommenders import VBPR
from vars_core.runtime import generator
from vars_core.shop import Shop

__all__ = ["extractor"]  # a fixture
ITEMS = np.array([2, 5, 11])


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setenv("VARS_DEVICE", "cpu")
    monkeypatch.setenv("VARS_QUIET", "1")


@pytest.fixture
def shop(extractor):
    """40 users, 30 items of smooth photos, a random VBPR that looks at them."""
    photos, draw = smooth_photos(30), generator(0, "shop")
    features = extract(extractor, photos)
    model = VBPR()
    model._build(draw, users=40, items=30, factors=2, visual_factors=4, dimensions=features.shape[1])
    with torch.no_grad():
        for table in (model.taste, model.projection):
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
    goods = SimpleNamespace(photos=photos, items=list(range(30)), name="toy")
    users = np.arange(40)
    return Shop(goods, parts, extractor, model.requires_grad_(False), features, users[::2], users[1::2], k=5)


# ---- the shop ----


# Trap: the attack is optimised and reported on the same users.
def test_promote_knows_the_known_users_only(shop):
    images = to_images(shop.photos(ITEMS))
    before, ranks = shop.promote(ITEMS, shop.extractor)(images), shop.ranks(ITEMS)
    with torch.no_grad():
        shop.recommender.taste[shop.reporting] = torch.randn(20, 4, generator=generator(1))
    assert torch.equal(shop.promote(ITEMS, shop.extractor)(images), before)
    assert ranks.shape == (20, 3)
    del shop.__dict__["clean_scores"]
    assert (np.nan_to_num(shop.ranks(ITEMS)) != np.nan_to_num(ranks)).any()


# Trap: candidates that are not masked for training items.
def test_promotes_threshold_is_the_kth_best_that_is_not_owned(shop):
    objective = shop.promote(ITEMS, shop.extractor)
    assert isinstance(objective, Promote)
    scores, owned = shop.recommender.scores(shop.known, shop.features).numpy(), shop.split.train[shop.known].toarray()
    kth = [np.sort(row[~mine])[-shop.k] for row, mine in zip(scores, owned, strict=True)]
    np.testing.assert_allclose(objective.thresholds.numpy(), kth)
    own = objective(to_images(shop.photos(ITEMS)))
    margin = torch.from_numpy(scores[:, ITEMS] - np.array(kth)[:, None])
    torch.testing.assert_close(own, nn.functional.logsigmoid(margin).mean(0), atol=1e-4, rtol=1e-3)


def test_untouched_photos_have_the_clean_ranks(shop):
    clean = shop.ranks(ITEMS)
    assert np.array_equal(shop.ranks(ITEMS, shop.photos(ITEMS)), clean, equal_nan=True)
    scores = shop.recommender.scores(shop.reporting, shop.features).numpy()
    for row, user in enumerate(shop.reporting[:5]):
        rivals = np.setdiff1d(np.flatnonzero(~shop.split.train[[user]].toarray()[0]), ITEMS[1])
        assert clean[row, 1] == 1 + (scores[row, rivals] >= scores[row, ITEMS[1]]).sum()


def test_owners_are_left_out(shop):
    everyone = Shop(**{**vars(shop), "reporting": np.arange(40)})
    assert np.isnan(everyone.exposed(ITEMS)[0]).tolist() == [True, False, False]


# ---- campaigns ----


# Trap: success over successful attacks only; SSIM and PSNR without data_range.
def test_a_campaign_tells_about_every_item_and_keeps_its_budget(shop):
    hooks = shop.hooks(ITEMS, 4, generator(0))
    assert (np.asarray(shop.split.train.sum(0)).ravel()[hooks] > 0).all()
    photos = campaign.campaign(shop, ITEMS, hooks, [4, 8], 5, seed=0)
    assert (photos["none"] == shop.photos(ITEMS)).all()
    assert set(photos) == {"none", *(f"{a}@{e}" for a in campaign.ALGORITHMS for e in (4, 8))}
    table = campaign.outcomes(shop, ITEMS, photos)
    visual = table[table.metric.isin(["psnr", "ssim", "linf"])]
    assert (visual.n == 3).all() and not ((visual.attack == "none") & (visual.metric != "linf")).any()
    linf = table[table.metric == "linf"]
    assert (linf.value == linf.epsilon).all()
    shift = table[table.metric == "prediction_shift"].set_index(["attack", "epsilon"]).value
    assert shift["none", 0] == pytest.approx(0, abs=1e-5)
    assert shift["promote:pgd", 8] > max(shift["noise", 8], 0.05)
    seen = table[table.metric == "exposure@5"].set_index(["attack", "epsilon"]).value
    assert seen["reach:pgd", 8] > max(seen["none", 0], seen["noise", 8], seen["promote:pgd", 4])
    moved = {n: recovery.squared(shop.served(photos[n]) - shop.hook_targets(hooks).numpy()).mean() for n in photos}
    assert moved["pgd@8"] < moved["pgd@4"] < moved["none"] and moved["pgd@8"] < moved["fgsm@8"]


def test_unknown_attacks_are_refused(shop):
    with pytest.raises(ValueError, match="unknown attack 'pdg'; known: noise, fgsm"):
        campaign.attack(shop, ITEMS, ITEMS, "pdg", 8, 3, 0)


def test_visibility_by_hand():
    clean = np.full((2, 16, 16, 3), 100, np.uint8)
    clean[0] = 0
    changed = clean.copy()
    changed[0] += 8
    changed[1, :8] -= 4
    seen = campaign.visibility(clean, changed)
    assert seen["linf"].tolist() == [8, 4]
    assert seen["psnr"].tolist() == pytest.approx([10 * np.log10(255**2 / 64), 10 * np.log10(255**2 / 8)], rel=1e-5)
    # 0 against 8: c₁ / (8² + c₁) with c₁ = (0.01 · data_range)²; another data_range gives another number
    assert seen["ssim"][0] == pytest.approx(2.55**2 / (64 + 2.55**2), rel=1e-3)
    assert set(campaign.visibility(clean, clean)) == {"linf"}


def test_campaigns_are_saved_without_pickles(shop, tmp_path):
    photos = {"none": shop.photos(ITEMS), "promote:pgd@16": shop.photos(ITEMS[::-1]), "pgd@8": shop.photos(ITEMS)}
    campaign.save(tmp_path, ITEMS, ITEMS + 1, photos)
    items, hooks, again = campaign.load(tmp_path)
    assert (items == ITEMS).all() and (hooks == ITEMS + 1).all()
    assert list(again) == ["none", "pgd@8", "promote:pgd@16"]
    assert all((again[name] == photos[name]).all() for name in photos)


# ---- recovery ----


def test_feature_recovery_by_hand():
    rng = np.random.default_rng(0)
    clean, harm = rng.normal(size=(40, 6)), rng.normal(size=(40, 6))
    perfect = recovery.feature_recovery(clean, clean + harm, clean)
    nothing = recovery.feature_recovery(clean, clean + harm, clean + harm)
    assert perfect["value"] == perfect["ci_low"] == 1 and nothing["value"] == nothing["ci_high"] == 0
    assert recovery.feature_recovery(clean, clean + harm, clean + harm / 2)["value"] == pytest.approx(0.75)
    assert recovery.feature_recovery(clean, clean + harm, clean - 2 * harm)["value"] == pytest.approx(-3)
    # a ratio of means, not a mean of ratios: one image that was hardly moved does not decide
    some, left = np.array([[0.1], [2.0]]), np.array([[0.4], [0.0]])
    value = recovery.feature_recovery(np.zeros((2, 1)), some, left)["value"]
    assert value == pytest.approx(1 - (0.16 / 2) / (4.01 / 2))


def test_exposure_recovery_by_hand():
    users, items = 60, 40
    low, high, half = np.zeros((users, items)), np.ones((users, items)), np.zeros((users, items))
    half[:, ::2] = 1
    assert recovery.exposure_recovery(low, high, low, low)["value"] == 1
    assert recovery.exposure_recovery(low, high, low, high)["value"] == 0
    row = recovery.exposure_recovery(low, high, low, half)
    assert row["value"] == 0.5 and row["ci_low"] < 0.5 < row["ci_high"] and row["n"] == items
    # the filter's own clean exposure is the mark, not that of the bare shop
    assert recovery.exposure_recovery(low, high, half, half)["value"] == 1
    assert recovery.exposure_recovery(low, high, half, low)["value"] == 0.5  # overshooting costs too


def test_no_harm_nothing_to_recover():
    rng = np.random.default_rng(0)
    one, two = (rng.random((60, 40)) < 0.1).astype(float), (rng.random((60, 40)) < 0.1).astype(float)
    assert recovery.exposure_recovery(one, one, one, two) is None
    assert recovery.exposure_recovery(one, two, one, two) is None


def test_the_identity_costs_nothing_and_recovers_nothing(shop):
    same = shop.behind(nn.Identity())
    costs = recovery.clean_cost(shop, same, np.arange(30))
    assert "clean_psnr" not in costs
    assert {name: row["value"] for name, row in costs.items()} == {
        "clean_feature_mse": 0, "clean_ndcg_loss": 0, "clean_hr_loss": 0
    }  # fmt: skip
    attacked = {"fgsm@8": campaign.attack(shop, ITEMS, np.array([0, 1, 3]), "fgsm", 8, 1, 0)}
    rows = recovery.recoveries(recovery.Harm.of(shop, ITEMS, attacked), same)
    assert rows[0]["metric"] == "feature_recovery" and rows[0]["value"] == 0


# Trap: a filter that blurs wins PSNR and loses HR; so its cost is told beside.
def test_a_filter_that_hides_everything_pays_for_it(shop):
    class Grey(nn.Module):
        def forward(self, images):
            return torch.full_like(images, 128 / 255)

    costs = recovery.clean_cost(shop, shop.behind(Grey()), np.arange(30))
    assert costs["clean_psnr"]["value"] < 25
    assert costs["clean_feature_mse"]["value"] > 0.5
    assert costs["clean_ndcg_loss"]["value"] != 0


# ---- attackers who know the defence ----


# Trap: the minimum (or maximum) of means instead of the worst case per example.
def test_worst_case_is_per_item():
    nan = np.nan
    one = np.array([[1, 0, 0], [1, 0, nan], [1, 0, 1]])  # means 1, 0, 0.5
    two = np.array([[0, 1, 0], [0, 1, nan], [1, 0, 0]])  # means 1/3, 2/3, 0
    worst = adaptive.worst_case([one, two])
    assert np.array_equal(worst, [[1, 1, 0], [1, 1, nan], [1, 0, 1]], equal_nan=True)
    assert ranking.item_mean(worst) == pytest.approx((1 + 2 / 3 + 0.5) / 3)
    assert ranking.item_mean(worst) > max(ranking.item_mean(one), ranking.item_mean(two))


@pytest.fixture
def scene(shop):
    torch.manual_seed(0)
    detector = Detector(shop.features.shape[1]).eval().requires_grad_(False)
    defence = Defence(Median(), detector, shop.extractor)
    defence.calibrate(smooth_photos(120, seed=3))
    return adaptive.Scene.set(shop, defence, ITEMS, np.array([0, 1, 3]))


@pytest.mark.parametrize("aim", adaptive.AIMS)
def test_adaptive_attacks_keep_the_budget(scene, aim):
    clean, draw = scene.bare.photos(ITEMS).astype(int), generator(0)
    found = [adaptive.oblivious(scene, 8, 2, draw, aim), adaptive.through_filter(scene, 8, 2, draw, aim)]
    for defended in (True, False):
        several = adaptive.through_detector(scene, 8, 2, [0.1, 1.0], draw, defended, aim)
        assert len(several) == 2
        found += several
    for photos in found:
        assert photos.dtype == np.uint8 and photos.shape == clean.shape
        assert 0 < np.abs(photos - clean).max() <= 8


# Trap: filter tested obliviously only; adaptive attacks that do not use what they know.
def test_knowing_the_filter_helps(scene):
    def left(photos):
        return recovery.squared(scene.filtered.served(photos) - scene.filtered_targets.numpy()).mean()

    blind = adaptive.oblivious(scene, 8, 10, generator(0))
    knowing = adaptive.through_filter(scene, 8, 10, generator(0))
    assert left(knowing) < left(blind) < left(scene.bare.photos(ITEMS))


def test_a_heavy_penalty_lowers_the_detectors_score(scene):
    scene.defence.thresholds["1"] = -1e3  # so that every score is worth lowering
    careless, careful = adaptive.through_detector(scene, 8, 10, [0.0, 1e3], generator(0))
    scored = [scene.defence.screen(photos)[1] for photos in (careless, careful)]
    assert (scored[1] < scored[0]).all()


def test_flagged_items_reach_nobody(scene):
    photos = scene.bare.photos(ITEMS)
    reached = scene.bare.exposed(ITEMS, photos)
    scene.defence.thresholds["1"] = np.inf
    served = scene.filtered.exposed(ITEMS, photos)
    for name, expected in (("none", reached), ("detector", reached), ("filter", served), ("both", served)):
        assert np.array_equal(scene.reached(photos)[name], expected, equal_nan=True)
    scene.defence.thresholds["1"] = -np.inf
    for name in ("detector", "both"):
        blocked = scene.reached(photos)[name]
        assert np.nansum(blocked) == 0 and np.array_equal(np.isnan(blocked), np.isnan(reached))
    assert np.array_equal(scene.reached(photos)["filter"], served, equal_nan=True)


def test_every_tier_and_defence_has_its_own_worst_case(scene):
    pools = adaptive.pools(scene, "reach", 8, steps=2, penalties=[0.1], queries=5, seed=0)
    found = adaptive.worst_cases(adaptive.served(scene, pools))
    assert set(found) == {(tier, defence) for tier in pools for defence in adaptive.DEFENCES}
    by_hand = adaptive.worst_case([scene.reached(photos)["both"] for photos in pools["T3"].values()])
    assert np.array_equal(found["T3", "both"], by_hand, equal_nan=True)
    for defence in adaptive.DEFENCES:  # whoever may use more cannot reach less, item by item
        means = [np.nanmean(found[tier, defence], axis=0) for tier in ("T0", "T2", "T3")]
        assert (means[0] <= means[1]).all() and (means[1] <= means[2]).all()


# Trap: one tier only; a higher tier that may use less than a lower one.
def test_tiers_hold_what_lower_ones_hold(scene):
    options = dict(steps=2, penalties=[0.1, 1.0], queries=5, seed=0)
    guess = scene.goal(False, "hook")
    pools = adaptive.pools(scene, "reach", 8, grey=scene, guess=guess, **options)
    assert [len(pools[t]) for t in ("T0", "T1", "T2", "T3", "T4")] == [2, 4, 6, 13, 2]
    for lower, higher in (("T0", "T1"), ("T1", "T2"), ("T2", "T3")):
        assert all(pools[higher][kind] is photos for kind, photos in pools[lower].items())
    clean = scene.bare.photos(ITEMS).astype(int)
    for photos in (*pools["T3"].values(), *pools["T4"].values()):
        assert photos.dtype == np.uint8 and 0 < np.abs(photos - clean).max() <= 8
    again = adaptive.pools(scene, "reach", 8, given=pools, **options)
    assert again["T0"] is pools["T0"] and again["T1"] is pools["T1"]
    without = adaptive.pools(scene, "hook", 8, **options)
    assert "T1" not in without and len(without["T4"]) == 1


class Gated(nn.Module):
    """Takes everything out of what is noisy. Its gate is steep: open, it has no slope to follow."""

    gate = True

    def told(self, images):
        smooth = nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        logit = 30 * (255 * (images - smooth).abs().mean((1, 2, 3)) - 3)
        flat = images.mean((2, 3), keepdim=True)
        return images + logit.sigmoid().view(-1, 1, 1, 1) * (flat - images), logit

    def forward(self, images):
        return self.told(images)[0]


@pytest.fixture
def gated(scene):
    defence = Defence(Gated(), scene.defence.detector, scene.defence.extractor, scene.defence.thresholds)
    return adaptive.Scene.set(scene.bare, defence, ITEMS, scene.hooks)


# Trap: a gradient that is there and says little. Who knows the filter shuts its gate and is let through.
def test_who_knows_the_gate_shuts_it(gated):
    def told(photos):
        left = recovery.squared(gated.filtered.served(photos) - gated.filtered_targets.numpy())
        return left.mean(), gated.defence.purifier.told(to_images(photos))[1]

    clean, at_first = told(gated.bare.photos(ITEMS))
    assert (at_first < -adaptive.SHUT).all()
    blind, opened = told(adaptive.oblivious(gated, 8, 20, generator(0)))
    _, followed = told(adaptive.through_filter(gated, 8, 20, generator(0)))
    passed, shut = told(adaptive.through_filter(gated, 8, 20, generator(0), shut=True))
    assert (opened > 0).all() and (followed > 0).any() and (shut < 0).all()
    assert passed < 0.9 * clean and passed < blind


def test_the_strongest_attack_keeps_of_each_photo_what_gets_furthest(gated, monkeypatch):
    goal, clean = gated.goal(True, "hook"), gated.images()
    found = adaptive.strongest(gated)(goal, clean, 8, steps=10, generator=generator(0))
    assert (found - clean).abs().max().mul(255) <= 8.001 and torch.equal(found, to_images(to_photos(found)))
    first = adaptive.through_filter(gated, 8, 10, generator(0))  # the same draw
    values = [evaluate(goal, images) for images in (to_images(first), found)]
    assert (values[1] >= values[0]).all() and (values[1] > values[0]).any()

    def one(which):  # a way that gets one photo to its hook and leaves the others alone
        to, chosen = to_images(gated.bare.photos(gated.hooks)), (torch.arange(len(ITEMS)) == which).view(-1, 1, 1, 1)
        return lambda goal, images, epsilon, **_: torch.where(chosen, to, images)

    monkeypatch.setattr(adaptive, "_ways", lambda _: [("first", one(0), False), ("second", one(1), True)])
    found = adaptive.strongest(gated)(goal, clean, 255, steps=1, generator=generator(0))
    moved = (found != clean).flatten(1).any(1)
    assert moved.tolist() == [True, True] + [False] * (len(clean) - 2)


def test_goal_and_detector_share_what_they_ask_of_filter_and_extractor(gated):
    """Two passes of the extractor instead of three, and the same value and gradient."""
    images, eye = gated.images(), gated.bare.extractor
    goal = gated.evading(gated.goal(True, "hook"), [0.5])
    plain = replace(
        goal,
        goal=hook(Through(eye, Gated()), gated.filtered_targets),
        score=Score(gated.defence.detector, Gated(), eye).eval(),
    )
    wanted, asked = value_and_gradient(plain, images), []
    with eye.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0])):
        found = value_and_gradient(goal, images)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert found[1].abs().amax() > 0 and len(asked) == 2
    moved = value_and_gradient(goal, (images + 8 / 255).clamp(0, 1))  # other photos: nothing is remembered
    assert not torch.equal(moved[0], found[0])


def test_a_gated_filter_is_attacked_at_its_gate_in_every_tier_that_knows_it(gated, scene):
    options = dict(steps=2, penalties=[0.1, 1.0], queries=5, seed=0)
    with_gate, without = (adaptive.pools(place, "reach", 8, **options) for place in (gated, scene))
    extra = {tier: with_gate[tier].keys() - without[tier].keys() for tier in with_gate}
    assert extra["T0"] == extra["T4"] == set()
    assert extra["T2"] == {"gate shut", "gate shut, short steps"}
    evading = {"λ = 0.1, gate shut", "λ = 1.0, gate shut", "λ = 1.0, gate shut, short steps"}
    assert extra["T3"] == extra["T2"] | evading


def test_goal_detector_and_gate_share_one_pass_of_the_filter(gated):
    passes = []
    gated.defence.purifier.module.told = lambda images: passes.append(1) or Gated().told(images)
    goal = gated.shutting(gated.evading(gated.goal(True, "reach"), [1.0]), len(ITEMS))
    images = gated.images().requires_grad_(True)
    value = goal(images)
    (slope,) = torch.autograd.grad(value.sum(), images)
    assert len(passes) == 1 and (slope != 0).any()
    with torch.no_grad():
        assert torch.allclose(goal(images), value)  # without a graph: made anew
        goal(images + 1 / 255)
    assert len(passes) == 3


def test_a_scene_can_be_narrowed(scene):
    less = scene.narrowed(2)
    assert len(less.items) == len(less.hooks) == len(less.targets) == 2 and len(less.images()) == 2


def test_feature_matching_copies_what_detector_and_extractor_see(scene):
    seen = adaptive._Seen(scene.defence, 1.0).eval()
    wanted = seen(to_images(scene.bare.photos(scene.hooks)))
    photos = adaptive.matching(scene, 16, 20, generator(0))
    left, before = ((seen(to_images(p)) - wanted).square().sum(1) for p in (photos, scene.bare.photos(ITEMS)))
    assert (left < 0.8 * before).all()


class Sum(nn.Module):
    """A toy detector: the mean of the upper half; and a toy goal: the mean of everything."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, images):
        return images[:, :, self.rows].mean((1, 2, 3))


class Brighter(Goal):
    modules = ()

    def __call__(self, images):
        return images.mean((1, 2, 3))


def test_orthogonal_gradients_reach_the_goal_without_the_alarm():
    """All may get brighter, but the upper half must stay below 0.405: only the lower one goes up."""
    grey = torch.full((3, 3, 8, 8), 102 / 255)
    alarm = Sum(slice(0, 4))
    found = orthogonal_pgd(Brighter(), alarm, 0.405, grey, 8, steps=20, generator=generator(0))
    assert (alarm(found) <= 0.405).all()
    assert ((found - grey).abs() * 255).max() <= 8 + 1e-3
    assert (found[:, :, 4:].mean((1, 2, 3)) > 108 / 255).all()
    careless = linf(Brighter(), grey, 8, steps=20, generator=generator(0))
    assert (alarm(careless) > 0.405).all()


def test_where_no_alarm_can_be_avoided_the_lowest_is_kept():
    grey = torch.full((2, 3, 8, 8), 102 / 255)
    alarm = Sum(slice(0, 8))
    found = orthogonal_pgd(Brighter(), alarm, 0.0, grey, 8, steps=20, generator=generator(0))
    assert (alarm(found) < 0.375).all()
