"""Filter and detector as one thing: fitted jointly, calibrated, saved, and put before a shop.

`screen(images) -> (filtered, score, flagged)` is what a shop calls on an upload.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save, save_file
from torch import nn

from vars_core import paths
from vars_core.calibration import conformal_threshold
from vars_core.detectors import (
    Detector,
    Score,
    detector_loss,
    labelled_batch,
    looked_at,
    scores,
    train_detectors,
)
from vars_core.extractor import Extractor, to_photos
from vars_core.filters import GlobalViT, load_filter, save_filter
from vars_core.objectives import Through
from vars_core.perturbations import Perturber
from vars_core.runtime import device, generator, mixed_precision, progress
from vars_core.training import CLEAN_SHARE, FilterLoss, Learner, features_of, next_batch, train_filters


@dataclass
class Defence:
    """A filter, a detector and thresholds by false-alarm rate in percent, e.g. {"1": τ, "5": τ}."""

    purifier: nn.Module
    detector: Detector
    extractor: Extractor
    thresholds: dict[str, float] = field(default_factory=dict)
    size: int = 64  # side of the photos it was fitted on, in pixels

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
        purifier: nn.Module | None = None,
        checkpoint: Path | None = None,
    ) -> "Defence":
        """A defence for `extractor`, fitted on clean `photos` (N, H, W, 3) and calibrated on others, `validation`.

        First the filter alone (unless a trained `purifier` is given; it resumes from `checkpoint`), then the detector
        behind it, then both together. `reconstruction` and `detection` are `params.Reconstruction` and
        `params.Detection`; `ranking` is M of `FilterLoss`, and without it no recommender is needed."""
        ranking = torch.zeros(extractor.dim, extractor.dim, device=device()) if ranking is None else ranking
        loss = FilterLoss.weighted(extractor, ranking, reconstruction)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            detector = Detector(extractor.dim)
            untrained = purifier is None
            if untrained:
                purifier = GlobalViT(**reconstruction.shape)
        if untrained:
            train_filters(
                {"filter": (purifier, loss)}, photos, reconstruction, steps=reconstruction.steps,
                generator=generator(seed, "filter"), checkpoint=checkpoint,
            )  # fmt: skip
        train_detectors(
            {"contrastive": detector}, purifier, extractor, photos, detection, reconstruction,
            steps=detection.steps, generator=generator(seed, "detector"),
        )  # fmt: skip
        made = cls(purifier, detector, extractor)
        fit_jointly(
            made, loss, photos, detection, reconstruction, steps=detection.joint_steps,
            generator=generator(seed, "joint"),
        )  # fmt: skip
        made.calibrate(validation)
        return made

    @property
    def score(self) -> Score:
        return Score(self.detector, self.purifier, self.extractor).eval()

    def calibrate(self, clean_photos: np.ndarray, rates=(0.01, 0.05)) -> None:
        """Thresholds from clean *validation* photos, which neither filter nor detector was fitted on."""
        clean, self.size = scores(self.score, clean_photos), clean_photos.shape[1]
        self.thresholds = {f"{100 * rate:g}": conformal_threshold(clean, rate) for rate in rates}

    @torch.no_grad()
    def screen(self, photos: np.ndarray, rate: str = "1"):
        """uint8 photos (N, H, W, 3) → filtered photos (same), scores (N,), flagged (N,) at `rate` percent.

        Raises KeyError for a rate that was not calibrated."""
        limit, filtered, score = self.thresholds[rate], [], []
        for seen in looked_at(self.purifier, self.extractor, photos):
            filtered.append(to_photos(seen[1]))
            score.append(self.detector(*seen).float().cpu().numpy())
        score = np.concatenate(score)
        return np.concatenate(filtered), score, score > limit

    def save(self, folder: Path, **metadata: str) -> None:
        save_filter(self.purifier, folder / "filter.safetensors", **metadata)
        save_file(
            {k: v.contiguous() for k, v in self.detector.state_dict().items()},
            folder / "detector.safetensors",
        )
        meta = {"thresholds": self.thresholds, "features": self.detector.dim, "size": self.size, **metadata}
        meta["extractor"] = _fingerprint(self.extractor)
        paths.write(folder / "defence.json", json.dumps(meta, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path, extractor: Extractor) -> "Defence":
        """What `save` wrote to `folder`, behind the extractor it was fitted with.

        Raises ValueError for any other: scores from other features look like scores and mean nothing."""
        meta = json.loads((folder / "defence.json").read_text())
        if meta.get("extractor") != _fingerprint(extractor):
            raise ValueError(f"{folder} was fitted with another extractor, or by an earlier version of the study")
        detector = Detector(meta["features"])
        detector.load_state_dict(load_file(folder / "detector.safetensors"))
        detector = detector.to(device()).eval().requires_grad_(False)
        return cls(load_filter(folder / "filter.safetensors"), detector, extractor, meta["thresholds"], meta["size"])


def _fingerprint(extractor: Extractor) -> str:
    """A hash of its weights and scaler."""
    tensors = {name: value.cpu().contiguous() for name, value in extractor.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()[:16]


def fit_jointly(
    defence: Defence,
    loss: FilterLoss,
    photos: np.ndarray,
    cfg,
    attack_cfg,
    *,
    steps: int,
    generator: torch.Generator,
    knowing: float = 0.0,
) -> pd.DataFrame:
    """Fine-tune filter and detector together on `photos` (N, H, W, 3), one attack pass for both losses.

    The filter's target for an attacked or noisy photo is the clean one; for a clean or edited photo it is that
    photo. Both kinds weigh in its loss as in `train_filters`: counted as they come, the honest views, which are
    most of the batch here, would teach it to leave everything alone.
    The detector's gradient reaches the filter through the residual, which becomes evidence. A share `knowing` of the
    attacks is made through the filter as it stands (the adaptive regime). `cfg` is
    `params.Detection`, `attack_cfg` `params.Reconstruction`, whose budgets count here: without the largest the
    filter forgets it. Returns both losses by step."""
    purifier, detector, extractor = defence.purifier, defence.detector, defence.extractor
    pool = features_of(extractor, photos)
    perturber = Perturber(extractor, pool, attack_cfg.epsilons, attack_cfg.attack_steps, generator)
    learner = Learner(nn.ModuleList([purifier, detector]), cfg.joint_learning_rate, steps)
    rows, history = [], []
    for step in progress(range(steps), "joint training"):
        images, rows = next_batch(photos, rows, cfg.batch_size, generator)
        with torch.no_grad(), mixed_precision(images):
            own = extractor(images).float()
            views, targets, labels = labelled_batch(
                images, own, perturber, purifier, Through(extractor, purifier), knowing
            )
            raw, aim = extractor(views).float(), extractor(targets).float()
            touched = (views != targets).flatten(1).any(1)
            # the gate shuts for photos as they are. Told to shut for edited ones too, which a filter shall leave
            # alone as well, it takes faint attacks for edits, and the detector loses its evidence
            changed = torch.arange(len(views), device=views.device) >= len(images)
        with mixed_precision(images):
            filtered, logit = purifier.told(views)
            evidence = (views, filtered, raw, extractor(filtered).float())
            detection = detector_loss(detector, evidence, labels, cfg.temperature, contrastive=True)
            terms = [
                share * sum(loss(filtered[rows], targets[rows], aim[rows], touched[rows]).values())
                for share, rows in ((1 - CLEAN_SHARE, touched), (CLEAN_SHARE, ~touched))
            ]
        restoration = sum(terms) + loss.gate(logit, changed, labels.bool())
        learner.step(restoration + detection, step)
        history.append({"step": step, "filter": restoration.item(), "detector": detection.item()})
    learner.finish()
    return pd.DataFrame(history)
