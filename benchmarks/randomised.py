"""Which denoiser, trained how, makes serving behind noise cheap and safe? And does that hold for other seeds?

Each variant of the denoiser, at each σ, stands before the recommender of a study whose notebooks 1 and 2 have run:

    vars study drawn-0 --only 01 02                    # and drawn-1 with --set seed=1, ...
    python -m benchmarks.randomised scratch/studies/drawn-0
    python -m benchmarks.randomised scratch/studies/drawn-* --only "as in the profile"

Of each it says what serving the mean of eight draws costs (NDCG, cold AUC), how many lists the stronger of two
attacks through the noise reaches, and what is promised. Several studies of one catalogue with different seeds also
give means with intervals, in `randomised_seeds`. The variants, beside the denoiser of the study's own parameters: the
recommender left as it learned from photos without noise; other weights of the ranking term; half and twice the steps;
a larger filter; smaller patches; one filter for all σ; the extractor fine-tuned behind the filter.
"""

import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks import results
from vars_core import param_file, params, runtime, stats
from vars_core.adaptive import noisy_ways
from vars_core.adaptive.promises import promises
from vars_core.adaptive.randomised import RandomisedShop
from vars_core.adaptive.tiers import worst_case
from vars_core.extractor import Extractor
from vars_core.recommender.shop import Shop
from vars_core.reconstruction import filters, serving, training
from vars_core.reconstruction.trainer import learning_rate_factor

OWN = "as in the profile"
VARIANTS = {  # what differs from the study's parameters
    OWN: {},
    "recommender of raw photos": {},
    "ranking weight ÷ 10": {"denoiser_ranking_weight": 0.1},
    "ranking weight × 10": {"denoiser_ranking_weight": 10},
    "half the steps": {"denoiser_steps": 0.5},
    "twice the steps": {"denoiser_steps": 2},
    "twice the width": {"denoiser_width": 2},
    "patches half as large": {"denoiser_patch": 0.5},
    "one filter for all σ": {},
    "extractor fine-tuned": {},
}
EPSILONS, ATTACKED = (0.5, 1, 2, 4), 4
TUNING = 200  # steps of the extractor, behind the fixed filter


@dataclass(frozen=True)
class Study:
    """A shop, its parameters by section, and the cold items that are certified; the first `attacked` are attacked."""

    shop: Shop
    cfg: dict
    seed: int
    items: np.ndarray

    @classmethod
    def open(cls, work: Path) -> "Study":
        os.environ["VARS_WORKSPACE"] = str(work.resolve())
        values = param_file.load(work / "params.yaml")
        sections = {name: params.Study.model_fields[name].annotation for name in values if name != "seed"}
        cfg, seed = {name: section(**values[name]) for name, section in sections.items()}, values["seed"]
        shop = Shop.open(cfg["recommender"], cfg["attacks"], seed)
        unseen = np.intersect1d(shop.split.cold, shop.split.defence["test"])
        items = runtime.rng(seed, "randomised").permutation(unseen)[: cfg["certificate"].items]
        return cls(shop, cfg, seed, items)

    def denoisers(self, variant: str, sigmas) -> dict[float, nn.Module]:
        """The variant's filter for each σ."""
        own = self.cfg["reconstruction"]
        scaled = {name: type(getattr(own, name))(by * getattr(own, name)) for name, by in VARIANTS[variant].items()}
        cfg = own.model_copy(update=scaled)
        warm = np.flatnonzero(np.asarray(self.shop.split.train.sum(0)).ravel() > 0)
        heads = self.shop.recommender.visual_matrix().cpu().numpy()
        loss = training.FilterLoss.weighted(
            self.shop.extractor, training.ranking_matrix(heads, self.shop.features[warm]), cfg
        )
        loss = replace(loss, ranking_weight=cfg.denoiser_ranking_weight, gate_weight=0.0)
        removed = {f"{sigma:g}": sigma for sigma in sigmas}
        if variant == "one filter for all σ":  # each σ in turn, photo by photo
            turns = torch.tensor(sigmas)[torch.arange(cfg.batch_size) % len(sigmas)]
            removed = {"all": turns.view(-1, 1, 1, 1).to(runtime.device())}
        arms = {}
        for name in removed:
            torch.manual_seed(self.seed)
            arms[name] = filters.GlobalViT(**cfg.denoiser_shape, gated=False), loss
        photos, draw = self.shop.photos(self.shop.split.defence["train"]), runtime.generator(self.seed, "denoisers")
        training.train_denoisers(arms, removed, photos, cfg, steps=cfg.denoiser_steps, generator=draw)
        return {sigma: arms["all" if "all" in arms else f"{sigma:g}"][0] for sigma in sigmas}

    def tuned(self, image_filter: nn.Module, sigma: float) -> Extractor:
        """A copy f′ of f with the least E‖f′(R(x + η)) − f(x)‖²; R stays as it is."""
        shop, cfg = self.shop, self.cfg["reconstruction"]
        student = copy.deepcopy(shop.extractor).train(False)
        student.backbone.requires_grad_(True)
        optimiser = torch.optim.AdamW(student.backbone.parameters(), weight_decay=1e-4)
        photos, draw, rows = (
            shop.photos(shop.split.defence["train"]),
            runtime.generator(self.seed, "tuned", sigma),
            [],
        )
        for step in runtime.progress(range(TUNING), "extractor"):
            images, rows = training.next_batch(photos, rows, cfg.batch_size, draw)
            noisy = images + sigma * torch.randn(images.shape, generator=draw).to(images)
            with torch.no_grad(), runtime.mixed_precision(images):
                wanted, filtered = shop.extractor(images).float(), image_filter(noisy)
            with runtime.mixed_precision(images):
                change = student(filtered).float() - wanted
            for group in optimiser.param_groups:
                group["lr"] = 3e-4 * learning_rate_factor((step + 0.5) / TUNING)
            optimiser.zero_grad()
            change.square().mean().backward()
            optimiser.step()
        return student.requires_grad_(False)

    def behind(self, image_filter: nn.Module, sigma: float, variant: str) -> RandomisedShop:
        shop = self.shop
        if variant == "extractor fine-tuned":
            shop = replace(shop, extractor=self.tuned(image_filter, sigma))
        served = serving.retrained(shop, image_filter, sigma, self.cfg["recommender"], self.seed)
        if variant == "recommender of raw photos":
            served = replace(served, recommender=shop.recommender)
        return RandomisedShop.by_mean(served, image_filter, sigma, serving.DRAWS, self.seed)

    def judged(self, noisy: RandomisedShop) -> dict:
        """Cost, attacked exposure and promises, one row."""
        cfg, ndcg = self.cfg["certificate"], f"ndcg@{self.shop.k}"
        served = noisy.accuracy()
        before, after = (np.asarray(found[ndcg], float) for found in (self.shop.accuracy(), served))
        means = stats.resampled_means(before, after, rng=0)
        low, high = np.quantile(1 - means[1] / means[0], [0.025, 0.975])
        row = {
            ndcg: after.mean(),
            "lost": 1 - after.mean() / before.mean(),
            "low": low,
            "high": high,
            "cold AUC": np.nanmean(served["cold_auc"]),
        }
        few, draw = self.items[: cfg.attacked], runtime.generator(self.seed, "attacked", noisy.sigma)
        draws = cfg.expectation if noisy.sigma else 1
        options = dict(epsilon=ATTACKED, steps=cfg.steps, draws=draws, generator=draw)
        tried = [noisy_ways.through_noise(noisy, few, aim, **options) for aim in ("reach", "insa")]
        reached = stats.estimate(worst_case([noisy.exposed(few, photos) for photos in tried]))
        row |= {"untouched": np.nanmean(noisy.exposed(self.items), axis=0).mean(), "attacked": reached["value"]}
        row |= {"attacked low": reached["ci_low"], "attacked high": reached["ci_high"]}
        if noisy.sigma:
            hits = noisy.hits(self.items, None, cfg.draws, "certificate")
            error, served_error = (1 - cfg.confidence) / 3, self.cfg["adaptive"].served_error
            options = dict(error=error, served_error=served_error)
            found = promises(hits, noisy.sigma, EPSILONS, (3, *self.shop.catalogue.photos.shape[1:3]), **options)
            bounds = found[found.rule == "median"].set_index("epsilon")
            row |= {f"promised, ε = {e:g}": bounds.bound[e] for e in EPSILONS}
            row |= {f"point, ε = {e:g}": bounds.point[e] for e in EPSILONS}
        return row


