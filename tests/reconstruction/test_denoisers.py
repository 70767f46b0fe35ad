"""The randomised regime: filters that learn to remove Gaussian noise."""

from types import SimpleNamespace

import pytest
import torch
from toys import extractor, loss, smooth_photos

from vars_core import checkpoint
from vars_core.extractor import to_images
from vars_core.reconstruction.filters import GlobalViT
from vars_core.reconstruction.training import TERMS, FilterLoss, train_denoisers
from vars_core.runtime import generator

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor"]  # a fixture
CFG = SimpleNamespace(batch_size=16, learning_rate=1e-2)


def toy(channels=8, width=16):
    torch.manual_seed(0)
    return GlobalViT(channels=channels, patch=4, width=width, depth=1, heads=2, gated=False)


def test_a_denoiser_learns_to_remove_its_noise(extractor):
    photos, unseen, model = smooth_photos(64), to_images(smooth_photos(24, seed=9)), toy()
    arms = {"toy": (model, loss(extractor))}
    history = train_denoisers(arms, {"toy": 0.2}, photos, CFG, steps=150, generator=generator(0))
    assert list(history) == ["arm", "step", *TERMS] and len(history) == 150
    noisy = unseen + 0.2 * torch.randn(unseen.shape, generator=generator(5))
    with torch.no_grad():
        assert (model(noisy) - unseen).square().mean() < 0.4 * (noisy - unseen).square().mean()
        own = extractor(unseen)
        left, harm = ((extractor(x) - own).square().mean() for x in (model(noisy), noisy))
    assert left < 0.5 * harm


def test_arms_see_the_same_noise_in_their_own_strength_and_unclipped(extractor, monkeypatch):
    seen = []
    forward = GlobalViT.forward_with_gate
    monkeypatch.setattr(GlobalViT, "forward_with_gate", lambda self, x: (seen.append(x), forward(self, x))[1])
    arms = {name: (toy(4, 8), loss(extractor)) for name in ("weak", "strong")}
    photos = smooth_photos(16)
    train_denoisers(arms, {"weak": 0.25, "strong": 0.5}, photos, CFG, steps=1, generator=generator(0))
    weak, strong = seen
    images = 2 * weak - strong  # x + σ/2 η twice, less x + σ η
    grid = images * 255
    torch.testing.assert_close(grid, grid.round(), atol=1e-3, rtol=0)
    assert (strong - images).std().item() == pytest.approx(0.5, rel=0.05)
    assert strong.min() < 0 and strong.max() > 1


def test_an_interrupted_training_goes_on_but_not_with_another_noise(extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    place, judge, calls = tmp_path / "denoiser.safetensors", FilterLoss.__call__, []

    def train(stop=None, sigma=0.2):
        def until(self, *views):
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return judge(self, *views)

        monkeypatch.setattr(FilterLoss, "__call__", until)
        calls.clear()
        model = toy(4, 8)
        options = dict(steps=6, generator=generator(0), checkpoint=place)
        train_denoisers({"toy": (model, loss(extractor))}, {"toy": sigma}, smooth_photos(20), CFG, **options)
        return model.state_dict()

    whole = train()
    place.unlink()
    with pytest.raises(KeyboardInterrupt):
        train(stop=5)
    resumed = train()
    assert len(calls) == 2  # the fifth and the sixth step
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    train(sigma=0.3)
    assert len(calls) == 6
