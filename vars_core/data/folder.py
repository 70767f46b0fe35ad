"""Reading a catalogue folder that somebody else made: every row is checked before it is believed."""

import csv
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vars_core import runtime
from vars_core.data import photos
from vars_core.errors import InputError

ITEM_COLUMNS = ("item_id", "category")
INTERACTION_COLUMNS = ("user_id", "item_id")
ROW = " row"  # number of a row in its file; columns' names are stripped, so none of the file's is called that
PARTS = ("train", "validation", "test")  # of the optional column `part`, a split that comes with the data
NOT_IN_AN_ID = re.compile(r'[\\/:*?"<>|\x00-\x1f]')  # an id becomes a file name on any system


class CatalogueError(InputError, ValueError):
    """A catalogue that cannot be used: names the file, the row (the header is row 1), what was expected."""


@dataclass(frozen=True)
class CatalogueFolder:
    """Checked tables: one image file per row of `items`; `interactions` is None where the folder has none."""

    items: pd.DataFrame
    files: list
    interactions: pd.DataFrame | None
    rejected: list
    notes: dict


def read(source, *, seed=0, max_items=None):
    """Read and check items.csv, images/ and interactions.csv of the folder `source`; no photo is decoded yet.

    `max_items` keeps the items with most interactions, or a seeded random draw where there is no feedback.
    Raises CatalogueError; rows that can be set aside are listed in `.rejected` as (item_id, file, reason).
    """
    source = Path(source)
    items = _read_csv(source / "items.csv", ITEM_COLUMNS)
    rejected, listed = [], len(items)
    _raise_first(_item_id_problems(items))
    items = _set_aside(items, items["category"] == "", rejected, "items.csv", "category is empty")
    found = _image_files(source)
    counts = items["item_id"].map(lambda name: len(found.get(name, ())))
    wanted = "one file <item_id>.jpg, .jpeg, .png or .webp expected"
    items = _set_aside(items, counts == 0, rejected, "images/", f"no image; {wanted}")
    counts = items["item_id"].map(lambda name: len(found[name]))
    items = _set_aside(items, counts > 1, rejected, "images/", f"several images; {wanted}")
    frame, notes = _interactions(source, items, [name for name, *_ in rejected], rejected)
    notes["items_listed"] = listed
    if max_items is not None and len(items) > max_items:
        items, frame = _cap(items, frame, max_items, seed)
    items = items.drop(columns=ROW).reset_index(drop=True)
    if items.empty:
        raise CatalogueError(f"{source / 'items.csv'}: no usable item is left{_first(rejected)}")
    return CatalogueFolder(items, [found[name][0] for name in items["item_id"]], frame, rejected, notes)


def check_share(rejected, n, most, what):
    """Raise CatalogueError when all of `n` things, or more than the share `most`, are in `rejected`."""
    if rejected and len(rejected) >= n:
        raise CatalogueError(f"every one of {n} {what} was rejected{_first(rejected)}")
    if len(rejected) > most * n:
        raise CatalogueError(
            f"{len(rejected)} of {n} {what} rejected, more than data.max_rejected_share={most:g}{_first(rejected)}"
        )


def rejected_table(rows):
    """DataFrame item_id, file, reason of what was set aside."""
    return pd.DataFrame(rows, columns=["item_id", "file", "reason"]).astype(str)


def _read_csv(path, required):
    """Read `path` as text columns plus ROW, its row number; encoding, header and shape are checked."""
    if not path.is_file():
        raise CatalogueError(f"{path}: no such file; expected a table with the columns {', '.join(required)}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{path}: byte {error.start} is not UTF-8; save the table as UTF-8") from None
    header = [name.strip() for name in next(csv.reader(io.StringIO(text)), [])]
    missing = [name for name in required if name not in header]
    if missing:
        raise CatalogueError(f"{path}, row 1: no column {', '.join(missing)}; the header is {header}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise CatalogueError(f"{path}, row 1: column {', '.join(map(repr, twice))} appears more than once")
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            dtype=str,
            keep_default_na=False,
            names=header,
            header=0,
            index_col=False,
            skip_blank_lines=False,
        )
    except (pd.errors.ParserError, ValueError) as error:
        raise CatalogueError(f"{path}: not a table of {len(header)} columns ({error})") from None
    frame = frame.fillna("").apply(lambda column: column.str.strip())
    frame[ROW] = np.arange(2, len(frame) + 2)
    frame = frame[(frame[header] != "").any(axis=1)]  # blank lines
    if frame.empty:
        raise CatalogueError(f"{path}: no row below the header")
    for name in required:
        if (frame[name] == "").all():
            raise CatalogueError(f"{path}: column {name!r} is empty in every row")
    return frame


