"""Campaigns: every algorithm, budget, measure and file."""

import numpy as np
import pytest
from toys import ITEMS, extractor, shop

from vars_core.attacks import campaign
from vars_core.data import arrays
from vars_core.reconstruction import recovery
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor", "shop"]  # fixtures


# Trap: success over successful attacks only; SSIM and PSNR without data_range.
def test_a_campaign_tells_about_every_item_and_keeps_its_budget(shop):
    hooks = shop.hooks(ITEMS, 4, generator(0))
    assert (np.asarray(shop.split.train.sum(0)).ravel()[hooks] > 0).all()
    photos = campaign.attack_all(shop, ITEMS, hooks, [4, 8], 5, seed=0)
    assert (photos["none"] == shop.photos(ITEMS)).all()
    assert set(photos) == {"none", *(f"{a}@{e}" for a in campaign.ALGORITHMS for e in (4, 8))}
    table = campaign.outcomes(shop, ITEMS, photos)
    visual = table[table.metric.isin(["psnr", "ssim", "linf"])]
    assert (visual.n == 3).all() and not ((visual.attack == "none") & (visual.metric != "linf")).any()
    linf = table[table.metric == "linf"]
    assert (linf.value == linf.epsilon).all()
    shift = table[table.metric == "prediction_shift"].set_index(["attack", "epsilon"]).value
    assert shift["none", 0] == pytest.approx(0, abs=1e-5)
    assert shift["promote:pgd", 8] > max(shift["noise", 8], 0.05)
    seen = table[table.metric == "exposure@5"].set_index(["attack", "epsilon"]).value
    assert seen["reach:pgd", 8] > max(seen["none", 0], seen["noise", 8], seen["promote:pgd", 4])
    moved = {
        n: recovery.feature_mse(shop.served_features(photos[n]) - shop.hook_features(hooks).numpy()).mean()
        for n in photos
    }
    assert moved["pgd@8"] < moved["pgd@4"] < moved["none"] and moved["pgd@8"] < moved["fgsm@8"]


def test_unknown_attacks_are_refused(shop):
    with pytest.raises(ValueError, match="unknown attack 'pdg'; known: noise, fgsm"):
        campaign.attack(shop, ITEMS, ITEMS, "pdg", 8, 3, 0)


def test_visibility_by_hand():
    clean = np.full((2, 16, 16, 3), 100, np.uint8)
    clean[0] = 0
    changed = clean.copy()
    changed[0] += 8
    changed[1, :8] -= 4
    seen = campaign.perceptual_metrics(clean, changed)
    assert seen["linf"].tolist() == [8, 4]
    assert seen["psnr"].tolist() == pytest.approx([10 * np.log10(255**2 / 64), 10 * np.log10(255**2 / 8)], rel=1e-5)
    # 0 against 8: c₁ / (8² + c₁) with c₁ = (0.01 · data_range)²; another data_range gives another number
    assert seen["ssim"][0] == pytest.approx(2.55**2 / (64 + 2.55**2), rel=1e-3)
    assert set(campaign.perceptual_metrics(clean, clean)) == {"linf"}


def test_campaigns_are_saved_without_pickles(shop, tmp_path):
    photos = {"none": shop.photos(ITEMS), "promote:pgd@16": shop.photos(ITEMS[::-1]), "pgd@8": shop.photos(ITEMS)}
    campaign.save(tmp_path, ITEMS, ITEMS + 1, photos)
    items, hooks, again = campaign.load(tmp_path)
    assert (items == ITEMS).all() and (hooks == ITEMS + 1).all()
    assert list(again) == ["none", "pgd@8", "promote:pgd@16"]
    assert all((again[name] == photos[name]).all() for name in photos)


def test_a_campaign_that_is_not_whole_is_one_line(shop, tmp_path):
    photos = {"none": shop.photos(ITEMS), "pgd@8": shop.photos(ITEMS)}
    campaign.save(tmp_path, ITEMS, ITEMS + 1, photos)
    for name, content, said in [
        ("pgd@8", shop.photos(ITEMS)[:-1], "expected, for"),
        ("pgd@8", shop.photos(ITEMS).astype(float), "float64"),
        ("hooks", ITEMS[:-1], "expected, for"),
        ("none", None, "none.npy is missing: run notebook 3"),
        ("items", None, "items.npy is missing"),
    ]:
        campaign.save(tmp_path, ITEMS, ITEMS + 1, photos)
        (tmp_path / f"{name}.npy").unlink() if content is None else np.save(tmp_path / f"{name}.npy", content)
        with pytest.raises(arrays.ArrayFileError, match=said):
            campaign.load(tmp_path)
    campaign.save(tmp_path, ITEMS, ITEMS + 1, photos)
    (tmp_path / "pgd@8.npy").write_bytes((tmp_path / "pgd@8.npy").read_bytes()[:-9])
    with pytest.raises(arrays.ArrayFileError, match=r"pgd@8.npy: not a whole .npy file"):
        campaign.load(tmp_path)
