"""The attack engine: maximise an objective over images inside an L∞ budget, in pixels, on the 8-bit grid.

An objective maps images (N, 3, H, W) in [0, 1] to one value per image (N,) and is maximised. The engine owns
budget, steps, restarts and rounding; it never sees a normalised image.

Here are FGSM, PGD, BIM, MIM and the noise control, which give images. The attacks of `apgd`, `carlini_wagner`,
`square` and `feature_black_box` know more when they end and give an `AttackResult`; `run_attack` makes one of either
kind.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import nn

from vars_core.extractor import to_photos
from vars_core.runtime import images_at_once, progress

ObjectiveFn = Callable[[torch.Tensor], torch.Tensor]


def quantise(images: torch.Tensor) -> torch.Tensor:
    """Q: round to the 8-bit grid. Truncation would make every attack one-sided."""
    return images.mul(255).round().clamp(0, 255).div(255)


@dataclass(frozen=True)
class AttackResult:
    """What an attack ends with, per image: `images` (N, 3, H, W) on the 8-bit grid; `value` (N,) of the objective
    on those very images, so after rounding; `success` (N,) bool, or None where nothing says what is enough (see
    `objectives.WithThreshold`); `queries` (N,) int64, how often the objective was evaluated on the image."""

    images: torch.Tensor
    value: torch.Tensor
    success: torch.Tensor | None
    queries: torch.Tensor

    @classmethod
    def join(cls, parts: list["AttackResult"]) -> "AttackResult":
        columns = ([getattr(part, field.name) for part in parts] for field in fields(cls))
        return cls(*(None if any(c is None for c in column) else torch.cat(column) for column in columns))


class QueryCounter:
    """An objective that counts its calls: in a batch, how often it was evaluated on each image."""

    def __init__(self, objective: ObjectiveFn):
        self.objective, self.calls = objective, 0
        self.modules = getattr(objective, "modules", ())
        self.success_threshold = getattr(objective, "success_threshold", None)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.objective(images)

    def __getitem__(self, rows):
        return self.objective[rows]  # an attack that narrows its objective has queries of its own per image

    def result(self, images: torch.Tensor, value: torch.Tensor) -> AttackResult:
        success = None if self.success_threshold is None else value >= self.success_threshold
        queries = torch.full((len(images),), self.calls, dtype=torch.int64, device=images.device)
        return AttackResult(images, value, success, queries)


def _checked(objective: ObjectiveFn, images: torch.Tensor) -> torch.Tensor:
    values = objective(images)
    if values.shape != (len(images),):
        raise ValueError(
            f"an objective returns one value per image, shape ({len(images)},); got {tuple(values.shape)}"
        )
    return values


def evaluate(objective: ObjectiveFn, images: torch.Tensor) -> torch.Tensor:
    """The objective's value (N,), without a gradient."""
    with torch.no_grad():
        return _checked(objective, images)


