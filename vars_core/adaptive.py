"""Attackers by what they know of the defence: tiers T0 to T4 of the threat model.

T0 attacks f alone. T1 differentiates a filter and a detector of its own, trained with another seed. T2 differentiates
f∘R, T3 also keeps the detector's score under its threshold. T4 only asks (Square), or brings photos that were made on
another extractor. The headline is the worst case *per item* over all attacks of a tier, never the minimum of means.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vars_core.apgd import apgd
from vars_core.attacks import in_batches, linf
from vars_core.defence import Defence
from vars_core.detectors import scores
from vars_core.extractor import to_images, to_photos
from vars_core.objectives import Evade, Through, hook
from vars_core.orthogonal import orthogonal_pgd
from vars_core.runtime import generator
from vars_core.shop import Shop
from vars_core.square import square
from vars_core.transfer import hooked

DEFENCES = ("none", "filter", "detector", "both")
AIMS = ("hook", "promote", "reach")
MARGIN = 0.5  # below τ, in logits: rounding must not bring the score back over it


@dataclass(frozen=True)
class Scene:
    """What all tiers share: the items, their hooks, the shop with and without the filter, and the defence."""

    bare: Shop
    filtered: Shop
    defence: Defence
    items: np.ndarray
    hooks: np.ndarray
    targets: torch.Tensor  # f(x_h) (A, D), as the shop in question sees the hook
    filtered_targets: torch.Tensor
    rate: str = "1"

    @classmethod
    def set(cls, shop: Shop, defence: Defence, items, hooks, rate: str = "1") -> "Scene":
        through = shop.behind(defence.purifier)
        served = torch.from_numpy(through.features[hooks])
        targets = shop.hook_targets(hooks)
        return cls(shop, through, defence, items, hooks, targets, served.to(targets), rate)

    def narrowed(self, n: int) -> "Scene":
        """The first `n` items only."""
        parts = {name: getattr(self, name)[:n] for name in ("items", "hooks", "targets", "filtered_targets")}
        return replace(self, **parts)

    @property
    def threshold(self) -> float:
        return self.defence.thresholds[self.rate]

    def goal(self, defended: bool, aim: str):
        """The attacker's goal, one of AIMS, through what it attacks: f, or f∘R behind a filter."""
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
        rows = torch.arange(n).repeat(len(penalties)).to(penalty.device)
        return Evade(goal[rows], self.defence.score, self.threshold, MARGIN, penalty)

    def images(self) -> torch.Tensor:
        return to_images(self.bare.photos(self.items))

    def flagged(self, photos: np.ndarray) -> np.ndarray:
        """(A,) whether the detector flags the uploaded photos."""
        return scores(self.defence.score, photos) > self.threshold

    def reached(self, photos: np.ndarray) -> dict[str, np.ndarray]:
        """1[r ≤ k and not flagged] (U, A) of the uploads under each of DEFENCES; NaN where the user has the item."""
        bare, filtered = self.bare.exposed(self.items, photos), self.filtered.exposed(self.items, photos)
        passed = np.where(self.flagged(photos), 0.0, 1.0)[None]
        return dict(zip(DEFENCES, (bare, filtered, bare * passed, filtered * passed), strict=True))


def oblivious(scene: Scene, epsilon, steps: int, draw, aim: str = "hook", attack=linf) -> np.ndarray:
    """T0: PGD on f alone, as in notebook 3, or another `attack`. Photos uint8 (A, H, W, 3)."""
    return _attacked(scene.goal(False, aim), scene.images(), epsilon, steps, draw, attack)


def through_filter(scene: Scene, epsilon, steps: int, draw, aim: str = "hook") -> np.ndarray:
    """T2 (with a surrogate's scene, T1): APGD on f∘R, towards the hook as the filtered shop sees it. Photos uint8
    (A, H, W, 3)."""
    return _attacked(scene.goal(True, aim), scene.images(), epsilon, steps, draw)


def through_detector(
    scene: Scene, epsilon, steps: int, penalties, draw, defended: bool = True, aim: str = "hook"
) -> list[np.ndarray]:
    """T3: APGD on J − λ·relu(d − τ + m), one set of photos for each λ of `penalties`.

    `defended` False leaves the filter out of the serving path (detector alone)."""
    n, goal = len(scene.items), scene.goal(defended, aim)
    images = scene.images().repeat(len(penalties), 1, 1, 1)
    photos = _attacked(scene.evading(goal, penalties), images, epsilon, steps, draw)
    return [photos[i * n : (i + 1) * n] for i in range(len(penalties))]


def orthogonally(scene: Scene, epsilon, steps: int, draw, aim: str = "hook") -> np.ndarray:
    """T3: orthogonal projected gradients through filter and detector. Photos uint8 (A, H, W, 3)."""

    def attack(goal, batch):
        score, limit = scene.defence.score, scene.threshold
        return orthogonal_pgd(goal, score, limit, batch, epsilon, steps=steps, margin=MARGIN, generator=draw)

    return to_photos(in_batches(attack, scene.goal(True, aim), scene.images(), label="orthogonal PGD"))


