"""Filters R: image → image, run on every photo before the extractor: ours and its rivals of equal cost.

Images (N, 3, H, W) in [0, 1] in and out. H and W must be multiples of the patch.
"""

from pathlib import Path

import torch
from kornia.filters import box_blur
from timm.layers import build_sincos2d_pos_embed
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vars_core import checkpoint
from vars_core.runtime import device


class _ClampThrough(torch.autograd.Function):
    """Clamp to [0, 1] whose gradient is that of the identity: a clipped pixel still has to learn (and an
    adaptive attacker still sees a slope there)."""

    @staticmethod
    def forward(ctx, x):
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, slope):
        return slope


def _of_patches(embed: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    """embed(images), whose stride is its kernel: each patch becomes channels, then a 1×1 convolution. On CPUs with
    AMX oneDNN's own kernel is wrong in bf16 at 16 or 24 channels and strides of 4 or 8 (relative error above 1)."""
    weight = embed.weight.flatten(1)[:, :, None, None]
    return F.conv2d(F.pixel_unshuffle(images, embed.stride[0]), weight, embed.bias)


class _ConvBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x):
        return x + self.layers(x)


class _FullResolution(nn.Module):
    """x + g(x) r(x). r: stem at full resolution → body at patch resolution → added to the stem → 3×3 convolutions:
    `blocks` residual pairs, and two. The *gate* g in (0, 1), one number per image from what both resolutions see of
    it, says whether there is anything to remove: a photo that looks clean as a whole is left alone, and r need not be
    timid.

    The last convolution starts at zero, so that an untrained filter is the identity to the bit. Without `gated`, g is
    1."""

    def __init__(self, channels: int, patch: int, width: int, blocks: int, gated: bool, body: nn.Module):
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(6, channels, 3, padding=1)
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.body = body
        self.expand = nn.Conv2d(width, channels * patch * patch, 1)
        # LayerScale: at gain 1 the untrained body drowns the full-resolution path, and learning starts late
        self.gain = nn.Parameter(torch.full((channels, 1, 1), 0.1))
        self.blocks = nn.Sequential(*(_ConvBlock(channels) for _ in range(blocks)))
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.gate = None
        if gated:
            self.gate = nn.Sequential(nn.Linear(2 * (channels + width), 64), nn.GELU(), nn.Linear(64, 1))
            nn.init.ones_(self.gate[-1].bias)  # it starts open, at 0.73, or r would hardly learn

    def remove_gate(self) -> None:
        """g = 1 from now on. The gate is a classifier: who knows the filter shuts it first, and is let through."""
        self.gate, self.settings["gated"] = None, False

    def forward(self, images):
        return self.forward_with_gate(images)[0]

    def forward_with_gate(self, images):
        """R(x) (N, 3, H, W), and the logit of g(x) (N,), None without a gate. ValueError for sides that don't fit."""
        if images.shape[2] % self.patch or images.shape[3] % self.patch:
            raise ValueError(f"the filter wants sides that are multiples of {self.patch}, got {images.shape[2:]}")
        # a perturbation is a few grey levels in a photo of two hundred: beside the photo, the stem sees what
        # differs from the local mean, enlarged to unit size. In fp32: bf16 rounds a mean to one grey level
        with torch.autocast(images.device.type, enabled=False):
            seen = torch.cat([4 * (images - 0.5), 16 * (images - box_blur(images, 3))], 1)
        detail = F.gelu(self.stem(seen))
        context = self.body(_of_patches(self.embed, detail))
        # the gain on the weights, which are fewer than the map's values
        gain = self.gain.view(-1, 1).expand(-1, self.patch**2).flatten()
        expanded = F.conv2d(context, gain.view(-1, 1, 1, 1) * self.expand.weight, gain * self.expand.bias)
        hidden = detail + F.pixel_shuffle(expanded, self.patch)
        hidden = F.gelu(self.mix(self.blocks(hidden)))
        residual, logit = self.out(hidden).float(), None
        if self.gate is not None:
            pooled = [pool for seen in (hidden, context) for pool in (seen.mean((2, 3)), seen.amax((2, 3)))]
            logit = self.gate(torch.cat(pooled, 1)).float().squeeze(1)
            residual = residual * logit.sigmoid().view(-1, 1, 1, 1)
        return _ClampThrough.apply(images + residual), logit


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
        # the backward of fused attention is slow in bf16 on a CPU, which is how filters are trained there
        plain = x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and h * w <= 512
        for block in self.blocks:
            block.attn.fused_attn = not plain
        return self.norm(self.blocks(tokens)).transpose(1, 2).reshape(n, c, h, w)


