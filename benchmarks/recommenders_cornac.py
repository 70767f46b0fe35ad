"""Are our BPR-MF and VBPR as good as cornac's, an independent implementation, on real ratings and posters?

Same split, same features, same sizes (20 latent and 20 visual factors); both sides are judged by
`vars_core.recommender.ranking` from their matrix of scores: full ranking, HR@20, NDCG@20, AUC, and AUC among cold
items.

    python -m benchmarks.recommenders_cornac --data CATALOGUE --weights squeezenet1_0.safetensors
    python -m benchmarks.recommenders_cornac --data CATALOGUE --weights FILE --tune     # cornac's settings, first
    python -m benchmarks.recommenders_cornac --quick                                     # toy data

`--tune` tries cornac's settings in GRID on the first seed, looking at *validation* AUC every few epochs (going on
from the tables of the look before; only the optimiser's state starts anew). The comparison
trains with the best of them from scratch (with CORNAC where nothing was tuned).
"""

import functools
import hashlib
import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from benchmarks import cornac_side, results, shops
from vars_core import stats
from vars_core.recommender import accuracy_metrics
from vars_core.recommender.bprmf import BPRMF
from vars_core.recommender.vbpr import VBPR

OURS = SimpleNamespace(
    factors=20, visual_factors=20, epochs=200, batch_size=2048, learning_rate=3e-3, l2=0.01, visual_l2=0.1
)  # profiles/laptop.yaml, with the rate and penalties that vbpr_sweep found for users with a hundred interactions
CORNAC = {
    "bprmf": {"learning_rate": 0.05, "lambda_reg": 0.01, "epochs": 100},
    "vbpr": {"learning_rate": 0.005, "lambda_w": 0.01, "scale": "standard", "epochs": 20},
}
GRID = {
    "bprmf": {"learning_rate": [0.01, 0.05], "lambda_reg": [0.001, 0.01, 0.03]},
    "vbpr": {"learning_rate": [0.001, 0.005], "scale": ["standard", "length"], "lambda_w": [0.01]},
}
LOOKS = {"bprmf": (20, 15), "vbpr": (4, 8)}  # epochs between looks at validation AUC, most looks
SIDES = (("cornac", False), ("cornac, cold items known", True))
PATIENCE = 2  # looks without a better AUC
METRICS = ("hr@20", "ndcg@20", "auc", "cold_auc")


def tuned(name: str, parts, features, seed: int, quick: bool) -> pd.DataFrame:
    """Validation AUC of every setting in GRID: settings, epochs of the best look, AUC there."""
    grid = [dict(zip(GRID[name], values, strict=True)) for values in itertools.product(*GRID[name].values())]
    job = functools.partial(_best_look, name, parts, features, seed, 2 if quick else LOOKS[name][1])
    if quick:
        return pd.DataFrame([job(grid[0])])
    with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return pd.DataFrame(list(pool.map(job, grid)))


def _best_look(name: str, parts, features, seed: int, looks: int, settings: dict) -> dict:
    items, seen = cornac_side.known_items(parts), cornac_side.scaled(features, settings)
    data, start, best = cornac_side.dataset(parts, seen, items, seed), None, (0.0, 0)
    for look in range(1, looks + 1):
        model = cornac_side.fit(name, data, settings, LOOKS[name][0], seed, start)
        start = cornac_side.tables(name, model)
        matrix = cornac_side.scores(name, model, seen, items, parts.train.shape)
        best = max(best, (accuracy(cornac_side.Scores(matrix), None, parts, "validation")["auc"], -look))
        if look + best[1] == PATIENCE:
            break
    found = {"recommender": name, **settings, "epochs": -best[1] * LOOKS[name][0], "validation_auc": best[0]}
    print(found, flush=True)
    return found


def accuracy(recommender, features, parts, part: str = "test") -> dict[str, float]:
    values = accuracy_metrics.full_ranking(recommender, features, parts, ks=(20,), part=part)
    return {metric: float(np.nanmean(values[metric])) for metric in METRICS if not np.isnan(values[metric]).all()}


