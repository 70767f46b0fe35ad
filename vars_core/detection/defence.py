"""Filter and detector as one thing: fitted jointly, calibrated, saved, and put before a shop.

`screen(images) -> (filtered, score, flagged)` is what a shop calls on an upload.
"""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from vars_core import checkpoint
from vars_core.detection import defence_files
from vars_core.detection.calibration import (
    RATES,
    CalibrationError,
    available_rates,
    conformal_threshold,
    photos_needed,
)
from vars_core.detection.defence_files import DENOISER, DETECTOR, FILTER, DefenceError
from vars_core.detection.detectors import (
    Detector,
    DetectorScore,
    detector_inputs,
    detector_loss,
    labelled_batch,
    score_photos,
    train_detectors,
)
from vars_core.detection.honest import honest_versions
from vars_core.extractor import Extractor, to_photos
from vars_core.reconstruction.filters import GlobalViT, load_filter, save_filter
from vars_core.reconstruction.online_attacks import OnlineAttacks
from vars_core.reconstruction.serving import check_rule, noisy_features
from vars_core.reconstruction.trainer import Losses, Trainer
from vars_core.reconstruction.training import (
    CLEAN_SHARE,
    FilterLoss,
    feature_tensor,
    next_batch,
    train_filters,
)
from vars_core.runtime import device, generator, mixed_precision, progress


