"""JPEG as an attacker sees it who wants a gradient: rounding is replaced by something smooth."""

import torch
from kornia.enhance import jpeg_codec_differentiable
from torch import nn

BLOCK = 16  # pixels, of a block of halved colours


class SoftJPEG(nn.Module):
    """Nearly what `classics.JPEG` of the same `quality` gives, with a gradient (Shin and Song 2017; kornia's codec).

    Sides are padded to whole blocks. Attacks through it are served through the real codec."""

    def __init__(self, quality: int):
        super().__init__()
        self.quality = quality

    def forward(self, images):
        height, width = images.shape[2:]
        padded = nn.functional.pad(images, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
        quality = torch.full((len(images),), float(self.quality), device=images.device)
        return jpeg_codec_differentiable(padded.contiguous(), quality)[:, :, :height, :width].clamp(0, 1)