def value_and_gradient(objective: ObjectiveFn, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The objective (N,) and ∂ objective / ∂ images (N, 3, H, W), from one evaluation."""
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        values = _checked(objective, images)
        return values.detach(), torch.autograd.grad(values.sum(), images)[0]


def gradient(objective: ObjectiveFn, images: torch.Tensor) -> torch.Tensor:
    """∂ objective / ∂ images (N, 3, H, W). `autograd.grad` leaves no gradient in any parameter."""
    return value_and_gradient(objective, images)[1]


@contextmanager
def eval_mode(objective: ObjectiveFn, *others: nn.Module):
    """Put the objective's `modules`, and `others`, in eval mode; give flags back, also when the attack raises."""
    modules = (*getattr(objective, "modules", ()), *others)
    flags = [(m, m.training) for module in modules for m in module.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, was in flags:
            module.training = was


def budget(epsilon, images: torch.Tensor) -> torch.Tensor:
    """ε in [0, 1] units, (N, 1, 1, 1), of one number or one per image in 8-bit steps; ValueError if it isn't."""
    eps = torch.as_tensor(epsilon, dtype=images.dtype, device=images.device).expand(len(images))
    if not ((eps >= 1) & (eps <= 255) & (eps == eps.round())).all():  # a fraction would not survive rounding
        raise ValueError(f"epsilon is in whole 8-bit steps, 1 to 255; got {epsilon}")
    return per_photo(eps / 255)


def per_photo(values: torch.Tensor) -> torch.Tensor:
    """One value per image (N,) as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def shared_noise(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One draw from [−1, 1) for all images of a batch, (3, H, W): how one ends can't depend on the others."""
    return (2 * torch.rand(images.shape[1:], generator=generator) - 1).to(images)


def linf(
    objective: ObjectiveFn,
    images: torch.Tensor,
    epsilon,
    *,
    steps: int = 10,
    step: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    momentum: float = 0.0,
    decay: bool = False,
    generator: torch.Generator,
) -> torch.Tensor:
    """Maximise `objective` in the L∞ ball of `epsilon`/255 around `images` (N, 3, H, W in [0, 1], 8-bit grid).

    `epsilon` is one number or one per image; `step` is in 8-bit steps, one number or (N, 1, 1, 1), 2.5 ε / `steps`
    unless given; with `decay` it falls to nothing in a straight line, which settles where a random objective makes
    signs jump. Returns 8-bit-grid images (N, 3, H, W); with several restarts, the best one of each image. PGD (Madry
    et al. 2018) as it stands; BIM is `random_start=False`; MIM (Dong et al. 2018) is `momentum=1.0`.
    Raises ValueError for a budget outside (0, 255] or an objective without one value per image.
    """
    eps = budget(epsilon, images)
    alpha = 2.5 * eps / steps if step is None else step / 255
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    best, best_value = None, None
    with eval_mode(objective):
        for _ in range(restarts):
            x = images
            if random_start:
                start = torch.rand(images.shape, generator=generator).to(images)
                x = torch.clamp(images + (2 * start - 1) * eps, low, high)
            velocity = torch.zeros_like(images)
            for number in range(steps):
                slope = gradient(objective, x)
                size = alpha * (1 - number / steps) if decay else alpha
                if momentum:
                    # the floor keeps a sample with a zero gradient alive: 0/0 would freeze it as NaN for good
                    scale = slope.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
                    slope = velocity = momentum * velocity + slope / scale
                x = (
                    slope.sign().mul_(size).add_(x).clamp_(low, high)
                )  # in place: a page fault per temporary is 5 % of small_cnn
            x = quantise(x)
            if restarts == 1:
                return x
            with torch.no_grad():
                value = objective(x)
            if best is None:
                best, best_value = x, value
            else:
                better = value > best_value
                best = torch.where(per_photo(better), x, best)
                best_value = torch.where(better, value, best_value)
    return best


def fgsm(objective: ObjectiveFn, images: torch.Tensor, epsilon) -> torch.Tensor:
    """One signed step of the whole budget (Goodfellow et al. 2015). Returns 8-bit-grid images (N, 3, H, W)."""
    eps = budget(epsilon, images)
    with eval_mode(objective):
        return quantise((images + eps * gradient(objective, images).sign()).clamp(0, 1))


def noise(images: torch.Tensor, epsilon, *, generator: torch.Generator) -> torch.Tensor:
    """The control that every attack needs: uniform noise of the same budget, on the 8-bit grid."""
    start = torch.rand(images.shape, generator=generator).to(images)
    return quantise((images + (2 * start - 1) * budget(epsilon, images)).clamp(0, 1))


def in_batches(attack: Callable, objective, images: torch.Tensor, batch: int | None = None, label: str = ""):
    """Run `attack(objective, images)` over slices of `batch` images, `runtime.images_at_once` by default;
    `objective[rows]` narrows an objective to its images."""
    parts = [
        attack(objective[rows], images[rows]) for rows in progress(_slices(len(images), batch), label or "attack")
    ]
    return torch.cat(parts)


def _slices(n: int, batch: int | None) -> list[slice]:
    batch = batch or images_at_once()
    return [slice(start, start + batch) for start in range(0, n, batch)]


def attack_photos(
    attack: Callable,
    objective,
    images: torch.Tensor,
    epsilon,
    *,
    steps: int,
    generator,
    batch: int | None = None,
    label: str = "",
) -> np.ndarray:
    """uint8 photos (N, H, W, 3) that `attack`, called as `linf` is, makes of `images`; a batch after the other."""

    def one(part, rows):
        found = attack(part, rows, epsilon, steps=steps, generator=generator)
        return getattr(found, "images", found)

    return to_photos(in_batches(one, objective, images, batch, label))


def run_attack(
    attack: Callable, objective, images: torch.Tensor, batch: int | None = None, label: str = ""
) -> AttackResult:
    """`in_batches` for those who want an `AttackResult`: `attack(objective, images)` may give images or a
    `AttackResult`.

    `linf` and `fgsm` give images, because that is all their many callers need; here they are made an `AttackResult`
    with one more evaluation of each image, which isn't among its `queries`."""

    def one(objective, rows):
        counted = QueryCounter(objective)
        found = attack(counted, rows)
        if isinstance(found, AttackResult):
            return found
        with eval_mode(objective):
            return counted.result(found, evaluate(objective, found))

    steps = progress(_slices(len(images), batch), label or "attack")
    return AttackResult.join([one(objective[rows], images[rows]) for rows in steps])
