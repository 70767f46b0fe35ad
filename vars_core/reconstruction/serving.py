"""Serving photos behind noise: what f and a filter make of a photo under several draws, and the rules for them."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from vars_core.extractor import to_images
from vars_core.recommender.shop import Shop
from vars_core.recommender.vbpr import VBPR
from vars_core.runtime import device, generator, images_at_once, progress

RULES = ("one", "mean", "median")
DRAWS = 8  # whose mean features a recommender learns from; one draw's are noisier, more cost time


@torch.no_grad()
def noisy_features(
    extractor: nn.Module, image_filter: nn.Module, sigma: float, photo: np.ndarray, draws: int, source
) -> torch.Tensor:
    """f(R(x + η)) of one uint8 photo (H, W, 3) under `draws` draws of η ~ N(0, `sigma`² I), which is not clipped
    before R: (draws, D). Draws come from the generator `source`."""
    image, parts = to_images(photo[None]), []
    for start in range(0, draws, at_once := images_at_once()):
        n = min(at_once, draws - start)
        noise = torch.randn((n, *image.shape[1:]), generator=source).to(image)
        noisy = (image + sigma * noise).contiguous(memory_format=torch.channels_last)
        parts.append(extractor(image_filter(noisy)).float())
    return torch.cat(parts)


def mean_features(
    extractor: nn.Module, image_filter: nn.Module, sigma: float, photos: np.ndarray, draws: int, source
) -> np.ndarray:
    """The mean of `noisy_features` over the draws of each of uint8 `photos` (N, H, W, 3): (N, D)."""
    seen = (
        noisy_features(extractor, image_filter, sigma, np.asarray(photo), draws, source).mean(0).cpu().numpy()
        for photo in progress(photos, f"features, σ = {sigma:g}")
    )
    return np.stack(list(seen))


def retrained(shop: Shop, image_filter: nn.Module, sigma: float, cfg, seed: int, draws: int = DRAWS) -> Shop:
    """`shop` with a VBPR that was trained on what it serves: the mean features over `draws` draws (without noise one
    is enough). A recommender that learned from raw photos loses more behind noise than one that learned behind it.

    `cfg` is `params.Recommender`."""
    draws = draws if sigma else 1
    source = generator(seed, "what is served", sigma)
    features = mean_features(shop.extractor, image_filter, sigma, shop.catalogue.photos, draws, source)
    model = VBPR().fit(shop.split, features, cfg, seed).to(device())
    return replace(shop, recommender=model, features=features)


def check_rule(rule: str, draws: int) -> None:
    """Raises ValueError for a rule that isn't one of RULES, or for less than one draw."""
    if rule not in RULES:
        raise ValueError(f"a rule of serving is one of {', '.join(RULES)}; got {rule!r}")
    if draws < 1:
        raise ValueError(f"at least one draw is needed; got {draws}")
