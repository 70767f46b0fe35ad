"""Which network should see the photos: how well it recommends, how easily it is attacked, what a filter gives back?

One row for each extractor and image size: features of all photos, VBPR trained on them, the attack *reach* on cold
items, and a filter trained for a while. `--set` changes the profile's parameters, as for `vars study`. Rows are kept
in a folder as they are done: interrupted, and called again, it goes on. The table has all rows of the folder, also
those of other catalogues; delete the folder to begin anew.

    python -m benchmarks.extractors --data A --weights squeezenet1_0.safetensors tf_efficientnet_lite0.safetensors
    python -m benchmarks.extractors --data B --weights squeezenet1_0.safetensors --set recommender.l2=0.01
"""

import json
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import filter_training, results
from benchmarks.randomised import Study
from vars_core import checkpoint, params, paths, runtime, stats
from vars_core.attacks.engine import attack_photos, linf
from vars_core.attacks.promotion import push
from vars_core.data import catalogue, split
from vars_core.extractor import Extractor, extract, to_images, train_on_categories
from vars_core.pipeline.request import StudyError, study_params
from vars_core.recommender.shop import Shop
from vars_core.recommender.vbpr import VBPR
from vars_core.reconstruction import filters, training

TIMED = 256  # photos
EPSILONS = (2, 4)


def built(values: dict, place: Path) -> Study:
    """The shop that notebooks 1 and 2 would build of the parameters `values`, with VBPR only."""
    runtime.seed_everything(values["seed"])
    sections = {name: params.Study.model_fields[name].annotation for name in values if name != "seed"}
    cfg, seed = {name: section(**values[name]) for name, section in sections.items()}, values["seed"]
    goods = catalogue.prepare(cfg["data"], seed, place / "prepared", cache=place / "decoded")
    parts, photos = split.load(place / "prepared" / "split.npz"), np.asarray(goods.photos)
    warm = np.flatnonzero(np.asarray(parts.train.sum(0)).ravel() > 0)
    model = Extractor(cfg["recommender"].extractor, cfg["recommender"].pretrained).to(runtime.device())
    if not cfg["recommender"].pretrained:
        draws = runtime.generator(seed, "extractor")
        train_on_categories(model, photos[warm], goods.labels[warm], cfg["recommender"].extractor_epochs, draws)
    model.eval().requires_grad_(False)
    model.freeze_scaler(photos[warm])
    features = extract(model, photos)
    vbpr = VBPR().fit(parts, features, cfg["recommender"], seed).to(runtime.device())
    known, reporting = split.attacker_users(len(goods.user_ids), cfg["attacks"].attacker_users, seed)
    shop = Shop(goods, parts, model, vbpr, features, known, reporting, cfg["recommender"].k)
    unseen = np.intersect1d(parts.cold, parts.defence["test"])
    items = runtime.rng(seed, "extractors").permutation(unseen)[: cfg["attacks"].items]
    return Study(shop, cfg, seed, items)


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
    parser.add_argument("--data", type=Path, help="a catalogue's folder (what the profile says)")
    parser.add_argument("--weights", type=Path, nargs="+", help="safetensors, named as the models (the profile's)")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[64, 96, 128], help="of photos, in pixels (64 96 128)"
    )
    parser.add_argument("--profile", default="real", help="%(default)s")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as for `vars study`")
    parser.add_argument("--steps", type=int, default=200, help="of training a filter; 0: none (%(default)s)")
    parser.add_argument("--kept", type=Path, help="folder for what is done (scratch/benchmarks/extractors)")
    options = parser.parse_args(arguments)
    place = options.kept or paths.scratch() / "benchmarks" / "extractors"
    for weights in options.weights or [None]:
        for side in options.sides:
            asked = Namespace(
                profile=options.profile, data=options.data, weights=weights, extractor=None,
                set=[*options.set, f"data.image_size={side}"],
            )  # fmt: skip
            try:
                values = study_params(asked, paths.root())
            except StudyError as error:
                parser.error(str(error))
            key = checkpoint.fingerprint(json.dumps(values, sort_keys=True, default=str), options.steps)
            if not (kept := place / "rows" / f"{key}.json").is_file():
                row = row_of(built(values, place), options.steps) | {"set": " ".join(options.set)}
                paths.write(kept, json.dumps(row, default=float) + "\n")
                print(row, flush=True)
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in (place / "rows").glob("*.json")]
    table = pd.DataFrame(rows).sort_values(["catalogue", "extractor", "side"])
    title = "Extractors: VBPR's accuracy, the attack *reach* on cold items, and a filter of few steps"
    results.write("extractors", table, {"settings": {"profile": options.profile}}, options.out, title)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