def problems(source):
    """Everything that makes the tables of the folder `source` unusable, a line each, for `catalogue check`."""
    source = Path(source)
    if not source.is_dir():
        what = "a file, not a folder" if source.exists() else "no such folder"
        return [f"{source}: {what}; a catalogue is a folder with items.csv and images/ (others' files: convert)"]
    found = []
    for name, columns, look in (
        ("items.csv", ITEM_COLUMNS, _item_id_problems),
        ("interactions.csv", INTERACTION_COLUMNS, _interaction_problems),
    ):
        if name == "interactions.csv" and not (source / name).exists():
            continue
        try:
            found += look(_read_csv(source / name, columns))
        except CatalogueError as error:
            found.append(str(error))
    if not (source / "images").is_dir():
        found.append(f"{source / 'images'}: no such folder; expected one image per item")
    return found


def _raise_first(found):
    for problem in found:
        raise CatalogueError(problem)


def _item_id_problems(items):
    first = {}
    for row, name in zip(items[ROW], items["item_id"], strict=True):
        where = f"items.csv, row {row}"
        if not name:
            yield f"{where}: item_id is empty; every item needs an id of its own"
        elif NOT_IN_AN_ID.search(name) or name.startswith("."):
            yield f'{where}: item_id {name!r} cannot be a file name; no / \\ : * ? " < > | or leading dot'
        elif name in first:
            yield (
                f"{where}: item_id {name!r} already stands in row {first[name]}; every item needs an id of its own"
            )
        first.setdefault(name, row)


def _interaction_problems(frame):
    for name in INTERACTION_COLUMNS:
        for row in frame.loc[frame[name] == "", ROW]:
            yield f"interactions.csv, row {row}: {name} is empty"
    if "timestamp" in frame:
        for row, value in frame.loc[~np.isfinite(_seconds(frame["timestamp"])), [ROW, "timestamp"]].to_numpy():
            yield (
                f"interactions.csv, row {row}: timestamp {value!r}; "
                f"seconds or ISO dates expected, the same kind in all rows"
            )
    if "part" in frame:
        for row, value in frame.loc[~frame["part"].isin(PARTS), [ROW, "part"]].to_numpy():
            yield f"interactions.csv, row {row}: part {value!r}; {', '.join(PARTS)} expected"
        held = frame[frame["part"] != "train"]
        for row, user, part in held.loc[held.duplicated(["user_id", "part"]), [ROW, "user_id", "part"]].to_numpy():
            yield f"interactions.csv, row {row}: a second {part} item of user {user!r}; one per user expected"


def _image_files(source):
    if not (source / "images").is_dir():
        raise CatalogueError(f"{source / 'images'}: no such folder; expected one image per item")
    found = {}
    for entry in sorted(os.scandir(source / "images"), key=lambda entry: entry.name):
        path = Path(entry.path)
        if path.suffix.lower() in photos.SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    return found


def _set_aside(items, bad, rejected, file, reason):
    rows = items[bad]
    rejected += [
        (name, f"{file}", f"items.csv, row {row}: {reason}")
        for name, row in zip(rows["item_id"], rows[ROW], strict=True)
    ]
    return items[~bad]


def _interactions(source, items, set_aside, rejected):
    """Checked interactions with usable items: user_id, item_id and, where given, timestamp (seconds) and part."""
    path = source / "interactions.csv"
    if not path.exists():
        return None, {}
    frame = _read_csv(path, INTERACTION_COLUMNS)
    _raise_first(_interaction_problems(frame))
    unknown = ~frame["item_id"].isin([*items["item_id"], *set_aside])
    for name, rows in frame[unknown].groupby("item_id", sort=True)[ROW]:
        reason = f"interactions.csv, row {rows.iloc[0]}: item_id not in items.csv ({len(rows)} interactions)"
        rejected.append((name, "interactions.csv", reason))
    known = frame["item_id"].isin(items["item_id"])
    notes = {"interactions_with_rejected_items": int((~known).sum())}
    frame = frame[known]
    if "timestamp" in frame:
        frame = frame.assign(timestamp=_seconds(frame["timestamp"]))
        frame = frame.sort_values("timestamp", kind="stable")
    twice = frame.duplicated(["user_id", "item_id"])
    notes["repeated_interactions"] = int(twice.sum())
    columns = [name for name in ("user_id", "item_id", "timestamp", "part") if name in frame]
    return frame.loc[~twice, columns].reset_index(drop=True), notes


def _seconds(text):
    """Timestamps as seconds, NaN where they are none: numbers as they are, dates read as UTC."""
    seconds = pd.to_numeric(text, errors="coerce").astype(float)
    if seconds.isna().all():
        dates = pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601")
        seconds = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return seconds


def _cap(items, frame, most, seed):
    if frame is None:
        kept = np.sort(runtime.rng(seed, "max_items").permutation(len(items))[:most])
        return items.iloc[kept], None
    known = frame[frame["item_id"].isin(items["item_id"])]
    ids = known["item_id"].value_counts(sort=True).rename_axis("item_id").reset_index()
    ids = ids.sort_values(["count", "item_id"], ascending=[False, True])["item_id"].head(most)
    return items[items["item_id"].isin(ids)], known[known["item_id"].isin(ids)]


def _first(rejected):
    if not rejected:
        return ""
    name, file, reason = rejected[0]
    return f"; the first: item {name} ({file}): {reason}"
