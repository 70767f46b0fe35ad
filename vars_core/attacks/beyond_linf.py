"""Threats beyond a small change of every pixel: an L2 budget, a sticker, and light and colour.

Each maximises an objective, as `engine.linf` does, and gives images (N, 3, H, W) on the 8-bit grid. How visible they
are is measured, not assumed: a sticker is seen by anybody, and may still be taken for a label or a watermark.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vars_core.attacks.engine import ObjectiveFn, eval_mode, evaluate, per_photo, quantise, value_and_gradient


def _best(objective, best, value, images):
    """Of each image the better one by the objective, and its value."""
    now = evaluate(objective, images)
    if best is None:
        return images, now
    ahead = now > value
    return torch.where(per_photo(ahead), images, best), torch.where(ahead, now, value)


def l2(
    objective: ObjectiveFn, images: torch.Tensor, radius: float, *, steps: int = 10, generator: torch.Generator
) -> torch.Tensor:
    """PGD in the ball ‖δ‖₂ ≤ `radius`, in [0, 1] units, around `images` (8-bit grid): steps of 2.5 r / `steps` along
    the gradient's direction, from a random start (Madry et al. 2018). It holds after rounding, too.

    Raises ValueError for a radius that isn't above 0."""
    if not radius > 0:
        raise ValueError(f"an L2 budget is a radius above 0; got {radius}")
    with eval_mode(objective):
        start = torch.randn(images.shape, generator=generator).to(images)
        x = (images + radius * torch.rand((), generator=generator).item() * _unit(start)).clamp(0, 1)
        for _ in range(steps):
            _, slope = value_and_gradient(objective, x)
            x = images + _into_ball(x + 2.5 * radius / steps * _unit(slope) - images, radius)
            x = x.clamp(0, 1)
    return _rounded_inside(images, x - images, radius)


def _unit(change):
    return change / change.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)


def _into_ball(change, radius):
    return change * (radius / change.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp(max=1).view(-1, 1, 1, 1)


def _rounded_inside(images, change, radius):
    """The largest multiple of `change`, up to 1, that rounds to an image inside the ball; rounding lengthens some."""
    low, high = torch.zeros(len(images)).to(images), torch.ones(len(images)).to(images)
    best = images
    for halving in range(12):
        scale = high if halving == 0 else (low + high) / 2
        found = quantise((images + per_photo(scale) * change).clamp(0, 1))
        inside = (found - images).flatten(1).norm(dim=1) <= radius
        best = torch.where(per_photo(inside), found, best)
        low, high = torch.where(inside, scale, low), torch.where(inside, high, scale)
    return best


def sticker(
    objective: ObjectiveFn,
    images: torch.Tensor,
    share: float,
    *,
    steps: int = 40,
    places: int = 4,
    generator: torch.Generator,
) -> torch.Tensor:
    """A square of `share` of the area (0 to 1) with whatever in it, at the best of `places` random places, the same
    for all images: PGD with steps that decay from 32 grey levels (after LaVAN, Karmon et al. 2018).

    Raises ValueError for a share outside 0 to 1."""
    if not 0 < share < 1:
        raise ValueError(f"a sticker's share of the area lies between 0 and 1; got {share}")
    height, width = images.shape[2:]
    side = max(1, min(height, width, round((share * height * width) ** 0.5)))
    best = value = None
    with eval_mode(objective):
        for _ in range(places):
            top = int(torch.randint(0, height - side + 1, (), generator=generator))
            left = int(torch.randint(0, width - side + 1, (), generator=generator))
            inside = torch.zeros_like(images[:1])
            inside[:, :, top : top + side, left : left + side] = 1
            x = torch.where(inside > 0, torch.rand(images.shape[1:], generator=generator).to(images), images)
            for number in range(steps):
                _, slope = value_and_gradient(objective, x)
                x = (x + 32 / 255 * (1 - number / steps) * slope.sign() * inside).clamp(0, 1)
            best, value = _best(objective, best, value, quantise(x))
    return best


@dataclass(frozen=True)
class Light:
    """How far light and colour may go: each channel's gain, offset and gamma, and the saturation, as the largest
    change either way. The defaults are ours: corrections of the size that sellers make to honest photos."""

    gain: float = 0.1
    offset: float = 0.05
    gamma: float = 0.15
    saturation: float = 0.25

    def apply(self, images: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
        """`images` under `settings` (N, 10) in [−1, 1]: three gains, offsets and gammas, and the saturation."""
        gain, offset, gamma = (settings[:, 3 * part : 3 * part + 3, None, None] for part in range(3))
        grey = images.mean(1, keepdim=True)
        coloured = grey + (1 + self.saturation * settings[:, 9:, None, None]) * (images - grey)
        curved = coloured.clamp(1e-4, 1) ** torch.exp(self.gamma * gamma)
        return ((1 + self.gain * gain) * curved + self.offset * offset).clamp(0, 1)


def light(
    objective: ObjectiveFn,
    images: torch.Tensor,
    limits: Light | None = None,
    *,
    steps: int = 30,
    restarts: int = 2,
    generator: torch.Generator,
) -> torch.Tensor:
    """The best light and colour within `limits`, which change no shape: signed steps in ten settings an image."""
    limits, best, value = limits or Light(), None, None
    with eval_mode(objective):
        for restart in range(restarts):
            scale = 0.0 if restart == 0 else 1.0  # once from the photo as it is
            settings = scale * (2 * torch.rand((1, 10), generator=generator) - 1).expand(len(images), -1).to(images)
            for number in range(steps):
                settings = settings.detach().requires_grad_(True)
                with torch.enable_grad():
                    gained = objective(limits.apply(images, settings)).sum()
                    (slope,) = torch.autograd.grad(gained, settings)
                settings = (settings + 0.3 * (1 - number / steps) * slope.sign()).clamp(-1, 1)
            best, value = _best(objective, best, value, quantise(limits.apply(images, settings.detach())))
    return best


def threats(radius: float) -> dict[str, Callable]:
    """The threats above by their names in tables, called as `engine.linf` is but for the budget, which each has of
    its own: `radius` in [0, 1] units, stickers of 2 and 5 % of the area, light within `Light`."""

    def own_budget(attack, *budget):
        def run(objective, images, _, *, steps: int, generator):
            return attack(objective, images, *budget, steps=steps, generator=generator)

        return run

    found = {f"L2, r = {radius:.2f}": own_budget(l2, radius)}
    found |= {f"sticker, {share:.0%} of the area": own_budget(sticker, share) for share in (0.02, 0.05)}
    return found | {"light and colour": own_budget(light, None)}
