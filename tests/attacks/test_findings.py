"""QueryTrace of queries and poisoning: values by hand, on models of a few numbers."""

import numpy as np
import pytest
import torch
from scipy import sparse

from vars_core.attacks import poisoning
from vars_core.attacks.query_trace import QueryTrace
from vars_core.attacks.square import square
from vars_core.recommender.vbpr import VBPR
from vars_core.runtime import device, generator


class Brightness:
    modules = ()

    def __call__(self, images):
        return images.mean((1, 2, 3))


GREY = torch.full((2, 3, 4, 4), 100 / 255)


def test_a_trail_keeps_the_best_photo_within_the_budget():
    trace = QueryTrace(Brightness(), GREY, 4, marks=[1, 2, 3])
    for level in (102, 110, 101):  # the second is brightest, but 10 levels away
        trace(torch.full_like(GREY, level / 255))
    assert trace.queries == 3
    for mark in (1, 2, 3):
        assert torch.equal(trace.photos[mark] * 255, torch.full_like(GREY, 102))


def test_a_trail_ends_where_the_square_attack_ends():
    trace = QueryTrace(Brightness(), GREY, 8, marks=[1, 5, 30])
    found = square(trace, GREY, 8, queries=30, generator=generator(0, "trace"))
    assert torch.equal(trace.photos[30], found.images)
    values = [Brightness()(trace.photos[mark]).sum() for mark in (1, 5, 30)]
    assert values == sorted(values) and values[-1] > values[0]
    assert (found.queries == 30).all()


def test_a_trail_refuses_bad_marks_and_slices():
    with pytest.raises(ValueError, match="1 or more"):
        QueryTrace(Brightness(), GREY, 8, marks=[0])
    with pytest.raises(ValueError, match="one batch"):
        QueryTrace(Brightness(), GREY, 8, marks=[1])[:1]


def tiny() -> VBPR:
    """s(u, i) = f_i: one user, three items, one feature."""
    model = VBPR()
    model._build(generator(0), users=1, items=3, factors=1, visual_factors=1, dimensions=1)
    for table in model.parameters():
        table.data.zero_()
    model.visual_bias.data.fill_(1.0)
    return model.to(device()).requires_grad_(False)


def test_exposure_of_one_changed_item_by_hand():
    class Parts:
        train = sparse.csr_array(np.array([[1, 0, 0]], bool))

    features = np.array([[9.0], [2.0], [1.0]], np.float32)
    arms = [np.array([[new]], np.float32) for new in (1.0, 3.0)]
    found = [poisoning.exposure(tiny(), Parts, features, np.array([0]), np.array([2]), new, k=1) for new in arms]
    assert found == [0.0, 1.0]  # item 0 is owned and doesn't compete; item 1 scores 2


def test_poisoning_replaces_only_the_named_items():
    features = np.zeros((3, 2), np.float32)
    changed = poisoning.poisoned(features, [1], np.ones((1, 2), np.float32))
    assert changed.tolist() == [[0, 0], [1, 1], [0, 0]] and not features.any()
    with pytest.raises(ValueError, match="shape"):
        poisoning.poisoned(features, [1], np.ones((2, 2), np.float32))