class _WindowedAttention(nn.Module):
    """Transformer blocks over windows of 4 × 4 patches, every other one shifted by half of one (Liu et al. 2021)."""

    WINDOW = 4

    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.width = width
        options = dict(num_heads=heads, window_size=self.WINDOW, always_partition=True, dynamic_mask=True)
        shifts = [self.WINDOW // 2 if place % 2 else 0 for place in range(depth)]
        # the resolution is only a start: masks are made for the image at hand
        side = 4 * self.WINDOW
        self.blocks = nn.Sequential(
            *(SwinTransformerBlock(width, (side, side), shift_size=shift, **options) for shift in shifts)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        h, w = x.shape[2:]
        positions = build_sincos2d_pos_embed([h, w], self.width, device=x.device)
        tokens = x.permute(0, 2, 3, 1) + positions.to(x.dtype).view(h, w, self.width)
        return self.norm(self.blocks(tokens)).permute(0, 3, 1, 2)


class GlobalViT(_FullResolution):
    """The study's filter: every patch attends to every other (global vision transformer)."""

    attention = _GlobalAttention

    def __init__(
        self, *, channels: int, patch: int, width: int, depth: int, heads: int, blocks: int = 0, gated: bool = True
    ):
        super().__init__(channels, patch, width, blocks, gated, self.attention(width, depth, heads))
        self.settings = dict(
            channels=channels, patch=patch, width=width, depth=depth, heads=heads, blocks=blocks, gated=gated
        )


class WindowedViT(GlobalViT):
    """The rival that differs by one thing: patches attend within windows only."""

    attention = _WindowedAttention


class ConvDenoiser(_FullResolution):
    """The rival without attention: the same stem, skip and output, residual 3×3 convolutions at stride 4 between."""

    def __init__(self, *, channels: int, width: int, depth: int, blocks: int = 0, gated: bool = True):
        body = nn.Sequential(*(_ConvBlock(width) for _ in range(depth)))
        super().__init__(channels, 4, width, blocks, gated, body)
        self.settings = dict(channels=channels, width=width, depth=depth, blocks=blocks, gated=gated)


class _Convolutions(nn.Sequential):
    """`count` times convolution, batch normalisation, ReLU; the first convolution has the stride."""

    def __init__(self, width_in: int, width: int, count: int, stride: int = 1):
        layers = []
        for place in range(count):
            first = place == 0
            convolution = nn.Conv2d(width_in if first else width, width, 3, stride if first else 1, 1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class UNetDenoiser(nn.Module):
    """x − U(x): the U-Net of Liao et al. (CVPR 2018, high-level representation guided denoiser), which the nearest
    rival, Merra et al.'s Adversarial Image Denoiser (SIGIR 2023), takes over: four levels down by strides of 2, and
    up again with what the way down saw. `width` is 64 in both papers. The last convolution starts at zero."""

    patch = 1  # any side will do

    def __init__(self, *, width: int = 64):
        super().__init__()
        self.settings, self.gate = {"width": width}, None
        widths = [times * width for times in (1, 2, 4, 4, 4)]
        pairs = zip(widths, widths[1:], strict=False)
        self.down = nn.ModuleList([_Convolutions(3, width, 2), *(_Convolutions(a, b, 3, 2) for a, b in pairs)])
        up = ((8, 4, 3), (8, 4, 3), (6, 2, 3), (3, 1, 2))  # from and to how many times the width, and convolutions
        self.up = nn.ModuleList(_Convolutions(a * width, b * width, count) for a, b, count in up)
        self.out = nn.Conv2d(width, 3, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, images):
        return self.forward_with_gate(images)[0]

    def forward_with_gate(self, images):
        """R(x) (N, 3, H, W), and None: it has no gate."""
        seen, hidden = [], images
        for block in self.down:
            hidden = block(hidden)
            seen.append(hidden)
        for block, lateral in zip(self.up, seen[-2::-1], strict=True):
            larger = F.interpolate(hidden, size=lateral.shape[2:], mode="bilinear", align_corners=False)
            hidden = block(torch.cat([larger, lateral], 1))
        return _ClampThrough.apply(images - self.out(hidden).float()), None


def multiply_adds(model: nn.Module, size: int) -> int:
    """Multiply-adds of one forward pass on one image of `size`², counted by PyTorch's own counter."""
    parameter = next(model.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size, device=parameter.device))
    return counter.get_total_flops() // 2


def conv_of_equal_cost(vit: GlobalViT, size: int, depth: int = 3) -> ConvDenoiser:
    """The ConvDenoiser whose width brings it nearest to `vit`'s multiply-adds at images of `size`²."""
    kept = {name: vit.settings[name] for name in ("channels", "blocks", "gated")}
    return _of_equal_cost(lambda width: ConvDenoiser(width=width, depth=depth, **kept), vit, size, 4)


def windowed_of_equal_cost(vit: GlobalViT, size: int) -> WindowedViT:
    """The WindowedViT of `vit`'s depth and heads whose width brings it nearest to its multiply-adds."""
    step = 4 * vit.settings["heads"]  # positions want a multiple of 4, attention one of the heads
    return _of_equal_cost(lambda width: WindowedViT(**vit.settings | {"width": width}), vit, size, step)


def unet_of_equal_cost(vit: GlobalViT, size: int) -> UNetDenoiser:
    """The UNetDenoiser whose width brings it nearest to `vit`'s multiply-adds at images of `size`²."""
    return _of_equal_cost(lambda width: UNetDenoiser(width=width), vit, size, 1)


def _of_equal_cost(make, model: nn.Module, size: int, step: int) -> nn.Module:
    """`make(width)` for the width, of the multiples of `step` below 512, that costs what `model` does."""
    budget, widths = multiply_adds(model, size), range(step, 512, step)

    def gap(width):
        return abs(multiply_adds(make(width), size) - budget)

    low, high = 0, len(widths) - 1
    while high - low > 2:  # cost rises with width, so the gap has one valley
        a, b = low + (high - low) // 3, high - (high - low) // 3
        low, high = (low, b) if gap(widths[a]) < gap(widths[b]) else (a, high)
    return make(min(widths[low : high + 1], key=gap))


FILTERS = {kind.__name__: kind for kind in (GlobalViT, WindowedViT, ConvDenoiser, UNetDenoiser)}


def save_filter(model: nn.Module, file: Path, **metadata: str) -> None:
    """Weights and settings of a trained filter."""
    checkpoint.write(file, model.state_dict(), filter=type(model).__name__, settings=model.settings, **metadata)


def load_filter(file: Path) -> nn.Module:
    """A filter written by `save_filter`, frozen, on the device."""
    notes, weights = checkpoint.read(file)
    kind, settings = notes.get("filter"), notes.get("settings")
    if not isinstance(kind, str) or kind not in FILTERS or not isinstance(settings, dict):
        raise checkpoint.ModelFileError(f"{file} holds no filter of the study (its notes: {notes!s:.150})")
    for name in ("depth", "blocks"):  # building takes time for each; a block has tensors
        if not isinstance(settings.get(name, 0), int) or settings.get(name, 0) > len(weights):
            raise checkpoint.ModelFileError(f"{file}: {name} {settings[name]!s:.20}, with {len(weights)} tensors")
    model = checkpoint.build(FILTERS[kind], settings, weights, file, kind)
    return model.to(device(), memory_format=torch.channels_last).eval().requires_grad_(False)
