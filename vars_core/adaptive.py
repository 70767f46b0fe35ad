"""Attackers by what they know of the defence: tiers T0 to T4 of the threat model.

T0 attacks f alone. T1 differentiates a filter and a detector of its own, trained with another seed. T2 differentiates
f∘R, T3 also keeps the detector's score under its threshold; both also hold the filter's gate shut, if it has one. T4
only asks (Square), or brings photos that were made on another extractor. The headline is the worst case *per item*
over all attacks of a tier, never the minimum of means.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vars_core.apgd import apgd
from vars_core.attacks import evaluate, evaluating, in_batches, linf
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
SHUT = 4.0  # below 0, in logits of a filter's gate: at −4 the filter takes back 2 % of what it would
GATE_PENALTY = 0.3  # weight of the gate's logit in the attacker's goal; ten times as much or as little changes little


class _Once(nn.Module):
    """A module that several parts ask for the same photo, raw and filtered: it works once for each."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.answers = module, []

    def work(self, images):
        return self.module(images)

    def ask(self, images):
        graph = torch.is_grad_enabled()
        for asked, kept, answer in self.answers:
            if asked is images and kept == graph:
                return answer
        answer = self.work(images)
        self.answers = [(images, graph, answer), *self.answers[:1]]
        return answer

    def forward(self, images):
        return self.ask(images)


class _FilterOnce(_Once):
    """A filter that goal, detector and gate ask."""

    def work(self, images):
        told = getattr(self.module, "told", None)
        return told(images) if told else (self.module(images), None)

    def told(self, images):
        return self.ask(images)

    def forward(self, images):
        return self.told(images)[0]


class _Gate(nn.Module):
    """The logit of the filter's gate (N,)."""

    def __init__(self, purifier: _FilterOnce):
        super().__init__()
        self.purifier = purifier

    def forward(self, images):
        return self.purifier.told(images)[1]


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
        shared = replace(defence, purifier=_FilterOnce(defence.purifier), extractor=_Once(defence.extractor))
        return cls(shop, through, shared, items, hooks, targets, served.to(targets), rate)

    def narrowed(self, n: int) -> "Scene":
        """The first `n` items only."""
        parts = {name: getattr(self, name)[:n] for name in ("items", "hooks", "targets", "filtered_targets")}
        return replace(self, **parts)

    @property
    def threshold(self) -> float:
        return self.defence.thresholds[self.rate]

    @property
    def gated(self) -> bool:
        """Whether the filter has a gate, which who knows the filter can shut."""
        return getattr(self.defence.purifier.module, "gate", None) is not None

    def goal(self, defended: bool, aim: str):
        """The attacker's goal, one of AIMS, through what it attacks: f, or f∘R behind a filter."""
        if aim not in AIMS:
            raise ValueError(f"unknown aim {aim!r}; known: {', '.join(AIMS)}")
        shop = self.filtered if defended else self.bare
        eye = self.defence.extractor
        features = Through(eye, self.defence.purifier) if defended else eye
        if aim != "hook":
            return getattr(shop, aim)(self.items, features)
        return hook(features, self.filtered_targets if defended else self.targets)

    def evading(self, goal, penalties):
        """`goal` with the detector's score held under τ, one λ for each image."""
        n = len(self.items)
        penalty = torch.tensor(penalties, dtype=torch.float32).repeat_interleave(n).to(self.targets.device)
        rows = torch.arange(n).repeat(len(penalties)).to(penalty.device)
        return Evade(goal[rows], self.defence.score, self.threshold, MARGIN, penalty)

    def shutting(self, goal, n: int):
        """`goal` of `n` images with the filter's gate held shut. Its gradient tells little of that: where the gate is
        open it is flat, and an attack that only follows f∘R fights the filter instead of passing it."""
        weight = torch.full((n,), GATE_PENALTY, device=self.targets.device)
        return Evade(goal, _Gate(self.defence.purifier), 0.0, SHUT, weight)

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


def short_steps(objective, images, epsilon, *, steps: int, generator):
    """PGD with steps of 1.5 ε / `steps` instead of 2.5: at a large ε those jump to and fro over a steep gate."""
    return linf(objective, images, epsilon, steps=steps, step=1.5 * epsilon / steps, generator=generator)


def _ways(scene: Scene) -> list[tuple]:
    """Name, attack, and whether it holds the gate shut, of each way through the filter."""
    ways = [("PGD through R", linf, False), ("APGD through R", apgd, False)]
    if scene.gated:
        ways += [("gate shut", linf, True), ("gate shut, short steps", short_steps, True)]
    return ways


def strongest(scene: Scene):
    """An attack that goes every way through the filter and keeps of each photo what gets furthest by the goal itself.
    Which way that is differs by catalogue. Called as `attacks.linf` is; gives images (N, 3, H, W)."""

    def attack(goal, images, epsilon, *, steps: int, generator):
        best, furthest = images, torch.full((len(images),), -torch.inf, device=images.device)
        for _, way, shut in _ways(scene):
            own = goal[slice(None)]  # a goal may remember what it was asked (`sanity.FlatAtFirst`)
            sought = scene.shutting(own, len(images)) if shut else own
            found = way(sought, images, epsilon, steps=steps, generator=generator)
            found = getattr(found, "images", found)
            with evaluating(goal):
                reached = evaluate(goal, found)
            ahead = reached > furthest
            best = torch.where(ahead[:, None, None, None], found, best)
            furthest = torch.where(ahead, reached, furthest)
        return best

    return attack


