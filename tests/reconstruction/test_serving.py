"""Features behind noise: many photos in a batch are what each is by itself."""

import numpy as np
import torch
from torch import nn

from vars_core.reconstruction import serving
from vars_core.runtime import generator

PHOTOS = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
SEEN = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))


def test_mean_features_are_the_means_of_each_photos_draws(monkeypatch):
    monkeypatch.setattr(serving, "images_at_once", lambda: 6)  # three photos, the last batch is of one
    batched = serving.mean_features(SEEN, nn.Tanh(), 0.3, PHOTOS, 2, generator(1))
    source = generator(1)
    alone = [serving.noisy_features(SEEN, nn.Tanh(), 0.3, photo, 2, source).mean(0) for photo in PHOTOS]
    np.testing.assert_allclose(batched, torch.stack(alone).detach(), rtol=1e-5, atol=1e-6)


def test_noise_is_drawn_as_wide_as_said_and_not_clipped():
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    seen = serving.noisy_features(nn.Flatten(), nn.Identity(), 0.5, white[0], 4000, generator(2))
    assert abs(seen.mean() - 1) < 0.005 and abs(seen.std() - 0.5) < 0.005
    one = serving.noisy_features(nn.Flatten(), nn.Identity(), 0.0, white[0], 1, generator(2))
    assert torch.equal(one, torch.ones(1, 192))
