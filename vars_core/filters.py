"""Filters R: image → image, run on every photo before the extractor. Ours, its rival and the classics.

Images (N, 3, H, W) in [0, 1] in and out. H and W must be multiples of the patch.
"""

import torch
from kornia.filters import box_blur, median_blur
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.io import decode_jpeg, encode_jpeg


class _ClampThrough(torch.autograd.Function):
    """Clamp to [0, 1] whose gradient is that of the identity: a clipped pixel still has to learn (and an
    adaptive attacker still sees a slope there)."""

    @staticmethod
    def forward(ctx, x):
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, slope):
        return slope


class _FullResolution(nn.Module):
    """x + r(x): stem at full resolution → body at patch resolution → added to the stem → two 3×3 convolutions.

    The last convolution starts at zero, so that an untrained filter is the identity to the bit."""

    def __init__(self, channels: int, patch: int, width: int, body: nn.Module):
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(6, channels, 3, padding=1)
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.body = body
        self.expand = nn.Conv2d(width, channels * patch * patch, 1)
        # LayerScale: at gain 1 the untrained body drowns the full-resolution path, and learning starts late
        self.gain = nn.Parameter(torch.full((channels, 1, 1), 0.1))
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, images):
        if images.shape[2] % self.patch or images.shape[3] % self.patch:
            raise ValueError(f"the filter wants sides that are multiples of {self.patch}, got {images.shape[2:]}")
        # a perturbation is a few grey levels in a photo of two hundred: beside the photo, the stem sees what
        # differs from the local mean, enlarged to unit size
        detail = F.gelu(self.stem(torch.cat([4 * (images - 0.5), 16 * (images - box_blur(images, 3))], 1)))
        context = F.pixel_shuffle(self.expand(self.body(self.embed(detail))), self.patch)
        residual = self.out(F.gelu(self.mix(detail + self.gain * context)))
        return _ClampThrough.apply(images + residual.float())


class _GlobalAttention(nn.Module):
    """Transformer blocks over all patches of the image at once, with 2-D sin-cos positions."""

    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.width = width
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        n, c, h, w = x.shape
        positions = build_sincos2d_pos_embed([h, w], self.width, device=x.device)
        tokens = x.flatten(2).transpose(1, 2) + positions.to(x.dtype)
        return self.norm(self.blocks(tokens)).transpose(1, 2).reshape(n, c, h, w)


class _ConvBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x):
        return x + self.layers(x)


class GlobalViT(_FullResolution):
    """The study's filter: every patch attends to every other (global vision transformer)."""

    def __init__(self, *, channels: int, patch: int, width: int, depth: int, heads: int):
        super().__init__(channels, patch, width, _GlobalAttention(width, depth, heads))
        self.settings = dict(channels=channels, patch=patch, width=width, depth=depth, heads=heads)


class ConvDenoiser(_FullResolution):
    """The rival: the same stem, skip and output, with residual 3×3 convolutions at stride 4 in the middle."""

    def __init__(self, *, channels: int, width: int, depth: int):
        super().__init__(channels, 4, width, nn.Sequential(*(_ConvBlock(width) for _ in range(depth))))
        self.settings = dict(channels=channels, width=width, depth=depth)


def multiply_adds(model: nn.Module, size: int) -> int:
    """Multiply-adds of one forward pass on one image of `size`², counted by PyTorch's own counter."""
    parameter = next(model.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size, device=parameter.device))
    return counter.get_total_flops() // 2


def conv_of_equal_cost(vit: GlobalViT, size: int, depth: int = 3) -> ConvDenoiser:
    """The ConvDenoiser whose width brings it nearest to `vit`'s multiply-adds at images of `size`²."""
    budget, channels = multiply_adds(vit, size), vit.settings["channels"]
    widths = range(4, 512, 4)

    def gap(width):
        return abs(multiply_adds(ConvDenoiser(channels=channels, width=width, depth=depth), size) - budget)

    low, high = 0, len(widths) - 1
    while high - low > 2:  # cost rises with width, so the gap has one valley
        a, b = low + (high - low) // 3, high - (high - low) // 3
        low, high = (low, b) if gap(widths[a]) < gap(widths[b]) else (a, high)
    best = min(widths[low : high + 1], key=gap)
    return ConvDenoiser(channels=channels, width=best, depth=depth)


class JPEG(nn.Module):
    """Re-encode as JPEG of `quality` (Das et al. 2018). Not differentiable."""

    def __init__(self, quality: int):
        super().__init__()
        self.quality = quality

    def forward(self, images):
        bytes_ = images.detach().mul(255).round().clamp(0, 255).byte().cpu().contiguous()
        decoded = [decode_jpeg(encode_jpeg(image, self.quality)) for image in bytes_]
        return torch.stack(decoded).to(images.device).float() / 255


class Median(nn.Module):
    """3 × 3 median (Xu et al. 2018)."""

    def forward(self, images):
        return median_blur(images, 3)


class BitDepth(nn.Module):
    """Keep `bits` bits per channel (Xu et al. 2018)."""

    def __init__(self, bits: int):
        super().__init__()
        self.levels = 2**bits - 1

    def forward(self, images):
        return (images * self.levels).round() / self.levels


def classics() -> dict[str, nn.Module]:
    """The arms that need no training, by their name in every table."""
    return {"none": nn.Identity(), "jpeg50": JPEG(50), "jpeg75": JPEG(75), "median": Median()}