def oblivious(scene: Scene, epsilon, steps: int, draw, aim: str = "hook", attack=linf) -> np.ndarray:
    """T0: PGD on f alone, as in notebook 3, or another `attack`. Photos uint8 (A, H, W, 3)."""
    return _attacked(scene.goal(False, aim), scene.images(), epsilon, steps, draw, attack)


def through_filter(
    scene: Scene, epsilon, steps: int, draw, aim: str = "hook", attack=linf, shut: bool = False
) -> np.ndarray:
    """T2 (with a surrogate's scene, T1): PGD, or another `attack`, on f∘R, towards the hook as the filtered shop sees
    it; with `shut` it holds the filter's gate shut as well. Photos uint8 (A, H, W, 3)."""
    goal, images = scene.goal(True, aim), scene.images()
    return _attacked(scene.shutting(goal, len(images)) if shut else goal, images, epsilon, steps, draw, attack)


def through_detector(
    scene: Scene,
    epsilon,
    steps: int,
    penalties,
    draw,
    defended: bool = True,
    aim: str = "hook",
    attack=linf,
    shut: bool = False,
) -> list[np.ndarray]:
    """T3: PGD, or another `attack`, on J − λ·relu(d − τ + m), one set of photos for each λ of `penalties`.

    `defended` False leaves the filter out of the serving path (detector alone); `shut` as for `through_filter`."""
    n, goal = len(scene.items), scene.goal(defended, aim)
    images = scene.images().repeat(len(penalties), 1, 1, 1)
    evading = scene.evading(goal, penalties)
    chosen = scene.shutting(evading, len(images)) if shut else evading
    photos = _attacked(chosen, images, epsilon, steps, draw, attack)
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
    given: dict[str, dict[str, np.ndarray]] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Photos by tier and kind of attack. A tier holds those of all lower ones too, but for T4, which sees nothing of
    the models.

    `grey` is the same scene with a surrogate defence; without it there is no T1. `guess` is the hook objective
    through an extractor of the attacker's own; with it T4 brings such photos, too. `given` are pools of another
    defence whose T0 and T1, which don't depend on the defence, are taken over."""
    draw = generator(seed, "adaptive", aim, epsilon)
    known = {tier: photos for tier, photos in (given or {}).items() if tier in ("T0", "T1")}
    options = (epsilon, steps, draw, aim)
    if "T0" not in known:
        # APGD, too: the undefended exposure shall not be lower just because a weaker attack was used for it
        known["T0"] = {"PGD on f": oblivious(scene, *options), "APGD on f": oblivious(scene, *options, apgd)}
    if "T1" not in known and grey is not None:
        (both,) = through_detector(grey, epsilon, steps, penalties[-1:], draw, aim=aim, shut=grey.gated)
        surrogates = {"surrogate's filter": through_filter(grey, *options, shut=grey.gated), "surrogate's both": both}
        known["T1"] = known["T0"] | surrogates
    through = {name: through_filter(scene, *options, attack, shut) for name, attack, shut in _ways(scene)}
    known["T2"] = known.get("T1", known["T0"]) | through
    evading = {}
    ways = [("", True, linf, False, penalties), (", no filter", False, linf, False, penalties)]
    ways += [(", APGD", True, apgd, False, penalties[-1:])]  # PGD is the stronger one on some catalogues only
    if scene.gated:
        ways += [(", gate shut", True, linf, True, penalties)]
        ways += [(", gate shut, short steps", True, short_steps, True, penalties[-1:])]
    for name, defended, attack, shut, weights in ways:
        found = through_detector(scene, epsilon, steps, weights, draw, defended, aim, attack, shut)
        evading |= {f"λ = {c}{name}": photos for c, photos in zip(weights, found, strict=True)}
    others = {"orthogonal": orthogonally(scene, *options), "matching": matching(scene, epsilon, steps, draw)}
    known["T3"] = known["T2"] | evading | others
    known["T4"] = {"Square": asking(scene, epsilon, queries, draw, aim)}
    if guess is not None:
        known["T4"]["own extractor"] = hooked(guess, scene.bare.photos(scene.items), epsilon, steps, seed)
    return known


def _attacked(objective, images, epsilon, steps, draw, attack=linf) -> np.ndarray:
    def run(goal, batch):
        found = attack(goal, batch, epsilon, steps=steps, generator=draw)
        return getattr(found, "images", found)

    return to_photos(in_batches(run, objective, images, label="adaptive"))


def served(scene: Scene, tiers: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """`Scene.reached` of the photos that `pools` gives, by tier and kind. Tiers share photos: each is served once."""
    seen = {id(photos): scene.reached(photos) for pool in tiers.values() for photos in pool.values()}
    return {tier: {kind: seen[id(photos)] for kind, photos in pool.items()} for tier, pool in tiers.items()}


def worst_cases(by_tier: dict[str, dict[str, dict[str, np.ndarray]]]) -> dict[tuple[str, str], np.ndarray]:
    """(tier, defence) → (U, A), of what `served` gives."""
    return {
        (tier, defence): worst_case([reached[defence] for reached in kinds.values()])
        for tier, kinds in by_tier.items()
        for defence in DEFENCES
    }


def worst_case(reached: list[np.ndarray]) -> np.ndarray:
    """Per item the attack that reaches most users: (U, A) from several (U, A)."""
    stack = np.stack(reached)
    best = np.nanmean(stack, axis=1).argmax(0)
    return stack[best, :, np.arange(stack.shape[2])].T
