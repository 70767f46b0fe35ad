"""Training filters against perturbations that are made as they learn."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from vars_core.checkpoint import Checkpoint, fingerprint
from vars_core.extractor import batches, to_images
from vars_core.reconstruction.online_attacks import ON_EXTRACTOR, OnlineAttacks, augment
from vars_core.reconstruction.trainer import Losses, Trainer
from vars_core.runtime import device, mixed_precision, progress

# of what a filter learns from; with an eighth of clean photos the gate knows them less well
CLEAN_SHARE = 1 / 4  # photos that it should leave alone
NOISY_SHARE = 1 / 8


TERMS = ("pixel", "feature", "identity", "ranking", "gate")


@dataclass(frozen=True)
class FilterLoss:
    """pixel L1 + feature L1 + identity (both again, on clean images) + the ranking term Δfᵀ M Δf + the gate's.

    `ranking` is M = E[w_u w_uᵀ], (D, D), over the users' linear visual heads w_u, divided by the mean natural
    variance of w_u·f over items: Δfᵀ M Δf is then the mean squared score change, in units of what separates
    two items anyway, in closed form and without sampling users. The gate's term is the cross-entropy of clean and
    attacked images, each class counted alike: it learns what it is there for directly, not only by what it lets
    through."""

    extractor: nn.Module
    ranking: torch.Tensor
    pixel_weight: float
    feature_weight: float
    identity_weight: float
    ranking_weight: float
    gate_weight: float

    @classmethod
    def weighted(cls, extractor: nn.Module, ranking: torch.Tensor, cfg) -> "FilterLoss":
        """With the weights of `cfg`, `params.Reconstruction`."""
        return cls(extractor, ranking, *(getattr(cfg, f"{term}_weight") for term in TERMS))

    def __call__(self, filtered, clean, clean_features, perturbed) -> dict[str, torch.Tensor]:
        """`filtered` R(x′), `clean` x (N, 3, H, W); `clean_features` f(x) (N, D); `perturbed` (N,) False where x′ =
        x. Returns the weighted terms but the gate's; with that one their sum is the loss."""
        change = self.extractor(filtered).float() - clean_features
        pixel = (filtered - clean).abs().mean((1, 2, 3)) * 255
        feature = change.abs().mean(1)
        untouched, plain = (~perturbed).float(), self.pixel_weight * pixel + self.feature_weight * feature
        scores = torch.einsum("nd,de,ne->n", change, self.ranking, change)
        return {
            "pixel": self.pixel_weight * pixel.mean(),
            "feature": self.feature_weight * feature.mean(),
            "identity": self.identity_weight * (untouched * plain).mean(),
            "ranking": self.ranking_weight * scores.mean(),
        }

    def gate(self, logit: torch.Tensor | None, perturbed, attacked) -> torch.Tensor:
        """The gate's weighted term from its `logit` (N,), 0 without a gate. `attacked` (N,): what shall open it; what
        is `perturbed` but not attacked, noise or an edit, is left to the other terms."""
        if logit is None:
            return self.ranking.new_zeros(())
        errors = ((F.softplus(logit), ~perturbed), (F.softplus(-logit), attacked))
        return self.gate_weight * sum((error * rows).sum() / rows.sum().clamp_min(1) for error, rows in errors)


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
    adaptive_shares: dict[str, float] | None = None,
    fixed_attacks: np.ndarray | None = None,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Train the filters of all `arms`, name → (filter, loss), on the same batches of `photos` (N, H, W, 3).

    Every batch is one quarter clean, one eighth noise and the rest attacked (FGSM, PGD, mixed ε and objectives). The
    attacks look at the extractor alone (*static*, the paper's regime), so one attack pass serves all arms, and the
    comparison is paired. An arm in `adaptive_shares` (name → share) has that share of its attacked photos attacked
    through f∘R as it stands instead: the *adaptive* regime, which mixes both so that neither is forgotten.
    `fixed_attacks`, photos attacked beforehand, take the place of attacks made as it learns: what fixed perturbations
    are worth. `cfg` is `params.Reconstruction`. A filter ends as the running mean (EMA) of its last weights. With a
    path as `checkpoint` a training notes there where it is; interrupted, or done, and called again with the same
    arguments, it goes on from there and ends as if it had not been. Returns the loss terms, one row per arm and
    step."""
    extractor = next(iter(arms.values()))[1].extractor
    noted = _checkpoint(checkpoint, arms, photos, cfg, (steps, adaptive_shares), generator)
    pool = feature_tensor(extractor, photos)
    attacker = OnlineAttacks(extractor, pool, cfg.epsilons, cfg.attack_steps, generator, ON_EXTRACTOR)
    # a mirrored or shifted perturbation is no attack any more: photos attacked beforehand come as they are
    paired = None if fixed_attacks is None else np.concatenate([photos, fixed_attacks], axis=3)

    def batch(rows):
        source = photos if fixed_attacks is None else paired
        images, rows = next_batch(source, rows, cfg.batch_size, generator, unaugmented=fixed_attacks is not None)
        if fixed_attacks is not None:
            images, ready = (part.contiguous(memory_format=torch.channels_last) for part in images.split(3, 1))
        clean_features = _features(extractor, images)
        honest = int(len(images) * CLEAN_SHARE)
        start = honest + int(len(images) * NOISY_SHARE)  # of the attacked ones
        clean, noisy, rest = images[:honest], images[honest:start], images[start:]
        attacked = attacker.attack(rest, clean_features[start:]) if fixed_attacks is None else ready[start:]
        seen = torch.cat([clean, attacker.noise(noisy), attacked])
        place = torch.arange(len(images), device=images.device)

        def view(name):
            count = round((adaptive_shares or {}).get(name, 0.0) * len(rest))
            if not count:
                return seen
            own, through = seen.clone(), nn.Sequential(arms[name][0], extractor)
            own[start : start + count] = attacker.attack(rest[:count], clean_features[start : start + count], through)
            return own

        return Batch(images, clean_features, place >= honest, place >= start, view), rows

    return _learn(arms, batch, cfg, steps, generator, noted, "filters")


def train_denoisers(
    arms: dict[str, tuple[nn.Module, FilterLoss]],
    sigmas: dict[str, float],
    photos: np.ndarray,
    cfg,
    *,
    steps: int,
    generator: torch.Generator,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Train the filters of all `arms` to remove Gaussian noise, each of its own standard deviation in `sigmas` (of
    values in [0, 1]): the *randomised* regime, in which a shop adds that noise to every photo.

    All arms see the same `photos` (N, H, W, 3) under the same noise, scaled. Nothing is clipped: the filter sees what
    the certificate speaks of. Everything else is as `train_filters` has it, which see."""
    noted = _checkpoint(checkpoint, arms, photos, cfg, (steps, sorted(sigmas.items())), generator)
    extractor = next(iter(arms.values()))[1].extractor

    def batch(rows):
        images, rows = next_batch(photos, rows, cfg.batch_size, generator)
        noise = torch.randn(images.shape, generator=generator).to(images)
        every = torch.ones(len(images), dtype=torch.bool, device=images.device)
        features = _features(extractor, images)
        return Batch(images, features, every, every, lambda name: images + sigmas[name] * noise), rows

    return _learn(arms, batch, cfg, steps, generator, noted, "denoisers")


@dataclass(frozen=True)
class Batch:
    """Clean `images` (N, 3, H, W), their features (N, D), which are perturbed, which attacked (N,), and what an arm
    sees of them, by its name."""

    images: torch.Tensor
    clean_features: torch.Tensor
    perturbed: torch.Tensor
    attacked: torch.Tensor
    view: Callable[[str], torch.Tensor]


def _features(extractor: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), mixed_precision(images):
        return extractor(images).float()


def _learn(arms, batch, cfg, steps: int, generator, noted: Checkpoint | None, kind: str) -> pd.DataFrame:
    """Take `steps` steps with each arm, on what `batch` makes of the rows left of an epoch."""
    trainers = {name: Trainer(model, cfg.learning_rate, steps) for name, (model, _) in arms.items()}
    rows, history = _resumed(noted, trainers, generator)
    for step in progress(range(history.count // len(arms), steps), f"{kind} {', '.join(arms)}"):
        seen, rows = batch(rows)
        for name, (model, loss) in arms.items():
            view = seen.view(name)
            with mixed_precision(seen.images):
                filtered, logit = model.forward_with_gate(view)
                terms = loss(filtered, seen.images, seen.clean_features, seen.perturbed)
                terms |= {"gate": loss.gate(logit, seen.perturbed, seen.attacked)}
            trainers[name].step(sum(terms.values()), step)
            history.note(terms, arm=name, step=step)
        if noted and (noted.due() or step == steps - 1):
            tensors = {k: v for name, trainer in trainers.items() for k, v in trainer.tensors(name).items()}
            noted.save({"history": history.rows(), "rows": rows}, tensors | {"generator": generator.get_state()})
    for trainer in trainers.values():
        trainer.finish()
    return pd.DataFrame(history.rows())


def _checkpoint(path, arms, photos, cfg, plan: tuple, generator) -> Checkpoint | None:
    """A file for this very training: same filters and starts, losses, photos, parameters, plan and draws."""
    if path is None:
        return None
    weights = {name: [type(model).__name__, *_weights(loss)] for name, (model, loss) in arms.items()}
    tensors = [
        t for model, loss in arms.values() for part in (model, loss.extractor) for t in part.state_dict().values()
    ]
    rankings = [loss.ranking for _, loss in arms.values()]
    things = (weights, sorted(vars(cfg).items()), plan, photos, generator.get_state(), *tensors, *rankings)
    return Checkpoint(path, fingerprint(*things))


def _weights(loss: FilterLoss) -> list[float]:
    return [getattr(loss, field.name) for field in fields(loss) if field.name.endswith("_weight")]


def _resumed(noted, trainers, generator) -> tuple[list[int], Losses]:
    """The photos left of the epoch under way, and the history so far; trainers and generator put back there."""
    found = noted.load() if noted else None
    if found is None:
        return [], Losses()
    notes, tensors = found
    for name, trainer in trainers.items():
        trainer.load(name, tensors)
    generator.set_state(tensors["generator"])
    return notes["rows"], Losses(notes["history"])


def feature_tensor(extractor: nn.Module, photos: np.ndarray) -> torch.Tensor:
    """f of uint8 photos as a tensor on the device, (N, D)."""
    with torch.no_grad():
        return torch.cat([extractor(images) for images in batches(photos)])


def next_batch(photos: np.ndarray, rows: list[int], size: int, generator: torch.Generator, unaugmented: bool = False):
    """Images of the next `size` rows, augmented unless `unaugmented`; a new permutation when fewer are left."""
    if len(rows) < size:
        rows = torch.randperm(len(photos), generator=generator).tolist()
    take, rows = rows[:size], rows[size:]
    images = to_images(photos[np.array(take)])
    return images if unaugmented else augment(images, generator), rows
