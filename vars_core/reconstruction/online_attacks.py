"""What training sees: each batch freshly attacked, disturbed or left alone.

Perturbations are made online, so that a filter cannot memorise them; the kinds kept for testing (momentum,
other budgets, trained networks other than the extractor) never appear here.
"""

import torch
from kornia.filters import unsharp_mask
from torch import nn
from torch.nn import functional as F

from vars_core.attacks.engine import fgsm, linf, noise, quantise
from vars_core.attacks.objectives import FeatureDistance
from vars_core.extractor import SmallCNN
from vars_core.reconstruction.classics import JPEG
from vars_core.runtime import mixed_precision


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random mirror and shift by up to four pixels (reflected borders); values stay on the 8-bit grid."""
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    dy, dx = torch.randint(0, 9, (2,), generator=generator).tolist()
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    return padded[:, :, dy : dy + images.shape[2], dx : dx + images.shape[3]]


ON_EXTRACTOR = ("fgsm", "pgd", "untargeted")
KINDS = (*ON_EXTRACTOR, "foreign")
FOREIGN_SHARE = 0.25  # with half of them foreign, faint attacks on the extractor itself are found less often


class ForeignNetwork(nn.Module):
    """A convolutional network with weights drawn at random, and with features that have mean 0 and variance 1 over
    `images` (N, 3, H, W), N > 1.

    What somebody's network wants to see changed is structured, also where it was trained on nothing; no two of these
    are alike, and so a detector that learns from their attacks can't learn one network by heart."""

    def __init__(self, images: torch.Tensor, generator: torch.Generator):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            self.network = SmallCNN()
        self.network.to(images.device, memory_format=torch.channels_last).requires_grad_(False).train()
        for layer in self.network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0  # the statistics of the one batch that it sees
        with torch.no_grad(), mixed_precision(images):
            self.network(images)
            features = self.network.eval()(images).float()
        self.mean, self.std = features.mean(0), features.std(0).clamp_min(1e-3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.network(images) - self.mean) / self.std


class OnlineAttacks:
    """Attacks batches against the extractor `features` with budgets drawn from `epsilons`, PGD of `steps` steps.

    Goals are drawn per image: three of four copy another item (`pool`, (M, D) features of training items),
    one of four runs away from its own features (*untargeted*, by PGD); a third of all go by FGSM. Where `kinds` has
    *foreign*, a share of all looks through a `ForeignNetwork` instead, another one for every batch. `kinds` leaves
    some of KINDS out: with one kind all are of it. All draws come from `generator`. ValueError for unknown kinds."""

    def __init__(self, features: nn.Module, pool: torch.Tensor, epsilons, steps: int, generator, kinds=KINDS):
        if not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds of attack are {', '.join(KINDS)}; got {', '.join(kinds) or 'none'}")
        self.features, self.pool, self.generator = features, pool, generator
        self.foreign = 0.0 if "foreign" not in kinds else FOREIGN_SHARE if len(kinds) > 1 else 1.0
        own = tuple(kind for kind in kinds if kind in ON_EXTRACTOR) or ON_EXTRACTOR
        self.flee = 0.0 if "untargeted" not in own else 1.0 if own == ("untargeted",) else 0.25
        self.single = 0.0 if "fgsm" not in own else 1 / 3 if len(own) > 1 else 1.0
        self.epsilons, self.steps = torch.tensor(epsilons, dtype=torch.float32), steps

    def _draw(self, n: int) -> torch.Tensor:
        return torch.randint(0, n, (1,), generator=self.generator).item()

    def budgets(self, n: int, device) -> torch.Tensor:
        rows = torch.randint(0, len(self.epsilons), (n,), generator=self.generator)
        return self.epsilons[rows].to(device)

    def attack(
        self, images: torch.Tensor, clean_features: torch.Tensor, features: nn.Module | None = None
    ) -> torch.Tensor:
        """Attacked images on the 8-bit grid. `clean_features` are f(images), (N, D).

        `features` is what all attackers differentiate where it is given (f∘R); else the extractor, but for the
        foreign ones."""
        abroad = round(self.foreign * len(images)) if features is None else 0
        if abroad < 2:  # of one image a network has no statistics
            return self._attack(images, clean_features, self.pool, self.features if features is None else features)
        network = ForeignNetwork(images[:abroad], self.generator)
        with torch.no_grad(), mixed_precision(images):
            seen = network(images[:abroad]).float()
        foreign = self._attack(images[:abroad], seen, seen, network)
        if abroad == len(images):
            return foreign
        return torch.cat([foreign, self._attack(images[abroad:], clean_features[abroad:], self.pool, self.features)])

    def _attack(self, images, clean_features, pool: torch.Tensor, features: nn.Module) -> torch.Tensor:
        """FGSM first, the rest PGD; those that copy take their goal from `pool`."""
        n = len(images)
        eps = self.budgets(n, images.device)
        flee = (torch.rand(n, generator=self.generator) < self.flee).to(images.device)
        other = pool[torch.randint(0, len(pool), (n,), generator=self.generator).to(images.device)]
        cut = int(n * self.single)
        flee[:cut] = False  # at its own features the slope is zero: FGSM would give back the clean image
        objective = FeatureDistance(
            features,
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
