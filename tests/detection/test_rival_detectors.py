"""The rivals by hand on a few numbers, and all of them on photos where attack and noise can be told apart."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from toys import extractor, smooth_photos

from vars_core.attacks.engine import linf, noise
from vars_core.attacks.objectives import hook
from vars_core.detection import rival_detectors
from vars_core.detection.calibration import auroc
from vars_core.detection.rival_detectors import LID, DetectorData, KNNDistance, Mahalanobis, dimensionality, rivals
from vars_core.extractor import Extractor, to_images, to_photos
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor"]  # a fixture


@pytest.fixture(scope="module")
def small_cnn():
    torch.manual_seed(0)
    net = Extractor("small_cnn")
    net.freeze_scaler(smooth_photos(40, seed=9))
    return net.eval().requires_grad_(False)


def attacked(net, photos, epsilon=16):
    images = to_images(photos)
    objective = hook(net, net(images.roll(1, 0)))
    return to_photos(linf(objective, images, epsilon, steps=10, generator=generator(0, "rivals")))


@pytest.fixture(scope="module")
def evidence(small_cnn):
    photos = smooth_photos(160, seed=5)
    clean, other, validation = photos[:80], photos[80:120], photos[120:]
    noisy = to_photos(noise(to_images(other), 16, generator=generator(1, "noise")))
    labels = np.arange(80) % 2
    return DetectorData(clean, labels, np.concatenate([other, noisy]), attacked(small_cnn, other), validation)


def test_dimensionality_by_hand():
    # log(1/4), log(2/4), log(4/4): mean −(2 + 1 + 0)/3 log 2 = −log 2
    assert dimensionality(np.array([[1.0, 2.0, 4.0]])) == pytest.approx(1 / np.log(2))


def test_dimensionality_of_a_ball_is_its_dimension():
    rng = np.random.default_rng(0)
    for d in (2, 5):
        points = rng.normal(size=(20_000, d))
        points *= (rng.random((len(points), 1)) ** (1 / d)) / np.linalg.norm(points, axis=1, keepdims=True)
        nearest = np.sort(np.linalg.norm(points, axis=1))[:400]
        assert dimensionality(nearest[None])[0] == pytest.approx(d, rel=0.15)


def test_mahalanobis_is_scipys(small_cnn):
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)), np.arange(300) % 3
    values[labels == 1] += 5
    rival = Mahalanobis(small_cnn)
    rival._describe([values], labels)
    new = rng.normal(size=(7, 4))
    theirs = [min(mahalanobis(x, m, rival.precisions[0]) ** 2 for m in rival.means[0]) for x in new]
    assert np.allclose(rival._column(0, new), theirs)
    assert np.allclose(rival.means[0][1], values[labels == 1].mean(0))


def test_stages_are_one_per_resolution_and_means_are_theirs(small_cnn):
    layers = rival_detectors.resolution_layers(small_cnn)
    assert len(layers) == 4  # stem and three stages, at 32, 16, 8 and 4 of 64 px
    photos = smooth_photos(3)
    found = rival_detectors.layer_means(small_cnn, layers, photos)
    assert [f.shape for f in found] == [(3, 24), (3, 32), (3, 64), (3, 128), (3, small_cnn.dim)]
    with torch.no_grad():
        assert np.allclose(found[-1], small_cnn(to_images(photos)).numpy(), atol=1e-5)
    assert not any(m._forward_hooks for m in small_cnn.modules())


def test_every_rival_has_one_interface(small_cnn, evidence):
    test, clean = smooth_photos(30, seed=11), smooth_photos(60, seed=12)
    pushed = attacked(small_cnn, test)
    assert set(rivals(small_cnn, magnet_steps=300)) == {"squeezing", "magnet", "lid", "mahalanobis", "knn", "jpeg"}
    found = {}
    for name, rival in rivals(small_cnn, magnet_steps=300).items():
        with pytest.raises(ValueError, match="fit the detector"):
            rival.threshold(0.05)
        assert rival.fit(evidence, generator(0, name)) is rival
        calm, alarmed = rival.score(clean), rival.score(pushed)
        assert calm.shape == (60,) and np.isfinite(np.r_[calm, alarmed]).all()
        assert rival.threshold(0.05) >= rival.threshold(0.2)
        assert (calm > rival.threshold(0.1)).mean() < 0.35
        found[name] = auroc(calm, alarmed)
    assert min(found[name] for name in ("mahalanobis", "jpeg")) > 0.7, found


def test_a_rival_scores_a_photo_the_same_in_any_company(small_cnn, evidence):
    photos, judges = smooth_photos(5, seed=13), rivals(small_cnn, magnet_steps=300)
    judges["magnet"].steps = 10
    for name, rival in judges.items():
        rival.fit(evidence, generator(0, name))
        assert np.allclose(rival.score(photos)[:1], rival.score(photos[:1]), atol=1e-4), name


# Trap: LID compared with a batch that holds the item's own clean twin.
def test_a_clean_twin_in_the_bank_would_give_a_photo_away(small_cnn, evidence):
    """Why banks are of other items than those tested: the twin's distance is 0, and its dimensionality collapses."""
    fixed_attacks, strangers = evidence.clean[:5], smooth_photos(40, seed=14)
    lid = LID(small_cnn).fit(evidence, generator(0, "twin"))
    assert lid._columns(fixed_attacks)[:, -1].max() < lid._columns(strangers)[:, -1].min()
    nearest = KNNDistance(small_cnn, k=1).fit(evidence, generator(0, "twin"))
    assert nearest.score(fixed_attacks).max() < 1e-3 < nearest.score(strangers).min()
