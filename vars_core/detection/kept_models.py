"""`vars pretrained`: what a run trained, packed into pretrained/ with a card of what it can do after that."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vars_core import checkpoint, paths, pretrained, seal
from vars_core.attacks import campaign
from vars_core.data import catalogue
from vars_core.detection import defence_files
from vars_core.detection.calibration import auroc_estimate, rate_estimate
from vars_core.detection.defence import Defence, fingerprint
from vars_core.detection.detectors import score_photos
from vars_core.errors import InputError
from vars_core.extractor import Extractor, extract
from vars_core.params import Attacks, Recommender
from vars_core.recommender.shop import Shop
from vars_core.recommender.vbpr import VBPR
from vars_core.reconstruction import recovery
from vars_core.reconstruction.filters import load_filter
from vars_core.runtime import device

CARD = "README.md"
LEFT_OUT = ("robust_extractor",)  # of models/filter: no later notebook loads it
DRAWN = "Drawn by the study itself; Apache-2.0, as its code."


def keep(values: dict, profile: str, made_of: dict[str, str], commit: str, licence: str | None) -> Path:
    """Pack the models of the run in the workspace, measure what they can do then, and put all of it into
    pretrained/<catalogue>, over what was there; the folder.

    `values` are the run's parameters, `made_of` the hashes of what its models came from, `licence` says of real
    photos whose they are. Raises InputError without a licence of real photos, or where the run isn't whole."""
    drawn, seed = values["data"]["source"] == "synthetic", values["seed"]
    if not drawn and not licence:
        raise InputError(
            "--licence: say what the photos' licence allows; models that learned from them are to be given away"
        )
    goods = catalogue.load(paths.read_from("data/prepared"))
    beside = paths.scratch() / "pretrained"
    shutil.rmtree(beside, ignore_errors=True)
    models = beside / "models"
    for file in _kept(seed, drawn):
        target = models / file.parent.name / file.name
        if file.parent.parent.name == "defence":
            target = models / "defence" / file.parent.name / file.name
        checkpoint.pack(file, target)
    trained = Extractor.load(paths.read_from("models/recommender") / "extractor.safetensors")
    extractor = Extractor.load(models / "recommender" / "extractor.safetensors")
    shop = Shop.open(Recommender(**values["recommender"]), Attacks(**values["attacks"]), seed)
    model = VBPR.load(models / "recommender" / f"vbpr-{seed}.safetensors", goods.fingerprint).to(device())
    shop = replace(shop, extractor=extractor, features=extract(extractor, goods.photos), recommender=model)
    for folder in sorted((models / "defence").iterdir()):
        _recalibrate(folder, shop)
    about = pretrained.About(
        catalogue=goods.name, fingerprint=goods.fingerprint, drawn=drawn, profile=profile, commit=commit,
        size=goods.photos.shape[1], extractor=extractor.name, made_of=made_of,
        networks=[pretrained.network(e.name, e.backbone.state_dict()) for e in (trained, extractor)],
    )  # fmt: skip
    paths.write(beside / CARD, _card(about, shop, models, DRAWN if drawn else licence))
    paths.write(beside / pretrained.ABOUT, json.dumps(about.model_dump(), indent=1, sort_keys=True) + "\n")
    seal.put(models)
    target = paths.root() / pretrained.FOLDER / goods.name
    paths.replace_folder(beside, target)
    return target


def _kept(seed: int, drawn: bool) -> Iterator[Path]:
    """The files of a run's models that later notebooks load. Of further trainings the first, which a grey-box
    attacker has; others serve intervals only."""
    folder = paths.read_from("models/recommender")
    yield from (folder / "extractor.safetensors", folder / f"vbpr-{seed}.safetensors")
    others = tuple(f"-{other}" for other in range(seed + 2, seed + 100))
    for file in sorted(paths.read_from("models/filter").glob("*.safetensors")):
        trained = file.stem.startswith("global_vit-") and file.stem.endswith(others)
        if file.stem not in LEFT_OUT and not trained:
            yield file
    for folder in sorted(path for path in paths.read_from("models/defence").iterdir() if path.is_dir()):
        if not folder.name.endswith(others):
            # what serves behind noise lies among the filters, too: nobody screens with a defence of drawn photos
            yield from (
                f for f in sorted(folder.glob("*.safetensors")) if not (drawn and f.name == defence_files.DENOISER)
            )


def _recalibrate(folder: Path, shop: Shop) -> None:
    """Thresholds for the defence in `folder` as it is kept, from `shop`'s validation photos."""
    known = json.loads(
        (paths.read_from("models/defence") / folder.name / defence_files.ABOUT).read_text(encoding="utf-8")
    )
    if not (folder / defence_files.DENOISER).is_file():
        known.pop("sigma", None)
    known |= {"extractor": fingerprint(shop.extractor)}
    defence_files.seal(folder, known)
    defence = Defence.load(folder, shop.extractor)
    defence.calibrate(shop.photos(shop.split.defence["validation"]))
    defence_files.seal(folder, known | {"thresholds": defence.thresholds})


