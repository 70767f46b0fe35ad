"""What makes a filter good on real photos, and how long must it learn?

Variants of the filter and of its loss, all trained on the same batches (one attack pass serves all), then judged on
photos of other items: feature recovery of PGD-10 towards another photo's features at ε = 2, 4, 8, and what happens to
the features of clean photos. `--curve` trains the first variant again for other numbers of steps.

    python -m benchmarks.filter_training --data CATALOGUE --weights squeezenet1_0.safetensors
    python -m benchmarks.filter_training --data CATALOGUE --weights FILE --curve 100 200 800
    python -m benchmarks.filter_training --quick
"""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from benchmarks import results, shops
from vars_core import param_file, params, paths
from vars_core.attacks import engine
from vars_core.attacks.objectives import hook
from vars_core.extractor import Extractor, extract, to_images, to_photos
from vars_core.reconstruction import filters, recovery, training
from vars_core.runtime import device, generator

BUDGETS = (2, 4, 8)
VARIANTS = {  # what differs from profiles/real.yaml
    "as in real.yaml": {},
    "no gate": {"gated": False},
    "gate not told": {"gate_weight": 0.0},
    "feature weight 1": {"feature_weight": 1.0},
    "feature weight 10": {"feature_weight": 10.0},
    "identity weight × 4": {"identity_weight": 4.0},
    "identity weight ÷ 4": {"identity_weight": 0.25},
    "no convolutions at full resolution": {"blocks": 0},
    "24 channels": {"channels": 24},
}
SCALED = ("identity_weight",)  # of what the profile says
TESTED = 200  # photos


@dataclass(frozen=True)
class Bench:
    """The photos to learn from, those to be judged on, and the attacks on the latter."""

    extractor: Extractor
    learnt: np.ndarray
    clean: np.ndarray
    attacked: dict[int, np.ndarray]

    @classmethod
    def of(cls, extractor: Extractor, learnt: np.ndarray, clean: np.ndarray, steps: int = 10) -> "Bench":
        draw = generator(0, "filter training")
        images, pool = to_images(clean), training.feature_tensor(extractor, learnt)
        objective = hook(extractor, pool[torch.randint(0, len(pool), (len(clean),), generator=draw).to(pool.device)])
        found = {}
        for epsilon in BUDGETS:
            run = lambda objective, batch, e=epsilon: engine.linf(objective, batch, e, steps=steps, generator=draw)  # noqa: E731
            found[epsilon] = to_photos(engine.in_batches(run, objective, images))
        return cls(extractor, learnt, clean, found)

    def judged(self, model) -> dict:
        """Clean feature change, and feature recovery by ε."""
        own = extract(self.extractor, self.clean)

        def change(photos, through):
            return recovery.feature_mse(extract(self.extractor, photos, through=through) - own).mean()

        kept = {f"recovery, ε = {e}": 1 - change(p, model) / change(p, None) for e, p in self.attacked.items()}
        return {"clean feature change": change(self.clean, model), **kept}


def trained(bench: Bench, variants: dict[str, dict], cfg, steps: int) -> list[dict]:
    """Rows of `variants`, trained side by side for `steps`."""
    silent = torch.zeros(bench.extractor.dim, bench.extractor.dim, device=device())  # no users here, no ranking term
    arms = {}
    for name, changed in variants.items():
        mine = {key: value * (getattr(cfg, key) if key in SCALED else 1) for key, value in changed.items()}
        gated = mine.pop("gated", True)
        own = cfg.model_copy(update=mine)
        torch.manual_seed(0)
        model = filters.GlobalViT(**own.shape, gated=gated)
        arms[name] = (model, training.FilterLoss.weighted(bench.extractor, silent, own))
    start = time.perf_counter()
    training.train_filters(arms, bench.learnt, cfg, steps=steps, generator=generator(0, "filter training"))
    minutes = (time.perf_counter() - start) / 60
    side, alike = bench.clean.shape[1], {"steps": steps, "minutes, all together": minutes}
    return [
        {"variant": name, "M multiply-adds": filters.multiply_adds(model, side) / 1e6, **bench.judged(model), **alike}
        for name, (model, _) in arms.items()
    ]


def real(options) -> Bench:
    goods, parts = shops.prepared(options.data, options.image_size, 0, shops.cache(options))
    eye = Extractor(options.weights.stem, str(options.weights)).to(device(), memory_format=torch.channels_last).eval()
    eye.requires_grad_(False)
    learnt, held = (np.asarray(goods.photos[np.sort(parts.defence[p])]) for p in ("train", "test"))
    eye.freeze_scaler(learnt)
    return Bench.of(eye, learnt, held[:TESTED])


def toy() -> Bench:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((48, 3, 4, 4), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    photos = smooth.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    torch.manual_seed(0)
    eye = Extractor("small_cnn").eval().requires_grad_(False).to(device())
    eye.freeze_scaler(photos)
    return Bench.of(eye, photos[:32], photos[32:], steps=2)


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("filter_training", __doc__)
    shops.arguments(parser)
    parser.add_argument("--steps", type=int, default=400, help="of training (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--curve", type=int, nargs="+", default=[], help="further trainings of the first")
    options = parser.parse_args(arguments)
    shops.check(parser, options)
    cfg = params.Reconstruction(**param_file.read(paths.root() / "profiles" / "real.yaml")["reconstruction"])
    chosen = {name: VARIANTS[name] for name in options.only or VARIANTS}
    if options.quick:
        options.steps, options.curve = 2, options.curve[:1]
        cfg = cfg.model_copy(update={"width": 16, "depth": 1, "heads": 2, "batch_size": 16})
    bench = toy() if options.quick else real(options)
    rows = trained(bench, chosen, cfg, options.steps)
    first = next(iter(chosen))
    for steps in options.curve:
        rows += trained(bench, {first: chosen[first]}, cfg, steps)
    about = {
        "settings": {"steps": options.steps, "image_size": options.image_size, "profile": cfg.model_dump()},
        "photos": {"learnt": len(bench.learnt), "judged": len(bench.clean)},
        "catalogue": options.data.name if options.data else "toy",
    }
    title = f"Filters after training on {len(bench.learnt):,} photos, PGD-10 on {len(bench.clean)} others"
    results.write("filter_training", pd.DataFrame(rows), about, options.out, title)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
