"""Orthogonal projected gradient descent: reach an objective and fool a detector without trading one for the other."""

import torch
from torch import nn

from vars_core.attacks.engine import budget, eval_mode, evaluate, per_photo, quantise, value_and_gradient
from vars_core.attacks.objectives import Objective


def orthogonal_pgd(
    objective: Objective,
    score: nn.Module,
    threshold: float,
    images: torch.Tensor,
    epsilon,
    *,
    steps: int = 20,
    margin: float = 0.0,
    generator: torch.Generator,
) -> torch.Tensor:
    """Maximise `objective` in the L∞ ball of `epsilon`/255 around `images` (N, 3, H, W) while `score` stays ≤
    `threshold`.

    Bryniarski et al. 2022, "selective": where the image is flagged (score > threshold − margin) a step goes down the
    score's gradient, else up the objective's; each without its component along the other gradient, so that a step for
    one undoes nothing for the other. Steps of 2.5 ε / `steps`, signed. Per image the best unflagged iterate is kept,
    by the objective; where none is unflagged, the one of lowest score. Returns 8-bit-grid images. Raises ValueError
    for a budget outside (0, 255]."""
    eps = budget(epsilon, images)
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    start = torch.rand(images.shape, generator=generator).to(images)
    x = quantise(torch.clamp(images + (2 * start - 1) * eps, low, high))
    best, best_rank = images, torch.full((len(images), 2), -torch.inf, dtype=torch.float64).to(images.device)
    with eval_mode(objective, score):
        for _ in range(steps):
            value, up = value_and_gradient(objective, x)
            alarm, down = value_and_gradient(score, x)
            best, best_rank = _keep(best, best_rank, x, value, alarm, threshold)
            flagged = per_photo(alarm > threshold - margin)
            direction = torch.where(flagged, -_without(down, up), _without(up, down))
            x = quantise(torch.clamp(x + 2.5 * eps / steps * direction.sign(), low, high))
        best, _ = _keep(best, best_rank, x, evaluate(objective, x), evaluate(score, x), threshold)
    return best


def _keep(best, best_rank, x, value, alarm, threshold):
    """Unflagged before flagged; then the objective's value, or among flagged ones the lower score."""
    passed = alarm <= threshold
    rank = torch.stack([passed.double(), torch.where(passed, value.double(), -alarm.double())], 1)
    better = (rank[:, 0] > best_rank[:, 0]) | ((rank[:, 0] == best_rank[:, 0]) & (rank[:, 1] > best_rank[:, 1]))
    return torch.where(per_photo(better), x, best), torch.where(better[:, None], rank, best_rank)


def _without(gradient: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`gradient` minus its projection on `other`, per image; all of it where nothing else would be left."""
    along = (gradient * other).sum((1, 2, 3), keepdim=True)
    rest = gradient - along / other.square().sum((1, 2, 3), keepdim=True).clamp_min(1e-24) * other
    nothing = rest.square().sum((1, 2, 3), keepdim=True) < 1e-6 * gradient.square().sum((1, 2, 3), keepdim=True)
    return torch.where(nothing, gradient, rest)
