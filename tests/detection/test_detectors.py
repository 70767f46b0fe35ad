"""Detectors and what their scores are worth: the contrastive loss, conformal thresholds, AUROC, one code path."""

from fractions import Fraction
from math import ceil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from toys import extractor, smooth_photos

from vars_core.attacks.engine import gradient, linf
from vars_core.attacks.objectives import hook
from vars_core.detection.calibration import (
    CalibrationError,
    auroc,
    auroc_estimate,
    available_rates,
    average_precision,
    conformal_threshold,
    equal_error_rate,
    photos_needed,
    rate_estimate,
)
from vars_core.detection.defence import Defence
from vars_core.detection.detectors import (
    Detector,
    DetectorScore,
    FeatureSqueezing,
    contrastive_loss,
    detector_loss,
    score_photos,
    train_detectors,
)
from vars_core.detection.rival_detectors import DetectorData, KNNDistance
from vars_core.detection.score_variants import Logit, NearestClean, Prototypes, embeddings, score_all
from vars_core.extractor import to_images, to_photos
from vars_core.reconstruction.classics import Median
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor"]  # the toy extractor of test_training, as a fixture


def slow_contrastive(embeddings, labels, temperature):
    """Khosla et al. 2020, eq. 2, as it is printed: sums over anchors, positives and the others."""
    total, anchors = 0.0, 0
    for i in range(len(labels)):
        others = [a for a in range(len(labels)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if not positives:
            continue
        below = sum(np.exp(embeddings[i] @ embeddings[a] / temperature) for a in others)
        share = [np.log(np.exp(embeddings[i] @ embeddings[p] / temperature) / below) for p in positives]
        total, anchors = total - np.mean(share), anchors + 1
    return total / anchors


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1], [0, 1, 1, 1, 2], [0, 0, 0, 0]])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrastive_loss_is_the_papers(labels, temperature):
    z = F.normalize(torch.randn(len(labels), 6, generator=generator(0)).double(), dim=1)
    ours = contrastive_loss(z, torch.tensor(labels), temperature)
    assert ours.item() == pytest.approx(slow_contrastive(z.numpy(), labels, temperature))


def test_the_detectors_loss_is_bce_and_what_honest_edits_change():
    """Three photos, each clean, edited and attacked, in this order: worked out by hand."""
    logits, labels = torch.tensor([-2.0, -1, 0, -2, 1, 3, 2, 0, 1]), torch.tensor([0] * 6 + [1] * 3)

    class Known:
        def embed(self, *_):
            return F.normalize(torch.eye(9), dim=1), logits

    cfg = SimpleNamespace(temperature=0.1, edit_weight=0.0)
    weights = np.where(labels == 1, 2, 1)  # half as many attacked as honest views
    bce = (weights * np.log1p(np.exp(np.where(labels == 1, -1, 1) * logits.numpy()))).mean()
    assert detector_loss(Known(), (), labels, cfg, contrastive=False).item() == pytest.approx(bce, rel=1e-5)
    cfg.edit_weight = 0.3  # changes of 0, 2 and 3: Huber's loss 0, 1.5, 2.5
    loss = detector_loss(Known(), (), labels, cfg, contrastive=False).item()
    assert loss == pytest.approx(bce + 0.3 * 4 / 3, rel=1e-5)
    both = detector_loss(Known(), (), labels, cfg, contrastive=True).item()
    assert both == pytest.approx(loss + contrastive_loss(torch.eye(9), labels, 0.1).item(), rel=1e-5)


def test_contrastive_loss_has_a_finite_gradient_that_pulls_labels_together():
    raw = torch.randn(8, 6, generator=generator(1)).double().requires_grad_(True)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])

    def value(z):
        return contrastive_loss(F.normalize(z, dim=1), labels, 0.1)

    slope = torch.autograd.grad(value(raw), raw)[0]
    assert torch.isfinite(slope).all() and slope.abs().max() > 0
    assert value(raw - 0.01 * slope) < value(raw)
    grouped = torch.eye(6).double()[labels]
    assert value(grouped) < value(grouped[torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])])


def test_features_far_from_every_photo_are_not_extrapolated():
    """An attack that only runs away drives features to ten and more standard deviations."""
    torch.manual_seed(0)
    net, images = Detector(8).eval(), torch.rand(4, 3, 16, 16)
    far, near = 50 * torch.randn(4, 8).sign(), torch.zeros(4, 8)
    with torch.no_grad():
        once, further = (net(images, images, scale * far, near) for scale in (1, 100))
        assert not torch.equal(once, net(images, images, near, near))
    torch.testing.assert_close(once, further)


