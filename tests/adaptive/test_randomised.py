"""Serving behind noise: rules by hand, chances in closed form, verdicts that depend on nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from toys import ITEMS, extractor, shop, smooth_photos

from vars_core import checkpoint
from vars_core.adaptive import certificate, noisy_ways
from vars_core.adaptive.randomised import RandomisedShop
from vars_core.adaptive.soft_jpeg import SoftJPEG
from vars_core.attacks.engine import evaluate, linf
from vars_core.attacks.expectation import Expectation, MeanFeatures
from vars_core.attacks.promotion import push
from vars_core.extractor import extract, to_images, to_photos
from vars_core.recommender import ranking
from vars_core.reconstruction.classics import JPEG
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


@pytest.fixture
def noisy(shop):
    return RandomisedShop(shop, nn.Identity(), 0.1, draws=9)


def test_without_noise_every_rule_is_the_undefended_shop(shop):
    for rule in ("one", "mean", "median"):
        calm = RandomisedShop(shop, nn.Identity(), 0.0, rule, draws=3)
        torch.testing.assert_close(calm.clean_scores[shop.reporting_users], shop.clean_scores, atol=1e-4, rtol=1e-4)
        np.testing.assert_array_equal(calm.exposed(ITEMS), shop.exposed(ITEMS))
        other = smooth_photos(3, seed=7)
        np.testing.assert_array_equal(calm.exposed(ITEMS, other), shop.exposed(ITEMS, other))
        np.testing.assert_array_equal(calm.ranks(ITEMS, other), shop.ranks(ITEMS, other))
        np.testing.assert_array_equal(calm.lists([0, 2], 4), shop.lists([0, 2], 4))
        for name, values in shop.accuracy().items():
            np.testing.assert_allclose(calm.accuracy()[name], values)


def test_rules_by_hand(noisy):
    users, photos = noisy.shop.reporting_users, noisy.shop.photos(ITEMS[:1])
    draws = noisy.scores_by_draw(users, ITEMS[0], photos[0], 9, ITEMS[0])
    for rule, wanted in (("one", draws[:, 0]), ("mean", draws.mean(1))):
        served = replace(noisy, rule=rule).served_scores(users, ITEMS[:1])
        torch.testing.assert_close(served[:, 0], wanted)
    established = noisy.scores_by_draw(users, 3, noisy.shop.photos([3])[0], 9, 3).sort(1).values[:, 4]
    torch.testing.assert_close(noisy.clean_scores[users, 3], established)  # five of nine say at least so much


def test_an_upload_is_voted_on_by_hand(noisy):
    """Eight or nine of nine draws at a half: 10/512, about 0.02."""
    users = noisy.shop.reporting_users
    strict = replace(noisy, draws=5, upload_draws=9, error=0.02)
    assert (noisy.votes, strict.votes) == (5, 8)
    bars, listed = strict.bars(users, ITEMS), []
    served = strict.served_scores(users, ITEMS)
    for place, item in enumerate(ITEMS):
        draws = strict.scores_by_draw(users, item, noisy.shop.photos([item])[0], 9, item)
        median, agreed = draws.sort(1).values[:, 4], (draws > bars[:, place, None]).sum(1) >= 8
        assert torch.equal(served[agreed, place], median[agreed])
        assert (served[~agreed, place] < bars[~agreed, place]).all()
        low = ~agreed & (median < bars[:, place])
        assert torch.equal(served[low, place], median[low])
        listed.append(agreed & (median > strict.entry_scores(users, ITEMS)[:, place]))
    torch.testing.assert_close(strict.clean_scores[users][:, ITEMS], served)
    can = np.isfinite(strict.exposed(ITEMS))
    own = (served > strict.entry_scores(users, ITEMS)).numpy()
    np.testing.assert_array_equal(own & can, torch.stack(listed, 1).numpy() & can)


def test_new_items_do_not_lower_the_bar_for_one_another(noisy):
    users = noisy.shop.reporting_users
    others = replace(noisy)
    others._cache(noisy.clean_scores.index_fill(1, torch.as_tensor(ITEMS), 1e6))  # all of them attacked, and first
    torch.testing.assert_close(others.bars(users, ITEMS), noisy.bars(users, ITEMS))
    assert (noisy.entry_scores(users, ITEMS) >= noisy.bars(users, ITEMS)).all()
    assert (others.entry_scores(users, ITEMS) >= noisy.entry_scores(users, ITEMS)).all()
    photos = smooth_photos(3, seed=7)
    assert not (np.nan_to_num(others.exposed(ITEMS, photos)) > np.nan_to_num(noisy.exposed(ITEMS, photos))).any()


def test_known_noise_is_the_noise_that_serves(noisy):
    path = nn.Sequential(noisy.image_filter, noisy.shop.extractor)
    photo = noisy.shop.photos(ITEMS[:1])
    known = MeanFeatures(path, 0.1, 9, seed=noisy.noise_source(ITEMS[0], "upload").initial_seed())
    served = noisy.features(photo[0], 9, ITEMS[0], "upload")
    torch.testing.assert_close(known(to_images(photo))[0], served.mean(0))


def test_every_rule_from_one_pass(noisy):
    for rule, one in noisy.by_every_rule().items():
        assert one.rule == rule and "clean_scores" in vars(one)
        torch.testing.assert_close(one.clean_scores, replace(noisy, rule=rule).clean_scores)


def test_scores_are_kept_for_the_same_shop_only(noisy, tmp_path, monkeypatch):
    file = tmp_path / "scores.safetensors"
    shops = noisy.by_every_rule(file)
    noisy.keep_scores(shops, file)
    monkeypatch.setattr(RandomisedShop, "scores_by_draw", None)  # nothing is computed any more
    for rule, one in noisy.by_every_rule(file).items():
        torch.testing.assert_close(one.clean_scores, shops[rule].clean_scores)
    for other in (dict(sigma=0.2), dict(draws=11), dict(upload_draws=11), dict(seed=1), dict(error=0.1)):
        with pytest.raises(TypeError):
            replace(noisy, **other).by_every_rule(file)


def test_a_photo_is_served_alike_whatever_else_is_served(noisy):
    users = noisy.shop.reporting_users
    together, alone = noisy.served_scores(users, ITEMS), noisy.served_scores(users, ITEMS[1:2])
    torch.testing.assert_close(together[:, 1:2], alone)
    assert not torch.equal(together, replace(noisy, seed=1).served_scores(users, ITEMS))


def test_an_upload_gets_draws_of_its_own(noisy):
    """Else the clean photo's cached draws were known to whoever saw its scores."""
    users = noisy.shop.reporting_users
    again = noisy.served_scores(users, ITEMS, None, "upload")
    assert not torch.equal(again, noisy.served_scores(users, ITEMS))


