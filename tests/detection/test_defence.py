"""Filter and detector as one thing: joint fitting, calibration, screening, files."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from toys import extractor, loss, smooth_photos

from vars_core import params
from vars_core.detection.calibration import CalibrationError, conformal_threshold
from vars_core.detection.defence import Defence, train_jointly
from vars_core.detection.defence_files import DefenceError
from vars_core.detection.detectors import Detector, score_photos
from vars_core.detection.honest import NOISE, honest_versions
from vars_core.extractor import Extractor, to_images, to_photos
from vars_core.reconstruction.filters import ConvDenoiser, GlobalViT, WindowedViT, load_filter, save_filter
from vars_core.reconstruction.online_attacks import BENIGN, OnlineAttacks
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor"]  # a fixture


def awake(model):
    nn.init.normal_(model.out.weight, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture
def defence(extractor):
    torch.manual_seed(0)
    image_filter = awake(GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2))
    detector = Detector(extractor(torch.zeros(1, 3, 16, 16)).shape[1]).eval().requires_grad_(False)
    made = Defence(image_filter, detector, extractor)
    made.calibrate(smooth_photos(120, seed=3))
    return made


def test_calibration_uses_the_conformal_quantile_of_honest_versions(defence):
    versions = list(honest_versions(smooth_photos(120, seed=3)))
    clean = np.stack([score_photos(defence.score, photos) for photos in versions], 1)
    rates = {"1": 0.01, "5": 0.05, "10": 0.1, "20": 0.2, "50": 0.5}  # 120 photos can't give 0.1 %
    assert defence.thresholds == {name: conformal_threshold(clean, rate) for name, rate in rates.items()}
    assert defence.calibration_photos == 120 and defence.operating_rate == "1"
    assert (clean > defence.thresholds["5"]).mean() <= 0.05


def test_honest_versions_are_the_photo_an_edit_of_it_and_noise():
    photos = smooth_photos(12, seed=5)
    same, edited, noisy = honest_versions(photos)
    np.testing.assert_array_equal(same, photos)
    for place, edit in enumerate(BENIGN.values()):  # in turn
        np.testing.assert_array_equal(edited[place::5], to_photos(edit(to_images(photos[place::5]))))
        assert (edited[place::5] != photos[place::5]).any((1, 2, 3)).all()
    change = noisy.astype(int) - photos
    assert np.abs(change).max() == NOISE and abs(change.std() - 2.4) < 0.2  # uniform on ±4, on the grid
    for first, again in zip((same, edited, noisy), honest_versions(photos), strict=True):
        np.testing.assert_array_equal(first, again)
    assert [len(part) for part in honest_versions(photos[:0])] == [0, 0, 0]


def test_screen(defence):
    photos = smooth_photos(150, seed=4)
    filtered, score, flagged = defence.screen(photos, "5")
    assert filtered.shape == photos.shape and filtered.dtype == np.uint8
    assert score.shape == flagged.shape == (150,) and flagged.dtype == bool
    assert (score == score_photos(defence.score, photos)).all()
    assert (flagged == (score > defence.thresholds["5"])).all()
    with torch.no_grad():
        assert np.abs(to_photos(defence.image_filter(to_images(photos))).astype(int) - filtered).max() <= 1
    with pytest.raises(
        CalibrationError, match=r"no threshold for 2 % .* calibrated for others; .* for 1, 5, 10, 20, 50 %"
    ):
        defence.screen(photos, "2")
    with pytest.raises(CalibrationError, match="it has none at all"):
        Defence(defence.image_filter, defence.detector, defence.extractor).screen(photos)


# Trap: a threshold of infinity flags nothing, and looks like a defence that nobody attacks.
def test_a_rate_that_the_calibration_photos_cannot_give_is_refused(defence):
    defence.calibrate(smooth_photos(20, seed=3))
    assert list(defence.thresholds) == ["5", "10", "20", "50"] and defence.operating_rate == "5"
    with pytest.raises(
        CalibrationError, match="1 % false alarms: that needs at least 99 calibration photos, and it had 20"
    ):
        defence.screen(smooth_photos(9))
    with pytest.raises(CalibrationError, match="at least 99 calibration photos; there are 20"):
        defence.calibrate(smooth_photos(20, seed=3), rates=(0.01, 0.05))
    assert list(defence.thresholds) == ["5", "10", "20", "50"]  # as before
    defence.calibrate(smooth_photos(2, seed=3))
    assert list(defence.thresholds) == ["50"] and defence.operating_rate == "50"


def test_scores_that_are_not_finite_are_no_verdict(defence):
    with torch.no_grad():
        defence.detector.head.bias[:] = torch.nan
    with pytest.raises(DefenceError, match="scores of 3 of 3 photos are not finite"):
        defence.screen(smooth_photos(3))


def test_save_and_load(defence, extractor, tmp_path):
    photos = smooth_photos(20, seed=4)
    defence.save(tmp_path, fingerprint="abc")
    again = Defence.load(tmp_path, extractor)
    np.testing.assert_allclose(score_photos(again.score, photos), score_photos(defence.score, photos), atol=1e-5)
    assert again.thresholds == defence.thresholds
    assert np.abs(again.screen(photos)[0].astype(int) - defence.screen(photos)[0]).max() <= 1
    assert not any(p.requires_grad for m in (again.image_filter, again.detector) for p in m.parameters())


def test_a_defence_is_loaded_behind_its_own_extractor_only(defence, extractor, tmp_path):
    defence.save(tmp_path)
    other = copy.deepcopy(extractor)
    with torch.no_grad():
        next(other.parameters())[0] += 1e-3  # as many features, nearly the same
    with pytest.raises(ValueError, match="fitted with another extractor"):
        Defence.load(tmp_path, other)
    assert Defence.load(tmp_path, copy.deepcopy(extractor)).thresholds == defence.thresholds


# Trap: torch pickles run code on load.
def test_files_are_safetensors_and_json(defence, tmp_path):
    defence.save(tmp_path, fingerprint="abc")
    assert {p.name for p in tmp_path.iterdir()} == {
        "filter.safetensors", "detector.safetensors", "defence.json"
    }  # fmt: skip
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert len(list(file.keys()))
    for path in tmp_path.glob("*.json"):
        assert json.loads(path.read_text())["fingerprint"] == "abc"


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_never_saved(defence, tmp_path, value):
    defence.thresholds["1"] = value
    with pytest.raises(DefenceError, match="thresholds must be finite"):
        defence.save(tmp_path)
    defence.thresholds["1"] = 0.0
    with torch.no_grad():
        defence.detector.head.weight[0, 0] = value
    with pytest.raises(DefenceError, match=r"the defence's detector: head.weight holds values that are not finite"):
        defence.save(tmp_path)
    with torch.no_grad():
        defence.detector.head.weight[0, 0] = 0
    bad, name = copy.deepcopy(defence.extractor), next(iter(dict(defence.extractor.named_parameters())))
    with torch.no_grad():
        bad.get_parameter(name).view(-1)[0] = value
    defence.extractor = bad
    with pytest.raises(DefenceError, match=f"the defence's extractor: {name} holds"):
        defence.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "make",
    [
        lambda: GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2),
        lambda: WindowedViT(channels=4, patch=4, width=8, depth=2, heads=2),
        lambda: ConvDenoiser(channels=4, width=8, depth=1),
    ],
)
def test_filters_are_saved_with_their_settings(make, tmp_path):
    torch.manual_seed(0)
    model, images = awake(make()), to_images(smooth_photos(3))
    save_filter(model, tmp_path / "f.safetensors")
    again = load_filter(tmp_path / "f.safetensors")
    assert type(again) is type(model) and again.settings == model.settings
    torch.testing.assert_close(again(images), model(images), atol=1e-6, rtol=1e-5)


def test_joint_fitting_moves_filter_and_detector_but_not_the_extractor(defence, extractor):
    def copy(module):
        return {k: v.clone() for k, v in module.state_dict().items()}

    parts = {"filter": defence.image_filter, "detector": defence.detector, "extractor": extractor}
    before = {name: copy(module) for name, module in parts.items()}
    cfg = SimpleNamespace(
        batch_size=8, learning_rate=3e-3, joint_learning_rate=3e-3, temperature=0.1, edit_weight=1.0
    )
    attack = SimpleNamespace(epsilons=[4, 8], attack_steps=1)
    history = train_jointly(defence, loss(extractor), smooth_photos(16), cfg, attack, steps=3, generator=generator(0))
    moved = {n: any(not torch.equal(v, before[n][k]) for k, v in m.state_dict().items()) for n, m in parts.items()}
    assert moved == {"filter": True, "detector": True, "extractor": False}
    assert np.isfinite(history.to_numpy()).all() and len(history) == 3
    assert not defence.image_filter.training and not any(p.requires_grad for p in defence.image_filter.parameters())
    assert all(p.grad is None for p in extractor.parameters())


def test_joint_fitting_weighs_attacked_and_honest_photos_as_the_filters_training_does(
    defence, extractor, monkeypatch
):
    """Two of three views are honest: counted as they come they would teach the filter to leave attacks alone."""

    class OneForTouchedTenForHonest:
        def __call__(self, filtered, target, own, perturbed):
            assert perturbed.all() or not perturbed.any()
            return {"pixel": 0 * filtered.sum() + (1.0 if perturbed.all() else 10.0)}

        def gate(self, logit, perturbed, attacked):
            """Told to shut for edited photos too, the gate would take faint attacks for edits."""
            assert len(logit) == 24 and not perturbed[:8].any() and perturbed[8:].all()
            assert attacked.sum() == 8 and perturbed[attacked].all()
            return torch.tensor(100.0)

    cfg = SimpleNamespace(
        batch_size=8, learning_rate=1e-3, joint_learning_rate=1e-3, temperature=0.1, edit_weight=1.0
    )
    attack = SimpleNamespace(epsilons=[4, 8], attack_steps=1)
    args = (OneForTouchedTenForHonest(), smooth_photos(16), cfg, attack)
    history = train_jointly(defence, *args, steps=2, generator=generator(0))
    assert history["filter"].tolist() == pytest.approx([100 + 3 / 4 * 1 + 1 / 4 * 10] * 2)


def test_a_share_of_the_joint_attacks_is_made_through_the_filter(defence, extractor, monkeypatch):
    seen, genuine = [], OnlineAttacks.attack

    def noted(self, images, own, features=None):
        seen.append((len(images), None if features is None else features[0]))
        return genuine(self, images, own, features)

    monkeypatch.setattr(OnlineAttacks, "attack", noted)
    cfg = SimpleNamespace(
        batch_size=8, learning_rate=1e-3, joint_learning_rate=1e-3, temperature=0.1, edit_weight=1.0
    )
    attack = SimpleNamespace(epsilons=[4], attack_steps=1)
    for knowing, calls in (
        (0.0, [(8, None)]),
        (0.5, [(4, defence.image_filter), (4, None)]),
        (1.0, [(8, defence.image_filter)]),
    ):
        seen.clear()
        train_jointly(
            defence,
            loss(extractor),
            smooth_photos(8),
            cfg,
            attack,
            steps=1,
            generator=generator(0),
            adaptive_share=knowing,
        )
        assert seen == calls


def test_fit_makes_a_calibrated_defence_without_a_recommender():
    torch.manual_seed(0)
    net, photos = Extractor("small_cnn"), smooth_photos(48)
    net.freeze_scaler(photos)
    net = net.eval().requires_grad_(False)
    before = torch.random.get_rng_state()
    shape = dict(patch=8, width=8, depth=1, heads=2, channels=4)
    reconstruction = params.Reconstruction(**shape, steps=3, batch_size=8, epsilons=[8], attack_steps=1)
    detection = params.Detection(steps=2, joint_steps=2, batch_size=8)
    setup = (net, photos, smooth_photos(120, seed=3), reconstruction, detection)
    made, again, other = (Defence.fit(*setup, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert set(made.thresholds) == {"1", "5", "10", "20", "50"} and made.size == 16
    filtered, score, _ = made.screen(photos)
    assert filtered.shape == photos.shape and (score == again.screen(photos)[1]).all()
    assert (score != other.screen(photos)[1]).any()
    assert not torch.equal(made.image_filter.out.weight, torch.zeros_like(made.image_filter.out.weight))
    kept = Defence.fit(*setup, seed=0, image_filter=made.image_filter)
    assert kept.image_filter is made.image_filter


def test_serving_behind_noise(defence, tmp_path):
    photos = smooth_photos(2)
    with pytest.raises(DefenceError, match="no denoiser"):
        defence.serve(photos)
    defence.denoiser, defence.sigma = nn.Identity(), 0.1
    draws = defence.serve(photos, "median", 5, torch.Generator().manual_seed(1))
    assert draws.shape == (2, 5, defence.detector.dim) and np.ptp(draws, axis=1).max() > 0.01
    mean = defence.serve(photos, "mean", 5, torch.Generator().manual_seed(1))
    np.testing.assert_allclose(mean, draws.mean(1), atol=1e-5)
    # the draws of a shop are nobody's to repeat
    assert not np.array_equal(defence.serve(photos, "one"), defence.serve(photos, "one"))
    for rule, count in (("mode", 3), ("mean", 0)):
        with pytest.raises(ValueError, match="got"):
            defence.serve(photos, rule, count)


def test_a_denoiser_is_saved_sealed_and_loaded_with_its_noise(defence, tmp_path):
    defence.save(tmp_path)
    assert Defence.load(tmp_path, defence.extractor).denoiser is None
    defence.denoiser = GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2, gated=False)
    defence.sigma = 0.25
    defence.save(tmp_path)
    loaded = Defence.load(tmp_path, defence.extractor)
    assert loaded.sigma == 0.25 and type(loaded.denoiser) is GlobalViT
    content = (tmp_path / "denoiser.safetensors").read_bytes()
    (tmp_path / "denoiser.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DefenceError, match=r"denoiser\.safetensors is not the file that was saved"):
        Defence.load(tmp_path, defence.extractor)
    defence.denoiser = defence.sigma = None
    defence.save(tmp_path)
    assert not (tmp_path / "denoiser.safetensors").exists()
    assert Defence.load(tmp_path, defence.extractor).sigma is None
