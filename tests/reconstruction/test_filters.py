"""Filters: the identity before training, global reach, equal cost, the classics on the 8-bit grid."""

import numpy as np
import pytest
import torch
from kornia.filters import box_blur
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from vars_core.extractor import to_images, to_photos
from vars_core.reconstruction.classics import (
    JPEG,
    BitDepth,
    GaussianBlur,
    Halved,
    Median,
    StraightThrough,
    TotalVariation,
    classics,
    smoothers,
)
from vars_core.reconstruction.filters import (
    ConvDenoiser,
    GlobalViT,
    UNetDenoiser,
    WindowedViT,
    _of_patches,
    conv_of_equal_cost,
    load_filter,
    multiply_adds,
    save_filter,
    unet_of_equal_cost,
    windowed_of_equal_cost,
)

pytestmark = pytest.mark.usefixtures("on_cpu")


def images(n=2, side=32, seed=0):
    photos = np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)
    return to_images(photos)


def vit(**options):
    torch.manual_seed(0)
    return GlobalViT(channels=6, patch=8, width=16, depth=1, heads=2, **options)


def conv(**options):
    torch.manual_seed(0)
    return ConvDenoiser(channels=6, width=16, depth=1, **options)


def windowed():
    torch.manual_seed(0)
    return WindowedViT(channels=6, patch=8, width=16, depth=2, heads=2)


def unet():
    torch.manual_seed(0)
    return UNetDenoiser(width=4)


def awake(model):
    """The last convolution starts at zero; give it weights."""
    nn.init.normal_(model.out.weight)
    return model


@pytest.mark.parametrize("make", [vit, conv, windowed, unet])
@pytest.mark.parametrize("shape", [(32, 32), (16, 40)])
def test_an_untrained_filter_is_the_identity_bit_for_bit(make, shape):
    shown = images(2, 40)[:, :, : shape[0], : shape[1]]
    assert torch.equal(make()(shown), shown)
    assert torch.equal(make().train()(shown), shown)


@pytest.mark.parametrize("make", [vit, conv, windowed, unet])
def test_an_untrained_filter_learns_at_once(make):
    model = make()
    (model(images()) - 0.5).square().mean().backward()
    assert model.out.weight.grad.abs().max() > 0


@pytest.mark.parametrize("make", [vit, conv, windowed, unet])
def test_output_is_an_image_and_two_passes_agree(make):
    model = awake(make()).eval()
    with torch.no_grad():
        filtered = model(images())
        assert torch.equal(model(images()), filtered)
    assert filtered.shape == (2, 3, 32, 32) and filtered.min() >= 0 and filtered.max() <= 1
    assert not torch.equal(filtered, images())


def test_clipped_pixels_keep_their_gradient():
    """Else an adaptive attacker sees zero gradient on white photos: masking by accident."""
    model = vit()
    nn.init.constant_(model.out.bias, 0.5)
    white = torch.ones(1, 3, 8, 8, requires_grad=True)
    filtered = model(white)
    assert (filtered == 1).all()
    filtered.sum().backward()
    assert (white.grad != 0).all()


def far_change(model):
    """How much the last 8 × 8 pixels of the output change with the first 8 × 8 of the input."""
    model = awake(model).eval()
    before = images(1, 64)
    after = before.clone()
    after[:, :, :8, :8] = 1 - after[:, :, :8, :8]
    with torch.no_grad():
        change = (model(after) - model(before)).abs()
    assert change[:, :, :8, :8].max() > 0
    return change[:, :, -8:, -8:].max()


def test_attention_is_global_and_convolution_is_not():
    assert far_change(vit(gated=False)) > 0
    assert far_change(conv(gated=False)) == 0


def test_a_gate_can_be_taken_out_for_good(tmp_path):
    model, shown = awake(vit()).eval(), images()
    with torch.no_grad():
        gated = model(shown)
        model.remove_gate()
        opened, logit = model.forward_with_gate(shown)
        assert logit is None and (opened - shown).abs().sum() > (gated - shown).abs().sum()
        save_filter(model, tmp_path / "open.safetensors")
        assert torch.equal(load_filter(tmp_path / "open.safetensors").cpu()(shown), opened)


