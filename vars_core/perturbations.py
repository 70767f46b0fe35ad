"""What training sees: each batch freshly attacked, disturbed or left alone.

Perturbations are made online, so that a filter cannot memorise them; the kinds kept for testing (momentum,
other budgets, other extractors) never appear here.
"""

import torch
from kornia.filters import unsharp_mask
from torch import nn
from torch.nn import functional as F

from vars_core.attacks import fgsm, linf, noise, quantise
from vars_core.filters import JPEG
from vars_core.objectives import Approach
from vars_core.runtime import mixed_precision


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random mirror and shift by up to four pixels (reflected borders); values stay on the 8-bit grid."""
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    dy, dx = torch.randint(0, 9, (2,), generator=generator).tolist()
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    return padded[:, :, dy : dy + images.shape[2], dx : dx + images.shape[3]]


class Perturber:
    """Attacks batches against `extractor` with budgets drawn from `epsilons`, PGD of `steps` steps.

    Goals are drawn per image: three of four copy another item (`pool`, (M, D) features of training items),
    one of four runs away from its own features. All draws come from `generator`."""

    def __init__(self, features: nn.Module, pool: torch.Tensor, epsilons, steps: int, generator):
        self.features, self.pool, self.generator = features, pool, generator
        self.epsilons, self.steps = torch.tensor(epsilons, dtype=torch.float32), steps

    def _draw(self, n: int) -> torch.Tensor:
        return torch.randint(0, n, (1,), generator=self.generator).item()

    def budgets(self, n: int, device) -> torch.Tensor:
        rows = torch.randint(0, len(self.epsilons), (n,), generator=self.generator)
        return self.epsilons[rows].to(device)

    def attack(self, images: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Attacked images on the 8-bit grid: one third FGSM, the rest PGD. `own` are f(images), (N, D)."""
        n = len(images)
        eps = self.budgets(n, images.device)
        flee = (torch.rand(n, generator=self.generator) < 0.25).to(images.device)
        other = self.pool[torch.randint(0, len(self.pool), (n,), generator=self.generator).to(images.device)]
        goal = Approach(
            self.features,
            torch.where(flee[:, None], own, other),
            torch.where(flee, -1.0, 1.0),
        )
        cut = n // 3
        with mixed_precision(images):
            single = fgsm(goal[:cut], images[:cut], eps[:cut]) if cut else images[:0]
            iterated = linf(goal[cut:], images[cut:], eps[cut:], steps=self.steps, generator=self.generator)
        return torch.cat([single, iterated])

    def noise(self, images: torch.Tensor) -> torch.Tensor:
        return noise(images, self.budgets(len(images), images.device), generator=self.generator)

    def benign(self, images: torch.Tensor) -> torch.Tensor:
        """Edits that sellers make in good faith, one kind per quarter of the batch. All on the 8-bit grid, so
        that no codec or resampler tells the classes apart."""
        edits = tuple(BENIGN.values())
        return quantise(torch.cat([edits[self._draw(len(edits))](chunk) for chunk in images.chunk(4)]))


def jpeg75(images):
    return JPEG(75)(images)


def jpeg90(images):
    return JPEG(90)(images)


def shifted(images):
    """One pixel down and right: a crop."""
    return F.pad(images, (1, 0, 1, 0), mode="replicate")[:, :, :-1, :-1]


def resized(images):
    """Down to three quarters and back."""
    small = F.interpolate(images, scale_factor=0.75, mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[2:], mode="bilinear", antialias=True).clamp(0, 1)


def sharpened(images):
    return unsharp_mask(images, (3, 3), (1.0, 1.0)).clamp(0, 1)


BENIGN = {"jpeg75": jpeg75, "jpeg90": jpeg90, "shift": shifted, "resize": resized, "sharpen": sharpened}
