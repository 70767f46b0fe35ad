"""Ways of attack for those who know some of the defence: on f alone, through the filter, past the detector, by
asking.

Each takes a `Scene` and gives photos uint8 (A, H, W, 3) of its items, within ε/255."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vars_core.adaptive.scene import MARGIN, Scene
from vars_core.attacks.apgd import apgd
from vars_core.attacks.engine import attack_photos, eval_mode, evaluate, linf
from vars_core.attacks.objectives import hook
from vars_core.attacks.orthogonal import orthogonal_pgd
from vars_core.attacks.square import square
from vars_core.detection.defence import Defence
from vars_core.extractor import to_images


def short_steps(objective, images, epsilon, *, steps: int, generator):
    """PGD with steps of 1.5 ε / `steps` instead of 2.5: at a large ε those jump to and fro over a steep gate."""
    return linf(objective, images, epsilon, steps=steps, step=1.5 * epsilon / steps, generator=generator)


def filter_ways(scene: Scene) -> list[tuple]:
    """Name, attack, and whether it holds the gate shut, of each way through the filter."""
    ways = [("PGD through R", linf, False), ("APGD through R", apgd, False)]
    if scene.gated:
        ways += [("gate shut", linf, True), ("gate shut, short steps", short_steps, True)]
    return ways


def strongest(scene: Scene):
    """An attack that goes every way through the filter and keeps of each photo what gets furthest by the objective
    itself. Which way that is differs by catalogue. Called as `engine.linf` is; gives images (N, 3, H, W)."""

    def attack(objective, images, epsilon, *, steps: int, generator):
        best, furthest = images, torch.full((len(images),), -torch.inf, device=images.device)
        for _, way, shut in filter_ways(scene):
            own = objective[slice(None)]  # an objective may remember what it was asked (`sanity.ZeroGradientFirst`)
            sought = scene.holding_gate_shut(own, len(images)) if shut else own
            found = way(sought, images, epsilon, steps=steps, generator=generator)
            found = getattr(found, "images", found)
            with eval_mode(objective):
                reached = evaluate(objective, found)
            ahead = reached > furthest
            best = torch.where(ahead[:, None, None, None], found, best)
            furthest = torch.where(ahead, reached, furthest)
        return best

    return attack


def oblivious(scene: Scene, epsilon, steps: int, draw, aim: str = "hook", attack=linf) -> np.ndarray:
    """T0: PGD on f alone, as in notebook 3, or another `attack`. Photos uint8 (A, H, W, 3)."""
    objective, images = scene.objective(False, aim), scene.images()
    return attack_photos(attack, objective, images, epsilon, steps=steps, generator=draw, label="adaptive")


def through_filter(
    scene: Scene, epsilon, steps: int, draw, aim: str = "hook", attack=linf, shut: bool = False
) -> np.ndarray:
    """T2 (with a surrogate's scene, T1): PGD, or another `attack`, on f∘R, towards the hook as the filtered shop sees
    it; with `shut` it holds the filter's gate shut as well. Photos uint8 (A, H, W, 3)."""
    objective, images = scene.objective(True, aim), scene.images()
    chosen = scene.holding_gate_shut(objective, len(images)) if shut else objective
    return attack_photos(attack, chosen, images, epsilon, steps=steps, generator=draw, label="adaptive")


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
    n, objective = len(scene.items), scene.objective(defended, aim)
    images = scene.images().repeat(len(penalties), 1, 1, 1)
    evading = scene.evading_detector(objective, penalties)
    chosen = scene.holding_gate_shut(evading, len(images)) if shut else evading
    photos = attack_photos(attack, chosen, images, epsilon, steps=steps, generator=draw, label="adaptive")
    return [photos[i * n : (i + 1) * n] for i in range(len(penalties))]


def orthogonal_evasion(scene: Scene, epsilon, steps: int, draw, aim: str = "hook") -> np.ndarray:
    """T3: orthogonal projected gradients through filter and detector. Photos uint8 (A, H, W, 3)."""

    def attack(objective, batch, epsilon, **options):
        score, limit = scene.defence.score, scene.threshold
        return orthogonal_pgd(objective, score, limit, batch, epsilon, margin=MARGIN, **options)

    options = dict(steps=steps, generator=draw, label="orthogonal PGD")
    return attack_photos(attack, scene.objective(True, aim), scene.images(), epsilon, **options)


class _Seen(nn.Module):
    """What filter, extractor and detector make of an image: f(R(x)) and the detector's embedding, side by side."""

    def __init__(self, defence: Defence, weight: float):
        super().__init__()
        self.detector, self.image_filter, self.extractor = defence.detector, defence.image_filter, defence.extractor
        self.weight = weight

    def forward(self, images):
        filtered = self.image_filter(images)
        served = self.extractor(filtered)
        embedding, _ = self.detector.embed(images, filtered, self.extractor(images), served)
        scale = self.weight * (served.shape[1] / embedding.shape[1]) ** 0.5
        return torch.cat([F.normalize(served, dim=1) * served.shape[1] ** 0.5, scale * embedding], 1)


def feature_matching(scene: Scene, epsilon, steps: int, draw, weight: float = 1.0) -> np.ndarray:
    """T3: feature matching. To filter, extractor *and* detector, be the clean photo of the popular hook: whatever the
    detector finds in an attacked photo it shall not find here. Photos uint8 (A, H, W, 3)."""
    seen = _Seen(scene.defence, weight).eval()
    with torch.no_grad():
        targets = seen(to_images(scene.undefended.photos(scene.hooks)))
    objective, images = hook(seen, targets), scene.images()
    return attack_photos(linf, objective, images, epsilon, steps=steps, generator=draw, label="adaptive")


def query_system(scene: Scene, epsilon, queries: int, draw, aim: str = "hook") -> np.ndarray:
    """T4: Square on the whole system. It answers with the objective behind the filter, less whatever the detector's
    score is above τ: more than a shop would tell. Photos uint8 (A, H, W, 3)."""

    def attack(objective, batch, epsilon, *, steps, generator):
        return square(objective, batch, epsilon, queries=steps, generator=generator)

    objective = scene.evading_detector(scene.objective(True, aim), [1.0])
    return attack_photos(attack, objective, scene.images(), epsilon, steps=queries, generator=draw, label="Square")
