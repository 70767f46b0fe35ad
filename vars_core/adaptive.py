"""Attackers who know the defence: tiers T0, T2 and T3 of the threat model, and the checks their numbers must pass.

T0 attacks f alone, T2 differentiates f∘R, T3 also keeps the detector's score under its threshold. The
headline is the worst case *per image* over all attacks of a tier, never the minimum of means.
"""

from dataclasses import dataclass

import numpy as np
import torch

from vars_core.attacks import in_batches, linf
from vars_core.defence import Defence
from vars_core.detectors import scores
from vars_core.extractor import to_images, to_photos
from vars_core.objectives import Evade, Through, hook
from vars_core.shop import Shop

DEFENCES = ("none", "filter", "detector", "both")
AIMS = ("hook", "promote", "reach")


@dataclass(frozen=True)
class Scene:
    """What all tiers share: the items, their hooks, the shop with and without the filter, and the defence."""

    bare: Shop
    filtered: Shop
    defence: Defence
    items: np.ndarray
    targets: torch.Tensor  # f(x_h) (A, D), as the shop in question sees the hook
    filtered_targets: torch.Tensor
    rate: str = "1"

    @classmethod
    def set(cls, shop: Shop, defence: Defence, items, hooks, rate: str = "1") -> "Scene":
        through = shop.behind(defence.purifier)
        served = torch.from_numpy(through.features[hooks])
        targets = shop.hook_targets(hooks)
        return cls(shop, through, defence, items, targets, served.to(targets), rate)

    def goal(self, defended: bool, aim: str):
        """The attacker's goal, "hook", "promote" or "reach", through what it attacks: f, or f∘R behind a filter."""
        if aim not in AIMS:
            raise ValueError(f"unknown aim {aim!r}; known: {', '.join(AIMS)}")
        shop = self.filtered if defended else self.bare
        features = Through(shop.extractor, self.defence.purifier) if defended else shop.extractor
        if aim != "hook":
            return getattr(shop, aim)(self.items, features)
        return hook(features, self.filtered_targets if defended else self.targets)

    def evading(self, goal, penalties):
        """`goal` with the detector's score held under τ, one λ for each image."""
        n = len(self.items)
        penalty = torch.tensor(penalties, dtype=torch.float32).repeat_interleave(n).to(self.targets.device)
        threshold = self.defence.thresholds[self.rate]
        rows = torch.arange(n).repeat(len(penalties)).to(penalty.device)
        return Evade(goal[rows], self.defence.score, threshold, 0.5, penalty)

    def images(self) -> torch.Tensor:
        return to_images(self.bare.photos(self.items))

    def flagged(self, photos: np.ndarray) -> np.ndarray:
        """(A,) whether the detector flags the uploaded photos."""
        return scores(self.defence.score, photos) > self.defence.thresholds[self.rate]

    def exposed(self, photos: np.ndarray, defence: str) -> np.ndarray:
        """1[r ≤ k and not flagged] (U, A) of the uploads under one of DEFENCES."""
        shop = self.filtered if defence in ("filter", "both") else self.bare
        reached = shop.exposed(self.items, photos)
        if defence in ("detector", "both"):
            reached = np.where(np.isnan(reached), np.nan, reached * ~self.flagged(photos)[None])
        return reached


def oblivious(scene: Scene, epsilon, steps: int, generator, aim: str = "hook") -> np.ndarray:
    """T0: PGD on f alone. Photos uint8 (A, H, W, 3)."""
    return _pgd(scene.goal(False, aim), scene.images(), epsilon, steps, generator)


def through_filter(scene: Scene, epsilon, steps: int, generator, aim: str = "hook") -> np.ndarray:
    """T2: PGD on f∘R, towards the hook as the filtered shop sees it. Photos uint8 (A, H, W, 3)."""
    return _pgd(scene.goal(True, aim), scene.images(), epsilon, steps, generator)


def through_detector(
    scene: Scene, epsilon, steps: int, penalties, generator, defended: bool = True, aim: str = "hook"
) -> list[np.ndarray]:
    """T3: PGD on J − λ·relu(d − τ + m), one set of photos for each λ of `penalties`.

    `defended` False leaves the filter out of the serving path (detector alone)."""
    n, goal = len(scene.items), scene.goal(defended, aim)
    images = scene.images().repeat(len(penalties), 1, 1, 1)
    photos = _pgd(scene.evading(goal, penalties), images, epsilon, steps, generator)
    return [photos[i * n : (i + 1) * n] for i in range(len(penalties))]


def _pgd(objective, images, epsilon, steps, generator) -> np.ndarray:
    def attack(goal, batch):
        return linf(goal, batch, epsilon, steps=steps, generator=generator)

    return to_photos(in_batches(attack, objective, images, label="adaptive PGD"))


def worst_case(reached: list[np.ndarray]) -> np.ndarray:
    """Per item the attack that reaches most users: (U, A) from several (U, A)."""
    stack = np.stack(reached)
    best = np.nanmean(stack, axis=1).argmax(0)
    return stack[best, :, np.arange(stack.shape[2])].T
