"""Training filters against perturbations that are made as they learn."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from vars_core.extractor import to_images
from vars_core.perturbations import Perturber, augment
from vars_core.runtime import device, mixed_precision, progress

CLEAN_SHARE = 1 / 8  # of what a filter learns from: photos that it should leave alone


@dataclass(frozen=True)
class FilterLoss:
    """pixel L1 + feature L1 + identity on clean images + the ranking term Δfᵀ M Δf.

    `ranking` is M = E[w_u w_uᵀ], (D, D), over the users' linear visual heads w_u, divided by the mean natural
    variance of w_u·f over items: Δfᵀ M Δf is then the mean squared score change, in units of what separates
    two items anyway, in closed form and without sampling users."""

    extractor: nn.Module
    ranking: torch.Tensor
    pixel_weight: float
    feature_weight: float
    identity_weight: float
    ranking_weight: float

    def __call__(self, filtered, clean, own, touched) -> dict[str, torch.Tensor]:
        """`filtered` R(x′), `clean` x (N, 3, H, W); `own` f(x) (N, D); `touched` (N,) False where x′ = x.
        Returns the weighted terms; their sum is the loss."""
        change = self.extractor(filtered).float() - own
        pixel = (filtered - clean).abs().mean((1, 2, 3)) * 255
        feature = change.abs().mean(1)
        untouched = (~touched).float()
        scores = torch.einsum("nd,de,ne->n", change, self.ranking, change)
        return {
            "pixel": self.pixel_weight * pixel.mean(),
            "feature": self.feature_weight * feature.mean(),
            "identity": self.identity_weight * (untouched * (pixel + feature)).sum() / len(clean),
            "ranking": self.ranking_weight * scores.mean(),
        }


def ranking_matrix(weights: np.ndarray, features: np.ndarray) -> torch.Tensor:
    """M of `FilterLoss` from the users' visual heads (U, D) and clean features (I, D) of the training items."""
    heads = torch.from_numpy(weights).float()
    natural = (torch.from_numpy(features).float() @ heads.T).var(0).mean()
    return (heads.T @ heads / len(heads) / natural.clamp_min(1e-12)).to(device())


def train_filters(
    arms: dict[str, tuple[nn.Module, FilterLoss]],
    photos: np.ndarray,
    cfg,
    *,
    steps: int,
    generator: torch.Generator,
) -> pd.DataFrame:
    """Train the filters of all `arms`, name → (filter, loss), on the same batches of `photos` (N, H, W, 3).

    Every batch is one eighth clean, one eighth noise and the rest attacked (FGSM, PGD, mixed ε and goals). The
    attacks look at the extractor alone, so one attack pass serves all arms, and the comparison is paired. `cfg`
    is `params.Reconstruction`. Returns the loss terms, one row per arm and step."""
    extractor = next(iter(arms.values()))[1].extractor
    perturber = Perturber(extractor, features_of(extractor, photos), cfg.epsilons, cfg.attack_steps, generator)
    learners = {name: _learner(model, cfg.learning_rate, steps) for name, (model, _) in arms.items()}
    rows, history = [], []
    for step in progress(range(steps), f"filters {', '.join(arms)}"):
        images, rows = next_batch(photos, rows, cfg.batch_size, generator)
        with torch.no_grad(), mixed_precision(images):
            own = extractor(images).float()
        eighth = int(len(images) * CLEAN_SHARE)
        clean, noisy, rest = images[:eighth], images[eighth : 2 * eighth], images[2 * eighth :]
        seen = torch.cat([clean, perturber.noise(noisy), perturber.attack(rest, own[2 * eighth :])])
        touched = torch.arange(len(images), device=images.device) >= eighth
        for name, (model, loss) in arms.items():
            with mixed_precision(images):
                terms = loss(model(seen), images, own, touched)
            optimiser, schedule = learners[name]
            optimiser.zero_grad()
            sum(terms.values()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            history.append({"arm": name, "step": step, **{term: value.item() for term, value in terms.items()}})
    for model, _ in arms.values():
        model.eval().requires_grad_(False)
    return pd.DataFrame(history)


def _learner(model: nn.Module, rate: float, steps: int):
    model.to(device(), memory_format=torch.channels_last).train().requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1, div_factor=10)
    return optimiser, schedule


def features_of(extractor: nn.Module, photos: np.ndarray) -> torch.Tensor:
    """f of uint8 photos as a tensor on the device, (N, D)."""
    with torch.no_grad():
        parts = [extractor(to_images(photos[i : i + 256])) for i in range(0, len(photos), 256)]
    return torch.cat(parts)


def next_batch(photos: np.ndarray, rows: list[int], size: int, generator: torch.Generator):
    """Augmented images of the next `size` rows; a new permutation starts when fewer are left."""
    if len(rows) < size:
        rows = torch.randperm(len(photos), generator=generator).tolist()
    take, rows = rows[:size], rows[size:]
    return augment(to_images(photos[np.array(take)]), generator), rows
