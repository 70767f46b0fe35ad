"""What attackers want: values by hand, gradients by finite differences, narrowing by rows."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vars_core.objectives import Evade, Promote, Through, hook, untargeted
from vars_core.recommenders import VBPR
from vars_core.runtime import generator


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

    extractor, purifier = Values(), Double()
    system = Through(extractor, purifier)
    assert torch.equal(system(IMAGES), 2 * IMAGES.flatten(1))
    objective = hook(system, TARGETS)
    assert set(objective.modules[0].modules()) >= {extractor, purifier}  # both are put in eval mode


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
    return model, items, Promote(Values(), w, scores - w @ features.T, thresholds)


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

    goal, score = hook(Values(), TARGETS), Red()
    objective = Evade(goal, score, threshold=0.7, margin=0.3, penalty=torch.tensor([2.0, 2.0, 5.0]))
    images = pixels([0.2, 0.4, 0.6], [1.0, 0.0, 0.5], [0.45, 0.3, 0.3])  # scores 0.2, 1.0, 0.45; limit 0.4
    fine = goal(images) - objective(images)
    assert fine.tolist() == pytest.approx([0, 2 * 0.6, 5 * 0.05])
    slices_agree(objective, images)
    assert score in objective.modules and goal.features in objective.modules
    slope = torch.autograd.grad((objective(x := images.requires_grad_(True)) - goal(x)).sum(), x)[0]
    assert slope[:, 0, 0, 0].tolist() == pytest.approx([0, -2, -5])
