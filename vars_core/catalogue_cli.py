"""Bringing a catalogue, from the command line.

python -m vars_core.catalogue convert dvbpr AmazonMenWithImgPartitioned.npy data/raw/men
python -m vars_core.catalogue convert movielens ml-latest-small posters data/raw/films
python -m vars_core.catalogue convert hm h-and-m data/raw/hm --share 0.05
python -m vars_core.catalogue convert classes photos-by-class data/raw/things
python -m vars_core.catalogue check data/raw/men
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from vars_core import catalogue, convert, folder, params, paths, split
from vars_core.folder import CatalogueError

SHOWN = 20  # rejected rows printed; the rest is counted


def check(source: Path, cfg: params.Data, seed: int) -> int:
    """Print what is wrong with the catalogue `source`, row by row, and what the study will make of it; 0 or 1."""
    found = folder.problems(source)
    for problem in found:
        print(f"error: {problem}")
    if found:
        print(f"{source}: {len(found)} error{'s' * (len(found) > 1)}; the study can't use this catalogue")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        try:
            goods = catalogue.prepare(
                cfg, seed, Path(scratch) / "prepared", source, paths.root() / "data" / "decoded"
            )
        except CatalogueError as error:
            print(f"error: {error}")
            return 1
        for item, file, reason in goods.rejected.head(SHOWN).itertuples(index=False):
            print(f"set aside: {item} ({file}): {reason}")
        if len(goods.rejected) > SHOWN:
            print(f"set aside: {len(goods.rejected) - SHOWN} more")
        parts = split.load(Path(scratch) / "prepared" / "split.npz")
        print(summary(goods, parts, cfg))
    return 0


def summary(goods: catalogue.Catalogue, parts: split.Split, cfg: params.Data) -> str:
    """What the study will work with, a line per fact."""
    frame, notes = goods.interactions, goods.notes
    kind = "simulated" if goods.simulated else "real"
    history = np.diff(parts.train.indptr)
    return "\n".join(
        f"{name:<24}{value}"
        for name, value in (
            ("items", f"{len(goods.items):,} in {len(goods.categories)} categories"),
            ("users", f"{len(goods.user_ids):,}"),
            ("interactions", f"{len(frame):,} ({kind} feedback)"),
            (f"outside the {cfg.k_core}-core", f"{notes['items_outside_core']:,} items, "
             f"{notes['users_outside_core']:,} users, {notes['interactions_outside_core']:,} interactions"),
            ("split", "the catalogue's own" if "part" in frame else "by time" if "timestamp" in frame else "seeded"),
            ("training history", f"{np.median(history):.0f} items per user (median)"),
            ("held out", f"{(parts.test >= 0).sum():,} test, {(parts.validation >= 0).sum():,} validation"),
            ("cold items", f"{len(parts.cold):,}"),
            ("set aside", f"{len(goods.rejected):,} rows"),
        )
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m vars_core.catalogue", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    looking = commands.add_parser("check", help="what is wrong with a catalogue, and what the study will make of it")
    looking.add_argument("folder", type=Path)
    looking.add_argument("--params", type=Path, help="parameters to check with; params.yaml by default")
    commands.add_parser("convert", help="make a catalogue of other people's files", add_help=False)
    return parser


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["convert"]:
        return convert.main(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        values = params.load(options.params or paths.root() / "params.yaml")
        cfg = params.Data(**values["data"] | {"source": "folder", "path": str(options.folder.resolve())})
        return check(options.folder, cfg, values["seed"])
    except (CatalogueError, params.ParameterError) as error:
        print(error, file=sys.stderr)
        return 1