def compared(options, cfg, settings: dict, seed: int) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Per-user test accuracy of both recommenders on each side: (recommender, side) → metric → (U,)."""
    parts, features = shops.load(options, seed)
    found = {}
    for name, kind in (("bprmf", BPRMF), ("vbpr", VBPR)):
        model = kind().fit(parts, features, cfg, seed)
        found[name, "ours"] = accuracy_metrics.full_ranking(model, features, parts, ks=(20,))
        for side, cold_too in SIDES[: 2 if options.cold_known else 1]:
            found[name, side] = _theirs(name, parts, features, settings[name], cold_too, seed, options)
    return found


def _theirs(name, parts, features, settings: dict, cold_too: bool, seed: int, options) -> dict[str, np.ndarray]:
    """Per-user accuracy of cornac's `name`; kept beside the features, since its training takes minutes."""
    mark = hashlib.sha256(json.dumps([settings, cold_too, seed, features.sum().item()]).encode()).hexdigest()[:12]
    file = shops.cache(options) / f"cornac-{name}-{mark}.npz"
    if file.is_file() and not options.quick:
        with np.load(file, allow_pickle=False) as kept:
            return dict(kept)
    seen, items = cornac_side.scaled(features, settings), cornac_side.known_items(parts, cold_too)
    data = cornac_side.dataset(parts, seen, items, seed)
    model = cornac_side.fit(name, data, settings, settings["epochs"], seed)
    matrix = cornac_side.scores(name, model, seen, items, parts.train.shape)
    values = accuracy_metrics.full_ranking(cornac_side.Scores(matrix), None, parts, ks=(20,))
    if not options.quick:
        np.savez_compressed(file, **values)
    return values


def best_settings(options) -> dict:
    """What `--tune` found best, or CORNAC where it hasn't run; the numbers of epochs cut down with --quick."""
    chosen = {name: dict(values) for name, values in CORNAC.items()}
    for name in chosen:
        file = results.folder(f"recommenders_cornac/tuning_{name}", options.out) / "results.csv"
        if file.is_file() and not options.quick:
            table = pd.read_csv(file)
            best = table.sort_values("validation_auc").to_dict("records")[-1]
            chosen[name] = {key: best[key] for key in (*GRID[name], "epochs")}
    return {name: values | {"epochs": 2 if options.quick else values["epochs"]} for name, values in chosen.items()}


def summary(runs: dict[int, dict]) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """(one row per recommender, side and seed; their means; ours − cornac's with 95 % intervals over users)."""
    rows = [
        {"recommender": name, "side": side, "seed": seed, **{m: np.nanmean(values[m]) for m in METRICS}}
        for seed, found in runs.items()
        for (name, side), values in found.items()
    ]
    each = pd.DataFrame(rows)
    mean = each.groupby(["recommender", "side"], sort=False)[list(METRICS)].mean().reset_index()
    gaps = {}
    for name in ("bprmf", "vbpr"):
        for metric in METRICS[:3]:
            ours, theirs = (
                np.nanmean([found[name, side][metric] for found in runs.values()], axis=0)
                for side in ("ours", "cornac")
            )
            low, high = stats.bootstrap_ci(ours, paired=theirs, rng=0)
            gaps[f"{name} {metric}"] = [round(v, 4) for v in (float(np.nanmean(ours - theirs)), low, high)]
    return each, mean, gaps


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("recommenders_cornac", __doc__)
    shops.arguments(parser)
    parser.add_argument("--tune", action="store_true", help="try cornac's settings by validation AUC, and stop")
    parser.add_argument("--only", choices=list(GRID), help="tune this recommender only")
    parser.add_argument("--cold-known", action="store_true", help="also cornac with cold items among its negatives")
    options = parser.parse_args(arguments)
    shops.check(parser, options)
    if options.tune:
        parts, features = shops.load(options, options.seeds[0])
        for name in [options.only] if options.only else GRID:
            table = tuned(name, parts, features, options.seeds[0], options.quick)
            title = f"Validation AUC of cornac's {name}, seed {options.seeds[0]}, by setting; best number of epochs"
            results.write(f"recommenders_cornac/tuning_{name}", table, {"grid": GRID[name]}, options.out, title)
        return 0
    settings = best_settings(options)
    cfg = SimpleNamespace(**vars(OURS) | {"epochs": 2}) if options.quick else OURS
    job = functools.partial(compared, options, cfg, settings)
    if options.quick:
        runs = {seed: job(seed) for seed in options.seeds}
    else:
        shops.load(options, options.seeds[0])  # features are extracted once
        with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            runs = dict(zip(options.seeds, pool.map(job, options.seeds), strict=True))
    each, mean, gaps = summary(runs)
    about = {"settings": {"ours": vars(cfg), "cornac": settings}, "image_size": options.image_size,
             "seeds": options.seeds, "means": mean.to_dict("records"), "ours_minus_cornac": gaps}  # fmt: skip
    table = pd.concat([each.astype({"seed": str}), mean.assign(seed="mean")], ignore_index=True)
    results.write("recommenders_cornac", table, about, options.out, "Full-ranking accuracy on held-out items")
    for what, (value, low, high) in gaps.items():
        print(f"ours − cornac's, {what}: {value:+.4f} (95 % interval {low:+.4f} to {high:+.4f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