def test_a_gate_that_opens_a_little_is_seen_and_no_residual_at_all_has_a_slope():
    torch.manual_seed(0)
    net, images, features = Detector(8).eval(), torch.rand(4, 3, 16, 16), torch.zeros(4, 8)
    pattern = torch.randn(4, 3, 16, 16) / 255
    with torch.no_grad():
        shut, ajar, wide = (net(images, images - part * pattern, features, features) for part in (0.001, 0.1, 1))
    # up to a tenth counts as much as from there to one; on a linear scale it would be a ninth
    assert ((ajar - shut).abs() > 0.5 * (wide - ajar).abs()).all() and (wide != ajar).all()
    alike = images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(net(alike, images, features, features).sum(), alike)
    assert torch.isfinite(slope).all()


# ---- thresholds ----


@pytest.mark.parametrize(
    ("n", "rate", "expected"),
    [(99, 0.01, 99), (100, 0.01, 100), (19, 0.05, 19), (39, 0.05, 38), (999, 0.001, 999), (1, 0.5, 1), (4, 0.2, 4)],
)
def test_conformal_thresholds_by_hand(n, rate, expected):
    """Scores 1 … n in any order: the ⌈(n+1)(1−rate)⌉-th smallest."""
    shuffled = np.random.default_rng(0).permutation(np.arange(1, n + 1)).astype(float)
    assert conformal_threshold(shuffled, rate) == expected


# Trap: a threshold of infinity, with which nothing is ever flagged and 0.000 is reported as if measured.
@pytest.mark.parametrize(
    ("n", "rate", "needed"),
    [(60, 0.01, "99"), (98, 0.01, "99"), (328, 0.001, "999"), (18, 0.05, "19"), (0, 0.5, "1"), (2, 1e-5, "99,999")],
)
def test_a_rate_that_the_photos_cannot_give_is_refused_with_the_number_that_can(n, rate, needed):
    with pytest.raises(
        CalibrationError, match=f"{100 * rate:g} % .* at least {needed} calibration photos; there are {n}"
    ):
        conformal_threshold(np.arange(n, dtype=float), rate)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, np.nan])
def test_a_rate_is_between_0_and_1(rate):
    for ask in (photos_needed, lambda rate: conformal_threshold(np.arange(1000.0), rate)):
        with pytest.raises(CalibrationError, match="between 0 and 100 %"):
            ask(rate)


def test_scores_that_are_not_finite_give_no_threshold():
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(CalibrationError, match="1 of 100 calibration photos are not finite"):
            conformal_threshold(np.r_[np.arange(99.0), bad], 0.05)


@given(percent=st.floats(0.01, 99.9))
def test_the_photos_needed_are_the_fewest(percent):
    rate = percent / 100
    n = photos_needed(rate)
    assert np.isfinite(conformal_threshold(np.arange(float(n)), rate))
    if n > 1:
        with pytest.raises(CalibrationError):
            conformal_threshold(np.arange(n - 1.0), rate)


def test_rates_that_so_many_photos_give():
    assert available_rates(328) == [0.01, 0.05, 0.1, 0.2, 0.5]  # 999 are needed for 0.1 %
    assert available_rates(328, (0.001, 0.01, 0.05)) == [0.01, 0.05]
    assert available_rates(2) == [0.5] and available_rates(0) == [] and available_rates(999)[0] == 0.001


@settings(deadline=None)
@given(n=st.integers(1, 2000), percent=st.sampled_from([1, 5, 10]))
def test_the_place_never_promises_too_much(n, percent):
    """At most rate · (n + 1) of n + 1 exchangeable scores lie above τ, and τ is not one place too careful by
    more than floating point can explain."""
    exact = ceil((n + 1) * (1 - Fraction(percent, 100)))
    if exact > n:
        assert n < photos_needed(percent / 100)
    else:
        assert exact <= conformal_threshold(np.arange(1.0, n + 1), percent / 100) <= exact + 1


@pytest.mark.parametrize(("n", "rate"), [(150, 0.01), (150, 0.05), (60, 0.05), (37, 0.1)])
def test_realised_false_alarms_keep_the_promise(n, rate):
    rng = np.random.default_rng(0)
    drawn = rng.standard_t(2, size=(4000, n + 1))
    above = [fresh > conformal_threshold(held, rate) for *held, fresh in drawn]
    assert np.mean(above) <= rate + 3 * np.sqrt(rate / 4000)
    assert np.mean(above) >= rate - 1 / (n + 1) - 3 * np.sqrt(rate / 4000)


