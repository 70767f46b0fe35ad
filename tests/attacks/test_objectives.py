"""What attackers want: values by hand, gradients by finite differences, narrowing by rows."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from vars_core.attacks.engine import linf, quantise
from vars_core.attacks.objectives import Evade, FeatureCosine, Sum, TargetClass, WithThreshold, hook, untargeted
from vars_core.attacks.promotion import Push, demote, push_by_scores, reach_temperature, worth
from vars_core.extractor import Extractor
from vars_core.recommender.dvbpr import DVBPR
from vars_core.recommender.ranking import last_place_scores
from vars_core.recommender.vbpr import VBPR
from vars_core.recommender.visual_knn import VisualKNN
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


class Values(nn.Module):
    """Features of a one-pixel image: its three values."""

    def forward(self, images):
        return images.flatten(1)


def pixels(*rows):
    return torch.tensor(rows).view(len(rows), 3, 1, 1)


def slices_agree(objective, images):
    whole = objective(images)
    for rows in (slice(0, 1), slice(1, 3), torch.tensor([2, 0])):
        torch.testing.assert_close(objective[rows](images[rows]), whole[rows])


IMAGES = pixels([0.2, 0.4, 0.6], [1.0, 0.0, 0.5], [0.3, 0.3, 0.3])
TARGETS = torch.tensor([[0.2, 0.1, 0.6], [0.0, 0.0, 0.0], [0.3, 0.3, 0.9]])
DISTANCES = [0.09 / 3, 1.25 / 3, 0.36 / 3]


def test_hook_and_untargeted_by_hand():
    assert hook(Values(), TARGETS)(IMAGES).tolist() == pytest.approx([-d for d in DISTANCES])
    assert untargeted(Values(), TARGETS)(IMAGES).tolist() == pytest.approx(DISTANCES)
    slices_agree(hook(Values(), TARGETS), IMAGES)
    slices_agree(untargeted(Values(), TARGETS), IMAGES)


def test_through_filters_first():
    class Double(nn.Module):
        def forward(self, images):
            return images * 2

    extractor, image_filter = Values(), Double()
    system = nn.Sequential(image_filter, extractor)
    assert torch.equal(system(IMAGES), 2 * IMAGES.flatten(1))
    objective = hook(system, TARGETS)
    assert set(objective.modules[0].modules()) >= {extractor, image_filter}  # both are put in eval mode


@pytest.fixture
def pushed():
    """A tiny real VBPR; items 4, 1, 6 are pushed, with features computed from their image."""
    draw = generator(0, "vbpr")
    model = VBPR()
    model._build(draw, users=5, items=7, factors=3, visual_factors=2, dimensions=3)
    with torch.no_grad():
        for table in model.parameters():
            table.copy_(torch.randn(table.shape, generator=draw))
    model = model.double().requires_grad_(False)
    items, features = [4, 1, 6], IMAGES.flatten(1).double()
    scores = model.item_scores(None, items, features)
    thresholds = torch.randn(5, generator=draw).double()
    w = model.visual_matrix()
    return model, items, Push(Values(), w, scores - w @ features.T, thresholds)


def test_promote_is_the_mean_log_odds_of_the_recommenders_own_scores(pushed):
    model, items, objective = pushed
    images = IMAGES.flip(0).double()
    scores = model.item_scores(None, items, images.flatten(1))
    expected = F.logsigmoid(scores - objective.thresholds[:, None]).mean(0)
    torch.testing.assert_close(objective(images), expected)
    slices_agree(objective, images)


def test_promotes_gradient_matches_finite_differences(pushed):
    *_, objective = pushed
    assert torch.autograd.gradcheck(objective, (IMAGES.double().requires_grad_(True),))


def test_promote_does_not_mix_images(pushed):
    *_, objective = pushed
    images = IMAGES.double()
    changed = images.clone()
    changed[0] = 0.9
    before, after = objective(images), objective(changed)
    assert after[0] != before[0] and torch.equal(after[1:], before[1:])


def test_evade_penalises_only_above_threshold_minus_margin():
    class Red(nn.Module):
        def forward(self, images):
            return images[:, 0, 0, 0]

    aim, score = hook(Values(), TARGETS), Red()
    objective = Evade(aim, score, threshold=0.7, margin=0.3, penalty=torch.tensor([2.0, 2.0, 5.0]))
    images = pixels([0.2, 0.4, 0.6], [1.0, 0.0, 0.5], [0.45, 0.3, 0.3])  # scores 0.2, 1.0, 0.45; limit 0.4
    fine = aim(images) - objective(images)
    assert fine.tolist() == pytest.approx([0, 2 * 0.6, 5 * 0.05])
    slices_agree(objective, images)
    assert score in objective.modules and aim.features in objective.modules
    slope = torch.autograd.grad((objective(x := images.requires_grad_(True)) - aim(x)).sum(), x)[0]
    assert slope[:, 0, 0, 0].tolist() == pytest.approx([0, -2, -5])


def test_cosine_hook_by_hand():
    targets = torch.tensor([[0.2, 0.4, 0.6], [0.0, 1.0, 0.0], [0.0, 0.0, -2.0]])
    objective = FeatureCosine(Values(), targets)
    assert objective(IMAGES).tolist() == pytest.approx([1, 0, -(3**-0.5)], abs=1e-6)
    slices_agree(objective, IMAGES)


def test_target_class_by_hand():
    objective = TargetClass(Values(), torch.tensor([2, 0, 1]))  # the pixels are the logits
    first = 0.6 - torch.tensor([0.2, 0.4, 0.6]).exp().sum().log().item()
    assert objective(IMAGES).tolist()[0] == pytest.approx(first)
    assert objective(IMAGES).tolist()[2] == pytest.approx(-np.log(3))
    slices_agree(objective, IMAGES)


def test_sums_are_sums_and_narrow_with_their_parts():
    extractor, penalty = Values(), torch.tensor([0.0, 1.0, 10.0])
    a, b = hook(extractor, TARGETS), FeatureCosine(extractor, TARGETS)
    objective = 2.0 * a + b - penalty * TargetClass(extractor, torch.tensor([0, 1, 2]))
    expected = 2 * a(IMAGES) + b(IMAGES) - penalty * TargetClass(extractor, torch.tensor([0, 1, 2]))(IMAGES)
    torch.testing.assert_close(objective(IMAGES), expected)
    torch.testing.assert_close((-(a + b) * 3)(IMAGES), -3 * (a(IMAGES) + b(IMAGES)))
    slices_agree(objective, IMAGES)
    assert isinstance(objective, Sum) and objective.modules == (extractor,)  # three objectives, one extractor
    slope = torch.autograd.grad((a + a)(x := IMAGES.clone().requires_grad_(True)).sum(), x)[0]
    alone = torch.autograd.grad(a(x := IMAGES.clone().requires_grad_(True)).sum(), x)[0]
    torch.testing.assert_close(slope, 2 * alone)
    with pytest.raises(TypeError):
        a + 1.0
    with pytest.raises(TypeError):
        a * b


def test_enough_narrows_with_its_objective():
    objective = WithThreshold(hook(Values(), TARGETS), torch.tensor([0.1, 0.2, 0.3]))
    slices_agree(objective, IMAGES)
    assert objective[torch.tensor([2, 0])].success_threshold.tolist() == pytest.approx([0.3, 0.1])


def test_push_by_hand():
    """Two users, margins log 1 and log 3: σ = 1/2 and 3/4."""
    margins = torch.tensor([[0.0], [math.log(3)]])
    limits = torch.tensor([7.0, -2.0])
    scores = margins + limits[:, None]
    assert worth(scores, limits, "promote").item() == pytest.approx((math.log(1 / 2) + math.log(3 / 4)) / 2)
    assert worth(scores, limits, "reach").item() == pytest.approx(math.log((1 / 2 + 3 / 4) / 2))
    assert worth(scores, limits, "reach", 0.5).item() == pytest.approx(math.log((1 / 2 + 9 / 10) / 2))  # σ(2 log 3)
    with pytest.raises(ValueError, match="unknown aim 'rise'; known: insa, promote, reach"):
        worth(scores, limits, "rise")


def test_insa_is_the_peers_formula():
    """AIP's insider maximises Σ_u exp s(u, i): two users with scores log 2 and log 3 are worth 5. Its logarithm has
    the same best photo and a gradient of the same direction, and no overflow at scores of a thousand."""
    scores = torch.tensor([[math.log(2), 1000.0], [math.log(3), 1000.0]], requires_grad=True)
    got = worth(scores, torch.zeros(2), "insa")
    assert got.tolist() == pytest.approx([math.log(5), 1000 + math.log(2)])
    assert torch.equal(worth(scores, torch.tensor([5.0, -9.0]), "insa"), got)  # it doesn't ask where lists end
    ours = torch.autograd.grad(got[0], scores)[0][:, 0]
    theirs = torch.autograd.grad(scores[:, 0].exp().sum(), scores)[0][:, 0]
    torch.testing.assert_close(ours * 5, theirs)


def test_reach_goes_where_lists_are_near_and_promote_does_not():
    """User 0 is a step from her list, user 1 hopelessly far: promote pulls for both alike, reach for the first."""
    margins = torch.tensor([[-1.0], [-50.0]], requires_grad=True)
    for aim, near in (("promote", 0.42), ("reach", 0.999)):
        (slope,) = torch.autograd.grad(worth(margins, torch.zeros(2), aim).sum(), margins)
        assert (slope[0] / slope.sum()).item() == pytest.approx(near, abs=0.01)


def test_the_softness_is_a_share_of_what_separates_items():
    scores = torch.tensor([[0.0, 2.0, 4.0], [0.0, 20.0, 40.0]])
    assert reach_temperature(scores) == pytest.approx(0.3 * (2 + 20) / 2)


def test_demote_is_the_reverse_of_promote(pushed):
    """Scores and thresholds change sides: what promote gains at margin m, demote gains at −m."""
    model, items, objective = pushed
    images = IMAGES.double()
    scores = model.item_scores(None, items, images.flatten(1))
    expected = F.logsigmoid(objective.thresholds[:, None] - scores).mean(0)
    torch.testing.assert_close(demote(objective)(images), expected)
    torch.testing.assert_close(demote(demote(objective))(images), objective(images))
    slices_agree(demote(objective), images)
    one = Push(
        objective.features, objective.weights[:1], objective.offsets[:1], objective.thresholds[:1]
    )  # for a single user
    up, down = (
        torch.autograd.grad(g(x := images.clone().requires_grad_(True)).sum(), x)[0] for g in (one, demote(one))
    )
    assert (up * down <= 0).all() and (up != 0).any()


def test_promote_in_a_linear_recommender_is_promote(pushed):
    model, items, linear = pushed
    images = IMAGES.flip(0).double()
    served = torch.randn(7, 3, generator=generator(0, "served")).double()
    owned = np.zeros((5, 7), bool)
    owned[0, 2] = owned[3, 5] = True
    objective = push_by_scores(Values(), model, np.arange(5), items, served, owned, 2)
    scores = model.scores(None, served)
    scores[0, 2] = scores[3, 5] = -torch.inf
    torch.testing.assert_close(objective.thresholds, scores.sort(1, descending=True).values[:, 1])
    same = Push(linear.features, linear.weights, linear.offsets, objective.thresholds)
    torch.testing.assert_close(objective(images), same(images))
    torch.testing.assert_close(demote(objective)(images), demote(same)(images))
    slices_agree(objective, images)


def test_last_place_by_hand():
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 9.0, 2.0]])
    owned = torch.tensor([[True, False, False, False], [False, False, True, False]])
    assert last_place_scores(scores, owned, 2).tolist() == [3, 2]


def rank(model, users, item, features, scores):
    """The item's mean rank over users, with its score replaced."""
    new = model.item_scores(users, [item], features)
    others = scores.clone()
    others[:, item] = -torch.inf
    return 1 + (others >= new).sum(1).double().mean().item()


