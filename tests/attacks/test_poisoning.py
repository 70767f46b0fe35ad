"""Poisoning and evasion: exposure and replaced features by hand, on a VBPR of three items."""

import numpy as np
import pytest
from scipy import sparse

from vars_core.attacks import poisoning
from vars_core.recommender.vbpr import VBPR
from vars_core.runtime import device, generator


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
