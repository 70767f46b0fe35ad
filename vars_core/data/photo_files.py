"""Which files of a folder are photos; what else lies there is counted by kind, so that what is left out is said."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vars_core.data import ids, photos
from vars_core.data.tables import CatalogueError

ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".7z", ".rar")
SYSTEM = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information")


class PhotoFiles:
    """Photos of `folder`: `files`, sorted pairs of path and item, which is the name without suffix in canonical form.

    With `deep` folders are followed, links to folders too, each folder once. `skipped` counts what is no photo, by
    kind; `reasons` maps an item's name to why the file of that name is none. Raises CatalogueError for a folder that
    isn't there or can't be read; `what` was expected in it."""

    def __init__(self, folder: Path, what: str, deep: bool = False):
        self.folder, self.skipped, self.reasons = folder, Counter(), {}
        if folder.is_file() and folder.suffix.lower() in ARCHIVES:
            raise CatalogueError(f"{folder}: an archive; unpack it, and give the folder")
        if not folder.is_dir():
            what_is = "a file, not a folder" if folder.exists() else "no such folder"
            raise CatalogueError(f"{folder}: {what_is}; {what} expected")
        self._read, self._deep = set(), deep
        self.files = list(self._below(folder))

    def by_item(self) -> dict[str, list[Path]]:
        """The photos of each name, those with the first of photos.SUFFIXES first."""
        found = {}
        for path, item in self.files:
            found.setdefault(item, []).append(path)
        order = photos.SUFFIXES.index
        return {item: sorted(paths, key=lambda path: order(suffix(path.name))) for item, paths in found.items()}

    def remarks(self) -> dict[str, int]:
        """What was skipped, in words, and how many."""
        return {f"{kind} skipped": number for kind, number in sorted(self.skipped.items())}

    def _below(self, folder: Path) -> Iterator[tuple[Path, str]]:
        try:
            self._read.add(os.path.realpath(folder))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if folder == self.folder:
                raise CatalogueError(f"{folder}: cannot be read ({error.strerror})") from error
            self.skipped["folders that cannot be read"] += 1
            return
        for entry in entries:
            path = Path(entry.path)
            mode = _mode(path)
            if entry.name.startswith("."):
                self.skipped["hidden files"] += 1
            elif entry.name.lower() in SYSTEM:
                self.skipped["system files"] += 1
            elif stat.S_ISDIR(mode):
                if not self._deep:
                    self._skip(path, "folders", "a folder")
                elif os.path.realpath(path) in self._read or self._above(path):
                    self.skipped["links to folders that are read already"] += 1
                else:
                    yield from self._below(path)
            elif not suffix(entry.name):
                self.skipped["files of other types"] += 1
            elif not mode and entry.is_symlink():
                self._skip(path, "links to nothing", "a link to nothing")
            elif not stat.S_ISREG(mode):
                self._skip(path, "things that are no files", "no regular file")
            elif not self._deep and not is_utf8(entry.name):
                self.skipped["files with names that aren't UTF-8"] += 1
            else:
                yield path, stem(entry.name)

    def _above(self, path: Path) -> bool:
        """Does the link lead to a folder that holds the one that is read?"""
        return Path(os.path.realpath(self.folder)).is_relative_to(os.path.realpath(path))

    def _skip(self, path: Path, kind: str, reason: str) -> None:
        self.skipped[kind] += 1
        self.reasons[stem(path.name)] = f"{path.name} is {reason}"


def suffix(name: str) -> str:
    """The suffix of a photo's name, in lower case; "" for other files. Space and dots behind it don't count."""
    found = Path(name.rstrip(" .")).suffix.lower()
    return found if found in photos.SUFFIXES else ""


def stem(name: str) -> str:
    """The name without a photo's suffix, as an id."""
    name = name.rstrip(" .") if suffix(name) else name
    return ids.canonical(name[: len(name) - len(suffix(name))])


def is_utf8(name: str) -> bool:
    """Is the name text? Bytes that aren't UTF-8 reach Python as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _mode(path: Path) -> int:
    """The mode of what `path` leads to; 0 where nothing can be reached."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0
