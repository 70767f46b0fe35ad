"""Which network should see the photos: how well it recommends, how easily it is attacked, what a filter gives back?

One row for each study whose notebooks 1 and 2 have run, with an extractor and an image size of its own:

    vars study lite-64 --data CATALOGUE --profile real --only 01 02
    vars study lite-96 --data CATALOGUE --profile real --only 01 02 --set data.image_size=96
    vars study squeeze-64 --data CATALOGUE --profile real --only 01 02 --weights squeezenet1_0.safetensors
    python -m benchmarks.extractors scratch/studies/lite-64 scratch/studies/lite-96 scratch/studies/squeeze-64
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import filter_training, results
from benchmarks.randomised import Study
from vars_core import runtime, stats
from vars_core.attacks.engine import attack_photos, linf
from vars_core.attacks.promotion import push
from vars_core.extractor import extract, to_images
from vars_core.reconstruction import filters, training

TIMED = 256  # photos
EPSILONS = (2, 4)


def row_of(study: Study, steps: int) -> dict:
    """What the study's extractor is worth; the filter learns for `steps`, on features alone."""
    shop, cfg = study.shop, study.cfg["reconstruction"]
    photos = np.asarray(shop.catalogue.photos)
    extract(shop.extractor, photos[:32])
    start = time.perf_counter()
    extract(shop.extractor, some := photos[:TIMED])
    row = {
        "catalogue": shop.catalogue.name, "extractor": shop.extractor.name, "side": photos.shape[1],
        "features": shop.extractor.dim, "ms a photo": 1000 * (time.perf_counter() - start) / len(some),
    }  # fmt: skip
    accuracy = shop.accuracy()
    row |= {name: np.nanmean(accuracy[name]) for name in (f"hr@{shop.k}", f"ndcg@{shop.k}", "auc", "cold_auc")}
    row["untouched"] = np.nanmean(shop.exposed(study.items))
    for epsilon in EPSILONS:
        draw = runtime.generator(study.seed, "extractors", epsilon)
        goal, images = push(shop, study.items, shop.extractor, "reach"), to_images(shop.photos(study.items))
        attacked = attack_photos(linf, goal, images, epsilon, steps=10, generator=draw, label="reach")
        found = stats.estimate(shop.exposed(study.items, attacked))
        row |= {f"reach, ε = {epsilon}": found["value"], f"low, ε = {epsilon}": found["ci_low"]}
        row[f"high, ε = {epsilon}"] = found["ci_high"]
    if steps:
        row |= recovered(study, cfg, steps)
    return row


def recovered(study: Study, cfg, steps: int) -> dict:
    """Feature recovery by ε, and the clean photos' feature change, of a filter with the study's shape and losses."""
    shop = study.shop
    learnt, held = (shop.photos(shop.split.defence[part]) for part in ("train", "test"))
    bench = filter_training.Bench.of(shop.extractor, learnt, held[: filter_training.TESTED])
    silent = torch.zeros(shop.extractor.dim, shop.extractor.dim, device=runtime.device())
    torch.manual_seed(study.seed)
    model = filters.GlobalViT(**cfg.shape)
    arms = {"global_vit": (model, training.FilterLoss.weighted(shop.extractor, silent, cfg))}
    draw, start = runtime.generator(study.seed, "extractors"), time.perf_counter()
    training.train_filters(arms, bench.learnt, cfg, steps=steps, generator=draw)
    return {"steps": steps, "minutes": (time.perf_counter() - start) / 60} | bench.judged(model)


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("extractors", __doc__)
    parser.add_argument("work", type=Path, nargs="+", help="work folders of studies whose notebooks 1 and 2 have run")
    parser.add_argument("--steps", type=int, default=200, help="of training a filter; 0: none (%(default)s)")
    options = parser.parse_args(arguments)
    rows = []
    for work in options.work:
        if not (work / "models" / "recommender").is_dir():
            parser.error(f"{work}: no study whose notebooks 1 and 2 have run; vars study NAME --only 01 02")
        rows.append(row_of(Study.open(work), options.steps))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    title = f"Extractors: VBPR's accuracy, the attack *reach* on cold items, and a filter after {options.steps} steps"
    results.write("extractors", table, {"settings": {"steps": options.steps}}, options.out, title)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
