"""Which photos lie under a folder, and marks by which a changed one is noticed. A million take about 150 MB.

Photos are files with a suffix of a format that `photos.decode` reads, in capitals too; other files are counted by
suffix. Linked folders are followed, each real folder once and under its real path where it has one here, so that
loops end. What is not looked into is named.
"""

import hashlib
import os
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from vars_core.data import photos

UNKNOWN = 0  # the mark of a photo that can't be asked for one


@dataclass
class Listing:
    """Photos under `folder`: `names` relative to it, sorted, and `marks` (N,) uint64, which change with a photo."""

    folder: Path
    names: list[str] = field(default_factory=list)
    marks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    others: Counter = field(default_factory=Counter)  # files that are no photos, by suffix
    skipped: list[str] = field(default_factory=list)  # folders, each with the reason

    @classmethod
    def of(cls, folder: Path, without: Path) -> "Listing":
        """The photos under `folder`, but for those in `without`. Raises OSError where `folder` can't be read."""
        found, suffixes = cls(folder), readable_suffixes()
        os.scandir(folder).close()  # this one must be readable; of others the unreadable are skipped
        for place, names in found._folders(without):
            for name in names:
                suffix = PurePath(name).suffix.lower()
                if suffix in suffixes:
                    found.names.append(f"{place}/{name}" if place else name)
                else:
                    found.others[suffix or "no suffix"] += 1
        found.names.sort()
        found.marks = np.fromiter((mark(f"{folder}/{name}") for name in found.names), np.uint64, len(found.names))
        return found

    def _folders(self, without: Path) -> Iterator[tuple[str, list[str]]]:
        """Each folder, relative, with the names of its files; linked folders after all others."""
        top, seen = os.fspath(self.folder), {_identity(without)}

        def unreadable(error):
            self.skipped.append(f"{os.path.relpath(error.filename, top)} ({error.strerror})")

        waiting = deque([top])
        while waiting:
            for place, folders, names in os.walk(waiting.popleft(), onerror=unreadable):
                own, relative = _identity(place), os.path.relpath(place, top)
                if own in seen:
                    if own != _identity(without):
                        self.skipped.append(f"{relative} (a link to a folder that is listed already)")
                    folders.clear()
                    continue
                if "scores.csv" in names and "parts" in folders:
                    self.skipped.append(f"{relative} (results of a screening)")
                    folders.clear()
                    continue
                seen.add(own)
                folders.sort()
                waiting += [f"{place}/{name}" for name in folders if Path(place, name).is_symlink()]
                yield "" if relative == "." else relative, names

    def place_of(self, name: str) -> int | None:
        """The place of `name`, or None where it isn't listed."""
        place = bisect_left(self.names, name)
        return place if place < len(self.names) and self.names[place] == name else None


def readable_suffixes() -> set[str]:
    """Of the formats that `photos.decode` takes, as Pillow has them: .jpg, .jpeg, .jpe, .jfif, .png, .webp, .gif …"""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in photos.FORMATS}


def mark(file: str) -> int:
    """A number that changes with the file: of its size, inode, and times of change, both of which a copy with
    the old date (`cp -p`) does not keep. UNKNOWN where the file system doesn't say."""
    try:
        found = Path(file).stat()
    except OSError:
        return UNKNOWN
    text = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


def _identity(folder) -> tuple[int, int] | None:
    try:
        found = Path(folder).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