def test_a_threshold_for_versions_by_hand():
    """Nine photos in two versions, 1 … 18: the ⌈2 · 10 · 0.8⌉ = 16th smallest; each version once is the usual one."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 19)).reshape(9, 2)
    assert conformal_threshold(scores, 0.2) == 16
    for n in (4, 9, 19, 99):
        column = np.arange(1.0, n + 1)
        assert conformal_threshold(column[:, None], 0.2) == conformal_threshold(column, 0.2)
        assert conformal_threshold(np.repeat(column[:, None], 3, 1), 0.2) == conformal_threshold(column, 0.2)
    with pytest.raises(CalibrationError, match="at least 4 calibration photos; there are 3"):
        conformal_threshold(np.ones((3, 5)), 0.2)
    with pytest.raises(CalibrationError, match="1 of 9 calibration photos are not finite"):
        conformal_threshold(np.where(scores == 3, np.nan, scores), 0.2)


@pytest.mark.parametrize(("n", "rate"), [(150, 0.05), (60, 0.05), (37, 0.1)])
def test_false_alarms_among_versions_keep_the_promise(n, rate):
    """Versions of one photo hang together, and the last scores higher than the others."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(4000, n + 1, 1)) + 0.3 * rng.normal(size=(4000, n + 1, 3)) + [0, 0.5, 2]
    above = [fresh > conformal_threshold(held, rate) for *held, fresh in drawn]
    assert np.mean(above) <= rate + 3 * np.sqrt(rate / 4000)
    assert np.mean(above) >= rate - 1 / (n + 1) - 3 * np.sqrt(rate / 4000)
    assert np.mean(above, axis=0)[2] <= 3 * rate


def test_ties_do_not_raise_the_false_alarm_rate():
    tied = np.r_[np.zeros(90), np.ones(10)]
    assert conformal_threshold(tied, 0.05) == 1.0  # flagged means above it: none of the ties


def test_auroc_by_hand_with_ties():
    clean, attacked = np.array([0.0, 1.0, 1.0, 3.0]), np.array([1.0, 2.0])
    # pairs: 1 beats 0, ties 1 and 1, loses to 3; 2 beats 0, 1, 1, loses to 3
    assert auroc(clean, attacked) == pytest.approx((1 + 0.5 + 0.5 + 0 + 3) / 8)
    assert auroc(clean, clean) == 0.5 and auroc(clean, clean + 9) == 1 and auroc(clean, clean - 9) == 0


def test_rows_hold_value_interval_and_n():
    rng = np.random.default_rng(0)
    clean, attacked = rng.normal(size=80), rng.normal(1, 1, size=50)
    row = auroc_estimate(clean, attacked)
    assert row["ci_low"] < row["value"] == auroc(clean, attacked) < row["ci_high"] and row["n"] == 50
    assert auroc_estimate(clean, attacked) == row
    assert rate_estimate(np.array([True, False, False, False]))["value"] == 0.25
    none = rate_estimate(np.zeros(20, bool))
    assert none["ci_low"] == 0 and 0.1 < none["ci_high"] < 0.2 and none["n"] == 20


# ---- detectors ----


