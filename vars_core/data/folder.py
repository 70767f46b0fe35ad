"""Reading a catalogue folder that somebody else made: every row is checked before it is believed."""

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from vars_core import runtime
from vars_core.data import ids, tables, timestamps
from vars_core.data.photo_files import PhotoFiles
from vars_core.data.tables import ROW, CatalogueError

ITEM_COLUMNS = ("item_id", "category")
INTERACTION_COLUMNS = ("user_id", "item_id")
OPTIONAL = ("timestamp", "part")  # columns of interactions that the study looks at
PARTS = ("train", "validation", "test")  # of the optional column `part`, a split that comes with the data
ONE_PHOTO = "one file <item_id>.jpg, .jpeg, .png or .webp expected"


@dataclass(frozen=True)
class CatalogueFolder:
    """Checked tables: one image file per row of `items`; `interactions` is None where the folder has none.

    `rejected`: items set aside, as (item_id, file, reason); `unknown`: the same for ids of interactions that
    items.csv doesn't have; `notes`: counts of what was left out, `skipped_files` of them by kind."""

    items: pd.DataFrame
    files: list
    interactions: pd.DataFrame | None
    rejected: list
    unknown: list = field(default_factory=list)
    notes: dict = field(default_factory=dict)


def read(source, *, seed=0, max_items=None):
    """Read and check items.csv, images/ and interactions.csv of the folder `source`; no photo is decoded yet.

    `max_items` keeps the items with most interactions, or a seeded random draw where there is no feedback.
    Raises CatalogueError; rows that can be set aside are listed in `.rejected` as (item_id, file, reason).
    """
    source = Path(source)
    items = _items(source)
    rejected, listed = [], len(items)
    _raise_first(item_problems(items))
    items = _set_aside(items, items["category"] == "", rejected, "items.csv", "category is empty")
    photos = PhotoFiles(source / "images", "one image per item")
    found = photos.by_item()
    if not any(name in found for name in items["item_id"]):
        raise CatalogueError(_no_photo(source, items, photos))
    reasons = items["item_id"].map(lambda name: f"no image; {photos.reasons.get(name, ONE_PHOTO)}")
    counts = items["item_id"].map(lambda name: len(found.get(name, ())))
    items = _set_aside(items, counts == 0, rejected, "images/", reasons)
    counts = items["item_id"].map(lambda name: len(found[name]))
    items = _set_aside(items, counts > 1, rejected, "images/", f"several images; {ONE_PHOTO}")
    frame, unknown, notes = _interactions(source, items, [name for name, *_ in rejected])
    notes |= {"items_listed": listed, "skipped_files": dict(sorted(photos.skipped.items()))}
    notes["photos_of_no_item"] = len(found.keys() - set(items["item_id"]) - {name for name, *_ in rejected})
    if max_items is not None and len(items) > max_items:
        items, frame = _cap(items, frame, max_items, seed)
    items = items.drop(columns=ROW).reset_index(drop=True)
    if items.empty:
        raise CatalogueError(f"{source / 'items.csv'}: no usable item is left{_first(rejected)}")
    return CatalogueFolder(items, [found[name][0] for name in items["item_id"]], frame, rejected, unknown, notes)


def check_share(rejected, n, most, what):
    """Raise CatalogueError when all of `n` things, or more than the share `most`, are in `rejected`."""
    if rejected and len(rejected) >= n:
        raise CatalogueError(f"every one of {n} {what} was rejected{_first(rejected)}")
    if len(rejected) > most * n:
        raise CatalogueError(
            f"{len(rejected)} of {n} {what} rejected, more than data.max_rejected_share={most:g}{_first(rejected)}"
        )


def check_shares(read, most):
    """Raise CatalogueError when more than the share `most` of the items of the CatalogueFolder `read` is set aside,
    or of its interactions is of items that items.csv doesn't have."""
    check_share(read.rejected, read.notes["items_listed"], most, "items")
    n, listed = (read.notes.get(f"interactions_{name}", 0) for name in ("of_unknown_items", "listed"))
    if n > most * listed:
        raise CatalogueError(
            f"{n:,} of {listed:,} interactions are of items that items.csv doesn't have, more than "
            f"data.max_rejected_share={most:g}{_first(read.unknown)}"
        )


