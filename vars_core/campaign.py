"""A campaign: the same items attacked by several algorithms and budgets, with the controls always beside them.

Attacks are named `<algorithm>@<ε>`; the objective is *hook* unless the name says `promote:` or `reach:`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from vars_core import ranking, stats
from vars_core.apgd import apgd
from vars_core.attacks import evaluate, fgsm, in_batches, linf, noise
from vars_core.carlini_wagner import cw_l2
from vars_core.extractor import to_images, to_photos
from vars_core.objectives import hook, untargeted
from vars_core.runtime import generator
from vars_core.shop import Shop
from vars_core.square import square

ALGORITHMS = ("noise", "fgsm", "pgd", "promote:pgd", "reach:pgd")
STRONGEST = "reach:pgd"
KEPT_FOR_TESTING = ("mim", "apgd", "square", "cw")  # no filter or detector sees these while it trains
OTHERS = ("untargeted:pgd", *KEPT_FOR_TESTING)


def attack(shop: Shop, items, hooks, algorithm: str, epsilon: int, steps: int, seed: int) -> np.ndarray:
    """Attacked photos uint8 (A, H, W, 3) of `items` within ε/255; T0, through the extractor alone.

    Square has 50 queries for each of `steps`. C&W knows no ε: it goes half the way to the hook with as little L2
    change as it can. Raises ValueError for an algorithm that is not in ALGORITHMS or OTHERS."""
    if algorithm not in (*ALGORITHMS, *OTHERS):
        raise ValueError(f"unknown attack {algorithm!r}; known: {', '.join((*ALGORITHMS, *OTHERS))}")
    images = to_images(shop.photos(items))
    draw = generator(seed, algorithm, epsilon)
    if algorithm == "noise":
        return to_photos(noise(images, epsilon, generator=draw))

    def run(goal, batch):
        options = {"steps": steps, "generator": draw}
        match algorithm:
            case "fgsm":
                return fgsm(goal, batch, epsilon)
            case "apgd":
                return apgd(goal, batch, epsilon, **options).images
            case "square":
                return square(goal, batch, epsilon, queries=50 * steps, generator=draw).images
            case "cw":
                return cw_l2(goal, batch, threshold=0.5 * evaluate(goal, batch), **options).images
        return linf(goal, batch, epsilon, momentum=1.0 if algorithm == "mim" else 0.0, **options)

    goal = _goal(shop, items, hooks, algorithm.partition(":")[0])
    return to_photos(in_batches(run, goal, images, label=f"{algorithm}@{epsilon}"))


def _goal(shop: Shop, items, hooks, aim: str):
    match aim:
        case "promote":
            return shop.promote(items, shop.extractor)
        case "reach":
            return shop.reach(items, shop.extractor)
        case "untargeted":
            return untargeted(shop.extractor, shop.hook_targets(items))
    return hook(shop.extractor, shop.hook_targets(hooks))


def campaign(shop: Shop, items, hooks, epsilons, steps: int, seed: int) -> dict[str, np.ndarray]:
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
        served = shop.served(changed)
        after_scores = shop.scores_of(items, served)
        after = shop.standings.ranks(items, after_scores)
        shift = ranking.prediction_shift(before_scores, after_scores, shop.clean_scores)
        values = {
            f"exposure@{shop.k}": stats.estimate(ranking.exposed(after, shop.k)),
            "rank_shift": stats.estimate(ranking.rank_shifts(before, after)),
            "rank_shift_log2": stats.estimate(ranking.rank_shifts(before, after, log2=True)),
            "prediction_shift": stats.estimate(shift),
        }
        values |= {metric: stats.estimate(v) for metric, v in visibility(original, changed).items()}
        algorithm, epsilon = parts(name)
        rows += [
            {"attack": algorithm, "epsilon": epsilon, "metric": metric, **value} for metric, value in values.items()
        ]
    return pd.DataFrame(rows)


def parts(name: str) -> tuple[str, int]:
    """("promote:pgd", 8) of "promote:pgd@8"; ("none", 0) of "none"."""
    algorithm, _, epsilon = name.partition("@")
    return algorithm, int(epsilon or 0)


def visibility(original: np.ndarray, changed: np.ndarray) -> dict[str, np.ndarray]:
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
    """Items (A,), hooks (A,) and photos by attack name, as written by `save`; weakest budgets first."""
    arrays = {f.stem.replace("-", ":"): np.load(f, allow_pickle=False) for f in sorted(folder.glob("*.npy"))}
    items, hooks = arrays.pop("items"), arrays.pop("hooks")
    return items, hooks, dict(sorted(arrays.items(), key=lambda pair: parts(pair[0])[::-1]))