@pytest.mark.parametrize("victim", ["visualknn", "dvbpr"])
def test_items_move_both_ways_in_victims_that_are_not_linear(victim):
    """Visual k-NN is not linear in the features, and DVBPR has a network of its own."""
    rng = np.random.default_rng(0)
    noisy = rng.integers(40, 216, (40, 1, 1, 3)) + rng.normal(0, 12, (40, 16, 16, 3))
    photos = np.clip(noisy, 0, 255).astype(np.uint8)
    train = sparse.csr_array(rng.random((30, 40)) < 0.15)
    split = SimpleNamespace(train=train, validation=np.full(30, -1))
    torch.manual_seed(0)
    extractor = Extractor("small_cnn").requires_grad_(False)
    extractor.freeze_scaler(photos)
    images = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
    if victim == "dvbpr":
        cfg = SimpleNamespace(visual_factors=4, l2=0.0, learning_rate=0.02, dvbpr_epochs=2)
        model = DVBPR().fit(split, photos, cfg, 0, extractor=extractor)
        eye = model.network
    else:
        eye = extractor
        model = VisualKNN().fit(split, eye(images), SimpleNamespace(neighbours=3))
    served, users, items = eye(images), np.arange(30), np.array([3, 11, 25])
    scores = model.scores(None, served)
    objective = push_by_scores(eye, model, users, items, served, train.toarray(), 5)
    clean = images[items]
    slices_agree(objective, clean)
    for wanted, sign in ((objective, 1), (demote(objective), -1)):
        attacked = linf(wanted, clean, 8, steps=10, generator=generator(0, "pgd"))
        assert torch.equal(attacked, quantise(attacked))
        with torch.no_grad():
            assert (wanted(attacked) > wanted(clean)).all()
            before, after = (
                np.mean([rank(model, users, i, eye(x[[a]]), scores) for a, i in enumerate(items)])
                for x in (clean, attacked)
            )
        assert sign * (before - after) > 0.5  # places
