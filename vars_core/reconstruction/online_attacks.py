"""What training sees: each batch freshly attacked, disturbed or left alone.

Perturbations are made online, so that a filter cannot memorise them; the kinds kept for testing (momentum,
other budgets, other extractors) never appear here.
"""

import torch
from kornia.filters import unsharp_mask
from torch import nn
from torch.nn import functional as F

from vars_core.attacks.engine import fgsm, linf, noise, quantise
from vars_core.attacks.objectives import FeatureDistance
from vars_core.reconstruction.classics import JPEG
from vars_core.runtime import mixed_precision


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random mirror and shift by up to four pixels (reflected borders); values stay on the 8-bit grid."""
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    dy, dx = torch.randint(0, 9, (2,), generator=generator).tolist()
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    return padded[:, :, dy : dy + images.shape[2], dx : dx + images.shape[3]]


KINDS = ("fgsm", "pgd", "untargeted")


class OnlineAttacks:
    """Attacks batches against `extractor` with budgets drawn from `epsilons`, PGD of `steps` steps.

    Goals are drawn per image: three of four copy another item (`pool`, (M, D) features of training items),
    one of four runs away from its own features (*untargeted*, by PGD); a third of all go by FGSM. `kinds` leaves some
    of KINDS out: with one kind all are of it. All draws come from `generator`. ValueError for an unknown kind."""

    def __init__(self, features: nn.Module, pool: torch.Tensor, epsilons, steps: int, generator, kinds=KINDS):
        if not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds of attack are {', '.join(KINDS)}; got {', '.join(kinds) or 'none'}")
        self.features, self.pool, self.generator = features, pool, generator
        self.flee = 0.0 if "untargeted" not in kinds else 1.0 if kinds == ("untargeted",) else 0.25
        self.single = 0.0 if "fgsm" not in kinds else 1 / 3 if len(kinds) > 1 else 1.0
        self.epsilons, self.steps = torch.tensor(epsilons, dtype=torch.float32), steps

    def _draw(self, n: int) -> torch.Tensor:
        return torch.randint(0, n, (1,), generator=self.generator).item()

    def budgets(self, n: int, device) -> torch.Tensor:
        rows = torch.randint(0, len(self.epsilons), (n,), generator=self.generator)
        return self.epsilons[rows].to(device)

    def attack(
        self, images: torch.Tensor, clean_features: torch.Tensor, features: nn.Module | None = None
    ) -> torch.Tensor:
        """Attacked images on the 8-bit grid: FGSM first, the rest PGD. `clean_features` are f(images), (N, D).

        `features` is what the attacker differentiates: the extractor alone, unless it is given (f∘R)."""
        n = len(images)
        eps = self.budgets(n, images.device)
        flee = (torch.rand(n, generator=self.generator) < self.flee).to(images.device)
        other = self.pool[torch.randint(0, len(self.pool), (n,), generator=self.generator).to(images.device)]
        cut = int(n * self.single)
        flee[:cut] = False  # at its own features the slope is zero: FGSM would give back the clean image
        objective = FeatureDistance(
            self.features if features is None else features,
            torch.where(flee[:, None], clean_features, other),
            torch.where(flee, -1.0, 1.0),
        )
        with mixed_precision(images):
            single = fgsm(objective[:cut], images[:cut], eps[:cut]) if cut else images[:0]
            rest = (objective[cut:], images[cut:], eps[cut:])
            iterated = linf(*rest, steps=self.steps, generator=self.generator) if cut < n else images[:0]
        return torch.cat([single, iterated])

    def noise(self, images: torch.Tensor) -> torch.Tensor:
        return noise(images, self.budgets(len(images), images.device), generator=self.generator)

    def benign(self, images: torch.Tensor) -> torch.Tensor:
        """Edits that sellers make in good faith, one kind per quarter of the batch. All on the 8-bit grid, so
        that no codec or resampler tells the classes apart."""
        edits = tuple(BENIGN.values())
        return quantise(torch.cat([edits[self._draw(len(edits))](chunk) for chunk in images.chunk(4)]))


def shifted(images):
    """One pixel down and right: a crop."""
    return F.pad(images, (1, 0, 1, 0), mode="replicate")[:, :, :-1, :-1]


def resized(images):
    """Down to three quarters and back."""
    small = F.interpolate(images, scale_factor=0.75, mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[2:], mode="bilinear", antialias=True).clamp(0, 1)


def sharpened(images):
    return unsharp_mask(images, (3, 3), (1.0, 1.0)).clamp(0, 1)


BENIGN = {"jpeg75": JPEG(75), "jpeg90": JPEG(90), "shift": shifted, "resize": resized, "sharpen": sharpened}
