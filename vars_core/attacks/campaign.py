"""A campaign: the same items attacked by several algorithms and budgets, with the controls always beside them.

Attacks are named `<algorithm>@<ε>`; the objective is *hook* unless the name says `insa:`, `promote:` or `reach:`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from vars_core import stats
from vars_core.attacks import promotion
from vars_core.attacks.apgd import apgd
from vars_core.attacks.carlini_wagner import cw_l2
from vars_core.attacks.engine import attack_photos, evaluate, fgsm, linf, noise
from vars_core.attacks.objectives import hook, untargeted
from vars_core.attacks.square import square
from vars_core.data import arrays
from vars_core.extractor import to_images, to_photos
from vars_core.recommender import attack_metrics
from vars_core.recommender.shop import Shop
from vars_core.runtime import generator

# What an attacker wants of `items`, seen through `features`; a name without an aim ("pgd") is towards the hook.
AIMS: dict[str, Callable] = {
    "hook": lambda shop, items, hooks, features: hook(features, shop.hook_features(hooks)),
    **{
        aim: lambda shop, items, hooks, features, aim=aim: promotion.push(shop, items, features, aim)
        for aim in promotion.AIMS
    },
    "untargeted": lambda shop, items, hooks, features: untargeted(features, shop.hook_features(items)),
}


def _square(objective, images, epsilon, *, steps, generator):
    return square(objective, images, epsilon, queries=50 * steps, generator=generator)


def _carlini_wagner(objective, images, epsilon, *, steps, generator):
    halfway = 0.5 * evaluate(objective, images)
    return cw_l2(objective, images, threshold=halfway, steps=steps, generator=generator)


# How they get there: called as `linf` is, with images or an `AttackResult` for an answer.
ATTACKS: dict[str, Callable] = {
    "fgsm": lambda objective, images, epsilon, **_: fgsm(objective, images, epsilon),
    "pgd": linf,
    "mim": partial(linf, momentum=1.0),
    "apgd": apgd,
    "square": _square,
    "cw": _carlini_wagner,
}
ALGORITHMS = ("noise", "fgsm", "pgd", *(f"{aim}:pgd" for aim in promotion.AIMS))
STRONGEST = "reach:pgd"
UNSEEN_ATTACKS = ("mim", "apgd", "square", "cw")  # no filter or detector sees these while it trains


def attack(shop: Shop, items, hooks, name: str, epsilon: int, steps: int, seed: int) -> np.ndarray:
    """Attacked photos uint8 (A, H, W, 3) of `items` within ε/255; T0, through the extractor alone.

    `name` is "noise", one of ATTACKS, or an aim and an attack such as "reach:pgd". Square has 50 queries for each of
    `steps`. C&W knows no ε: it goes half the way to the hook with as little L2 change as it can. Raises ValueError,
    naming the known ones, for an unknown aim or attack."""
    images, draw = to_images(shop.photos(items)), generator(seed, name, epsilon)
    if name == "noise":
        return to_photos(noise(images, epsilon, generator=draw))
    aim, _, algorithm = name.rpartition(":")
    aim = aim or "hook"
    if aim not in AIMS or algorithm not in ATTACKS:
        known = f"noise, {', '.join(ATTACKS)}, alone or behind {', '.join(f'{a}:' for a in AIMS)}"
        raise ValueError(f"unknown attack {name!r}; known: {known}")
    objective, label = AIMS[aim](shop, items, hooks, shop.extractor), f"{name}@{epsilon}"
    return attack_photos(ATTACKS[algorithm], objective, images, epsilon, steps=steps, generator=draw, label=label)


def attack_all(shop: Shop, items, hooks, epsilons, steps: int, seed: int) -> dict[str, np.ndarray]:
    """Photos by attack name: every algorithm at every ε, and "none", the untouched upload."""
    photos = {"none": shop.photos(items)}
    for algorithm in ALGORITHMS:
        for epsilon in epsilons:
            name = f"{algorithm}@{epsilon}"
            photos[name] = attack(shop, items, hooks, algorithm, epsilon, steps, seed)
    return photos


def outcomes(shop: Shop, items, photos: dict[str, np.ndarray]) -> pd.DataFrame:
    """Tidy rows for every attack: exposure, rank shift, prediction shift, PSNR, SSIM, realised L∞.

    Visual metrics are over all attacked images; PSNR and SSIM are left out for untouched ones."""
    before, original = shop.ranks(items), photos["none"]
    before_scores = shop.clean_scores[:, items]
    rows = []
    for name, changed in photos.items():
        served = shop.served_features(changed)
        after_scores = shop.scores_with(items, served)
        after = shop.rank_lookup.ranks(items, after_scores)
        shift = attack_metrics.prediction_shift(before_scores, after_scores, shop.clean_scores)
        values = {
            f"exposure@{shop.k}": stats.estimate(attack_metrics.exposed(after, shop.k)),
            "rank_shift": stats.estimate(attack_metrics.rank_shifts(before, after)),
            "rank_shift_log2": stats.estimate(attack_metrics.rank_shifts(before, after, log2=True)),
            "prediction_shift": stats.estimate(shift),
        }
        values |= {metric: stats.estimate(v) for metric, v in perceptual_metrics(original, changed).items()}
        algorithm, epsilon = parse_name(name)
        rows += [
            {"attack": algorithm, "epsilon": epsilon, "metric": metric, **value} for metric, value in values.items()
        ]
    return pd.DataFrame(rows)


def parse_name(name: str) -> tuple[str, int]:
    """("promote:pgd", 8) of "promote:pgd@8"; ("none", 0) of "none"."""
    algorithm, _, epsilon = name.partition("@")
    return algorithm, int(epsilon or 0)


def perceptual_metrics(original: np.ndarray, changed: np.ndarray) -> dict[str, np.ndarray]:
    """Per image (A,): psnr (dB), ssim, linf (8-bit steps); psnr and ssim only where anything changed."""
    a, b = (torch.from_numpy(np.array(p)).permute(0, 3, 1, 2).float() for p in (original, changed))
    values = {"linf": (a - b).abs().amax((1, 2, 3)).numpy()}
    if values["linf"].any():
        psnr = peak_signal_noise_ratio(b, a, data_range=255.0, dim=(1, 2, 3), reduction="none")
        values["psnr"] = psnr.clamp(max=100).numpy()
        ssim = structural_similarity_index_measure(b, a, data_range=255.0, reduction="none")
        values["ssim"] = ssim.numpy()
    return values


def save(folder: Path, items: np.ndarray, hooks: np.ndarray, photos: dict[str, np.ndarray]) -> None:
    """Write items, hooks and the photos of every attack as plain .npy files."""
    for name, array in {"items": items, "hooks": hooks, **photos}.items():
        np.save(folder / f"{name.replace(':', '-')}.npy", array)


def load(folder: Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Items (A,), hooks (A,) and photos by attack name, as written by `save`; weakest budgets first.

    Raises ArrayFileError for a file that is missing, damaged or of other items than the rest."""
    found = {f.stem.replace("-", ":"): arrays.load(f) for f in sorted(folder.glob("*.npy"))}
    for name in ("items", "hooks", "none"):
        if name not in found:
            raise arrays.ArrayFileError(f"{folder / name}.npy is missing: run notebook 3 again")
    items, hooks = found.pop("items"), found.pop("hooks")
    for name, photos in {"hooks": hooks, **found}.items():
        shape = items.shape if name == "hooks" else found["none"].shape
        if photos.shape != shape or len(photos) != len(items) or (name != "hooks" and photos.dtype != np.uint8):
            about = f"{photos.dtype} {photos.shape}; {'numbers' if name == 'hooks' else 'uint8'} {shape} expected"
            raise arrays.ArrayFileError(f"{folder / name.replace(':', '-')}.npy: {about}, for {len(items)} items")
    return items, hooks, dict(sorted(found.items(), key=lambda pair: parse_name(pair[0])[::-1]))