def rejected_table(rows):
    """DataFrame item_id, file, reason of what was set aside."""
    return pd.DataFrame(rows, columns=["item_id", "file", "reason"]).astype(str)


def problems(source):
    """Everything that makes the tables of the folder `source` unusable, a line each, for `vars check`."""
    source = Path(source)
    if not source.is_dir():
        what = "a file, not a folder" if source.exists() else "no such folder"
        return [f"{source}: {what}; a catalogue is a folder with items.csv and images/ (others' files: convert)"]
    found = []
    for name, load, look in (
        ("items.csv", _items, item_problems),
        ("interactions.csv", _interaction_table, _interaction_problems),
    ):
        try:
            if name == "items.csv" or _has_interactions(source):
                found += look(load(source))
        except CatalogueError as error:
            found.append(str(error))
    if not (source / "images").is_dir():
        found.append(f"{source / 'images'}: no such folder; expected one image per item")
    return found


def item_problems(items, file="items.csv"):
    """What is wrong with the ids and categories of the table `items` (item_id, category and ROW), a line each."""
    first = {}
    for row, name, category in zip(items[ROW], items["item_id"], items["category"], strict=True):
        where = f"{file}, row {row}"
        if not name:
            yield f"{where}: item_id is empty; every item needs an id of its own"
        elif len(name.encode()) > ids.LONGEST:
            yield f"{where}: item_id {name[:20]!r}… cannot be a file name: longer than {ids.LONGEST} bytes"
        elif not ids.is_a_name(name):
            yield f'{where}: item_id {name!r} cannot be a file name; no / \\ : * ? " < > | or leading dot'
        elif name in first:
            form = "" if name.isascii() else " (compared in the Unicode form NFC)"
            yield (
                f"{where}: item_id {name!r} already stands in row {first[name]}{form}; "
                f"every item needs an id of its own"
            )
        if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in category):
            yield f"{where}: category {category[:40]!r} holds a line break or control character; a quote left open?"
        first.setdefault(name, row)


def _interaction_problems(frame):
    for name in INTERACTION_COLUMNS:
        for row in frame.loc[frame[name] == "", ROW]:
            yield f"interactions.csv, row {row}: {name} is empty"
        broken = [value for value in frame[name].unique() if re.search(r"[\x00-\x1f\x7f-\x9f]", value)]
        for row, value in frame.loc[frame[name].isin(broken), [ROW, name]].to_numpy():
            yield f"interactions.csv, row {row}: {name} {value[:40]!r} holds a line break or control character"
    if "timestamp" in frame:
        wrong = timestamps.seconds(frame["timestamp"]).isna()
        for row, value in frame.loc[wrong, [ROW, "timestamp"]].to_numpy():
            yield f"interactions.csv, row {row}: timestamp {value!r}; {timestamps.EXPECTED}"
    if "part" in frame:
        for row, value in frame.loc[~frame["part"].isin(PARTS), [ROW, "part"]].to_numpy():
            yield f"interactions.csv, row {row}: part {value!r}; {', '.join(PARTS)} expected"
        held = frame[frame["part"] != "train"]
        for row, user, part in held.loc[held.duplicated(["user_id", "part"]), [ROW, "user_id", "part"]].to_numpy():
            yield f"interactions.csv, row {row}: a second {part} item of user {user!r}; one per user expected"


def _items(source):
    path = source / "items.csv"
    if not path.exists():
        below = sorted(path.parent.glob("*/items.csv"))
        hint = f"; {below[0]} is one level below: name that folder" if below else ""
        raise CatalogueError(
            f"{path}: no such file; expected a table with the columns {', '.join(ITEM_COLUMNS)}{hint}"
        )
    items = tables.read(path, ITEM_COLUMNS)
    return items.assign(item_id=ids.canonical_column(items["item_id"]))


def _interaction_table(source):
    frame = tables.read(source / "interactions.csv", INTERACTION_COLUMNS, OPTIONAL)
    return frame.assign(**{name: ids.canonical_column(frame[name]) for name in INTERACTION_COLUMNS})


