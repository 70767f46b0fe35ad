"""Serving photos behind noise: what f and a filter make of a photo under several draws, and the rules that use them."""

import numpy as np
import torch
from torch import nn

from vars_core.extractor import to_images

RULES = ("one", "mean", "median")
IMAGES = 256  # through the networks at once


@torch.no_grad()
def noisy_features(
    extractor: nn.Module, image_filter: nn.Module, sigma: float, photo: np.ndarray, draws: int, generator
) -> torch.Tensor:
    """f(R(x + η)) of one uint8 photo (H, W, 3) under `draws` draws of η ~ N(0, `sigma`² I), which is not clipped before
    R: (draws, D). Draws come from `generator`."""
    image, parts = to_images(photo[None]), []
    for start in range(0, draws, IMAGES):
        n = min(IMAGES, draws - start)
        noise = torch.randn((n, *image.shape[1:]), generator=generator).to(image)
        noisy = (image + sigma * noise).contiguous(memory_format=torch.channels_last)
        parts.append(extractor(image_filter(noisy)).float())
    return torch.cat(parts)


def check_rule(rule: str, draws: int) -> None:
    """Raises ValueError for a rule that isn't one of RULES, or for less than one draw."""
    if rule not in RULES:
        raise ValueError(f"a rule of serving is one of {', '.join(RULES)}; got {rule!r}")
    if draws < 1:
        raise ValueError(f"at least one draw is needed; got {draws}")
