"""The extractor: normalisation inside, a frozen scaler, weights that are data and not programs."""

import pickle

import numpy as np
import pytest
import torch
import torchvision
from conftest import SHARED
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from vars_core.attacks.engine import fgsm
from vars_core.attacks.objectives import hook
from vars_core.extractor import Extractor, extract, to_images, to_photos, train_on_categories
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


def photos(n=12, side=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    small = Extractor("small_cnn")
    small.freeze_scaler(photos(20, seed=1))
    return small.requires_grad_(False)


# Trap: ε added after mean/std normalisation.
def test_normalisation_is_inside(model):
    images = to_images(photos())
    inside = model.backbone((images - 0.5) / 0.25)
    torch.testing.assert_close(model.raw(images), inside)
    shift = hook(model, model(images.flip(0)))
    middle = images * 0.5 + 0.25
    change = np.abs(to_photos(fgsm(shift, middle, 4)).astype(int) - to_photos(middle))
    assert change.max() == 4 and (change == 4).mean() > 0.9


def test_features_are_standardised_on_the_training_items(model):
    features = extract(model, photos(20, seed=1))
    assert features.dtype == np.float32 and features.shape == (20, model.dim)
    assert np.abs(features.mean(0)).max() < 1e-3
    assert features.std(0, ddof=1).max() < 1.01


# Trap: features scaled by the current maximum, so that one attacked image changes every item.
def test_one_attacked_photo_leaves_every_other_feature_bit_identical(model):
    clean = photos(20, seed=1)
    attacked = clean.copy()
    attacked[7] = 255
    before, after = extract(model, clean), extract(model, attacked)
    others = np.arange(20) != 7
    assert (before[others] == after[others]).all() and (before[7] != after[7]).any()


# Trap: dropout or batch statistics at inference.
def test_two_passes_agree_and_the_batch_does_not_matter(model):
    shown = photos()
    assert (extract(model, shown) == extract(model, shown)).all()
    np.testing.assert_allclose(extract(model, shown, batch=5), extract(model, shown), atol=1e-4)
    assert not model.training


def test_features_through_a_filter(model):
    class Invert(nn.Module):
        def forward(self, images):
            return 1 - images

    np.testing.assert_allclose(extract(model, photos(), through=Invert()), extract(model, 255 - photos()), atol=1e-3)


def test_save_and_load(model, tmp_path):
    model.save(tmp_path / "f.safetensors", fingerprint="abc")
    again = Extractor.load(tmp_path / "f.safetensors")
    np.testing.assert_allclose(extract(again, photos()), extract(model, photos()), atol=1e-5)
    assert again.name == "small_cnn" and not again.training
    assert not any(p.requires_grad for p in again.parameters())
    with safe_open(tmp_path / "f.safetensors", "pt") as file:
        assert "abc" in file.metadata()["notes"]
    assert [p.name for p in tmp_path.iterdir()] == ["f.safetensors"]


def test_weights_given_by_path(tmp_path):
    torch.manual_seed(1)
    net = torchvision.models.squeezenet1_0()
    file = tmp_path / "squeezenet1_0.safetensors"
    save_file(net.state_dict(), file)
    images = to_images(photos(2, 64))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = net.eval().features((images - mean) / std).mean((2, 3))
        seen = Extractor("squeezenet1_0", str(file))(images)
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not (SHARED / "weights/squeezenet1_0.safetensors").is_file(), reason="no shared weights here")
def test_real_weights_see_more_than_noise():
    real = Extractor("squeezenet1_0", str(SHARED / "weights/squeezenet1_0.safetensors"))
    features = extract(real, photos(2, 64))
    assert features.shape == (2, 512) and np.isfinite(features).all() and features.std() > 0.01


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


# Trap: torch pickles run code on load.
@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_a_pickle_is_refused_without_running_it(write, tmp_path):
    file, ran = tmp_path / "w.safetensors", tmp_path / "ran"
    if write == "pickle":
        file.write_bytes(pickle.dumps(Hostile(ran)))
    else:
        torch.save({"w": Hostile(ran)}, file)
    with pytest.raises(ValueError, match=r"not a safetensors file; pickled weights are not read"):
        Extractor("squeezenet1_0", str(file))
    with pytest.raises(Exception):  # noqa: B017 - whichever error, the code in it must not have run
        Extractor.load(file)
    assert not ran.exists()


def test_bad_weights_and_names_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        Extractor("squeezenet1_0", str(tmp_path / "none.safetensors"))
    other = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(1)}, other)
    for name in ("squeezenet1_0", "resnet18"):  # one of torchvision, one of timm
        with pytest.raises(ValueError, match=f"another architecture than {name}"):
            Extractor(name, str(other))
    with pytest.raises(ValueError, match="unknown model 'resnet_eighteen'"):
        Extractor("resnet_eighteen")
    with pytest.raises(
        ValueError, match=r"^recommender\.pretrained: small_cnn wants the extractor of a run; .*other\.saf"
    ):
        Extractor("small_cnn", str(other))
    with pytest.raises(FileNotFoundError, match=r"^x: there is no weights file .*none\.safetensors"):
        Extractor("small_cnn", str(tmp_path / "none.safetensors"), ("y", "x"))
    with pytest.raises(ValueError, match=r"^recommender\.pretrained: no hub has small_cnn"):
        Extractor("small_cnn", True)
    Extractor("resnet18").save(other)
    with pytest.raises(ValueError, match="holds resnet18, not a small_cnn that a run trained"):
        Extractor("small_cnn", str(other))


def test_a_channels_last_trunk_is_pooled_over_space():
    assert Extractor("swin_t").dim == 768


def test_nan_features_are_an_error(model):
    class Broken(nn.Module):
        def forward(self, images):
            features = model(images)
            features[2] = torch.nan
            return features

    with pytest.raises(ValueError, match=r"features of 1 photos are not finite, first rows \[2\]"):
        extract(Broken(), photos())


def test_a_last_batch_of_one_small_photo_does_not_stop_training():
    shown = photos(65)[:, :16, :16]  # the last maps are 1 × 1
    accuracy = train_on_categories(Extractor("small_cnn"), shown, np.arange(65) % 2, 1, generator(0))
    assert 0 < accuracy <= 1


def test_one_category_is_an_error():
    with pytest.raises(ValueError, match="this catalogue has one"):
        train_on_categories(Extractor("small_cnn"), photos(4), np.zeros(4, int), 1, generator(0))


def test_a_colour_task_is_learnt():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 96)
    shown = rng.integers(0, 120, (96, 16, 16, 3), np.uint8)
    shown[np.arange(96), :, :, labels] += 100
    torch.manual_seed(0)
    model = Extractor("small_cnn")
    accuracy = train_on_categories(model, shown, labels, 6, generator(0))
    assert accuracy > 0.9
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