@dataclass
class Defence:
    """A filter, a detector and thresholds by false-alarm rate in percent, e.g. {"1": τ, "5": τ}."""

    image_filter: nn.Module
    detector: Detector
    extractor: Extractor
    thresholds: dict[str, float] = field(default_factory=dict)
    size: int = 64  # side of the photos it was fitted on, in pixels
    calibration_photos: int = 0  # that the thresholds were set on
    denoiser: nn.Module | None = None  # a filter that removes noise of `sigma`, to serve behind it
    sigma: float | None = None

    @classmethod
    def fit(
        cls,
        extractor: Extractor,
        photos: np.ndarray,
        validation: np.ndarray,
        reconstruction,
        detection,
        *,
        seed: int,
        ranking: torch.Tensor | None = None,
        image_filter: nn.Module | None = None,
        checkpoint: Path | None = None,
    ) -> "Defence":
        """A defence for `extractor`, fitted on clean `photos` (N, H, W, 3) and calibrated on others, `validation`.

        First the filter alone (unless a trained `image_filter` is given; it resumes from `checkpoint`), then the
        detector behind it, then both together. `reconstruction` and `detection` are `params.Reconstruction` and
        `params.Detection`; `ranking` is M of `FilterLoss`, and without it no recommender is needed."""
        ranking = torch.zeros(extractor.dim, extractor.dim, device=device()) if ranking is None else ranking
        loss = FilterLoss.weighted(extractor, ranking, reconstruction)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            detector = Detector(extractor.dim)
            untrained = image_filter is None
            if untrained:
                image_filter = GlobalViT(**reconstruction.shape)
        if untrained:
            train_filters(
                {"filter": (image_filter, loss)}, photos, reconstruction, steps=reconstruction.steps,
                generator=generator(seed, "filter"), checkpoint=checkpoint,
            )  # fmt: skip
        train_detectors(
            {"contrastive": detector}, image_filter, extractor, photos, detection, reconstruction,
            steps=detection.steps, generator=generator(seed, "detector"),
        )  # fmt: skip
        made = cls(image_filter, detector, extractor)
        train_jointly(
            made, loss, photos, detection, reconstruction, steps=detection.joint_steps,
            generator=generator(seed, "joint"),
        )  # fmt: skip
        made.calibrate(validation)
        return made

    @property
    def score(self) -> DetectorScore:
        return DetectorScore(self.detector, self.image_filter, self.extractor).eval()

    def calibrate(self, clean_photos: np.ndarray, rates=None) -> None:
        """Thresholds from clean *validation* photos, which neither filter nor detector was fitted on, in their
        `honest_versions`: at all of `calibration.RATES` that so many photos give, or at the `rates` named.

        Raises CalibrationError, which says how many photos are needed, for a rate named that they don't give."""
        count, score = len(clean_photos), self.score
        rates = available_rates(count, RATES) if rates is None else rates
        honest = np.stack([score_photos(score, photos) for photos in honest_versions(clean_photos)], 1)
        self.thresholds = {f"{100 * rate:g}": conformal_threshold(honest, rate) for rate in rates}
        self.size, self.calibration_photos = clean_photos.shape[1], count

    @property
    def operating_rate(self) -> str:
        """In percent: "1", or the lowest that it has where the calibration photos were too few for that."""
        if not self.thresholds:
            raise CalibrationError("this defence has no threshold; call `calibrate`, with at least one photo")
        return "1" if "1" in self.thresholds else min(self.thresholds, key=float)

    def threshold(self, rate: str) -> float:
        """τ at `rate` percent. Raises CalibrationError, which says what that rate needs, where there is none."""
        if rate in self.thresholds:
            return self.thresholds[rate]
        try:
            needed = photos_needed(float(rate) / 100)
        except ValueError:
            raise CalibrationError(f"a rate in percent is a number above 0 and below 100; got {rate!r}") from None
        why = f"that needs at least {needed:,} calibration photos, and it had {self.calibration_photos:,}"
        if needed <= self.calibration_photos:
            why = "it was calibrated for others"
        known = f"it has them for {', '.join(self.thresholds)} %" if self.thresholds else "it has none at all"
        raise CalibrationError(f"this defence has no threshold for {rate} % false alarms: {why}; {known}")

    @torch.no_grad()
    def screen(self, photos: np.ndarray, rate: str = "1", batch: int | None = None):
        """uint8 photos (N, H, W, 3) → filtered photos (same), scores (N,), flagged (N,) at `rate` percent.

        `batch` photos go through the networks at once; a score depends in its last digits on how many. Raises
        CalibrationError for a rate without a threshold, DefenceError for scores that are not finite."""
        limit, filtered, score = self.threshold(rate), [], []
        for seen in detector_inputs(self.image_filter, self.extractor, photos, batch):
            filtered.append(to_photos(seen[1]))
            score.append(self.detector(*seen).float().cpu().numpy())
        score = np.concatenate(score)
        if not np.isfinite(score).all():
            raise DefenceError(f"scores of {(~np.isfinite(score)).sum()} of {len(photos)} photos are not finite")
        return np.concatenate(filtered), score, score > limit

    def serve(self, photos: np.ndarray, rule: str = "mean", draws: int = 64, source=None) -> np.ndarray:
        """Features of uint8 photos (N, H, W, 3) behind noise, by a rule of `serving.RULES`: (N, D) of *one* draw or
        of the *mean* of `draws`; for the *median* (N, draws, D), as it is the median of the scores that a recommender
        gives them.

        The draws are a secret, or an attacker meets a network without noise: they start from the system's entropy
        unless `source`, a generator, is given. DefenceError without a denoiser, ValueError for another rule."""
        if self.denoiser is None or self.sigma is None:
            raise DefenceError(f"this defence has no denoiser to serve with; {defence_files.AGAIN}")
        check_rule(rule, draws)
        source = torch.Generator().manual_seed(secrets.randbits(63)) if source is None else source
        count, served = 1 if rule == "one" else draws, []
        for photo in photos:
            found = noisy_features(self.extractor, self.denoiser, self.sigma, photo, count, source).cpu().numpy()
            served.append(found if rule == "median" else found.mean(0))
        return np.stack(served)

    def save(self, folder: Path, **metadata: str) -> None:
        """Write the files of `defence_files` to `folder`. Raises DefenceError, before it writes, for weights or
        thresholds that are not finite."""
        for name in ("image_filter", "detector", "extractor", "denoiser"):
            if getattr(self, name) is not None:
                defence_files.check_finite(getattr(self, name), f"the defence's {name}")
        if not np.isfinite(list(self.thresholds.values())).all():
            raise DefenceError(f"thresholds must be finite; got {self.thresholds}")
        save_filter(self.image_filter, folder / FILTER, **metadata)
        checkpoint.write(folder / DETECTOR, self.detector.state_dict())
        about = {"thresholds": self.thresholds, "calibration_photos": self.calibration_photos, "size": self.size}
        about |= {"features": self.detector.dim, "extractor": fingerprint(self.extractor)}
        (folder / DENOISER).unlink(missing_ok=True)  # of another save
        if self.denoiser is not None:
            save_filter(self.denoiser, folder / DENOISER, **metadata)
            about["sigma"] = self.sigma
        defence_files.seal(folder, metadata | about)

    @classmethod
    def load(cls, folder: Path, extractor: Extractor) -> "Defence":
        """What `save` wrote to `folder`, behind the extractor it was fitted with.

        Raises DefenceError for files that are missing, damaged or of another version, and for any other extractor:
        scores from other features look like scores and mean nothing."""
        about = defence_files.opened(folder)
        if about.extractor != fingerprint(extractor):
            raise DefenceError(f"{folder} was fitted with another extractor, or by an earlier version of the study")
        try:
            image_filter, detector = load_filter(folder / FILTER), Detector(about.features)
            checkpoint.fit(detector, checkpoint.read(folder / DETECTOR)[1], folder / DETECTOR, "Detector")
            denoiser = load_filter(folder / DENOISER) if about.sigma is not None else None
        except (RuntimeError, KeyError, TypeError, ValueError, RecursionError) as error:
            said = str(error).splitlines() or [type(error).__name__]
            raise DefenceError(f"{folder} holds networks of another kind than this version has ({said[0]})") from None
        detector = detector.to(device()).eval().requires_grad_(False)
        known = about.thresholds, about.size, about.calibration_photos
        return cls(image_filter, detector, extractor, *known, denoiser, about.sigma)


