"""What photos made on one model do in another: victims, a second extractor, and re-training on attacked photos."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file
from toys import QUICK, gallery

from vars_core import params
from vars_core.attacks import poisoning, transfer
from vars_core.attacks.objectives import hook
from vars_core.attacks.transfer import Victim
from vars_core.extractor import extract, to_images
from vars_core.recommender import attack_metrics
from vars_core.recommender.bprmf import BPRMF
from vars_core.recommender.shop import Shop
from vars_core.recommender.vbpr import VBPR

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["gallery"]  # a fixture


@pytest.fixture(scope="module")
def shop(gallery):
    """120 users, 60 items, a VBPR trained on them; items 50 to 59 are cold."""
    split, photos, extractor = gallery
    features = extract(extractor, photos)
    items = pd.DataFrame({"category": np.where(photos.mean((1, 2, 3)) > 128, "bright", "dark")})
    model = VBPR().fit(split, features, QUICK, seed=0)
    users = np.arange(120)
    goods = SimpleNamespace(photos=photos, items=items, name="toy")
    return Shop(goods, split, extractor.eval(), model, features, users[::2], users[1::2], k=5)


def test_the_shops_own_victim_ranks_as_the_shop_does(shop):
    victim, items = Victim.load(shop, "vbpr", 0), shop.split.cold[:3]
    brighter = np.clip(shop.photos(items).astype(int) + 30, 0, 255).astype(np.uint8)
    for photos in (None, brighter):
        assert np.array_equal(victim.ranks(shop, items, photos), shop.ranks(items, photos), equal_nan=True)


def test_a_white_box_attack_lifts_items_in_its_victim_within_the_budget(shop):
    victim, items = Victim.load(shop, "vbpr", 0), shop.split.cold[:4]
    pushed = victim.attack(shop, items, 16, 10, seed=0)
    assert np.abs(pushed.astype(int) - shop.photos(items)).max() == 16
    lifted = attack_metrics.rank_shifts(victim.ranks(shop, items), victim.ranks(shop, items, pushed))
    assert attack_metrics.item_mean(lifted) > 1


def test_a_victim_that_sees_no_photo_does_not_move(shop):
    blind = BPRMF().fit(shop.split, None, QUICK, seed=0)
    victim, items = Victim("bprmf", blind, shop.extractor, shop.features), shop.split.cold[:3]
    black = np.zeros_like(shop.photos(items))
    assert np.array_equal(victim.ranks(shop, items), victim.ranks(shop, items, black), equal_nan=True)


def test_an_unknown_victim_is_refused_by_name(shop):
    with pytest.raises(ValueError, match=r"no recommender is called 'svd'; there are .*vbpr"):
        Victim.load(shop, "svd", 0)


def test_the_second_extractor_is_another_one_and_leaves_chance_alone(shop):
    before = torch.random.get_rng_state()
    first, again, other = (
        transfer.second_extractor(shop, params.Attacks(), epochs, seed) for epochs, seed in ((1, 0), (1, 0), (0, 1))
    )
    assert torch.equal(before, torch.random.get_rng_state())
    images = to_images(shop.photos([0, 1]))
    assert torch.equal(first(images), again(images))
    assert not torch.allclose(first(images), other(images), atol=0.1)
    assert not torch.allclose(first(images), shop.extractor(images), atol=0.1)
    assert not any(p.requires_grad for p in first.parameters()) and not first.training


def test_a_second_extractor_can_be_named_with_its_weights(shop, tmp_path):
    torch.manual_seed(5)
    known = timm.create_model("resnet18", num_classes=1000)
    save_file(known.state_dict(), file := tmp_path / "w.safetensors")
    cfg = params.Attacks(other_extractor="resnet18", other_pretrained=str(file))
    other = transfer.second_extractor(shop, cfg, 3, 0)
    assert other.name == "resnet18"
    assert torch.equal(other.backbone.conv1.weight, known.conv1.weight)  # nothing was trained
    with pytest.raises(ValueError, match="other_extractor's, which is null; got True"):
        params.Attacks(other_pretrained=True)
    with pytest.raises(ValueError, match=r"^attacks\.other_pretrained: no package has weights of resnet18"):
        transfer.second_extractor(shop, cfg.model_copy(update={"other_pretrained": "package"}), 3, 0)


# Trap: features scaled by statistics that attacked items take part in.
def test_the_second_extractors_scaler_knows_warm_items_only(shop):
    photos = shop.catalogue.photos.copy()
    photos[shop.split.cold] = 0
    changed = replace(shop, catalogue=SimpleNamespace(**{**vars(shop.catalogue), "photos": photos}))
    a, b = (transfer.second_extractor(s, params.Attacks(), 0, 0) for s in (shop, changed))
    assert torch.equal(a.feature_mean, b.feature_mean) and torch.equal(a.feature_std, b.feature_std)


def test_hook_photos_come_nearer_to_their_hook(shop):
    items, hooks = shop.split.cold[:3], np.array([1, 2, 3])
    objective = hook(shop.extractor, shop.hook_features(hooks))
    photos = transfer.attacked_photos(objective, shop.photos(items), 8, 10, seed=0)
    assert (objective(to_images(photos)) > objective(to_images(shop.photos(items)))).all()
    assert np.abs(photos.astype(int) - shop.photos(items)).max() == 8


# Trap: re-training after the attack called "attack effect".
def test_poisoning_with_untouched_photos_is_clean_training(shop):
    sold, rest = np.array([0, 1, 2]), (shop.reporting_users, np.array([0, 1, 2]))
    table = poisoning.compare({0: shop.recommender}, shop.split, shop.features, QUICK, *rest, shop.features[sold], 5)
    row = table.iloc[0]
    assert list(table.seed) == [0] and row.untouched == row.evasion == row.poisoning


def test_poisoning_and_evasion_differ_only_by_the_training(shop):
    sold = np.array([0, 1, 2])
    attacked = shop.features[sold] + 3
    table = poisoning.compare(
        {0: shop.recommender}, shop.split, shop.features, QUICK, shop.reporting_users, sold, attacked, 5
    )
    frozen = poisoning.exposure(shop.recommender, shop.split, shop.features, shop.reporting_users, sold, attacked, 5)
    changed = poisoning.poisoned(shop.features, sold, attacked)
    retrained = VBPR().fit(shop.split, changed, QUICK, seed=0)
    taught = poisoning.exposure(retrained, shop.split, shop.features, shop.reporting_users, sold, attacked, 5)
    assert (table.evasion[0], table.poisoning[0]) == (frozen, taught)
    assert not torch.equal(retrained.projection, shop.recommender.projection)
