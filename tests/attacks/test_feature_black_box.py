"""The feature black box: its regression, what it may see, and that it works where nothing can be differentiated."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LinearRegression
from test_attacks import interior, pgd, steps_of, weights  # noqa: F401
from torch import nn

from vars_core.attacks.engine import noise
from vars_core.attacks.feature_black_box import RankFeedback, feature_black_box, normal_score, regressed_gradient
from vars_core.attacks.promotion import push_by_scores
from vars_core.recommender import ranking
from vars_core.recommender.vbpr import VBPR
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


class Blocks(nn.Module):
    """A public extractor: 12 smooth features of an 8 × 8 image."""

    def forward(self, images):
        return torch.tanh(3 * nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) - 1.5)


EXTRACTOR = Blocks()


class DetectorScore:
    """A hidden linear taste over the features, as a shop's score."""

    def __init__(self, taste):
        self.visual_factors = taste

    def __call__(self, images):
        return EXTRACTOR(images) @ self.visual_factors


def attack(objective, images, epsilon=8, **options):
    return feature_black_box(objective, EXTRACTOR, images, epsilon, **{"generator": generator(0, "bb"), **options})


TASTE = torch.randn(12, generator=generator(0, "taste"))


@pytest.mark.parametrize(("examples", "features"), [(40, 12), (8, 12)])
def test_the_regression_is_scikit_learns(examples, features):
    rng = np.random.default_rng(0)
    changes, answers = rng.normal(size=(3, examples, features)), rng.normal(size=(3, examples))
    ours = regressed_gradient(torch.from_numpy(changes), torch.from_numpy(answers))
    theirs = np.stack([LinearRegression().fit(c, a).coef_ for c, a in zip(changes, answers, strict=True)])
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-9, rtol=0)


def test_with_enough_examples_a_linear_taste_is_found_exactly():
    """Then each step is that of a white box, and the result that of BIM with steps of one grey level."""
    images, taste = interior().double(), TASTE.double()
    black = attack(DetectorScore(taste), images, steps=8, examples=20)
    white = pgd(DetectorScore(taste), images, 8, steps=8, step=1, random_start=False)
    assert (black.images != white).double().mean() < 0.01
    assert (np.abs(steps_of(black.images, images)) == 8).mean() > 0.99
    assert black.queries.tolist() == [8 * 21 + 1] * 4


class Forbidding(DetectorScore):
    def __call__(self, images):
        assert not torch.is_grad_enabled() and not images.requires_grad
        return super().__call__(images)


def test_scores_are_asked_for_and_never_differentiated():
    images = interior()
    few = attack(Forbidding(TASTE), images, examples=6)
    noisy = DetectorScore(TASTE)(noise(images, 8, generator=generator(0, "n")))
    assert (few.value > noisy).all()  # half as many examples as features still tell the way


@pytest.fixture
def shop():
    """A tiny real VBPR, whose items 4, 1 and 6 are pushed, and what five controlled users own."""
    model, draw = VBPR(), generator(0, "vbpr")
    model._build(draw, users=9, items=400, factors=3, visual_factors=4, dimensions=12)
    with torch.no_grad():
        for table in model.parameters():
            table.copy_(torch.randn(table.shape, generator=draw))
        model.projection.mul_(3)
    served = torch.randn(400, 12, generator=draw)
    images = interior(3)
    items = np.array([4, 1, 6])
    served[items] = EXTRACTOR(images)
    owned = torch.rand((5, 400), generator=draw) < 0.2
    owned[:, items] = False
    return model.requires_grad_(False), images, items, served, np.arange(2, 7), owned


def test_answers_are_the_ranks_of_the_recommender(shop):
    model, images, items, served, users, owned = shop
    answers = RankFeedback.of(EXTRACTOR, model, users, items, served, owned)
    other = images.flip(0)
    scores = model.scores(users, served)
    new = model.item_scores(users, items, EXTRACTOR(other))
    expected = ranking.item_ranks(scores, sparse.csr_array(owned.numpy()), items, new)
    np.testing.assert_array_equal(answers.ranks(other).numpy(), expected)
    by_hand = torch.special.ndtri(1 - torch.from_numpy(expected) / 401).mean(0)
    torch.testing.assert_close(answers(other), by_hand.float())
    torch.testing.assert_close(answers[torch.tensor([2, 0])](other[[2, 0]]), answers(other)[[2, 0]])


def test_rank_scores_fall_from_the_first_to_the_last():
    scores = normal_score(torch.tensor([1.0, 5.0, 9.0]), 9)
    assert scores[1].item() == pytest.approx(0, abs=1e-6) and scores[0] == -scores[2] and scores[0] > 1.2


def test_items_climb_although_only_ranks_are_seen(shop):
    """At least half as far, in normal scores, as with the gradient of the scores behind those ranks."""
    model, images, items, served, users, owned = shop
    answers = RankFeedback.of(EXTRACTOR, model, users, items, served, owned)
    result = attack(answers, images, 16, examples=48)
    objective = push_by_scores(EXTRACTOR, model, users, items, served, owned, 10)
    white = answers(pgd(objective, images, 16, steps=20, step=1, random_start=False))
    start, noisy = answers(images), answers(noise(images, 16, generator=generator(0, "n")))
    assert torch.equal(result.value, answers(result.images))
    assert (result.value > noisy).all() and (result.value >= start).all()
    assert (result.value - start).mean() > 0.5 * (white - start).mean() > 0
    assert np.abs(steps_of(result.images, images)).max() <= 16


@pytest.mark.parametrize("options", [{"examples": 1}, {"gamma": 0}])
def test_a_regression_needs_examples_that_differ(options):
    with pytest.raises(ValueError, match="at least 2 examples"):
        attack(DetectorScore(TASTE), interior(), **options)
