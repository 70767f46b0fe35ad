"""Which settings make VBPR worth its name on a real catalogue? Chosen by validation quality alone.

VBPR should order cold items well (that is what photos are for) and lose nothing against BPR-MF on warm ones. Both
are looked at without the test items: warm quality on the validation items, cold quality on *validation cold items*,
a seeded tenth of the warm items whose training interactions are taken away. The test cold items play no part; with
--test the variants named there are trained once more on the whole split and measured on the test items.

    python -m benchmarks.vbpr_sweep --data CATALOGUE --weights squeezenet1_0.safetensors
    python -m benchmarks.vbpr_sweep --data CATALOGUE --weights FILE --test default "look 0.1"
    python -m benchmarks.vbpr_sweep --quick
"""

import dataclasses
import functools
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch.nn import functional

from benchmarks import results, shops
from vars_core import runtime
from vars_core.recommender import accuracy_metrics, bpr
from vars_core.recommender.bprmf import BPRMF
from vars_core.recommender.vbpr import VBPR

BASE = dict(factors=20, visual_factors=20, epochs=60, batch_size=2048, learning_rate=1e-2, l2=0.01, visual_l2=0.3)
WEIGHTS = dict(user=1.0, item=1.0, bias=1.0, taste=1.0, look=0.3, matrix=0.0, alone=0.0)
SHARE = 0.1  # of the warm items, to be validation cold items
VARIANTS = {  # what differs from BASE and WEIGHTS
    "BPR-MF": {"blind": True},
    "BPR-MF, l2 0.005": {"blind": True, "l2": 0.005},
    "BPR-MF, l2 0.003": {"blind": True, "l2": 0.003},
    "default": {},
    "l2 0.005": {"l2": 0.005},
    "l2 0.02": {"l2": 0.02},
    "learning rate 0.003": {"learning_rate": 3e-3},
    "learning rate 0.003, 200 epochs": {"learning_rate": 3e-3, "epochs": 200},
    "learning rate 0.003, 200 epochs, look 0.1": {"learning_rate": 3e-3, "epochs": 200, "look": 0.1},
    "learning rate 0.003, 200 epochs, look 0.2": {"learning_rate": 3e-3, "epochs": 200, "look": 0.2},
    "learning rate 0.003, 200 epochs, photo alone 0.1": {"learning_rate": 3e-3, "epochs": 200, "alone": 0.1},
    "learning rate 0.003, 200 epochs, l2 0.02": {"learning_rate": 3e-3, "epochs": 200, "l2": 0.02},
    "learning rate 0.005, 120 epochs": {"learning_rate": 5e-3, "epochs": 120},
    "BPR-MF, learning rate 0.003, 200 epochs": {"blind": True, "learning_rate": 3e-3, "epochs": 200},
    "10 visual factors": {"visual_factors": 10},
    "item × 3": {"item": 3.0},
    "look 0.1": {"look": 0.1},
    "look 1": {"look": 1.0},
    "E 0.01 instead of look": {"look": 0.0, "matrix": 0.01},
    "E 0.03 instead of look": {"look": 0.0, "matrix": 0.03},
    "E 0.1 instead of look": {"look": 0.0, "matrix": 0.1},
    "E 0.3 instead of look": {"look": 0.0, "matrix": 0.3},
    "E 0.03, look 0.1": {"look": 0.1, "matrix": 0.03},
    "photo alone 0.3": {"alone": 0.3},
    "64 components": {"features": "pca 64"},
    "64 components, look 0.1": {"features": "pca 64", "look": 0.1},
    "64 whitened components": {"features": "white 64"},
}
METRICS = ("hr@20", "ndcg@20", "auc", "cold_auc")


class Swept(VBPR):
    """VBPR with a weight for each part of the penalty, and for a loss on the photo's part of the score alone."""

    def __init__(self, **weights):
        super().__init__()
        self.weights = WEIGHTS | weights

    def score_difference(self, users, positives, negatives, features):
        weight, pair = self.weights, torch.stack([positives, negatives])
        user, taste = functional.embedding(users, self.user), functional.embedding(users, self.visual_factors)
        item, bias = functional.embedding(pair, self.item), functional.embedding(pair, self.bias[:, None])[..., 0]
        seen = self._views(pair, features)
        gap = seen[0] - seen[1]
        self.by_photo = (taste * gap[:, :-1]).sum(1) + gap[:, -1]
        penalty = (
            weight["user"] * (user**2).sum(1).mean()
            + weight["item"] * (item**2).sum((0, 2)).mean()
            + weight["bias"] * (bias**2).sum(0).mean()
            + weight["taste"] * (taste**2).sum(1).mean()
            + weight["look"] * (seen**2).sum((0, 2)).mean()
            + weight["matrix"] * ((self.projection**2).sum() + (self.visual_bias**2).sum())
        )
        return bias[0] - bias[1] + (user * (item[0] - item[1])).sum(1) + self.by_photo, penalty

    def training_loss(self, users, positives, negatives, features):
        loss, penalty = super().training_loss(users, positives, negatives, features)
        if self.weights["alone"]:
            loss = loss + self.weights["alone"] * bpr.loss(self.by_photo).mean()
        return loss, penalty