def fingerprint(extractor: Extractor) -> str:
    """A hash of its weights and scaler, by which a saved defence knows the extractor it was fitted with."""
    state = extractor.state_dict()
    return checkpoint.fingerprint(list(state), *state.values())[:16]


def train_jointly(
    defence: Defence,
    loss: FilterLoss,
    photos: np.ndarray,
    cfg,
    attack_cfg,
    *,
    steps: int,
    generator: torch.Generator,
    adaptive_share: float = 0.0,
) -> pd.DataFrame:
    """Fine-tune filter and detector together on `photos` (N, H, W, 3), one attack pass for both losses.

    The filter's target for an attacked or noisy photo is the clean one; for a clean or edited photo it is that
    photo. Both kinds weigh in its loss as in `train_filters`: counted as they come, the honest views, which are
    most of the batch here, would teach it to leave everything alone.
    The detector's gradient reaches the filter through the residual, which becomes evidence. A share `adaptive_share`
    of the attacks is made through the filter as it stands (the adaptive regime). `cfg` is `params.Detection`,
    `attack_cfg` `params.Reconstruction`, whose budgets count here: without the largest the filter forgets it. Returns
    both losses by step."""
    image_filter, detector, extractor = defence.image_filter, defence.detector, defence.extractor
    pool = feature_tensor(extractor, photos)
    attacker = OnlineAttacks(extractor, pool, attack_cfg.epsilons, attack_cfg.attack_steps, generator)
    trainer = Trainer(nn.ModuleList([image_filter, detector]), cfg.joint_learning_rate, steps)
    rows, history = [], Losses()
    for step in progress(range(steps), "joint training"):
        images, rows = next_batch(photos, rows, cfg.batch_size, generator)
        with torch.no_grad(), mixed_precision(images):
            clean_features = extractor(images).float()
            views, targets, labels = labelled_batch(
                images, clean_features, attacker, image_filter, nn.Sequential(image_filter, extractor), adaptive_share
            )
            raw, aim = extractor(views).float(), extractor(targets).float()
            perturbed = (views != targets).flatten(1).any(1)
            # the gate shuts for photos as they are. Told to shut for edited ones too, which a filter shall leave
            # alone as well, it takes faint attacks for edits, and the detector loses its evidence
            changed = torch.arange(len(views), device=views.device) >= len(images)
        with mixed_precision(images):
            filtered, logit = image_filter.forward_with_gate(views)
            evidence = (views, filtered, raw, extractor(filtered).float())
            detection = detector_loss(detector, evidence, labels, cfg, contrastive=True)
            terms = [
                share * sum(loss(filtered[rows], targets[rows], aim[rows], perturbed[rows]).values())
                for share, rows in ((1 - CLEAN_SHARE, perturbed), (CLEAN_SHARE, ~perturbed))
            ]
        restoration = sum(terms) + loss.gate(logit, changed, labels.bool())
        trainer.step(restoration + detection, step)
        history.note({"filter": restoration, "detector": detection}, step=step)
    trainer.finish()
    return pd.DataFrame(history.rows())
