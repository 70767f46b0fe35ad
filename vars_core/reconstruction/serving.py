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
def _through_noise(extractor, image_filter, sigma: float, images: torch.Tensor, source) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=source).to(images)
    noisy = (images + sigma * noise).contiguous(memory_format=torch.channels_last)
    return extractor(image_filter(noisy)).float()


def noisy_features(
    extractor: nn.Module, image_filter: nn.Module, sigma: float, photo: np.ndarray, draws: int, source
) -> torch.Tensor:
    """f(R(x + η)) of one uint8 photo (H, W, 3) under `draws` draws of η ~ N(0, `sigma`² I), which is not clipped
    before R: (draws, D). Draws come from the generator `source`."""
    image, parts, at_once = to_images(photo[None]), [], images_at_once()
    for start in range(0, draws, at_once):
        n = min(at_once, draws - start)
        parts.append(_through_noise(extractor, image_filter, sigma, image.expand(n, -1, -1, -1), source))
    return torch.cat(parts)


def mean_features(
    extractor: nn.Module, image_filter: nn.Module, sigma: float, photos: np.ndarray, draws: int, source
) -> np.ndarray:
    """The mean of `noisy_features` over the draws of each of uint8 `photos` (N, H, W, 3): (N, D)."""
    seen, at_once = [], max(1, images_at_once() // draws)
    for start in progress(range(0, len(photos), at_once), f"features, σ = {sigma:g}"):
        images = to_images(np.asarray(photos[start : start + at_once]))
        features = _through_noise(extractor, image_filter, sigma, images.repeat_interleave(draws, 0), source)
        seen.append(features.unflatten(0, (len(images), draws)).mean(1).cpu().numpy())
    return np.concatenate(seen)


def served_features(shop: Shop, image_filter: nn.Module, sigma: float, seed: int, draws: int = DRAWS) -> np.ndarray:
    """`mean_features` of `shop`'s whole catalogue (I, D), that a recommender learns from and lists are made with."""
    source = generator(seed, "what is served", sigma)
    return mean_features(shop.extractor, image_filter, sigma, shop.catalogue.photos, draws if sigma else 1, source)


def retrained(shop: Shop, image_filter: nn.Module, sigma: float, cfg, seed: int, draws: int = DRAWS) -> Shop:
    """`shop` with a VBPR that was trained on what it serves: the mean features over `draws` draws (without noise one
    is enough). A recommender that learned from raw photos loses more behind noise than one that learned behind it.

    `cfg` is `params.Recommender`."""
    features = served_features(shop, image_filter, sigma, seed, draws)
    model = VBPR().fit(shop.split, features, cfg, seed).to(device())
    return replace(shop, recommender=model, features=features)


def check_rule(rule: str, draws: int) -> None:
    """Raises ValueError for a rule that isn't one of RULES, or for less than one draw."""
    if rule not in RULES:
        raise ValueError(f"a rule of serving is one of {', '.join(RULES)}; got {rule!r}")
    if draws < 1:
        raise ValueError(f"at least one draw is needed; got {draws}")