def test_the_gate_sees_the_whole_image_and_may_close():
    assert far_change(conv()) > 0
    model, shown = awake(vit()).eval(), images()
    with torch.no_grad():
        opened = model(shown)
        model.gate[-1].bias.fill_(-200.0)  # sigmoid is 0 then
        assert torch.equal(model(shown), shown) and not torch.equal(opened, shown)
    assert vit(gated=False).gate is None and vit(gated=False).forward_with_gate(shown)[1] is None
    assert model.forward_with_gate(shown)[1].shape == (2,)


def test_windows_see_no_further_than_windows():
    """Patches of 4 in windows of 4: one block reaches 16 pixels, a shifted one half a window more."""
    torch.manual_seed(0)
    model = WindowedViT(channels=6, patch=4, width=16, depth=2, heads=2, gated=False)
    assert far_change(model) == 0


@pytest.mark.parametrize(("make", "patch"), [(vit, 8), (conv, 4)])
def test_sides_that_are_no_multiple_of_the_patch_are_refused(make, patch):
    with pytest.raises(ValueError, match=f"multiples of {patch}"):
        make()(images(1, 34))


def test_the_unet_is_the_papers():
    """Levels of 64, 128, 256, 256, 256 with 2, 3, 3, 3, 3 convolutions down and 3, 3, 3, 2 up, each with what the way
    down saw: 11.02 million weights, counted by hand."""
    model = UNetDenoiser()
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 14 + 11 + 1
    down = 3 * 64 + 64 * 64 + 64 * 128 + 2 * 128**2 + 128 * 256 + 2 * 256**2 + 2 * 3 * 256**2
    up = 2 * (512 * 256 + 2 * 256**2) + 384 * 128 + 2 * 128**2 + 192 * 64 + 64**2
    assert sum(layer.weight.numel() for layer in convolutions) == 9 * (down + up) + 64 * 3
    torch.manual_seed(0)
    assert far_change(UNetDenoiser(width=16)) > 0


@pytest.mark.parametrize("side", [32, 64])
def test_the_unet_can_cost_the_same(side):
    ours = GlobalViT(channels=24, patch=4, width=64, depth=3, heads=2)
    rival = unet_of_equal_cost(ours, side)
    assert multiply_adds(rival, side) == pytest.approx(multiply_adds(ours, side), rel=0.1)


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        (dict(channels=24, patch=8, width=128, depth=4, heads=4), 64),  # the laptop profile
        (dict(channels=8, patch=8, width=32, depth=1, heads=2), 32),  # the smoke profile
    ],
)
def test_the_rival_costs_the_same(settings, side):
    ours = GlobalViT(**settings)
    rival = conv_of_equal_cost(ours, side)
    assert isinstance(rival, ConvDenoiser)
    assert multiply_adds(rival, side) == pytest.approx(multiply_adds(ours, side), rel=0.05)
    windows = windowed_of_equal_cost(ours, side)
    assert windows.settings["depth"] == ours.settings["depth"]
    assert multiply_adds(windows, side) == pytest.approx(multiply_adds(ours, side), rel=0.15)  # widths come in steps


def test_multiply_adds_of_a_convolution():
    assert multiply_adds(nn.Conv2d(3, 5, 3, padding=1), 16) == 16 * 16 * 3 * 5 * 9


# Trap: float, unclipped images; the shop serves 8-bit ones.
@pytest.mark.parametrize("name", ["none", "jpeg50", "jpeg75", "jpeg90", "median", "bits3", "bits5"])
def test_classics_stay_on_the_grid(name):
    shown = images()
    filtered = classics()[name](shown)
    assert filtered.shape == shown.shape and filtered.dtype == torch.float32
    torch.testing.assert_close(filtered, to_images(to_photos(filtered)), atol=1e-6, rtol=0)
    assert torch.equal(filtered, shown) == (name == "none")


def test_median_and_bit_depth_do_what_they_say():
    shown = images(1, 16)
    expected = ndimage.median_filter(shown[0].numpy(), size=(1, 3, 3))
    torch.testing.assert_close(Median()(shown)[0, :, 1:-1, 1:-1], torch.from_numpy(expected)[:, 1:-1, 1:-1])
    assert len(BitDepth(3)(shown).unique()) == 8
    assert torch.equal(BitDepth(8)(shown), shown)


