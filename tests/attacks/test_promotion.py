"""Pushing an item in a toy shop: whom the attacker knows, and what the last place is."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import ITEMS, extractor, shop

from vars_core.attacks import promotion
from vars_core.attacks.promotion import Push
from vars_core.extractor import to_images
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


# Trap: the attack is optimised and reported on the same users.
def test_promote_knows_the_known_users_only(shop):
    images = to_images(shop.photos(ITEMS))
    before, ranks = promotion.push(shop, ITEMS, shop.extractor, "promote")(images), shop.ranks(ITEMS)
    with torch.no_grad():
        shop.recommender.visual_factors[shop.reporting_users] = torch.randn(20, 4, generator=generator(1))
    assert torch.equal(promotion.push(shop, ITEMS, shop.extractor, "promote")(images), before)
    assert ranks.shape == (20, 3)
    del shop.__dict__["clean_scores"]
    assert (np.nan_to_num(shop.ranks(ITEMS)) != np.nan_to_num(ranks)).any()


# Trap: candidates that are not masked for training items.
def test_promotes_threshold_is_the_kth_best_that_is_not_owned(shop):
    objective = promotion.push(shop, ITEMS, shop.extractor, "promote")
    assert isinstance(objective, Push)
    scores, owned = (
        shop.recommender.scores(shop.known_users, shop.features).numpy(),
        shop.split.train[shop.known_users].toarray(),
    )
    kth = [np.sort(row[~mine])[-shop.k] for row, mine in zip(scores, owned, strict=True)]
    np.testing.assert_allclose(objective.thresholds.numpy(), kth)
    own = objective(to_images(shop.photos(ITEMS)))
    margin = torch.from_numpy(scores[:, ITEMS] - np.array(kth)[:, None])
    torch.testing.assert_close(own, nn.functional.logsigmoid(margin).mean(0), atol=1e-4, rtol=1e-3)
