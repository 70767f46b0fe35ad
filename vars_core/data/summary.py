"""What is wrong with a catalogue, row by row, and what the study will make of it: `vars check data/raw/shop`."""

import tempfile
from pathlib import Path

import numpy as np

from vars_core import params, paths
from vars_core.data import catalogue, folder, split
from vars_core.data.folder import CatalogueError

MAX_SHOWN = 20  # rejected rows printed; the rest is counted


def check(source: Path, params_file: Path) -> int:
    """Print what is wrong with `source`, and what the study with these parameters makes of it; 0 or 1."""
    values = params.load(params_file)
    cfg = params.Data(**values["data"] | {"source": "folder", "path": str(source.resolve())})
    found = folder.problems(source)
    for problem in found:
        print(f"error: {problem}")
    if found:
        print(f"{source}: {len(found)} error{'s' * (len(found) > 1)}; the study can't use this catalogue")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared"
        try:
            made = catalogue.prepare(cfg, values["seed"], prepared, source, paths.root() / "data" / "decoded")
        except CatalogueError as error:
            print(f"error: {error}")
            return 1
        for item, file, reason in made.rejected.head(MAX_SHOWN).itertuples(index=False):
            print(f"set aside: {item} ({file}): {reason}")
        if len(made.rejected) > MAX_SHOWN:
            print(f"set aside: {len(made.rejected) - MAX_SHOWN} more")
        print(summary(made, split.load(prepared / "split.npz"), cfg))
    return 0


def summary(made: catalogue.Catalogue, parts: split.Split, cfg: params.Data) -> str:
    """What the study will work with, a line per fact."""
    frame, notes = made.interactions, made.notes
    kind = "simulated" if made.simulated else "real"
    history = np.diff(parts.train.indptr)
    return "\n".join(
        f"{name:<24}{value}"
        for name, value in (
            ("items", f"{len(made.items):,} in {len(made.categories)} categories"),
            ("users", f"{len(made.user_ids):,}"),
            ("interactions", f"{len(frame):,} ({kind} feedback)"),
            (f"outside the {cfg.k_core}-core", f"{notes['items_outside_core']:,} items, "
             f"{notes['users_outside_core']:,} users, {notes['interactions_outside_core']:,} interactions"),
            ("split", "the catalogue's own" if "part" in frame else "by time" if "timestamp" in frame else "seeded"),
            ("training history", f"{np.median(history):.0f} items per user (median)"),
            ("held out", f"{(parts.test >= 0).sum():,} test, {(parts.validation >= 0).sum():,} validation"),
            ("cold items", f"{len(parts.cold):,}"),
            ("set aside", f"{len(made.rejected):,} rows"),
        )
    )  # fmt: skip
