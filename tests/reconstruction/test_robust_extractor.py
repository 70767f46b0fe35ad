"""The robust extractor: attacks move it less, clean photos hardly at all, and the original is left alone."""

import pytest
import torch
from toys import smooth_photos

from vars_core.attacks.engine import linf
from vars_core.attacks.objectives import untargeted
from vars_core.extractor import Extractor, to_images
from vars_core.reconstruction.robust_extractor import finetune_robust
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")


def moved(net, images):
    """Mean squared change of `net`'s own features under untargeted PGD on it."""
    with torch.no_grad():
        own = net(images)
    attacked = linf(untargeted(net, own), images, 8, steps=10, generator=generator(1))
    with torch.no_grad():
        return (net(attacked) - own).square().mean().item()


def test_attacks_move_the_robust_extractor_less_and_clean_photos_little():
    torch.manual_seed(0)
    net, photos = Extractor("small_cnn"), smooth_photos(64)
    net.freeze_scaler(photos)
    net = net.eval().requires_grad_(False)
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    options = dict(epsilon=8, attack_steps=2, steps=40, batch_size=32, generator=generator(0))
    sturdy = finetune_robust(net, photos, **options)
    images = to_images(smooth_photos(16, seed=3))
    assert moved(sturdy, images) < 0.6 * moved(net, images)
    with torch.no_grad():
        drift = (sturdy(images) - net(images)).square().mean() / net(images).var()
    assert drift < 0.2
    assert all(torch.equal(tensor, weights[name]) for name, tensor in net.state_dict().items())
    assert not sturdy.training and not any(p.requires_grad for p in sturdy.parameters())
    for name in ("feature_mean", "feature_std", "backbone.stem.1.running_mean"):
        assert torch.equal(sturdy.state_dict()[name], weights[name])