@pytest.mark.parametrize("arm", [GaussianBlur(0.8), TotalVariation(0.1)])
def test_smoothing_keeps_flat_photos_and_takes_noise_away(arm):
    flat, shown = torch.full((2, 3, 16, 16), 0.4), images(2, 16)
    torch.testing.assert_close(arm(flat), flat, atol=1e-4, rtol=0)
    smooth = arm(shown)
    assert smooth.shape == shown.shape and smooth.dtype == torch.float32 and 0 <= smooth.min() <= smooth.max() <= 1
    assert smooth.std() < 0.8 * shown.std()


def test_jpeg_quality_orders_the_damage():
    smooth = to_images(ndimage.gaussian_filter(to_photos(images(2, 32)).astype(float), (0, 3, 3, 0)).astype(np.uint8))
    damage = [(JPEG(quality)(smooth) - smooth).abs().mean() for quality in (10, 50, 95)]
    assert damage[0] > damage[1] > damage[2]


def test_halving_averages_two_by_two():
    image = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(1, 3, 1, 1) / 16
    found = Halved()(image)
    assert found.shape == image.shape and found.mean() == pytest.approx(image.mean().item(), abs=1e-6)
    flat = torch.full((1, 3, 6, 6), 0.3)
    torch.testing.assert_close(Halved()(flat), flat)
    checks = (torch.arange(8) % 2).float().expand(1, 3, 8, 8).contiguous()  # the finest detail is gone
    assert (Halved()(checks) - 0.5).abs().max() < 1e-6


def test_a_filter_without_gradient_gets_the_identity_s():
    seen, weight = images().requires_grad_(True), torch.rand(2, 3, 32, 32)
    filtered = StraightThrough(JPEG(75))(seen)
    torch.testing.assert_close(filtered, JPEG(75)(seen))
    (filtered * weight).sum().backward()
    torch.testing.assert_close(seen.grad, weight)


@pytest.mark.parametrize("name", smoothers())
def test_smoothers_keep_shape_and_have_a_gradient(name):
    seen = images().requires_grad_(True)
    filtered = smoothers()[name](seen)
    filtered.sum().backward()
    assert filtered.shape == seen.shape and seen.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", [GlobalViT, WindowedViT])
def test_the_gain_scales_what_the_body_adds(kind):
    torch.manual_seed(0)
    model = kind(channels=4, patch=4, width=16, depth=2, heads=2, gated=False).eval()
    nn.init.normal_(model.out.weight, std=0.1)
    nn.init.normal_(model.gain, std=0.3)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        detail = F.gelu(model.stem(torch.cat([4 * (images - 0.5), 16 * (images - box_blur(images, 3))], 1)))
        added = F.pixel_shuffle(model.expand(model.body(model.embed(detail))), 4)
        by_hand = images + model.out(F.gelu(model.mix(detail + model.gain * added)))
        torch.testing.assert_close(model(images), by_hand.clamp(0, 1), atol=1e-5, rtol=1e-5)


def test_training_in_bf16_computes_the_same_attention():
    """It isn't fused there (see `_GlobalAttention`); in fp32 it is."""
    torch.manual_seed(0)
    model = GlobalViT(channels=4, patch=4, width=16, depth=2, heads=2, gated=False)
    nn.init.normal_(model.out.weight, std=0.1)
    images, fused = torch.rand(2, 3, 32, 32), lambda: [block.attn.fused_attn for block in model.body.blocks]
    exact = model(images)
    assert fused() == [True, True]
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(images)
    assert fused() == [False, False]
    torch.testing.assert_close(rough, exact, atol=0.03, rtol=0)


def test_a_patch_is_embedded_as_the_convolution_would():
    torch.manual_seed(0)
    for patch in (4, 8):
        embed, seen = nn.Conv2d(24, 10, patch, patch), torch.randn(3, 24, 32, 16)
        torch.testing.assert_close(_of_patches(embed, seen), embed(seen), atol=1e-5, rtol=1e-5)


def test_what_the_stem_sees_is_not_rounded_in_training():
    """Means rounded to bfloat16 are off by half a grey level, which is what a faint attack changes."""
    model, shown = vit(), []
    model.stem.register_forward_pre_hook(lambda module, args: shown.append(args[0].clone()))
    photos = images(side=32)
    with torch.autocast("cpu", torch.bfloat16):
        model(photos)
    model(photos)
    assert shown[0].dtype == torch.float32 and torch.equal(*shown)
