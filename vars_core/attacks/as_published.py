"""An exhibit: the image path of VAR (Anelli et al. 2021) as published, in which "ε = 4" is another attack.

Two things happen there. The budget is spent *after* normalising by mean and standard deviation, so that ε/255 in
those units is only 0.22 to 0.23 of ε in pixels: 0.92 grey levels of a nominal 4. And the image is written by
truncating, not rounding, to 8 bits, so that a change below one grey level vanishes upwards and takes a whole level
downwards; a pixel that nobody touched falls by 1 where the round trip through floats ends a hair below its value
(29 % of all levels, 24 to 25 % of the pixels of product photos). Nothing in the study attacks like this.
"""

import torch
from torchvision.transforms.functional import normalize

from vars_core.attacks.engine import ObjectiveFn, eval_mode, gradient

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def _denormalise(images: torch.Tensor) -> torch.Tensor:
    """Their inverse: a second normalisation, by −mean/std and 1/std, in the same precision."""
    return normalize(images, [-m / s for m, s in zip(MEAN, STD, strict=True)], [1 / s for s in STD])


def truncated(images: torch.Tensor) -> torch.Tensor:
    """Clip, multiply by 255 and cut off: their way to 8 bits. On the 8-bit grid, (N, 3, H, W)."""
    return images.clamp(0, 1).mul(255).to(torch.uint8).to(images).div(255)


def round_trip(images: torch.Tensor) -> torch.Tensor:
    """What their path makes of images that nobody attacked. Float32, as theirs was."""
    return truncated(_denormalise(normalize(images.float(), MEAN, STD)))


def realised(epsilon: float) -> tuple[float, ...]:
    """Grey levels that their ε is really, per channel, before truncation."""
    return tuple(epsilon * s for s in STD)


def var_as_published(
    objective: ObjectiveFn, images: torch.Tensor, epsilon: float, *, steps: int = 10, ratio: float = 1 / 6
) -> torch.Tensor:
    """PGD of VAR on images (N, 3, H, W in [0, 1], 8-bit grid): `steps` steps of `ratio` · ε from the image itself,
    within ε/255 in *normalised* units, nothing clipped on the way. FGSM is `steps=1, ratio=1`.

    `objective` takes pixels, as everywhere. Returns images on the 8-bit grid that do *not* spend ε in pixels.
    """
    start = normalize(images.float(), MEAN, STD)
    eps = epsilon / 255
    x = start
    with eval_mode(objective):
        for _ in range(steps):
            slope = gradient(lambda z: objective(_denormalise(z)), x)
            x = start + (x + ratio * eps * slope.sign() - start).clamp(-eps, eps)
    return truncated(_denormalise(x))
