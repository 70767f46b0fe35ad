"""Auto-PGD: PGD that chooses its own step sizes (Croce and Hein, ICML 2020, algorithm 1)."""

import math

import torch

from vars_core.attacks.engine import (
    AttackResult,
    ObjectiveFn,
    QueryCounter,
    budget,
    eval_mode,
    evaluate,
    per_photo,
    quantise,
    shared_noise,
    value_and_gradient,
)

MOMENTUM = 0.75  # α of the paper: how much of a step is new


def checkpoints(steps: int) -> list[int]:
    """Steps after which the step size is reviewed: at 22 % of all steps, then ever closer together, ≥ 6 % apart."""
    at, shares = [0.0, 0.22], []
    while at[-1] < 1:
        shares.append(at[-1])
        at.append(at[-1] + max(at[-1] - at[-2] - 0.03, 0.06))
    return sorted({math.ceil(share * steps - 1e-9) for share in shares})


def apgd(
    objective: ObjectiveFn,
    images: torch.Tensor,
    epsilon,
    *,
    steps: int,
    restarts: int = 1,
    rho: float = 0.75,
    random_start: bool = True,
    generator: torch.Generator,
) -> AttackResult:
    """Maximise `objective` in the L∞ ball of `epsilon`/255 around `images` (N, 3, H, W in [0, 1], 8-bit grid).

    The step of each image starts at 2ε. At a checkpoint it is halved, and the image goes back to its best point,
    where fewer than `rho` of the steps since the last one went up, or where neither step nor best value changed.
    `epsilon` is one number or one per image, in 8-bit steps. Of several restarts the best of each image is kept;
    values are those after rounding. `steps` gradients and two values per restart.

    Two choices are ours. All images of a batch share their random start, so that an image ends the same alone and in
    any batch. An image whose whole gradient is zero takes a random signed step: the sign of zero would leave it.
    Raises ValueError for a budget that isn't 1 to 255, or an objective without one value per image.
    """
    eps, counted = budget(epsilon, images), QueryCounter(objective)
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    kick = shared_noise(images, generator).sign()
    best, best_value = images, torch.full((len(images),), -torch.inf).to(images)
    with eval_mode(objective):
        for _ in range(restarts):
            start = torch.clamp(images + eps * shared_noise(images, generator), low, high) if random_start else images
            x = quantise(_ascend(counted, start, 2 * eps, low, high, steps, rho, kick))
            value = evaluate(counted, x)
            better = value > best_value
            best = torch.where(per_photo(better), x, best)
            best_value = torch.where(better, value, best_value)
    return counted.result(best, best_value)


def _ascend(objective, start, step, low, high, steps, rho, kick) -> torch.Tensor:
    """One run from `start`: its best point, before rounding. `step` is (N, 1, 1, 1)."""
    reviews, last = set(checkpoints(steps)), 0
    x = before = best = start
    best_slope, best_value = torch.zeros_like(x), torch.full((len(x),), -torch.inf).to(x)
    rises, previous = torch.zeros_like(best_value), -best_value
    reviewed_value, reviewed_step = best_value, step
    for done in range(steps):
        value, slope = value_and_gradient(objective, x)
        rises, previous = rises + (value > previous), value
        better = value > best_value
        best_value = torch.where(better, value, best_value)
        best, best_slope = (torch.where(per_photo(better), new, old) for new, old in ((x, best), (slope, best_slope)))
        if done in reviews:
            stuck = (step == reviewed_step).flatten() & (best_value == reviewed_value)
            halve = (rises < rho * (done - last)) | stuck
            reviewed_value, reviewed_step, last, rises = best_value, step, done, torch.zeros_like(rises)
            step = torch.where(per_photo(halve), step / 2, step)
            x, slope = torch.where(per_photo(halve), best, x), torch.where(per_photo(halve), best_slope, slope)
            previous = torch.where(halve, best_value, previous)
        flat = slope.abs().amax((1, 2, 3), keepdim=True) == 0
        target = torch.clamp(x + step * torch.where(flat, kick, slope.sign()), low, high)
        blend = MOMENTUM if done else 1.0
        x, before = torch.clamp(x + blend * (target - x) + (1 - blend) * (x - before), low, high), x
    return torch.where(per_photo(evaluate(objective, x) > best_value), x, best)