@pytest.fixture(scope="module")
def trained(extractor):
    """Two detectors behind a median filter, which leaves attacks on smooth photos in the residual."""
    detection = SimpleNamespace(batch_size=16, learning_rate=3e-3, temperature=0.1, edit_weight=1.0, epsilons=[8, 16])
    attack = SimpleNamespace(attack_steps=2)
    dim = extractor(torch.zeros(1, 3, 16, 16)).shape[1]
    torch.manual_seed(0)
    nets = {name: Detector(dim) for name in ("contrastive", "bce")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VARS_DEVICE", "cpu")
        history = train_detectors(
            nets, Median(), extractor, smooth_photos(64), detection, attack, steps=40, generator=generator(0)
        )
    return nets, history


@pytest.fixture(scope="module")
def attacked(extractor):
    images = torch.from_numpy(smooth_photos(40, seed=7)).permute(0, 3, 1, 2).float() / 255
    return to_photos(linf(hook(extractor, extractor(images.flip(0))), images, 12, generator=generator(3)))


@pytest.mark.parametrize("name", ["contrastive", "bce"])
def test_a_detector_learns_to_tell_attacked_from_clean(name, trained, attacked, extractor):
    nets, history = trained
    assert history[name].iloc[-8:].mean() < history[name].iloc[:8].mean()
    score = DetectorScore(nets[name], Median(), extractor).eval()
    clean = score_photos(score, smooth_photos(60, seed=8))
    assert auroc(clean, score_photos(score, attacked)) > 0.8  # higher = adversarial
    assert not nets[name].training and not any(p.requires_grad for p in nets[name].parameters())


def test_squeezing_scores_attacks_higher(extractor, attacked):
    squeezing = FeatureSqueezing(extractor).eval()
    clean = score_photos(squeezing, smooth_photos(60, seed=8))
    assert clean.shape == (60,) and (clean >= 0).all()
    assert auroc(clean, score_photos(squeezing, attacked)) > 0.8


# Trap: positives are re-saved and negatives are not, so the detector learns the codec.
def test_clean_and_attacked_photos_take_one_path(trained, extractor):
    score = DetectorScore(trained[0]["contrastive"], Median(), extractor).eval()
    clean = smooth_photos(12, seed=8)
    saved = to_photos(to_images(clean))
    nothing = hook(extractor, extractor(to_images(clean)))
    untouched = to_photos(
        linf(nothing, to_images(clean), 8, steps=1, step=0, random_start=False, generator=generator(0))
    )
    assert (score_photos(score, saved) == score_photos(score, clean)).all()
    assert (score_photos(score, untouched) == score_photos(score, clean)).all()
    np.testing.assert_allclose(score_photos(score, clean, batch=5), score_photos(score, clean), atol=1e-4)


def test_score_is_the_detector_behind_filter_and_extractor(trained, extractor):
    detector = trained[0]["contrastive"]
    images = to_images(smooth_photos(5, seed=8))
    filtered = Median()(images)
    views = images, filtered, extractor(images), extractor(filtered)
    embeddings, logits = detector.embed(*views)
    assert torch.equal(DetectorScore(detector, Median(), extractor)(images), logits)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    assert logits.shape == (5,) and embeddings.shape == (5, 64)


def test_detectors_that_share_a_filter_score_as_each_alone(trained, extractor):
    photos, nets = smooth_photos(11, seed=8), trained[0]
    shared = Median()
    together = score_all({name: Logit(Defence(shared, net, extractor)) for name, net in nets.items()}, photos)
    for name, net in nets.items():
        alone = score_photos(DetectorScore(net, Median(), extractor).eval(), photos)
        assert np.array_equal(together[name], alone), name


def test_the_score_can_be_differentiated_by_an_attacker(trained, extractor):
    score = DetectorScore(trained[0]["contrastive"], nn.Identity(), extractor).eval()
    score.zero_grad()  # of training
    slope = gradient(score, to_images(smooth_photos(4, seed=8)))
    assert (slope.abs().amax((1, 2, 3)) > 0).all()
    assert all(p.grad is None for p in score.parameters())


def test_equal_error_rate_and_precision_by_hand():
    clean, attacked = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.5, 2.5, 3.5, 4.5])
    assert equal_error_rate(clean, attacked) == pytest.approx(0.25)  # above 2.2: one of four on either side
    assert equal_error_rate(clean, clean + 10) == 0
    # at a prevalence of 1/2: thresholds 4.5, 3.5 (precision 1), 2.5 (3/4 with one alarm), 1.5 (4/6)
    assert average_precision(clean, attacked, 0.5) == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    assert average_precision(clean, attacked, 1e-3) < average_precision(clean, attacked, 0.5)
    assert average_precision(clean, clean + 10, 1e-3) == pytest.approx(1)


def test_prototypes_and_nearest_clean_photos_tell_attacks_too(trained, attacked, extractor):
    defence = Defence(Median(), trained[0]["contrastive"], extractor)
    clean = smooth_photos(60, seed=8)
    evidence = DetectorData(smooth_photos(40, seed=1), np.zeros(40), clean[:20], attacked[:20], clean[20:40])
    judges = {"logit": Logit(defence), "prototype": Prototypes(defence), "nearest": NearestClean(defence)}
    for rival in judges.values():
        rival.fit(evidence, generator(0))
        assert auroc(rival.score(clean[40:]), rival.score(attacked[20:])) > 0.8
        assert np.isfinite(rival.threshold(0.2))
    assert np.allclose(np.linalg.norm(embeddings(defence, clean[:3]), axis=1), 1, atol=1e-5)
    assert np.array_equal(judges["logit"].score(clean), score_photos(defence.score, clean))


def test_judges_behind_one_filter_score_together_as_each_alone(trained, attacked, extractor, monkeypatch):
    clean, passes = smooth_photos(30, seed=8), []
    first, second = (Defence(Median(), trained[0]["contrastive"], extractor) for _ in range(2))
    judges = {"a": Logit(first), "b": Prototypes(first), "c": Logit(second), "d": KNNDistance(extractor, k=2)}
    evidence = DetectorData(clean[:10], np.zeros(10), clean[10:20], attacked[:10], clean[20:])
    alone = {name: judge.fit(evidence, generator(0)).score(clean) for name, judge in judges.items()}
    genuine = Median.forward
    monkeypatch.setattr(Median, "forward", lambda self, images: passes.append(self) or genuine(self, images))
    found = score_all(judges, clean)
    assert list(found) == list(judges) and all(np.array_equal(found[name], alone[name]) for name in judges)
    assert passes == [first.image_filter, second.image_filter]  # a and b share one pass
