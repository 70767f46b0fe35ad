"""From other people's files to a catalogue folder: DVBPR, MovieLens with posters, H&M, a folder of class folders.

Everything is written to `<out>.partial` and renamed at the end, so `<out>` is whole or not there. An interrupted
conversion goes on where it stopped: photos that are there already are not written again.
`vars convert` calls the function named like the kind.
"""

import csv
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from vars_core import runtime
from vars_core.data import dvbpr_file, photos
from vars_core.data.folder import NOT_IN_AN_ID, CatalogueError
from vars_core.data.unpickle import Span, UnpickleError

ROWS = 500_000  # of a table held at once


class _Target:
    """The folder in the making. `source` says what it is made from: another source starts anew."""

    def __init__(self, out: Path, **source):
        if out.exists():
            raise CatalogueError(f"{out} exists already; remove it, or choose another name")
        self.out, self.partial = out, out.with_name(out.name + ".partial")
        mark = self.partial / "source.json"
        if self.partial.exists() and (not mark.is_file() or json.loads(mark.read_text()) != source):
            shutil.rmtree(self.partial)
        (self.partial / "images").mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps(source))

    def photo(self, item: str, content: bytes | Path) -> bool:
        """Put a photo: its bytes, or its file (linked, else copied). False for bytes that are no image."""
        suffix = content.suffix.lower() if isinstance(content, Path) else _suffix(content)
        if not suffix:
            return False
        place = self._place(item, suffix)
        if place.exists():
            return True
        if isinstance(content, Path):
            _link(content, place)
        else:
            part = place.with_suffix(".part")
            part.write_bytes(content)
            part.replace(place)
        return True

    def _place(self, item: str, suffix: str) -> Path:
        if NOT_IN_AN_ID.search(item) or not item or item.startswith("."):
            raise CatalogueError(f"item {item!r} cannot be a file name")
        return self.partial / "images" / (item + suffix)

    def finish(self, items: pd.DataFrame, interactions: Iterable[pd.DataFrame] | None) -> Path:
        if items.empty:
            raise CatalogueError(f"nothing to write to {self.out}: no item has a photo")
        items.to_csv(self.partial / "items.csv", index=False)
        if interactions is not None:
            with (self.partial / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
                for number, frame in enumerate(interactions):
                    frame.to_csv(file, index=False, header=number == 0)
        (self.partial / "source.json").unlink()
        self.partial.replace(self.out)
        return self.out


def dvbpr(file: Path, out: Path) -> dict:
    """A `.npy` file of DVBPR. Its own split is written in the column `part`, which the study keeps."""
    stat = _file(file, "DVBPR's .npy file").stat()
    target = _Target(out, kind="dvbpr", name=file.name, size=stat.st_size, date=stat.st_mtime_ns)
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
                rows.append((str(number), content.category[number]))
    items = pd.DataFrame(rows, columns=["item_id", "category"])
    frame = pd.DataFrame(content.interactions, columns=["user_id", "item_id", "part"])
    frame["item_id"] = frame["item_id"].astype(str)
    kept = frame[frame["item_id"].isin(items["item_id"])]
    target.finish(items, [kept])
    return {"items": len(items), "without a photo": len(content.category) - len(items), "interactions": len(kept)}


def movielens(folder: Path, posters: Path, out: Path, share: float = 1.0) -> dict:
    """ml-latest-small (CSV) or ml-1m (`::`-separated .dat), and a folder of posters named <movieId>.<suffix>."""
    dats = (folder / "ratings.dat").is_file()
    names = ("ratings.dat", "movies.dat") if dats else ("ratings.csv", "movies.csv")
    ratings, movies = (_file(folder / name, "MovieLens") for name in names)
    target = _Target(out, kind="movielens", folder=str(folder.resolve()), posters=str(posters.resolve()))
    films = _dat(movies, ["movieId", "title", "genres"]) if dats else _table(movies, ["movieId", "title", "genres"])
    found = _images(posters)
    rows = [
        (film.movieId, film.genres.split("|")[0], film.title)
        for film in runtime.progress(list(films.itertuples()), "posters")
        if film.movieId in found and target.photo(film.movieId, found[film.movieId])
    ]
    items = pd.DataFrame(rows, columns=["item_id", "category", "title"])
    columns = ["userId", "movieId", "rating", "timestamp"]
    frame = _dat(ratings, columns) if dats else _table(ratings, columns)
    frame = frame.rename(columns={"userId": "user_id", "movieId": "item_id"})[
        ["user_id", "item_id", "timestamp", "rating"]
    ]
    kept = frame[frame["item_id"].isin(items["item_id"]) & _chosen(frame["user_id"], share)]
    target.finish(items, [kept])
    return {"items": len(items), "without a photo": len(films) - len(items), "interactions": len(kept)}


def hm(folder: Path, out: Path, share: float = 1.0) -> dict:
    """H&M's Kaggle layout: articles.csv, transactions_train.csv, images/0xx/0xxxxxxxxx.jpg; `share` of its users.

    The transactions (31 million) are read and written in pieces; a purchase's day becomes its timestamp."""
    articles = _file(folder / "articles.csv", "H&M")
    transactions = _file(folder / "transactions_train.csv", "H&M")
    target = _Target(out, kind="hm", folder=str(folder.resolve()), share=share)
    goods = _table(articles, ["article_id", "product_type_name"])
    rows = []
    for good in runtime.progress(list(goods.itertuples()), "photos"):
        file = folder / "images" / good.article_id[:3] / f"{good.article_id}.jpg"
        if file.is_file() and target.photo(good.article_id, file):
            rows.append((good.article_id, good.product_type_name))
    items = pd.DataFrame(rows, columns=["item_id", "category"])
    count = [0]

    def pieces() -> Iterator[pd.DataFrame]:
        wanted = ["t_dat", "customer_id", "article_id"]
        _header(transactions, wanted)
        reader = pd.read_csv(transactions, dtype=str, usecols=wanted, chunksize=ROWS)
        for frame in runtime.progress(reader, "transactions"):
            frame = frame[frame["article_id"].isin(items["item_id"]) & _chosen(frame["customer_id"], share)]
            count[0] += len(frame)
            names = {"customer_id": "user_id", "article_id": "item_id", "t_dat": "timestamp"}
            yield frame.rename(columns=names)[["user_id", "item_id", "timestamp"]]

    target.finish(items, pieces())
    return {"items": len(items), "without a photo": len(goods) - len(items), "interactions": count[0]}


def classes(folder: Path, out: Path) -> dict:
    """A folder of class folders (ImageNet's layout). Without feedback: the study will simulate it."""
    if not folder.is_dir():
        raise CatalogueError(f"{folder}: no such folder; one folder per class expected in it")
    target = _Target(out, kind="classes", folder=str(folder.resolve()))
    files = [
        (entry.name, file)
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
        for file in sorted(entry.rglob("*"))
        if file.suffix.lower() in photos.SUFFIXES
    ]
    if not files:
        raise CatalogueError(f"{folder}: no class folder with {', '.join(photos.SUFFIXES)} files in it")
    rows, used = [], set()
    for name, file in runtime.progress(files, "photos"):
        item = re.sub(NOT_IN_AN_ID, "-", f"{name}-{file.relative_to(folder / name).with_suffix('')}")
        if item in used:
            item = f"{item}-{file.suffix[1:].lower()}"
        used.add(item)
        target.photo(item, file)
        rows.append((item, name))
    target.finish(pd.DataFrame(rows, columns=["item_id", "category"]), None)
    return {"items": len(rows), "classes": len({name for name, _ in files})}


def _file(path: Path, what: str) -> Path:
    if not path.is_file():
        raise CatalogueError(f"{path}: no such file; {what} expected there")
    return path


def _header(path: Path, columns: list[str]) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    missing = [name for name in columns if name not in header]
    if missing:
        raise CatalogueError(f"{path}, row 1: no column {', '.join(missing)}; the header is {header}")


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    _header(path, columns)
    return pd.read_csv(path, dtype=str, usecols=columns, keep_default_na=False, encoding="utf-8-sig")


def _dat(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table of ml-1m: `::` between fields, Latin-1."""
    rows = []
    with path.open(encoding="latin-1") as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split("::")
            if len(fields) != len(columns):
                expected = "::".join(columns)
                raise CatalogueError(f"{path}, row {number}: {len(fields)} fields; {expected} expected")
            rows.append(fields)
    return pd.DataFrame(rows, columns=columns)


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise CatalogueError(f"{folder}: no such folder; posters named <movieId>.<suffix> expected")
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in photos.SUFFIXES}


def _chosen(users: pd.Series, share: float) -> pd.Series:
    """A `share` of the users, always the same ones: by a hash of the id, so that no list of users is needed."""
    if share >= 1:
        return pd.Series(True, index=users.index)
    return users.map(lambda user: zlib.crc32(user.encode()) < share * 2**32)


def _suffix(photo: bytes) -> str:
    """.jpg, .png or .webp by the first bytes; "" for anything else."""
    if photo.startswith(b"\xff\xd8"):
        return ".jpg"
    if photo.startswith(b"\x89PNG"):
        return ".png"
    return ".webp" if photo.startswith(b"RIFF") and photo[8:12] == b"WEBP" else ""


def _link(file: Path, place: Path) -> None:
    """A hard link where the disk allows one, else a copy: posters and product photos take gigabytes."""
    try:
        os.link(file, place)
    except OSError:
        part = place.with_suffix(".part")
        shutil.copyfile(file, part)
        part.replace(place)
