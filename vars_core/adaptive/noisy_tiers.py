"""Attackers of a shop that adds noise, by what they know of it: tiers T0 to T4, for a `RandomisedShop`.

T0 attacks f alone. T1 averages over noise before a denoiser of its own, trained with another seed. T2 knows the
denoiser and σ, but not the draws: it averages over its own (EOT), or goes through the denoiser as if no noise came
first. T3 also keeps the score of a detector, which sees the photo as it was uploaded, under its threshold. T4 asks.
"""

from functools import partial

import numpy as np
import torch
from torch import nn

from vars_core.adaptive import noisy_ways
from vars_core.adaptive.randomised import RandomisedShop
from vars_core.adaptive.scene import MARGIN, Scene
from vars_core.attacks.apgd import apgd
from vars_core.attacks.engine import attack_photos
from vars_core.attacks.objectives import Evade
from vars_core.extractor import to_images
from vars_core.runtime import generator


def attacks_by_tier(
    noisy: RandomisedShop,
    scene: Scene,
    epsilon: int,
    *,
    steps: int,
    draws: int,
    penalties,
    queries: int,
    seed: int,
    surrogate: nn.Module | None = None,
    known: dict[str, dict[str, np.ndarray]] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Photos of `scene`'s items by tier and kind of attack, made to reach lists of `noisy`; `draws` of the noise are
    averaged at each step. A tier holds those of all lower ones, too, but for T4, which sees none of the models.

    `surrogate` is another denoiser; without it there is no T1. `known` are pools of `tiers.attacks_by_tier`, whose T0
    doesn't depend on the defence, and whose photos made on another extractor are taken over into T4."""
    draw, known = generator(seed, "noisy tiers", epsilon), known or {}
    options = dict(epsilon=epsilon, steps=steps, draws=draws, generator=draw)
    way = partial(noisy_ways.through_noise, noisy, scene.items, **options)
    found = {"T0": dict(known.get("T0", {}))}
    if surrogate is not None:
        found["T1"] = found["T0"] | {"surrogate's denoiser": way(aim="reach", image_filter=surrogate)}
    found["T2"] = found.get("T1", found["T0"]) | {
        "reach": way(aim="reach"),
        "reach, APGD": way(aim="reach", attack=apgd),
        "insa": way(aim="insa"),
        "as if no noise came first": noisy_ways.without_noise(noisy, scene.items, "reach", epsilon, steps, draw),
    }
    found["T3"] = found["T2"] | {
        f"λ = {penalty:g}": past_detector(noisy, scene, epsilon, steps, draws, penalty, draw) for penalty in penalties
    }
    asked = noisy_ways.by_asking(noisy, scene.items, "reach", epsilon, queries, draws, draw)
    found["T4"] = {"Square": asked} | {k: v for k, v in known.get("T4", {}).items() if k == "own extractor"}
    return found


def past_detector(
    noisy: RandomisedShop, scene: Scene, epsilon: int, steps: int, draws: int, penalty: float, draw
) -> np.ndarray:
    """White box through noise and denoiser, with the detector's score of the upload held under its threshold, at the
    weight `penalty`. Photos uint8 (A, H, W, 3)."""
    goal = noisy_ways.objective(noisy, scene.items, "reach", draws, draw)
    weights = torch.full((len(scene.items),), float(penalty), device=scene.targets.device)
    aim = Evade(goal, scene.defence.score, scene.threshold, MARGIN, weights)
    options = dict(steps=steps, generator=draw, batch=noisy_ways.photos_at_once(draws), label=f"λ = {penalty:g}")
    images = to_images(noisy.shop.photos(scene.items))
    return attack_photos(noisy_ways.settling, aim, images, epsilon, **options)


def outcomes_by_tier(noisy: RandomisedShop, scene: Scene, found: dict[str, dict[str, np.ndarray]]) -> dict:
    """By tier and kind: whether each photo is in the users' lists, and whether it is there unflagged; each (U, A)."""
    seen = {}
    for photos in (photos for pool in found.values() for photos in pool.values()):
        if id(photos) not in seen:
            listed = noisy.exposed(scene.items, photos)
            seen[id(photos)] = listed, listed * np.where(scene.flagged(photos), 0.0, 1.0)[None]
    return {tier: {kind: seen[id(photos)] for kind, photos in pool.items()} for tier, pool in found.items()}
