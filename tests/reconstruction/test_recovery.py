"""What a filter gives back and what it costs, by hand and in a toy shop."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import ITEMS, extractor, shop

from vars_core.attacks import campaign
from vars_core.reconstruction import recovery

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


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
    # the filter's own clean exposure is the mark, not that of the undefended shop
    assert recovery.exposure_recovery(low, high, half, half)["value"] == 1
    assert recovery.exposure_recovery(low, high, half, low)["value"] == 0.5  # overshooting costs too


def test_no_harm_nothing_to_recover():
    rng = np.random.default_rng(0)
    one, two = (rng.random((60, 40)) < 0.1).astype(float), (rng.random((60, 40)) < 0.1).astype(float)
    assert recovery.exposure_recovery(one, one, one, two) is None
    assert recovery.exposure_recovery(one, two, one, two) is None


def test_the_identity_costs_nothing_and_recovers_nothing(shop):
    same = shop.with_filter(nn.Identity())
    costs = recovery.clean_cost(shop, same, np.arange(30))
    assert "clean_psnr" not in costs
    assert {name: row["value"] for name, row in costs.items()} == {
        "clean_feature_mse": 0, "clean_ndcg_loss": 0, "clean_hr_loss": 0
    }  # fmt: skip
    attacked = {"fgsm@8": campaign.attack(shop, ITEMS, np.array([0, 1, 3]), "fgsm", 8, 1, 0)}
    rows = recovery.recoveries(recovery.UndefendedOutcome.of(shop, ITEMS, attacked), same)
    assert rows[0]["metric"] == "feature_recovery" and rows[0]["value"] == 0


# Trap: a filter that blurs wins PSNR and loses HR; so its cost is answered beside.
def test_a_filter_that_hides_everything_pays_for_it(shop):
    class Grey(nn.Module):
        def forward(self, images):
            return torch.full_like(images, 128 / 255)

    costs = recovery.clean_cost(shop, shop.with_filter(Grey()), np.arange(30))
    assert costs["clean_psnr"]["value"] < 25
    assert costs["clean_feature_mse"]["value"] > 0.5
    assert costs["clean_ndcg_loss"]["value"] != 0