def rows_of(study: Study, variants, sigmas) -> list[dict]:
    about = {"catalogue": study.shop.catalogue.name, "seed": study.seed}
    bare = RandomisedShop.by_mean(study.shop, nn.Identity(), 0.0, 1, study.seed)
    rows = [about | {"variant": "no defence", "sigma": 0.0} | study.judged(bare)]
    trained = {}
    for variant in variants:
        same = OWN if variant in ("recommender of raw photos", "extractor fine-tuned") else variant
        trained[same] = trained.get(same) or study.denoisers(same, sigmas)
        for sigma, image_filter in trained[same].items():
            row = study.judged(study.behind(image_filter, sigma, variant))
            rows.append(about | {"variant": variant, "sigma": sigma} | row)
            print(rows[-1], flush=True)
    return rows


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval (Student) over the seeds of each catalogue, variant, σ and measure."""
    long = table.melt(["catalogue", "seed", "variant", "sigma"], var_name="measure").dropna()
    long = long[~long.measure.str.contains("low|high")]
    rows = []
    for key, group in long.groupby(["catalogue", "variant", "sigma", "measure"], sort=False):
        if len(group) > 1:
            low, high = stats.mean_ci(group.value)
            names = ("catalogue", "variant", "sigma", "measure")
            rows.append(dict(zip(names, key, strict=True)) | {"mean": group.value.mean(), "low": low, "high": high})
            rows[-1]["seeds"] = len(group)
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("randomised", __doc__)
    parser.add_argument("work", type=Path, nargs="*", help="work folders of studies whose notebooks 1 and 2 have run")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--sigmas", type=float, nargs="+", help="of the noise (those of the study)")
    parser.add_argument("--steps", type=int, help="of training a denoiser (the study's)")
    options = parser.parse_args(arguments)
    if not options.work:
        parser.error("a work folder is needed: vars study NAME --only 01 02 makes scratch/studies/NAME")
    rows, settings = [], {}
    for work in options.work:
        if not (work / "models" / "recommender").is_dir():
            parser.error(f"{work}: no study whose notebooks 1 and 2 have run; vars study NAME --only 01 02")
        study = Study.open(work)
        if options.steps:
            study.cfg["reconstruction"] = study.cfg["reconstruction"].model_copy(
                update={"denoiser_steps": options.steps}
            )
        sigmas = options.sigmas or study.cfg["reconstruction"].sigmas
        rows += rows_of(study, options.only or list(VARIANTS), sigmas)
        settings[work.name] = {name: study.cfg[name].model_dump() for name in ("reconstruction", "certificate")}
    table, about = pd.DataFrame(rows), {"settings": settings}
    title = (
        f"Serving behind noise by the mean of {serving.DRAWS} draws; attacks at ε = {ATTACKED}, worst case per item"
    )
    results.write("randomised", table, about, options.out, title)
    seeds = over_seeds(table)
    if len(seeds):
        results.write("randomised_seeds", seeds, about, options.out, f"{title}; over seeds")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
