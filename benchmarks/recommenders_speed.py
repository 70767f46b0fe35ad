"""How fast are VBPR's training and full ranking, against cornac's, in alternating runs on the same machine?

Training: interactions per second of `fit` with the same features, split and sizes; ours without looks at validation
AUC (cornac has none) and with them, cornac's with its default batch of 100 and with our batch. Ranking: users per
second of `vars_core.recommender.accuracy_metrics.full_ranking` (HR@20, NDCG@20, AUC, MRR, cold AUC) and of cornac's
`ranking_eval` (HR@20, NDCG@20, AUC), every item a candidate but the training items. Making cornac's data set isn't
counted. One run of each in turn, `--repeat` times; ratios are those of medians. How good both are is
`recommenders_cornac`'s subject.

    python -m benchmarks.recommenders_speed --data CATALOGUE --weights squeezenet1_0.safetensors
    python -m benchmarks.recommenders_speed --quick
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from cornac.data import Dataset
from cornac.eval_methods.base_method import ranking_eval
from cornac.metrics import AUC, NDCG, HitRatio

from benchmarks import cornac_side, results, shops
from benchmarks.recommenders_cornac import OURS, best_settings
from benchmarks.turns import alternating
from vars_core.recommender import accuracy_metrics
from vars_core.recommender.vbpr import VBPR

EPOCHS = {"ours": 5, "cornac": 1}  # of each timed training


def training(parts, features, cfg, settings, seed: int, repeat: int) -> pd.DataFrame:
    """Interactions per second of every way to train."""
    blind = dataclasses.replace(parts, validation=np.full_like(parts.validation, -1))
    short = SimpleNamespace(**vars(cfg) | {"epochs": EPOCHS["ours"]})
    items = cornac_side.known_items(parts)
    seen = cornac_side.scaled(features, settings)
    data = cornac_side.dataset(parts, seen, items, seed)
    _ = data.dok_matrix  # cornac makes it in the first epoch

    def theirs(batch: int):
        cornac_side.fit("vbpr", data, settings | {"batch_size": batch}, EPOCHS["cornac"], seed)

    n = parts.train.nnz
    jobs = {
        "ours": (lambda: VBPR().fit(blind, features, short, seed), n * EPOCHS["ours"]),
        "ours, validation looked at": (lambda: VBPR().fit(parts, features, short, seed), n * EPOCHS["ours"]),
        "cornac, batch 100": (lambda: theirs(100), n * EPOCHS["cornac"]),
        f"cornac, batch {cfg.batch_size}": (lambda: theirs(cfg.batch_size), n * EPOCHS["cornac"]),
    }
    VBPR().fit(blind, features, SimpleNamespace(**vars(cfg) | {"epochs": 1}), seed)  # torch's first call is slow
    return alternating(jobs, repeat)


def full_ranking(parts, features, cfg, settings, seed: int, repeat: int) -> tuple[pd.DataFrame, dict]:
    """Users per second of both evaluations; and what each says of cornac's model, which should be the same."""
    model = VBPR().fit(parts, features, SimpleNamespace(**vars(cfg) | {"epochs": 2}), seed)
    items = cornac_side.known_items(parts, cold_too=True)
    seen = cornac_side.scaled(features, settings)
    data = cornac_side.dataset(parts, seen, items, seed)
    theirs = cornac_side.fit("vbpr", data, settings, 1, seed)
    users = np.flatnonzero(parts.test >= 0)
    held_out = [(user, item, 1.0) for user, item in zip(users.tolist(), parts.test[users].tolist(), strict=True)]
    test = Dataset.build(held_out, global_uid_map=data.uid_map, global_iid_map=data.iid_map)
    metrics = [AUC(), NDCG(k=20), HitRatio(k=20)]
    said = ranking_eval(theirs, metrics, data, test)[0]
    matrix = cornac_side.scores("vbpr", theirs, seen, items, parts.train.shape)
    measured = accuracy_metrics.full_ranking(cornac_side.Scores(matrix), None, parts, ks=(20,))
    agreement = {
        name: {"cornac": float(a), "ours": float(np.nanmean(measured[name]))}
        for name, a in zip(("auc", "ndcg@20", "hr@20"), said, strict=True)
    }
    jobs = {
        "ours": (lambda: accuracy_metrics.full_ranking(model, features, parts, ks=(20,)), len(users)),
        "cornac": (lambda: ranking_eval(theirs, metrics, data, test), len(users)),
    }
    return alternating(jobs, repeat), agreement


def rows(speeds: pd.DataFrame, what: str, unit: str) -> list[dict]:
    """One row per way: median, least and most per second, and how many times as fast ours is."""
    return [
        {"what": what, "side": side, "unit": unit, "median": values.median(), "least": values.min(),
         "most": values.max(), "ours is faster by": speeds["ours"].median() / values.median()}
        for side, values in speeds.items()
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("recommenders_speed", __doc__)
    shops.arguments(parser)
    parser.add_argument("--repeat", type=int, default=5, help="rounds of alternating runs (%(default)s)")
    options = parser.parse_args(arguments)
    shops.check(parser, options)
    repeat, seed = 1 if options.quick else options.repeat, options.seeds[0]
    parts, features = shops.load(options, seed)
    settings = best_settings(options)["vbpr"]
    speeds = training(parts, features, OURS, settings, seed, repeat)
    ranked, agreement = full_ranking(parts, features, OURS, settings, seed, repeat)
    table = pd.DataFrame(rows(speeds, "training", "interactions/s") + rows(ranked, "full ranking", "users/s"))
    users, items = parts.train.shape
    about = {"users": users, "items": items, "interactions": int(parts.train.nnz), "dimensions": features.shape[1],
             "rounds": repeat,
             "threads": torch.get_num_threads(), "same_model_two_evaluations": agreement}  # fmt: skip
    results.write("recommenders_speed", table, about, options.out, "Training and full ranking of VBPR, per second")
    for metric, values in agreement.items():
        print(f"{metric} of the same model: cornac's evaluation {values['cornac']:.4f}, ours {values['ours']:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