def _card(about: pretrained.About, shop: Shop, models: Path, licence: str) -> str:
    items, _, attacked = campaign.load(paths.read_from("data/attacked"))
    tests = {name: photos for name, photos in attacked.items() if name.startswith(("pgd@", "fgsm@"))}
    undefended = recovery.UndefendedOutcome.of(shop, items, tests)
    honest, found = [], {}
    for name in ("global_vit", "global_vit_adaptive"):
        arm = shop.with_filter(load_filter(models / "filter" / f"{name}.safetensors"))
        lost = recovery.clean_cost(shop, arm, items).get("clean_ndcg_loss")
        honest += [f"- {name}: share of NDCG@{shop.k} lost {_text(lost)}, {lost['n']:,} users"] if lost else []
        for row in recovery.recoveries(undefended, arm):
            if row["metric"] == "feature_recovery":
                found[f"{name}: feature recovery", row["attack"]] = row
    defence = Defence.load(models / "defence" / "contrastive", shop.extractor)
    clean, rate = shop.photos(shop.split.defence["test"]), defence.operating_rate
    scores, limit = score_photos(defence.score, clean), defence.threshold(rate)
    flagged = rate_estimate(scores > limit)
    honest.append(f"- detector: share flagged at the threshold for {rate} % {_text(flagged)}, {len(clean):,} photos")
    for name, photos in tests.items():
        against = score_photos(defence.score, photos)
        found["detector: AUROC", name] = auroc_estimate(scores, against)
        found[f"detector: flagged at {rate} %", name] = rate_estimate(against > limit)
    size = sum(path.stat().st_size for path in models.rglob("*") if path.is_file()) / 2**20
    return CARD_TEXT.format(
        name=about.catalogue, size=f"{size:.1f}", licence=licence, profile=about.profile, commit=about.commit[:12],
        extractor=about.extractor, side=about.size, items=f"{len(shop.catalogue.items):,}", attacked=len(items),
        trained=f"{len(shop.split.defence['train']):,}", honest="\n".join(honest), table=_table(found),
        files="\n".join(f"- `{p.relative_to(models).as_posix()}`" for p in sorted(models.rglob("*.safetensors"))),
        use=DRAWN_USE if about.drawn else PHOTOS_USE,
    )  # fmt: skip


def _table(found: dict[tuple[str, str], dict]) -> str:
    """Estimates by what was measured and the attack's name: a line for each measure and algorithm, a column per ε."""
    lines: dict[tuple[str, str], dict[int, str]] = {}
    for (measure, attack), row in found.items():
        algorithm, epsilon = campaign.parse_name(attack)
        lines.setdefault((measure, algorithm), {})[epsilon] = _text(row)
    columns = sorted({epsilon for line in lines.values() for epsilon in line})
    head = [f"| measure | attack | {' | '.join(f'ε = {e}' for e in columns)} |", "| --- " * (2 + len(columns)) + "|"]
    body = (f"| {m} | {a} | {' | '.join(line.get(e, '–') for e in columns)} |" for (m, a), line in lines.items())
    return "\n".join([*head, *body])


def _text(row: dict) -> str:
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


DRAWN_USE = """They are for lessons, and for notebooks that are stepped through without the
training before. They have seen nothing but drawings: they say nothing about photos, and protect no shop."""
PHOTOS_USE = """They screen folders of photos (`vars screen`), and filters for the same extractor
start from them. They are no protection by themselves: a seller who knows the filter gets past it (notebook 7), photos
of another kind raise more false alarms than the rate says until thresholds are set on photos of one's own, and no
seller should be accused on a score alone."""
CARD_TEXT = """# Models of {name}

What one run of the profile `{profile}` trained, packed to 8 bits a weight ({size} MiB): {items} photos at
{side} px, of which filters and detectors learned from {trained}. Code: commit {commit}. Extractor: {extractor}.

**Photos.** {licence}

**What they are for.** {use}

## What they can do

Measured on {attacked} attacked test items, with the weights as they lie here and thresholds set anew; 95 % intervals.
The sellers know the extractor and no more (T0). What those reach who know the filter, and what holds behind noise, is
in the reports of the run.

{table}

On untouched photos:

{honest}

## Files

Tensors only (safetensors); `vars_core.checkpoint.read` unpacks them. `about.json` says which run they are of;
`make check` notices when that run is not the one that is committed.

{files}
"""
