"""Sellers who ask often: the same photo again and again is noticed, and other photos are not."""

import numpy as np
import pytest
import torch
from toys import extractor, smooth_photos

from vars_core.attacks.engine import linf, noise
from vars_core.attacks.objectives import hook
from vars_core.detection.uploads import BITS, UploadMemory, hashes, honest_flags
from vars_core.extractor import to_images, to_photos
from vars_core.runtime import generator

__all__ = ["extractor"]  # a fixture
pytestmark = pytest.mark.usefixtures("on_cpu")


def distance(a, b):
    return (a != b).sum(1)


def test_a_hash_hardly_changes_with_the_photo_and_differs_between_photos(extractor):
    photos = smooth_photos(20, side=32)
    clean, images = hashes(photos), to_images(photos)
    assert clean.shape == (20, BITS) and clean.dtype == bool
    with torch.no_grad():
        goal = hook(extractor, extractor(images).roll(1, 0))
    apart = distance(clean, np.roll(clean, 1, 0)).min()
    for changed in (linf(goal, images, 4, generator=generator(0)), noise(images, 4, generator=generator(1))):
        assert distance(clean, hashes(to_photos(changed))).max() < apart


def test_the_fourth_of_nearly_the_same_is_flagged():
    photos = smooth_photos(5, side=32)
    memory = UploadMemory(distance=4, limit=3)
    same = np.repeat(photos[:1], 5, 0)
    assert memory.flags("a", same).tolist() == [False, False, False, True, True]
    assert not memory.flags("b", same[:3]).any()  # another seller's are their own
    assert not memory.flags("a", photos[1:]).any()


def test_only_the_last_uploads_are_remembered():
    photos = smooth_photos(6, side=32)
    memory = UploadMemory(distance=0, limit=1, window=3)
    assert memory.flags("a", photos[[0, 1, 2, 0]]).tolist() == [False, False, False, True]
    assert memory.flags("a", photos[[3, 4, 5, 1]]).tolist() == [False, False, False, False]


def test_honest_sellers_are_flagged_for_copies_of_their_own_only():
    photos = smooth_photos(12, side=32)
    photos[7] = photos[2]
    sellers = np.arange(12) % 5  # 2 and 7 are of one seller
    assert honest_flags(photos, sellers, distance=2, limit=1).nonzero()[0].tolist() == [7]
    assert not honest_flags(photos, np.arange(12), distance=2, limit=1).any()


@pytest.mark.parametrize("given", [(-1, 1, 5), (64, 1, 5), (3, 0, 5), (3, 6, 5)])
def test_what_makes_no_sense_is_refused(given):
    with pytest.raises(ValueError, match="got"):
        UploadMemory(*given)