def test_the_entry_score_is_where_ranks_say_that_lists_end(shop):
    rng = np.random.default_rng(0)
    for k in (1, 5, 25):
        scores = torch.from_numpy(rng.integers(0, 12, (20, 30)).astype(np.float32))  # many ties
        train = shop.split.train[shop.reporting_users]
        owned = torch.from_numpy(train.toarray())
        needed = ranking.entry_scores(scores, owned, torch.as_tensor(ITEMS), k)
        new = torch.from_numpy(rng.integers(-1, 13, (20, 3)).astype(np.float32))
        ranks = ranking.item_ranks(scores, train, ITEMS, new)
        np.testing.assert_array_equal(torch.isposinf(needed), np.isnan(ranks))
        np.testing.assert_array_equal((new > needed).numpy(), np.where(np.isnan(ranks), False, ranks <= k))


def test_hits_are_as_frequent_as_the_closed_form_says(shop):
    """Features that are linear in the photo make scores normal, so that chances are known."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(768, shop.features.shape[1])).requires_grad_(False)
    still = replace(shop, extractor=linear)
    noisy = RandomisedShop(still, nn.Identity(), 0.2, draws=1, rule="mean")
    draws, users = 2000, shop.reporting_users
    found, needed = noisy.hits(ITEMS, None, draws), noisy.entry_scores(users, ITEMS)
    hits = found.counts
    images = torch.from_numpy(shop.photos(ITEMS)).permute(0, 3, 1, 2).float() / 255
    mean = shop.recommender.item_scores(users, ITEMS, linear(images))
    slopes = shop.recommender.visual_matrix()[users] @ linear[1].weight
    chance = stats.norm.cdf((mean - needed) / (0.2 * slopes.norm(dim=1, keepdim=True)))
    known = ~np.isnan(hits)
    np.testing.assert_allclose(found.by_draw.mean(1), np.nanmean(found.shares, 0), atol=1e-6)
    assert np.isnan(hits).sum() == torch.isposinf(needed).sum()
    spread = np.sqrt(chance * (1 - chance) / draws) + 1e-9
    assert (np.abs(hits / draws - chance)[known] < 5 * spread[known] + 1e-6).all()
    assert ((chance > 0.02) & (chance < 0.98))[known].any()  # else nothing was tried


def test_one_draw_exposes_as_often_as_draws_hit(noisy):
    one = replace(noisy, rule="one", draws=40)
    shares = one.exposed(ITEMS)
    np.testing.assert_array_equal(shares, one.hits(ITEMS, None, 40).counts / 40)
    assert np.nanmax(shares) <= 1 and np.nanmin(shares) >= 0


def test_a_count_that_was_interrupted_goes_on(noisy, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    place, asked, draw = tmp_path / "hits.safetensors", [], RandomisedShop.scores_by_draw

    def count(shop=noisy, stop=None, draws=30):
        def until(self, *arguments):
            asked.append(1)
            if len(asked) == stop:
                raise KeyboardInterrupt
            return draw(self, *arguments)

        shop.clean_scores  # noqa: B018 - computed before the count
        monkeypatch.setattr(RandomisedShop, "scores_by_draw", until)
        asked.clear()
        try:
            return shop.hits(ITEMS, None, draws, progress_file=place)
        finally:
            monkeypatch.setattr(RandomisedShop, "scores_by_draw", draw)

    whole = count()
    place.unlink()
    with pytest.raises(KeyboardInterrupt):
        count(stop=3)
    again = count()
    assert len(asked) == 1
    again = count()
    assert not asked
    np.testing.assert_array_equal(again.counts, whole.counts)
    np.testing.assert_array_equal(again.by_draw, whole.by_draw)
    for other in ({"draws": 31}, {"shop": replace(noisy, sigma=0.2)}, {"shop": replace(noisy, seed=1)}):
        place.unlink()
        with pytest.raises(KeyboardInterrupt):
            count(stop=3)
        count(**other)
        assert len(asked) == 3  # another count begins anew


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "mode"},
        {"draws": 0},
        {"sigma": -1.0},
        {"error": 1e-6, "draws": 8},
        {"error": 0.1, "upload_draws": 2},
        {"error": 0.0},
    ],
)
def test_what_makes_no_sense_is_refused(shop, options):
    with pytest.raises(ValueError, match="got"):
        RandomisedShop(**{"shop": shop, "image_filter": nn.Identity(), "sigma": 0.1} | options)


@pytest.mark.parametrize("epsilon", [2, 6])
@pytest.mark.parametrize("aim", ["insa", "promote", "reach"])
def test_no_attack_exceeds_its_bound(shop, aim, epsilon):
    """White box, through filter, extractor and recommender, by the expectation over draws: both promises hold."""
    torch.manual_seed(0)
    image_filter = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, bias=False)).requires_grad_(False)
    with torch.no_grad():
        image_filter[0].weight.mul_(0.1)
        image_filter[0].weight[range(3), range(3)] += 1 / 9  # a blur
    sigma, draws, error = 0.15, 2000, 1e-3
    noisy = RandomisedShop(shop, image_filter, sigma, draws=101, error=1e-3)
    clean = noisy.hits(ITEMS, None, draws)
    length = certificate.radius(epsilon, (3, 16, 16))
    pairs = np.isfinite(clean.counts).sum()
    bounds = certificate.chance_bound(np.nan_to_num(clean.counts), draws, error / pairs)
    reachable = certificate.within_reach(np.where(np.isnan(clean.counts), np.nan, bounds), length, sigma)
    served = replace(shop, features=extract(shop.extractor, shop.catalogue.photos, through=image_filter))
    objective = Expectation(
        push(served, ITEMS, nn.Sequential(image_filter, shop.extractor), aim), sigma, 8, generator(0, "noise")
    )
    images = to_images(shop.photos(ITEMS))
    found = linf(objective, images, epsilon, steps=30, decay=True, generator=generator(0, "start"))
    attacked = noisy.hits(ITEMS, to_photos(found), draws, "attacked")
    exposed = noisy.exposed(ITEMS, to_photos(found))
    assert not (exposed > reachable).any()
    for before, after in zip(clean.by_draw, attacked.by_draw, strict=True):
        promised = certificate.expected_exposure(certificate.mean_bound(before, error), length, sigma)
        assert after.mean() <= promised
    assert (evaluate(objective, found) > evaluate(objective, images)).all()  # the attack does something


@pytest.fixture
def behind(shop):
    torch.manual_seed(0)
    blur = nn.Conv2d(3, 3, 3, padding=1, bias=False).requires_grad_(False)
    with torch.no_grad():
        blur.weight.zero_()
        blur.weight[range(3), range(3)] = 1 / 9
    return RandomisedShop(shop, blur, 0.15, draws=15)


@pytest.mark.parametrize("rule", ["one", "median"])
def test_each_way_keeps_the_budget_and_gains(behind, rule):
    noisy, draw = replace(behind, rule=rule), generator(0, "ways")
    clean = noisy.shop.photos(ITEMS)
    goal = noisy_ways.objective(noisy, ITEMS, "reach", 64, generator(1, "judge"))
    ways = {
        "through noise": noisy_ways.through_noise(noisy, ITEMS, "reach", 6, 20, 8, draw),
        "without noise": noisy_ways.without_noise(noisy, ITEMS, "reach", 6, 20, draw),
        "asking": noisy_ways.by_asking(noisy, ITEMS, "reach", 6, 150, 8, draw),
        "surrogate": noisy_ways.through_noise(noisy, ITEMS, "reach", 6, 20, 8, draw, image_filter=nn.Identity()),
        "known": noisy_ways.with_known_noise(noisy, ITEMS, "reach", 6, 20, draw)[0],
    }
    worth = {name: evaluate(goal, to_images(photos)) for name, photos in ways.items()}
    start = evaluate(goal, to_images(clean))
    for name, photos in ways.items():
        assert np.abs(photos.astype(int) - clean).max() <= 6, name
        assert worth[name].mean() > start.mean(), name
    assert worth["through noise"].mean() >= max(worth[name].mean() for name in ("asking", "surrogate")) - 0.05


def test_known_noise_is_no_noise(behind):
    """Made against the very draw, a photo gets further than the same attack does against fresh draws."""
    noisy, gained = replace(behind, rule="one", sigma=0.5), []
    for seed in range(6):
        own = replace(noisy, seed=seed)
        photos, listed = noisy_ways.with_known_noise(own, ITEMS, "reach", 16, 30, generator(seed, "known"))
        gained.append(np.nanmean(listed) - np.nanmean(own.exposed(ITEMS, photos)))
    assert np.mean(gained) > 0


def test_serving_by_the_mean_from_cached_features(noisy):
    means = np.stack(
        [noisy.features(photo, 9, i).mean(0).numpy() for i, photo in enumerate(noisy.shop.catalogue.photos)]
    )
    made = RandomisedShop.by_mean(replace(noisy.shop, features=means), noisy.image_filter, 0.1, 9, 0)
    torch.testing.assert_close(made.clean_scores, replace(noisy, rule="mean").clean_scores, atol=1e-4, rtol=1e-4)


def test_lists_of_single_draws_may_be_another_rules(noisy):
    by, photos = noisy.by_every_rule(), noisy.shop.photos(ITEMS)
    alone, own = by["median"].hits(ITEMS, photos, 40, "x"), by["one"].hits(ITEMS, photos, 40, "x")
    both = by["median"].hits(ITEMS, photos, 40, "x", one=by["one"])
    np.testing.assert_array_equal(both.counts, alone.counts)
    np.testing.assert_array_equal(both.by_draw, own.by_draw)
    assert not np.array_equal(alone.by_draw, own.by_draw)


def test_steps_that_settle_reach_the_edge_and_beat_timid_ones(noisy):
    goal = noisy_ways.objective(noisy, ITEMS, "reach", 4, generator(0, "attack"))
    judge = noisy_ways.objective(noisy, ITEMS, "reach", 64, generator(1, "judge"))
    images = to_images(noisy.shop.photos(ITEMS))
    bold = noisy_ways.settling(goal, images, 4, steps=20, generator=generator(0))
    timid = linf(goal, images, 4, steps=20, step=1.0 * 4 / 20, momentum=1.0, decay=True, generator=generator(0))
    assert ((bold - images).abs() * 255).amax() == pytest.approx(4, abs=1e-3)
    assert evaluate(judge, bold).mean() > evaluate(judge, timid).mean()


@pytest.mark.parametrize("side", [16, 24, 40])
def test_the_smooth_codec_is_nearly_jpeg_and_has_a_gradient(side):
    photos = smooth_photos(3, side, seed=2)
    seen = to_images(photos).requires_grad_(True)
    smooth, real = SoftJPEG(75)(seen), JPEG(75)(seen)
    assert smooth.shape == seen.shape
    assert (smooth - real).abs().mean() < 0.4 * (seen - real).abs().mean() + 2 / 255
    smooth.sum().backward()
    assert (seen.grad.abs() > 0).any((1, 2, 3)).all()
