"""Detectors d: image → score, higher = adversarial. The contrastive one, its BCE twin and feature squeezing."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from vars_core.attacks.engine import quantise
from vars_core.extractor import batches
from vars_core.reconstruction.classics import BitDepth, Median
from vars_core.reconstruction.online_attacks import KINDS, OnlineAttacks
from vars_core.reconstruction.trainer import Losses, Trainer
from vars_core.reconstruction.training import feature_tensor, next_batch
from vars_core.runtime import mixed_precision, progress


def contrastive_loss(embeddings: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Supervised contrastive loss L_out (Khosla et al. 2020, eq. 2).

    `embeddings` (N, d) of unit length, `labels` (N,). Images of one label attract, of two labels repel; the
    same item, clean and attacked, is the hard negative that makes the embedding ignore what is on the photo.
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    similarity = (embeddings @ embeddings.T / temperature).masked_fill(itself, -torch.inf)
    log_share = similarity - similarity.logsumexp(1, keepdim=True)
    positives = (labels[:, None] == labels[None]) & ~itself
    per_anchor = log_share.masked_fill(~positives, 0).sum(1) / positives.sum(1).clamp_min(1)
    return -per_anchor[positives.any(1)].mean()


FLOOR = 0.01  # grey levels; a shut gate leaves about as much of a residual


class Detector(nn.Module):
    """Looks at the filter's residual x − R(x) and its size, and at the features f(x), f(R(x)) and their difference.

    `forward` gives the logit (N,); `embed` gives the unit embedding (N, 64) and the logit."""

    def __init__(self, dim: int):
        super().__init__()
        widths = (3, 16, 32, 64, 64)
        self.residual = nn.Sequential(
            *(
                layer
                for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
                for layer in (nn.Conv2d(a, b, 3, 1 if i == 0 else 2, 1), nn.GELU())
            )
        )
        self.features = nn.Sequential(nn.Linear(3 * dim, 128), nn.GELU())
        self.joint = nn.Sequential(nn.Linear(2 * widths[-1] + 1 + 128, 128), nn.GELU())
        self.projection = nn.Linear(128, 64)
        self.head = nn.Linear(128, 1)
        self.dim = dim

    def embed(self, images, filtered, raw, served):
        """`raw` f(x), `served` f(R(x)), both (N, D)."""
        grey = (images - filtered) * 255
        # 1/8: residuals of attacks are a few grey levels, so this brings them to unit size
        evidence = self.residual(grey / 8)
        # a faint attack opens a filter's gate only a little, which shows on a log scale
        size = (grey.float().square().mean((1, 2, 3)) + FLOOR**2).log() / 2
        pooled = torch.cat([evidence.mean((2, 3)), evidence.amax((2, 3)), size[:, None]], 1)
        # bounded: features that an attack drives far from all photos of the training would be extrapolated, at times
        # to "honest". Of the change the size counts: attacks go where they have not been before
        seen = self.features(torch.tanh(torch.cat([raw, served, (raw - served).abs()], 1) / 2))
        hidden = self.joint(torch.cat([pooled, seen], 1))
        return F.normalize(self.projection(hidden).float(), dim=1), self.head(hidden).float().squeeze(1)

    def forward(self, images, filtered, raw, served):
        return self.embed(images, filtered, raw, served)[1]


class DetectorScore(nn.Module):
    """d(x) from the image alone: filter, extractor and detector in one differentiable module."""

    def __init__(self, detector: Detector, image_filter: nn.Module, extractor: nn.Module):
        super().__init__()
        self.detector, self.image_filter, self.extractor = detector, image_filter, extractor

    def forward(self, images):
        filtered = self.image_filter(images)
        return self.detector(images, filtered, self.extractor(images), self.extractor(filtered))


class FeatureSqueezing(nn.Module):
    """Feature squeezing (Xu et al. 2018): the largest mean feature change under bit depth 5 and a median."""

    def __init__(self, extractor: nn.Module):
        super().__init__()
        self.extractor = extractor
        self.squeezers = nn.ModuleList([BitDepth(5), Median()])

    def forward(self, images):
        raw = self.extractor(images)
        changes = [(raw - self.extractor(squeeze(images))).abs().mean(1) for squeeze in self.squeezers]
        return torch.stack(changes).amax(0)


def detector_loss(detector, views, labels, cfg, contrastive: bool) -> torch.Tensor:
    """BCE on the logit, what honest edits and noise change in it, and the contrastive loss where asked.

    `views` are the arguments of `Detector.embed`, in the order of `labelled_batch`; `cfg` is `params.Detection`. BCE
    alone is content with edits and noise halfway between clean and attacked photos; a threshold that is set on clean
    ones then flags them."""
    embeddings, logits = detector.embed(*views)
    # attacked images are a third of the batch: the weight balances the classes
    weight = (labels == 0).sum() / (labels == 1).sum()
    loss = F.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weight)
    clean, edited, _ = logits.chunk(3)
    loss = loss + cfg.edit_weight * F.smooth_l1_loss(edited, clean)
    return loss + contrastive_loss(embeddings, labels, cfg.temperature) if contrastive else loss


def labelled_batch(
    images,
    clean_features,
    attacker: OnlineAttacks,
    image_filter: nn.Module,
    through: nn.Module | None = None,
    share: float = 0.0,
):
    """Honest views (label 0), then attacked ones (label 1), of every image, in its order: (3N, 3, H, W) and (3N,).

    The honest views are the images themselves, and once more each: noise of an attack's size on a quarter, benign
    edits of the rest, of which a quarter has been through the filter, `image_filter`, already. Also what a filter
    should make of each view, (3N, 3, H, W): noise and attacks go, the rest stays. A `share` of the attacks is made
    `through` f∘R where that is given, the rest on f alone."""
    quarter = len(images) // 4
    edited = attacker.benign(images[quarter:])
    edited[-quarter:] = quantise(image_filter(edited[-quarter:]).float())
    n = round(share * len(images))
    knowing = attacker.attack(images[:n], clean_features[:n], through) if n else images[:0]
    attacked = torch.cat([knowing, attacker.attack(images[n:], clean_features[n:])]) if n < len(images) else knowing
    views = torch.cat([images, attacker.noise(images[:quarter]), edited, attacked])
    targets = torch.cat([images, images[:quarter], edited, images])
    return views, targets, torch.arange(3, device=images.device).eq(2).long().repeat_interleave(len(images))


def train_detectors(
    detectors: dict[str, Detector],
    image_filter: nn.Module,
    extractor: nn.Module,
    photos: np.ndarray,
    cfg,
    attack_cfg,
    *,
    steps: int,
    generator: torch.Generator,
    kinds: tuple[str, ...] = KINDS,
) -> pd.DataFrame:
    """Train all `detectors` on the same batches (one attack pass for all), before a frozen filter.

    A detector named "contrastive" gets the contrastive loss beside BCE, any other BCE alone. `cfg` is
    `params.Detection`, `attack_cfg` `params.Reconstruction` (an attack's steps); `kinds` are the attacks met, see
    `OnlineAttacks`. Returns losses by step."""
    pool = feature_tensor(extractor, photos)
    attacker = OnlineAttacks(extractor, pool, cfg.epsilons, attack_cfg.attack_steps, generator, kinds)
    trainers = {name: Trainer(detector, cfg.learning_rate, steps) for name, detector in detectors.items()}
    rows, history = [], Losses()
    for step in progress(range(steps), "detectors"):
        images, rows = next_batch(photos, rows, cfg.batch_size, generator)
        with torch.no_grad(), mixed_precision(images):
            clean_features = extractor(images).float()
            views, _, labels = labelled_batch(images, clean_features, attacker, image_filter)
            filtered = image_filter(views)
            evidence = (views, filtered, extractor(views).float(), extractor(filtered).float())
        losses = {}
        for name, detector in detectors.items():
            with mixed_precision(images):
                loss = detector_loss(detector, evidence, labels, cfg, name == "contrastive")
            trainers[name].step(loss, step)
            losses[name] = loss
        history.note(losses, step=step)
    for trainer in trainers.values():
        trainer.finish()
    return pd.DataFrame(history.rows())


@torch.no_grad()
def score_photos(score: nn.Module, photos: np.ndarray, batch: int | None = None) -> np.ndarray:
    """Scores (N,) of uint8 photos (N, H, W, 3)."""
    return torch.cat([score(images).float().cpu() for images in batches(photos, batch)]).numpy()


@torch.no_grad()
def detector_inputs(
    image_filter: nn.Module, extractor: nn.Module, photos: np.ndarray, batch: int | None = None
) -> Iterator[tuple]:
    """What detectors behind `image_filter` look at, by batches of uint8 photos: the arguments of `Detector.embed`."""
    for images in batches(photos, batch):
        filtered = image_filter(images)
        yield images, filtered, extractor(images), extractor(filtered)
