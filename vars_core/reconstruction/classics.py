"""Filters that need no training: re-encoding, squeezing and smoothing. Images (N, 3, H, W) in [0, 1] in and out."""

import numpy as np
import torch
from kornia.filters import GaussianBlur2d, MedianBlur
from skimage.restoration import denoise_tv_chambolle
from torch import nn
from torch.nn import functional as F
from torchvision.io import decode_jpeg, encode_jpeg

from vars_core.attacks.engine import quantise


class JPEG(nn.Module):
    """Re-encode as JPEG of `quality` (Das et al. 2018). Not differentiable."""

    def __init__(self, quality: int):
        super().__init__()
        self.quality = quality

    def forward(self, images):
        bytes_ = images.detach().mul(255).round().clamp(0, 255).byte().cpu().contiguous()
        decoded = [decode_jpeg(encode_jpeg(image, self.quality)) for image in bytes_]
        return torch.stack(decoded).to(images.device).float() / 255


class Median(MedianBlur):
    """3 × 3 median (Xu et al. 2018)."""

    def __init__(self):
        super().__init__(3)


class BitDepth(nn.Module):
    """Keep `bits` bits per channel (Xu et al. 2018)."""

    def __init__(self, bits: int):
        super().__init__()
        self.levels = 2**bits - 1

    def forward(self, images):
        return quantise((images * self.levels).round() / self.levels)


class GaussianBlur(GaussianBlur2d):
    """Gaussian blur of `sigma` pixels (Xu et al. 2018 and many others)."""

    def __init__(self, sigma: float):
        side = 2 * int(np.ceil(3 * sigma)) + 1
        super().__init__((side, side), (sigma, sigma))


class TotalVariation(nn.Module):
    """Total-variation denoising of `weight` (Rudin, Osher and Fatemi 1992; against attacks, Guo et al. 2018) by
    Chambolle's algorithm. Not differentiable."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    def forward(self, images):
        photos = images.detach().permute(0, 2, 3, 1).cpu().numpy()
        smooth = [denoise_tv_chambolle(photo, weight=self.weight, channel_axis=2) for photo in photos]
        return torch.from_numpy(np.stack(smooth)).to(images).permute(0, 3, 1, 2).clamp(0, 1)


class Halved(nn.Module):
    """Half the side by averaging, and back by bilinear interpolation (Guo et al. 2018 resize likewise)."""

    def forward(self, images):
        small = F.interpolate(images, scale_factor=0.5, mode="area")
        return F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)


class StraightThrough(nn.Module):
    """`image_filter`, with the identity's gradient: how to attack through a filter that has none (backward pass
    differentiable approximation, Athalye et al. 2018)."""

    def __init__(self, image_filter: nn.Module):
        super().__init__()
        self.image_filter = image_filter

    def forward(self, images):
        return images + (self.image_filter(images) - images).detach()


def smoothers() -> dict[str, nn.Module]:
    """Filters that need no training and hinder attackers who know them, more or less at the price of detail; each has
    a gradient for them."""
    arms = {f"blur{sigma}": GaussianBlur(sigma) for sigma in (1, 2, 3, 4)}
    return arms | {"halved": Halved(), "median": Median(), "jpeg75": StraightThrough(JPEG(75))}


def classics() -> dict[str, nn.Module]:
    """The arms that need no training, by their name in every table."""
    arms = {"none": nn.Identity()}
    arms |= {f"jpeg{quality}": JPEG(quality) for quality in (50, 75, 90)}
    arms |= {f"bits{bits}": BitDepth(bits) for bits in (3, 4, 5)}
    return arms | {"median": Median(), "gaussian": GaussianBlur(0.5), "tv": TotalVariation(0.03)}