class _Seen(nn.Module):
    """What filter, extractor and detector make of an image: f(R(x)) and the detector's embedding, side by side."""

    def __init__(self, defence: Defence, weight: float):
        super().__init__()
        self.detector, self.purifier, self.extractor = defence.detector, defence.purifier, defence.extractor
        self.weight = weight

    def forward(self, images):
        filtered = self.purifier(images)
        served = self.extractor(filtered)
        embedding, _ = self.detector.embed(images, filtered, self.extractor(images), served)
        scale = self.weight * (served.shape[1] / embedding.shape[1]) ** 0.5
        return torch.cat([F.normalize(served, dim=1) * served.shape[1] ** 0.5, scale * embedding], 1)


def matching(scene: Scene, epsilon, steps: int, draw, weight: float = 1.0) -> np.ndarray:
    """T3: feature matching. To filter, extractor *and* detector, be the clean photo of the popular hook: whatever the
    detector finds in an attacked photo it shall not find here. Photos uint8 (A, H, W, 3)."""
    seen = _Seen(scene.defence, weight).eval()
    with torch.no_grad():
        targets = seen(to_images(scene.bare.photos(scene.hooks)))
    return _attacked(hook(seen, targets), scene.images(), epsilon, steps, draw)


def asking(scene: Scene, epsilon, queries: int, draw, aim: str = "hook") -> np.ndarray:
    """T4: Square on the whole system. It answers with the goal behind the filter, less whatever the detector's score
    is above τ: more than a shop would tell. Photos uint8 (A, H, W, 3)."""

    def attack(goal, batch):
        return square(goal, batch, epsilon, queries=queries, generator=draw).images

    return to_photos(in_batches(attack, scene.evading(scene.goal(True, aim), [1.0]), scene.images(), label="Square"))


def pools(
    scene: Scene,
    aim: str,
    epsilon: int,
    *,
    steps: int,
    penalties,
    queries: int,
    seed: int,
    grey: Scene | None = None,
    guess=None,
    given: dict[str, list[np.ndarray]] | None = None,
) -> dict[str, list[np.ndarray]]:
    """Photos by tier. A tier holds those of all lower ones too, but for T4, which sees nothing of the models.

    `grey` is the same scene with a surrogate defence; without it there is no T1. `guess` is the hook objective
    through an extractor of the attacker's own; with it T4 brings such photos, too. `given` are pools of another
    defence whose T0 and T1, which don't depend on the defence, are taken over."""
    draw = generator(seed, "adaptive", aim, epsilon)
    known = {tier: photos for tier, photos in (given or {}).items() if tier in ("T0", "T1")}
    if "T0" not in known:
        # APGD, too: the undefended exposure shall not be lower just because a weaker attack was used for it
        known["T0"] = [oblivious(scene, epsilon, steps, draw, aim, attack) for attack in (linf, apgd)]
    if "T1" not in known and grey is not None:
        guessed = through_detector(grey, epsilon, steps, penalties[:1], draw, aim=aim)
        known["T1"] = [*known["T0"], through_filter(grey, epsilon, steps, draw, aim), *guessed]
    known["T2"] = [*known.get("T1", known["T0"]), through_filter(scene, epsilon, steps, draw, aim)]
    evading = [
        photos
        for served in (True, False)
        for photos in through_detector(scene, epsilon, steps, penalties, draw, served, aim)
    ]
    others = [orthogonally(scene, epsilon, steps, draw, aim), matching(scene, epsilon, steps, draw)]
    known["T3"] = [*known["T2"], *evading, *others]
    known["T4"] = [asking(scene, epsilon, queries, draw, aim)]
    if guess is not None:
        known["T4"].append(hooked(guess, scene.bare.photos(scene.items), epsilon, steps, seed))
    return known


def _attacked(objective, images, epsilon, steps, draw, attack=apgd) -> np.ndarray:
    """APGD keeps the best point it met and shortens its step where it stalls: those who know attack better."""

    def run(goal, batch):
        found = attack(goal, batch, epsilon, steps=steps, generator=draw)
        return getattr(found, "images", found)

    return to_photos(in_batches(run, objective, images, label="adaptive"))


def worst_cases(scene: Scene, tiers: dict[str, list[np.ndarray]]) -> dict[tuple[str, str], np.ndarray]:
    """(tier, defence) → (U, A) of the photos by tier that `pools` gives. Tiers share photos: each is served once."""
    seen = {id(photos): scene.reached(photos) for pool in tiers.values() for photos in pool}
    return {
        (tier, defence): worst_case([seen[id(photos)][defence] for photos in pool])
        for tier, pool in tiers.items()
        for defence in DEFENCES
    }


def worst_case(reached: list[np.ndarray]) -> np.ndarray:
    """Per item the attack that reaches most users: (U, A) from several (U, A)."""
    stack = np.stack(reached)
    best = np.nanmean(stack, axis=1).argmax(0)
    return stack[best, :, np.arange(stack.shape[2])].T
