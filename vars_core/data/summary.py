"""What is wrong with a catalogue, row by row, and what the study will make of it: `vars check data/raw/shop`."""

import tempfile
from pathlib import Path

import numpy as np

from vars_core import param_file, params, paths
from vars_core.data import alike, catalogue, folder, split
from vars_core.data.folder import CatalogueError

MAX_SHOWN = 20  # lines of one kind that are printed; the rest is counted
LOST = 0.5  # share outside the k-core above which a warning is due


def check(source: Path, params_file: Path) -> int:
    """Print what is wrong with `source`, and what the study with these parameters makes of it; 0 or 1."""
    values = param_file.load(params_file)
    cfg = params.Data(**values["data"] | {"source": "folder", "path": str(source.resolve())})
    found = folder.problems(source)
    if found:
        _print_some("error", found)
        print(f"{source}: {len(found)} error{'s' * (len(found) > 1)}; the study can't use this catalogue")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared"
        try:
            made = catalogue.prepare(cfg, values["seed"], prepared, source, paths.root() / "data" / "decoded")
            parts = split.load(prepared / "split.npz")
            split.check_study(parts, made.labels, values)
        except (CatalogueError, split.SplitError) as error:
            print(f"error: {error}")
            return 1
        rows = made.rejected.itertuples(index=False)
        _print_some("set aside", [f"{item} ({file}): {reason}" for item, file, reason in rows])
        for warning in warnings(made, parts, cfg):
            print(f"warning: {warning}")
        for note in notes(made):
            print(f"note: {note}")
        print(summary(made, parts, cfg))
    return 0


def warnings(made: catalogue.Catalogue, parts: split.Split, cfg: params.Data) -> list[str]:
    """What makes the study's numbers mean less than they seem to, a line each."""
    found, left = [], {"items": len(made.items), "users": len(made.user_ids), "interactions": len(made.interactions)}
    names = ["data.users", "data.interactions_per_user", "data.k_core"] if made.simulated else ["data.k_core"]
    for what, stay in left.items():
        lost = made.notes[f"{what}_outside_core"]
        if lost > LOST * (stay + lost):
            found.append(
                f"{stay:,} of {stay + lost:,} {what} stay in the {cfg.k_core}-core; change {' or '.join(names)} "
                f"({', '.join(str(getattr(cfg, name.removeprefix('data.'))) for name in names)}) to keep more"
            )
    empty = int((np.diff(parts.train.indptr) == 0).sum())
    if empty:
        found.append(
            f"{empty:,} of {len(made.user_ids):,} users have no training interaction (their items are all cold or "
            f"held out): they are left out of what needs a history"
        )
    if len(made.categories) == 1:
        found.append(
            f"one category only ({made.categories[0]}): no extractor can be trained on it, and tastes for "
            f"categories, tables and figures by category tell nothing"
        )
    unknown = made.notes.get("interactions_of_unknown_items", 0)
    if unknown:
        listed = made.notes["interactions_listed"]
        found.append(f"{unknown:,} of {listed:,} interactions are of items that items.csv doesn't have: left out")
    return found


def notes(made: catalogue.Catalogue) -> list[str]:
    """What is unusual but harmless, a line each."""
    found = [f"images/: {number:,} {kind} skipped" for kind, number in made.notes.get("skipped_files", {}).items()]
    if made.notes.get("photos_of_no_item"):
        found.append(
            f"images/: {made.notes['photos_of_no_item']:,} photos of items that items.csv doesn't have: not used"
        )
    counts = alike.count(made.photos)
    return found + [f"{number:,} of {len(made.items):,} photos {what}" for what, number in counts.items() if number]


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


def _print_some(kind: str, lines: list[str]) -> None:
    for line in lines[:MAX_SHOWN]:
        print(f"{kind}: {line}")
    if len(lines) > MAX_SHOWN:
        print(f"{kind}: {len(lines) - MAX_SHOWN:,} more")
