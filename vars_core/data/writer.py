"""A catalogue folder in the making: photos and tables go to `<out>.partial`, which is renamed when all is there.

Photos that lie on the same disk are hard links: the catalogue's photo and the source's are then one file with two
names, which takes no room. Changing the one in place changes the other; deleting one leaves the other. Where a photo
is a link (git-annex, DVC, a hub's cache), the file that it leads to counts.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from vars_core.data import ids, photo_files
from vars_core.data.tables import CatalogueError


class Target:
    """The folder in the making, as a context. `source` says what it is made from: another source starts anew.

    An interrupted conversion, or one for which the disk was too small, leaves `<out>.partial` and goes on from it;
    one that found the source wrong (CatalogueError) leaves nothing. Raises CatalogueError when `out` exists, or lies
    in `inside`, the folder that is read."""

    def __init__(self, out: Path, inside: Path | None = None, **source):
        if os.path.lexists(out):
            raise CatalogueError(f"{out} exists already; remove it, or choose another name")
        if inside is not None and out.resolve().is_relative_to(inside.resolve()):
            raise CatalogueError(f"{out} lies in {inside}, which is read; choose another place")
        self.out, self.partial, self._source = out, out.with_name(out.name + ".partial"), source

    def __enter__(self) -> "Target":
        with _as_one_line(self.partial):
            mark = self.partial / "source.json"
            if self.partial.exists() and (not mark.is_file() or mark.read_text() != json.dumps(self._source)):
                shutil.rmtree(self.partial)
            (self.partial / "images").mkdir(parents=True, exist_ok=True)
            mark.write_text(json.dumps(self._source))
        return self

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, CatalogueError) and not isinstance(error.__cause__, OSError):
            shutil.rmtree(self.partial, ignore_errors=True)

    def photo(self, item: str, content: bytes | Path) -> bool:
        """Put a photo: its bytes, or its file (linked, else copied). False for bytes that are no image."""
        by_file = isinstance(content, Path)
        suffix = photo_files.suffix(content.name) if by_file else _suffix(content)
        if not suffix:
            return False
        if not item or not ids.is_a_name(item):
            raise CatalogueError(f"item {item!r} cannot be a file name")
        place = self.partial / "images" / (item + suffix)
        with _as_one_line(self.partial):
            if place.exists() and (not by_file or place.stat().st_size == content.stat().st_size):
                return True
            if by_file:
                _link(content, place, self.partial / "photo.part")
            else:
                part = self.partial / "photo.part"
                part.write_bytes(content)
                part.replace(place)
        return True

    def interactions(self, frames: Iterable[pd.DataFrame]) -> None:
        """Write interactions.csv, piece by piece."""
        with (
            _as_one_line(self.partial),
            (self.partial / "interactions.csv").open("w", newline="", encoding="utf-8") as file,
        ):
            for number, frame in enumerate(frames):
                frame.to_csv(file, index=False, header=number == 0)

    def finish(self, items: pd.DataFrame) -> None:
        """Write items.csv, and give the folder its name."""
        with _as_one_line(self.partial):
            items.to_csv(self.partial / "items.csv", index=False)
            (self.partial / "photo.part").unlink(missing_ok=True)
            (self.partial / "source.json").unlink()
            self.partial.replace(self.out)


@contextmanager
def _as_one_line(partial: Path) -> Iterator[None]:
    """A disk that is full or read-only ends in one line; what was written stays."""
    try:
        yield
    except OSError as error:
        raise CatalogueError(
            f"{partial}: cannot be written ({error.strerror}: {error.filename or 'no name'}); "
            f"run the command again: it goes on where it stopped"
        ) from error


def _suffix(photo: bytes) -> str:
    """.jpg, .png or .webp by the first bytes; "" for anything else."""
    if photo.startswith(b"\xff\xd8"):
        return ".jpg"
    if photo.startswith(b"\x89PNG"):
        return ".png"
    return ".webp" if photo.startswith(b"RIFF") and photo[8:12] == b"WEBP" else ""


def _link(file: Path, place: Path, part: Path) -> None:
    """A hard link to what `file` leads to, where the disk allows one, else a copy: photos take gigabytes."""
    real = os.path.realpath(file)
    place.unlink(missing_ok=True)
    try:
        os.link(real, place)
    except OSError:
        shutil.copyfile(real, part)
        part.replace(place)
