"""What training sees and what it minimises: budgets, the grid, the loss's closed form, a filter that learns."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import extractor, loss, smooth_photos

from vars_core import checkpoint, params
from vars_core.attacks.engine import linf, noise, quantise
from vars_core.attacks.objectives import hook
from vars_core.detection.detectors import labelled_batch
from vars_core.extractor import to_images
from vars_core.reconstruction.filters import GlobalViT
from vars_core.reconstruction.online_attacks import (
    BENIGN,
    KINDS,
    ON_EXTRACTOR,
    ForeignNetwork,
    OnlineAttacks,
    augment,
)
from vars_core.reconstruction.trainer import Losses, Trainer, learning_rate_factor
from vars_core.reconstruction.training import (
    TERMS,
    FilterLoss,
    feature_tensor,
    next_batch,
    ranking_matrix,
    train_filters,
)
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor"]  # a fixture


@pytest.fixture
def attacker(extractor):
    pool = feature_tensor(extractor, smooth_photos(seed=1))
    return OnlineAttacks(extractor, pool, [2, 4], 3, generator(0, "attacker"))


def on_grid(images):
    return torch.equal(images, quantise(images))


def largest_steps(changed, images):
    return ((changed - images) * 255).abs().amax((1, 2, 3)).round()


def test_training_attacks_stay_in_their_budget_and_on_the_grid(extractor, attacker):
    images = to_images(smooth_photos())
    attacked = attacker.attack(images, extractor(images))
    steps = largest_steps(attacked, images)
    assert on_grid(attacked) and attacked.dtype == torch.float32
    assert steps.max() <= 4 and {2.0, 4.0} <= set(steps.tolist())  # both budgets were drawn, per image
    moved = (extractor(attacked) - extractor(images)).square().mean(1)
    noisy = attacker.noise(images)
    assert on_grid(noisy) and largest_steps(noisy, images).max() <= 4
    assert moved.mean() > 3 * (extractor(noisy) - extractor(images)).square().mean()


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_small_batches_are_attacked_too(n, extractor, attacker):
    images = to_images(smooth_photos(n))
    assert attacker.attack(images, extractor(images)).shape == images.shape
    assert attacker.benign(images).shape == images.shape


# Trap: the detector learns the codec, since only positives were re-saved.
def test_every_view_is_on_the_grid_whatever_its_label(extractor, attacker):
    images = augment(to_images(smooth_photos()), generator(0))
    views, targets, labels = labelled_batch(images, extractor(images), attacker, lambda x: x / 2)
    assert on_grid(views) and views.min() >= 0 and views.max() <= 1
    assert labels.tolist() == [0] * 96 + [1] * 48
    assert torch.equal(views[:48], images)
    # noise (a quarter of the honest copies) and attacks are to be undone, edits are to stay
    noisy, edited, attacked = slice(48, 60), slice(60, 96), slice(96, 144)
    assert torch.equal(targets[:48], images) and torch.equal(targets[attacked], images)
    assert torch.equal(targets[edited], views[edited]) and not torch.equal(views[edited], images[12:])
    assert torch.equal(targets[noisy], images[:12]) and not torch.equal(views[noisy], images[:12])
    # a quarter of the honest copies has been through the filter already; this one halves all values
    for edits, share in ((slice(60, 84), 1), (slice(84, 96), 0.5)):
        torch.testing.assert_close(
            views[edits].mean(), share * images[edits.start - 48 : edits.stop - 48].mean(), rtol=0.05, atol=0
        )


@pytest.mark.parametrize("name", BENIGN)
def test_benign_edits_keep_shape_and_range(name):
    images = to_images(smooth_photos(4))
    edited = BENIGN[name](images)
    assert edited.shape == images.shape and edited.min() >= 0 and edited.max() <= 1
    assert not torch.equal(edited, images)


def test_augmented_images_stay_on_the_grid():
    images = to_images(smooth_photos(8))
    seen = augment(images, generator(0))
    assert seen.shape == images.shape and on_grid(seen)


def test_every_photo_is_seen_once_per_epoch():
    photos = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    rows, draw, seen = [], generator(0), []
    for _ in range(6):
        taken, rows = next_batch(photos, rows, 4, draw)
        seen += taken[:, 0, 0, 0].mul(255).round().int().tolist()
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12)) and seen[:12] != seen[12:]


def test_the_ranking_term_is_the_mean_squared_score_change(extractor):
    """Δfᵀ M Δf = mean over users and images of (w_u · Δf)², over the natural variance of scores."""
    rng = np.random.default_rng(0)
    clean, changed = to_images(smooth_photos(6)), to_images(smooth_photos(6, seed=2))
    own = extractor(clean)
    heads = rng.normal(size=(9, own.shape[1])).astype(np.float32)
    catalogue = rng.normal(size=(30, own.shape[1])).astype(np.float32)
    terms = loss(extractor, ranking=ranking_matrix(heads, catalogue), ranking_weight=0.5)(
        changed, clean, own, torch.ones(6, dtype=torch.bool)
    )
    natural = np.mean([np.var(catalogue @ head, ddof=1) for head in heads])
    change = (extractor(changed) - own).numpy()
    squares = [(head @ row) ** 2 for head in heads for row in change]
    assert terms["ranking"].item() == pytest.approx(0.5 * np.mean(squares) / natural, rel=1e-4)


def test_terms_by_hand_and_zero_for_the_identity_on_clean_images(extractor):
    clean = to_images(smooth_photos(4))
    own, nothing = extractor(clean), torch.zeros(4, dtype=torch.bool)
    for term, value in loss(extractor)(clean, clean, own, nothing).items():
        assert value.item() == pytest.approx(0, abs=1e-6), term
    brighter = clean + 2 / 255
    perturbed = torch.tensor([True, True, True, False])
    terms = loss(extractor, pixel_weight=3.0, identity_weight=2.0)(brighter, clean, own, perturbed)
    feature = (extractor(brighter) - own).abs().mean(1)
    assert terms["pixel"].item() == pytest.approx(3 * 2, rel=1e-3)  # in 8-bit steps
    assert terms["feature"].item() == pytest.approx(feature.mean().item(), rel=1e-4)
    assert terms["identity"].item() == pytest.approx(2 * (3 * 2 + feature[3].item()) / 4, rel=1e-3)


def test_the_gates_term_is_the_cross_entropy_of_clean_and_attacked_counted_alike(extractor):
    logit = torch.tensor([-1.0, 2.0, 0.5, 3.0, 1.0])
    perturbed = torch.tensor([False, True, True, True, True])  # the second is noise: left out
    attacked = torch.tensor([False, False, True, True, True])
    shut, opened = 1 / (1 + np.exp(-logit[0].item())), 1 / (1 + np.exp(-logit[2:].numpy()))
    expected = 0.5 * (-np.log(1 - shut) - np.log(opened).mean())
    objective = loss(extractor, gate_weight=0.5)
    assert objective.gate(logit, perturbed, attacked).item() == pytest.approx(expected, rel=1e-5)
    assert objective.gate(None, perturbed, attacked) == 0
    none = torch.zeros(5, dtype=torch.bool)
    assert torch.isfinite(objective.gate(logit, ~none, none))  # a batch without either class


def test_a_filter_learns_to_undo_noise_and_attacks(extractor):
    photos, unseen = smooth_photos(64), to_images(smooth_photos(24, seed=9))
    cfg = SimpleNamespace(epsilons=[8, 16], attack_steps=2, batch_size=16, learning_rate=1e-2)
    torch.manual_seed(0)
    model = GlobalViT(channels=8, patch=4, width=16, depth=1, heads=2)
    dim = extractor(unseen).shape[1]
    objective = loss(extractor, ranking=torch.eye(dim) / dim, ranking_weight=0.1)
    history = train_filters({"toy": (model, objective)}, photos, cfg, steps=150, generator=generator(0))
    terms = list(TERMS)
    assert list(history) == ["arm", "step", *terms] and len(history) == 150
    total = history[terms].sum(axis=1)
    assert total[-15:].mean() < 0.8 * total[:15].mean()
    assert not model.training and not any(p.requires_grad for p in model.parameters())

    own = extractor(unseen)
    attacked = linf(hook(extractor, own.flip(0)), unseen, 12, generator=generator(5))
    for changed in (attacked, noise(unseen, 12, generator=generator(6))):
        with torch.no_grad():
            filtered = model(changed)
            left, harm = ((extractor(x) - own).square().mean() for x in (filtered, changed))
        assert (filtered - unseen).abs().mean() < 0.9 * (changed - unseen).abs().mean()
        assert left < 0.9 * harm


# Trap: gradients left in a frozen model, or the extractor trained along with the filter.
def test_training_leaves_the_extractor_alone(extractor):
    before = {k: v.clone() for k, v in extractor.state_dict().items()}
    cfg = SimpleNamespace(epsilons=[8], attack_steps=1, batch_size=8, learning_rate=1e-3)
    model = GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2)
    train_filters({"toy": (model, loss(extractor))}, smooth_photos(16), cfg, steps=2, generator=generator(0))
    assert all(torch.equal(v, before[k]) for k, v in extractor.state_dict().items())
    assert all(p.grad is None for p in extractor.parameters())


def test_arms_see_the_same_batches_and_do_not_disturb_each_other(extractor):
    """So that a comparison of arms is paired: an arm learns the same beside others as alone."""
    cfg = SimpleNamespace(epsilons=[8], attack_steps=1, batch_size=8, learning_rate=1e-3)

    def arm(width):
        torch.manual_seed(width)
        return GlobalViT(channels=4, patch=8, width=width, depth=1, heads=2), loss(extractor)

    def train(**arms):
        train_filters(arms, smooth_photos(16), cfg, steps=3, generator=generator(0))
        return arms["ours"][0].state_dict()

    alone, beside = train(ours=arm(8)), train(rival=arm(16), ours=arm(8))
    for name, value in alone.items():
        torch.testing.assert_close(beside[name], value, atol=1e-6, rtol=1e-5)


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    place, judge, calls = tmp_path / "filter.safetensors", FilterLoss.__call__, []

    def train(stop=None, rate=1e-3):
        def until(self, *views):
            calls.append(stop)
            if calls.count(stop) == stop:
                raise KeyboardInterrupt
            return judge(self, *views)

        monkeypatch.setattr(FilterLoss, "__call__", until)
        calls.clear()
        torch.manual_seed(0)
        model = GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2)
        cfg = SimpleNamespace(epsilons=[8], attack_steps=1, batch_size=8, learning_rate=rate)
        arms = {"toy": (model, loss(extractor))}
        history = train_filters(arms, smooth_photos(20), cfg, steps=6, generator=generator(0), checkpoint=place)
        return model.state_dict(), history

    whole, history = train()
    place.unlink()
    with pytest.raises(KeyboardInterrupt):
        train(stop=5)
    for left in (2, 0):  # the fifth and the sixth step; then all is done
        resumed, again = train()
        assert len(calls) == left
        assert history.equals(again)
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    train(rate=2e-3)
    assert len(calls) == 6  # another training starts anew


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [learning_rate_factor(part) for part in (0, 0.05, 0.1, 0.55, 1)]
    assert rates == pytest.approx([0.1, 0.55, 1, 0.5, 0])


def test_a_filter_ends_as_the_running_mean_of_its_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    trainer, seen = Trainer(model, rate=0.1, steps=60), []  # the mean reaches back over two steps
    for step in range(4):
        trainer.step(model(torch.ones(1, 1)).sum(), step)
        seen.append(model.weight.item())
    mean = seen[0]
    for weight in seen[1:]:
        mean = mean / 2 + weight / 2
    trainer.finish()
    assert model.weight.item() == pytest.approx(mean) and mean != pytest.approx(seen[-1], abs=1e-3)


@pytest.mark.parametrize("kinds", [("fgsm",), ("pgd",), ("untargeted",), ("fgsm", "untargeted"), KINDS])
def test_every_attacked_image_of_every_kind_is_attacked(extractor, kinds):
    """Running away from one's own features starts where the slope is zero: FGSM would give the clean image back, and
    the detector would learn to call it attacked."""
    images, draw = to_images(smooth_photos()), generator(3)
    own = feature_tensor(extractor, smooth_photos())
    attacker = OnlineAttacks(extractor, own, [4], 2, draw, kinds)
    attacked = attacker.attack(images, own)
    assert (largest_steps(attacked, images) == 4).all()
    moved = (extractor(attacked) - own).square().mean(1)
    noisy = (extractor(attacker.noise(images)) - own).square().mean(1)
    assert (moved > noisy).float().mean() > 0.9


def test_foreign_attacks_move_a_network_of_their_own_and_hardly_the_extractor(extractor):
    photos = smooth_photos(24)
    images, own = to_images(photos), feature_tensor(extractor, photos)
    attacker = OnlineAttacks(extractor, own, [4], 2, generator(0), ("foreign",))
    attacked = attacker.attack(images, own)
    assert on_grid(attacked) and (largest_steps(attacked, images) == 4).all()
    mixed = OnlineAttacks(extractor, own, [4], 2, generator(0)).attack(images, own)
    moved = [(extractor(x) - own).square().mean(1) for x in (attacked, mixed)]
    assert len(images) / 4 == 6 and moved[1][6:].mean() > 2 * moved[0].mean()  # a quarter of a mixed batch is foreign
    # of the network that they were made on, which comes first of what the generator draws
    net, noisy = ForeignNetwork(images, generator(0)), attacker.noise(images)
    features = net(images)
    assert features.mean(0).abs().max() < 0.1 and features.std(0).median() == pytest.approx(1, abs=0.05)
    far, near = ((net(x) - features).square().mean(1) for x in (attacked, noisy))
    assert (far > near).float().mean() > 0.9
    assert not any(p.requires_grad for p in net.parameters()) and not net.network.training
    assert not torch.equal(net(images), ForeignNetwork(images, generator(1))(images))
    assert torch.equal(net(images), ForeignNetwork(images, generator(0))(images))


def test_foreign_networks_leave_chance_and_the_extractors_attacks_alone(extractor):
    photos = smooth_photos(8)
    images, own = to_images(photos), feature_tensor(extractor, photos)
    before = torch.random.get_rng_state()
    OnlineAttacks(extractor, own, [4], 1, generator(0)).attack(images, own)
    assert torch.equal(before, torch.random.get_rng_state())
    one = OnlineAttacks(extractor, own, [4], 1, generator(0)).attack(images[:1], own[:1])
    assert len(one) == 1  # too few for a network of its own
    adaptive = OnlineAttacks(extractor, own, [4], 1, generator(0))
    plain = OnlineAttacks(extractor, own, [4], 1, generator(0), ON_EXTRACTOR)
    assert torch.equal(adaptive.attack(images, own, extractor), plain.attack(images, own))


def test_unknown_kinds_of_attack_are_refused(extractor):
    with pytest.raises(ValueError, match="kinds of attack are fgsm, pgd, untargeted, foreign; got mim"):
        OnlineAttacks(extractor, None, [4], 2, generator(0), ("mim",))


def test_an_arm_that_knows_is_attacked_through_its_filter(extractor, monkeypatch):
    """The adaptive regime: half of the attacked photos of that arm alone are made on f∘R as it stands."""
    seen, genuine = [], OnlineAttacks.attack

    def noted(self, images, own, features=None):
        seen.append((len(images), features))
        return genuine(self, images, own, features)

    monkeypatch.setattr(OnlineAttacks, "attack", noted)
    torch.manual_seed(0)
    arms = {name: (GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2), loss(extractor)) for name in "ab"}
    cfg = params.Reconstruction(batch_size=16, epsilons=[4], attack_steps=1)
    train_filters(arms, smooth_photos(), cfg, steps=2, generator=generator(0), adaptive_shares={"b": 0.5})
    blind, knowing = seen[0], seen[1]
    assert len(seen) == 4 and blind == (10, None) and knowing[0] == 5
    assert list(knowing[1]) == [arms["b"][0], extractor]


def test_fixed_twins_take_the_place_of_fresh_attacks(extractor, monkeypatch):
    """Photo and twin come as they are (mirrored, an attack is none any more); no attack is made."""
    photos = smooth_photos()
    fixed_attacks = 255 - photos
    monkeypatch.setattr(OnlineAttacks, "attack", lambda *_: pytest.fail("an attack was made"))
    met = []

    class Watch(GlobalViT):
        def forward_with_gate(self, images):
            met.append(images.detach().clone())
            return super().forward_with_gate(images)

    cfg = params.Reconstruction(batch_size=16, epsilons=[4], attack_steps=1)
    model = Watch(channels=4, patch=8, width=8, depth=1, heads=2)
    train_filters(
        {"a": (model, loss(extractor))}, photos, cfg, steps=1, generator=generator(0), fixed_attacks=fixed_attacks
    )
    clean, attacked = met[0][:4], met[0][6:]
    pool = to_images(photos)
    assert all((pool == image).flatten(1).all(1).any() for image in clean)
    assert all(((pool + image - 1).abs() < 1e-4).flatten(1).all(1).any() for image in attacked)


def test_losses_are_fetched_once_and_in_order():
    losses = Losses([{"arm": "a", "step": 0, "pixel": 9.0}])
    losses.note(
        {"pixel": torch.tensor(1.5, requires_grad=True), "gate": torch.tensor(2, dtype=torch.bfloat16)},
        arm="a",
        step=1,
    )
    losses.note({"pixel": torch.tensor(3.0)}, arm="b", step=1)
    assert losses.count == 3
    known = [
        {"arm": "a", "step": 0, "pixel": 9.0},
        {"arm": "a", "step": 1, "pixel": 1.5, "gate": 2.0},
        {"arm": "b", "step": 1, "pixel": 3.0},
    ]
    assert losses.rows() == known == losses.rows() and losses.count == 3
    losses.note({"pixel": torch.tensor(4.0)}, arm="a", step=2)
    assert losses.rows()[3:] == [{"arm": "a", "step": 2, "pixel": 4.0}]
    assert Losses().rows() == []
