"""Ranks and exposure in a toy shop."""

import numpy as np
import pytest
import torch
from toys import ITEMS, extractor, shop

from vars_core.recommender.shop import Shop

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


def test_untouched_photos_have_the_clean_ranks(shop):
    clean = shop.ranks(ITEMS)
    assert np.array_equal(shop.ranks(ITEMS, shop.photos(ITEMS)), clean, equal_nan=True)
    scores = shop.recommender.scores(shop.reporting_users, shop.features).numpy()
    for row, user in enumerate(shop.reporting_users[:5]):
        rivals = np.setdiff1d(np.flatnonzero(~shop.split.train[[user]].toarray()[0]), ITEMS[1])
        assert clean[row, 1] == 1 + (scores[row, rivals] >= scores[row, ITEMS[1]]).sum()


def test_owners_are_left_out(shop):
    everyone = Shop(**{**vars(shop), "reporting_users": np.arange(40)})
    assert np.isnan(everyone.exposed(ITEMS)[0]).tolist() == [True, False, False]


def test_lists_are_the_best_that_a_user_does_not_have(shop):
    rows = [0, 3]
    for row, listed in zip(rows, shop.lists(rows, 5), strict=True):
        scores = shop.clean_scores[row].clone()
        owned = shop.split.train[[shop.reporting_users[row]]].toarray()[0].astype(bool)
        scores[torch.as_tensor(owned)] = -torch.inf
        assert listed.tolist() == scores.argsort(descending=True)[:5].tolist()