Swept.__name__ = VBPR.__name__  # it names the stream of random numbers: with equal weights the two are the same


def validation_cold(parts, seed: int):
    """`parts` with a tenth of the warm items made cold: their interactions leave training and become positives."""
    rng = runtime.rng(seed, "validation cold items")
    warm = shops.trained(parts)
    cold = np.sort(rng.choice(warm, max(2, round(SHARE * len(warm))), replace=False))
    keep = np.ones(parts.train.shape[1], bool)
    keep[cold] = False
    train = sparse.csr_matrix(parts.train.multiply(keep)).astype(bool)
    train.eliminate_zeros()
    removed = sparse.csr_matrix(parts.train.multiply(~keep)).astype(bool)
    removed.eliminate_zeros()
    validation = np.where(keep[parts.validation], parts.validation, -1)
    nobody = np.full_like(parts.test, -1)
    return dataclasses.replace(
        parts, train=train, validation=validation, test=nobody, cold=cold, cold_positives=removed
    )


def transformed(features: np.ndarray, how: str, items: np.ndarray) -> np.ndarray:
    """`features` as they are ("as is"), of length √D ("unit"), or their first n principal components ("pca n",
    or "white n" with variance 1), from the training items `items`."""
    if how == "as is":
        return features
    if how == "unit":
        return features / np.linalg.norm(features, axis=1, keepdims=True) * np.float32(features.shape[1] ** 0.5)
    kind, n = how.split()
    middle = features[items].mean(0)
    _, spread, axes = np.linalg.svd(features[items] - middle, full_matrices=False)
    turned = (features - middle) @ axes[: int(n)].T
    spread = spread[: int(n)] / len(items) ** 0.5
    return (turned / (spread if kind == "white" else spread.mean())).astype(np.float32)


def fitted(variant: dict, parts, features, seed: int):
    """Train one variant; the recommender and the features that it sees."""
    change = dict(variant)
    seen = transformed(features, change.pop("features", "as is"), shops.trained(parts))
    weights = {name: change.pop(name) for name in WEIGHTS if name in change}
    blind = change.pop("blind", False)
    cfg = SimpleNamespace(**BASE | change)
    return (BPRMF() if blind else Swept(**weights)).fit(parts, seen, cfg, seed), seen


def measured(variant: dict, parts, features, seed: int, part: str) -> dict:
    start = time.perf_counter()
    model, seen = fitted(variant, parts, features, seed)
    seconds = time.perf_counter() - start
    values = accuracy_metrics.full_ranking(model, seen, parts, ks=(20,), part=part)
    kept = max(model.history, key=lambda h: h.get("validation_auc", 0))["epoch"]
    return {m: float(np.nanmean(values[m])) for m in METRICS} | {"epoch": kept, "seconds": round(seconds, 1)}


def swept(options, variants: dict[str, dict], part: str) -> pd.DataFrame:
    """One row per variant: means over seeds of its metrics on `part`."""
    job = functools.partial(_one_seed, options, variants, part)
    if options.quick:
        rows = job(options.seeds[0])
    else:
        shops.load(options, options.seeds[0])  # features are extracted once
        with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            rows = [row for found in pool.map(job, options.seeds) for row in found]
    return pd.DataFrame(rows).groupby("variant", sort=False).mean().reset_index()


def _one_seed(options, variants: dict[str, dict], part: str, seed: int) -> list[dict]:
    whole, features = shops.load(options, seed)
    parts = validation_cold(whole, seed) if part == "validation" else whole
    rows = []
    for name, variant in variants.items():
        change = variant | ({"epochs": 2} if options.quick else {})
        rows.append({"variant": name, **measured(change, parts, features, seed, part)})
        print(f"seed {seed}: {rows[-1]}", flush=True)
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("vbpr_sweep", __doc__)
    shops.arguments(parser)
    parser.add_argument("--test", nargs="+", choices=list(VARIANTS), help="measure these variants on the test items")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), help="sweep these variants")
    options = parser.parse_args(arguments)
    shops.check(parser, options)
    part = "test" if options.test else "validation"
    chosen = options.test or options.only or list(VARIANTS)
    if options.quick:
        chosen = ["BPR-MF", "default", "photo alone 0.3"]
    table = swept(options, {name: VARIANTS[name] for name in chosen}, part)
    about = {"image_size": options.image_size, "seeds": options.seeds, "base": BASE,
             "variants": {name: VARIANTS[name] for name in chosen}}  # fmt: skip
    title = f"VBPR by its settings, {options.image_size} px, quality on the {part} items, {len(options.seeds)} seeds"
    results.write(f"vbpr_sweep/{part}_{options.image_size}px", table, about, options.out, title)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
