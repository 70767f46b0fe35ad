"""From other people's files to a catalogue folder: DVBPR, MovieLens with posters, H&M, a folder of class folders.

`writer` puts the folder together. Each converter returns what it did, in words, with the number (None: none to name).
`vars convert` calls the function named like the kind, and prints that.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from vars_core import runtime
from vars_core.data import dvbpr_file, folder, photo_files, photos, tables
from vars_core.data.ids import LONGEST, NOT_IN_AN_ID, Matcher, canonical_column
from vars_core.data.kept import Kept
from vars_core.data.photo_files import PhotoFiles
from vars_core.data.tables import ROW, CatalogueError
from vars_core.data.unpickle import Span, UnpickleError
from vars_core.data.writer import Target

RATINGS = ("userId", "movieId", "rating", "timestamp")
MOVIES = ("movieId", "title", "genres")


def dvbpr(file: Path, out: Path) -> dict:
    """A `.npy` file of DVBPR. Its own split is written in the column `part`, which the study keeps."""
    stat = _file(file, "DVBPR's .npy file").stat()
    with Target(out, kind="dvbpr", name=file.name, size=stat.st_size, date=stat.st_mtime_ns) as target:
        with tqdm(total=stat.st_size, desc="reading", unit="B", unit_scale=True, leave=False) as bar:
            content = dvbpr_file.read(file, lambda position: bar.update(position - bar.n))
        rows = []
        with file.open("rb") as opened:
            for number in runtime.progress(sorted(content.photos), "photos"):
                photo = content.photos[number]
                try:
                    photo = photo.read(opened) if isinstance(photo, Span) else photo
                except UnpickleError as error:
                    raise CatalogueError(f"{file}: item {number}: {error}") from None
                if target.photo(str(number), photo):
                    rows.append((str(number), _text(content.category[number])))
        if not rows:
            listed = f"none of {len(content.category):,} holds a JPEG, PNG or WebP"
            raise CatalogueError(f"{file}: no item has a photo: {listed}")
        items = pd.DataFrame(rows, columns=["item_id", "category"])
        frame = pd.DataFrame(content.interactions, columns=["user_id", "item_id", "part"]).astype(str)
        frame = frame[frame["item_id"].isin(items["item_id"])]
        if frame.empty:
            reviews = f"{len(content.interactions):,} reviews"
            raise CatalogueError(f"{file}: no interaction is left: none of {reviews} is of an item with a photo")
        target.interactions([frame])
        target.finish(items)
    return {"items": len(items), "without a photo": len(content.category) - len(items), "interactions": len(frame)}


def movielens(folder: Path, posters: Path, out: Path, share: float = 1.0, min_rating: float | None = None) -> dict:
    """MovieLens's 1M and 10M (`::`-separated .dat) or 20M, 25M, 32M and latest (CSV), with a folder of posters named
    <movieId>.<suffix>. `share` of its users; ratings below `min_rating` are left out."""
    dats = (folder / "ratings.dat").is_file()
    names = ("ratings.dat", "movies.dat") if dats else ("ratings.csv", "movies.csv")
    ratings, movies = (_file(folder / name, "MovieLens") for name in names)
    found = PhotoFiles(posters, "posters named <movieId>.<suffix>")
    with Target(out, kind="movielens", folder=str(folder.resolve()), posters=str(posters.resolve())) as target:
        films = pd.concat(_dat(movies, MOVIES)) if dats else tables.read(movies, MOVIES)
        films = films.assign(genres=films["genres"].str.split("|").str[0]).rename(
            columns={"movieId": "item_id", "genres": "category"}
        )
        films, repeated = _distinct(films, movies)
        usual = posters / f"{films['item_id'].iloc[0]}.jpg"
        rows, remarks = _put_photos(target, films, found, "posters", usual)
        items = pd.DataFrame(rows)[["item_id", "category", "title"]]
        kept, below = Kept(ratings.name, movies.name, Matcher(films["item_id"]), share), [0]

        def pieces() -> Iterator[pd.DataFrame]:
            source = _dat(ratings, RATINGS) if dats else tables.pieces(ratings, RATINGS)
            for frame in runtime.progress(source, "ratings"):
                frame = kept.of_known_items(frame.rename(columns={"userId": "user_id", "movieId": "item_id"}))
                frame = kept.of_items_with_photo(frame, items)
                if min_rating is not None:
                    enough = _numbers(frame, "rating", ratings.name) >= min_rating
                    below[0] += int((~enough).sum())
                    frame = kept.step(frame, enough, f"no rating is at least --min-rating {min_rating:g}")
                yield kept.of_chosen_users(frame)[["user_id", "item_id", "timestamp", "rating"]]

        target.interactions(pieces())
        kept.check()
        target.finish(items)
    counts = {"items": len(items), "without a photo": len(films) - len(items), "interactions": kept.left}
    if min_rating is not None:
        counts[f"ratings below {min_rating:g} left out"] = below[0]
    return counts | repeated | remarks | kept.remarks()


def hm(folder: Path, out: Path, share: float = 1.0) -> dict:
    """H&M's Kaggle layout: articles.csv, transactions_train.csv, images/0xx/0xxxxxxxxx.jpg; `share` of its users.

    The transactions (31 million) are read and written in pieces; a purchase's day becomes its timestamp. Without
    them the catalogue has no interactions, and the study simulates feedback."""
    articles, transactions = _file(folder / "articles.csv", "H&M"), folder / "transactions_train.csv"
    found = PhotoFiles(folder / "images", "H&M's photos, such as 010/0108775015.jpg,", deep=True)
    with Target(out, inside=folder / "images", kind="hm", folder=str(folder.resolve()), share=share) as target:
        goods = tables.read(articles, ("article_id", "product_type_name"))
        goods = goods.rename(columns={"article_id": "item_id", "product_type_name": "category"})
        goods, repeated = _distinct(goods, articles)
        number = goods["item_id"].iloc[0].zfill(10)
        usual = folder / "images" / number[:3] / f"{number}.jpg"
        rows, remarks = _put_photos(target, goods, found, "photos", usual)
        items = pd.DataFrame(rows)[["item_id", "category"]]
        kept = Kept(transactions.name, articles.name, Matcher(goods["item_id"]), share)

        def pieces() -> Iterator[pd.DataFrame]:
            names = {"customer_id": "user_id", "article_id": "item_id", "t_dat": "timestamp"}
            for frame in runtime.progress(tables.pieces(transactions, tuple(names)), "transactions"):
                frame = kept.of_items_with_photo(kept.of_known_items(frame.rename(columns=names)), items)
                yield kept.of_chosen_users(frame)[["user_id", "item_id", "timestamp"]]

        counts = {"items": len(items), "without a photo": len(goods) - len(items)}
        if any(folder.glob("transactions_train*")):
            _file(transactions, "H&M")
            target.interactions(pieces())
            kept.check()
            counts["interactions"] = kept.left
        else:
            counts[f"no {transactions.name}: the study will simulate feedback"] = None
        target.finish(items)
    return counts | repeated | remarks | kept.remarks()


def classes(folder: Path, out: Path) -> dict:
    """A folder of class folders (ImageNet's layout). Without feedback: the study will simulate it."""
    what = "one folder per class, with photos in it,"
    found = PhotoFiles(folder, what, deep=True)
    files = [(path.relative_to(folder), path) for path, _ in found.files if path.parent != folder]
    if not files:
        loose = f"; {len(found.files):,} photos lie in the folder itself" if found.files else ""
        raise CatalogueError(f"{folder}: no class folder with {', '.join(photos.SUFFIXES)} files in it{loose}")
    listing = hashlib.sha256(json.dumps([(str(place), path.stat().st_size) for place, path in files]).encode())
    with Target(
        out, inside=folder, kind="classes", folder=str(folder.resolve()), files=listing.hexdigest()
    ) as target:
        rows, used = [], set()
        for place, path in runtime.progress(files, "photos"):
            name = _text(place.parts[0])
            item = _class_item(place, used)
            target.photo(item, path)
            rows.append((item, name))
        target.finish(pd.DataFrame(rows, columns=["item_id", "category"]))
    loose = len(found.files) - len(files)
    names = {name for _, name in rows}
    return {
        "items": len(rows), "classes": len(names),
        **({"photos outside class folders skipped": loose} if loose else {}), **found.remarks(),
        **({f"one class only, {rows[0][1]}: is {folder.name} one level too high?": None} if len(names) == 1 else {}),
    }  # fmt: skip


def _distinct(items: pd.DataFrame, table: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Items with ids that can be used; equal rows count once."""
    items = items.assign(
        item_id=canonical_column(items["item_id"]), category=items["category"].map(_text).replace("", "unknown")
    )
    columns = [name for name in ("item_id", "category", "title") if name in items]
    twice = items.duplicated(columns)
    items = items[~twice]
    for problem in folder.item_problems(items, table.name):
        raise CatalogueError(problem)
    return items, {f"repeated rows of {table.name} left out": int(twice.sum())} if twice.any() else {}


def _put_photos(target: Target, items: pd.DataFrame, found: PhotoFiles, what: str, usual: Path):
    """Rows (dicts) of `items` that have a photo among `found`, and remarks; `usual`: where the first would lie."""
    match, files = Matcher(items["item_id"]), found.by_item()
    by_item, more = {}, 0
    for name in sorted(files, key=lambda name: name not in match.known):  # a name that is the id goes first
        item = match.find(name)
        if item is not None:
            more += len(files[name]) - (item not in by_item)
            by_item.setdefault(item, files[name][0])
    rows = [
        row
        for row in runtime.progress(items.to_dict("records"), what)
        if row["item_id"] in by_item and target.photo(row["item_id"], by_item[row["item_id"]])
    ]
    if not rows:
        there = f", such as {found.files[0][0].name}" if found.files else ""
        skipped = "".join(f", {number:,} {kind}" for kind, number in found.remarks().items())
        raise CatalogueError(
            f"no item has a photo: looked for {usual} and the like, none of {len(items):,} is there; "
            f"{found.folder} has {len(found.files):,} photos{there}{skipped}"
        )
    further = {f"further {what} of the same item left out": more} if more else {}
    return rows, match.remarks(f"names of {what}") | further | found.remarks()


def _numbers(frame: pd.DataFrame, name: str, where: str) -> pd.Series:
    value = pd.to_numeric(frame[name], errors="coerce")
    for row, text in frame.loc[value.isna(), [ROW, name]].to_numpy():
        raise CatalogueError(f"{where}, row {row}: {name} {text!r}; a number expected")
    return value


def _class_item(place: Path, used: set) -> str:
    """An id for a photo at `place` (class/…/name): unlike all in `used`, also on a disk that takes A for a."""
    parts = [*place.parts[:-1], photo_files.stem(place.name)]
    item = re.sub(NOT_IN_AN_ID, "-", _text("-".join(parts))).strip(" .")
    if len(item.encode()) > LONGEST - 20:
        mark = hashlib.sha256(str(place).encode(errors="surrogateescape")).hexdigest()[:8]
        item = item.encode()[: LONGEST - 30].decode(errors="ignore").strip(" .") + f"-{mark}"
    base, number = item, 1
    while item.casefold() in used:
        number += 1
        item = f"{base}-{number}"
    used.add(item.casefold())
    return item


def _text(value: str) -> str:
    """One line of text in the form NFC: control characters and bytes that aren't UTF-8 become spaces."""
    plain = "".join(" " if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") else sign for sign in value)
    return unicodedata.normalize("NFC", " ".join(plain.split()))


def _file(path: Path, what: str) -> Path:
    if path.is_file():
        return path
    above = path.parent
    if above.is_file():
        archive = above.suffix.lower() in photo_files.ARCHIVES
        kind = "an archive; unpack it, and give the folder" if archive else "a file, not a folder"
        raise CatalogueError(f"{above}: {kind}")
    below = sorted(above.glob(f"*/{path.name}"))
    packed = sorted(above.glob(f"{path.stem}*"))
    hint = f"; {below[0]} is one level below: name that folder" if below else ""
    if (above / "u.data").is_file():
        hint = "; this is MovieLens 100K: take ml-latest-small or ml-1m, whose tables are read"
    elif packed:
        hint = f"; {packed[0].name} is there: unpack or rename it"
    raise CatalogueError(f"{path}: no such file; {what} expected there{hint}")


def _dat(path: Path, columns: tuple) -> Iterator[pd.DataFrame]:
    """A table of ml-1m (Latin-1) or ml-10m (UTF-8) in pieces: `::` between fields, no header; ROW is the line."""
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode()
            except UnicodeDecodeError:
                text = line.decode("latin-1")
            fields = text.rstrip("\r\n").split("::")
            if len(fields) != len(columns) and text.strip():
                raise CatalogueError(f"{path}, row {number}: {len(fields)} fields; {'::'.join(columns)} expected")
            if text.strip():
                rows.append([*fields, number])
            if len(rows) == tables.ROWS:
                yield pd.DataFrame(rows, columns=[*columns, ROW])
                rows = []
    if rows:
        yield pd.DataFrame(rows, columns=[*columns, ROW])
    elif path.stat().st_size < 2:
        raise CatalogueError(f"{path}: empty")