def _has_interactions(source):
    """Whether there is an interactions.csv. CatalogueError where one has nearly that name, since the study would
    simulate feedback without a word."""
    near = sorted(path.name for path in source.iterdir() if path.name.casefold().startswith("interactions"))
    if near and "interactions.csv" not in near:
        raise CatalogueError(f"{source}: {near[0]} is there, but no interactions.csv; rename, unpack or remove it")
    return bool(near)


def _raise_first(found):
    for problem in found:
        raise CatalogueError(problem)


def _set_aside(items, bad, rejected, file, reason):
    rows = items[bad]
    reasons = [reason] * len(rows) if isinstance(reason, str) else reason[bad]
    rejected += [
        (name, f"{file}", f"items.csv, row {row}: {why}")
        for name, row, why in zip(rows["item_id"], rows[ROW], reasons, strict=True)
    ]
    return items[~bad]


def _no_photo(source, items, photos):
    """Why no item has a photo: a name of each side."""
    there = f"{len(photos.files):,} photos, such as {photos.files[0][0].name!r}" if photos.files else "no photo"
    first = items["item_id"].iloc[0] if len(items) else "<item_id>"
    skipped = "".join(f"; {number:,} {what}" for what, number in photos.remarks().items())
    met = ids.Matcher(items["item_id"])
    if any(met.find(name) for _, name in photos.files):
        skipped += "; they meet but for leading zeros: write the ids as the files are named"
    return (
        f"{source / 'items.csv'}: no usable item is left: none of {len(items):,} items has a photo; looked for "
        f"{f'images/{first}.jpg'!r}, and images/ has {there}{skipped}"
    )


def _interactions(source, items, set_aside):
    """Checked interactions with usable items (user_id, item_id and, where given, timestamp and part), ids that
    items.csv doesn't have, as rows of `rejected_table`, and counts."""
    if not _has_interactions(source):
        return None, [], {}
    frame = _interaction_table(source)
    _raise_first(_interaction_problems(frame))
    usable = set(items["item_id"])
    unknown = frame[~frame["item_id"].isin(usable.union(set_aside))]
    if len(unknown) == len(frame):
        met = ids.Matcher(usable)
        zeros = "; they meet but for leading zeros" if any(map(met.find, unknown["item_id"].unique())) else ""
        raise CatalogueError(
            f"interactions.csv: none of {len(frame):,} rows is of an item of items.csv: interactions.csv has "
            f"{frame['item_id'].iloc[0]!r}, items.csv has {items['item_id'].iloc[0]!r}{zeros}"
        )
    counts = unknown.groupby("item_id", sort=True)[ROW].agg(["first", "size"])
    strangers = [
        (name, "interactions.csv", f"interactions.csv, row {row}: item_id not in items.csv ({size} interactions)")
        for name, row, size in counts.itertuples()
    ]
    known = frame["item_id"].isin(usable)
    notes = {
        "interactions_listed": len(frame),
        "interactions_of_unknown_items": len(unknown),
        "interactions_with_rejected_items": int((~known).sum()) - len(unknown),
    }
    frame = frame[known]
    if "timestamp" in frame:
        frame = frame.assign(timestamp=timestamps.seconds(frame["timestamp"]))
        frame = frame.sort_values("timestamp", kind="stable")
    twice = frame.duplicated(["user_id", "item_id"])
    notes["repeated_interactions"] = int(twice.sum())
    columns = [name for name in ("user_id", "item_id", *OPTIONAL) if name in frame]
    return frame.loc[~twice, columns].reset_index(drop=True), strangers, notes


def _cap(items, frame, most, seed):
    if frame is None:
        kept = np.sort(runtime.rng(seed, "max_items").permutation(len(items))[:most])
        return items.iloc[kept], None
    known = frame[frame["item_id"].isin(items["item_id"])]
    counts = known["item_id"].value_counts(sort=True).rename_axis("item_id").reset_index()
    counts = counts.sort_values(["count", "item_id"], ascending=[False, True])["item_id"].head(most)
    return items[items["item_id"].isin(counts)], known[known["item_id"].isin(counts)]


def _first(rejected):
    if not rejected:
        return ""
    name, file, reason = rejected[0]
    return f"; the first: item {name} ({file}): {reason}"
