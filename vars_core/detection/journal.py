"""Verdicts as they are reached, on disk: one JSON line each, so that a killed run loses a batch at most.

Each process appends to a journal of its own, parts/<rank>-of-<world>.jsonl, and reads all of them. A line counts for
a photo with the same name *and* mark only, whoever wrote it: how photos are shared among processes doesn't matter,
and a photo that changed has no verdict.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from vars_core import paths
from vars_core.detection.listing import Listing
from vars_core.errors import InputError

NONE, AGAIN, FINAL = 0, 1, 2  # no verdict; none this time, try again at the next run; a verdict


class JournalError(InputError):
    """A journal that another run is writing."""


@dataclass
class Verdicts:
    """Of the photos of a listing: `state` (N,), `scores` (N,), NaN where none, `reasons` by place for that."""

    state: np.ndarray
    scores: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, journals: Iterable[Path], head: str, listing: Listing) -> "Verdicts":
        """What `journals` that begin with `head` say. Lines that are cut off or otherwise damaged say nothing."""
        count = len(listing.names)
        found = cls(np.zeros(count, np.uint8), np.full(count, np.nan))
        for name, mark, score, reason, state in _lines(journals, head):
            place = listing.place_of(name)
            if place is None or listing.marks[place] != mark or state < found.state[place]:
                continue
            found.state[place] = state
            if reason:
                found.reasons[place] = reason
            else:
                found.scores[place] = score
                found.reasons.pop(place, None)
        return found


def _lines(journals: Iterable[Path], head: str) -> Iterator[tuple]:
    for journal in journals:
        with journal.open(encoding="ascii", errors="replace") as file:
            if file.readline() != head:
                continue  # of another defence
            for line in file:
                try:
                    name, mark, score, reason, state = json.loads(line)
                    known = state in (AGAIN, FINAL) and (math.isfinite(score) if reason == "" else score is None)
                    if known and isinstance(name, str) and isinstance(reason, str):
                        yield name, mark, score, reason, state
                except (ValueError, TypeError, RecursionError, OverflowError):
                    continue


class Journal:
    """One process's journal, open for appending and locked against other runs. A context manager."""

    def __init__(self, file: Path, head: str):
        self.path, self.head = file, head
        self.lock = FileLock(f"{file}.lock")

    def __enter__(self) -> "Journal":
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise JournalError(
                f"{self.path.parent.parent}: another run is writing there; wait for it, or use --out"
            ) from None
        try:
            if not self._goes_on():
                paths.write(self.path, self.head)
            self.file = self.path.open("a", encoding="ascii")
            self.file.write("\n")  # the last line may have been cut off; an empty one says nothing
        except BaseException:
            self.lock.release()
            raise
        return self

    def _goes_on(self) -> bool:
        if not self.path.is_file():
            return False
        with self.path.open(encoding="ascii", errors="replace") as file:
            return file.readline() == self.head

    def __exit__(self, *_) -> None:
        self.file.close()
        self.lock.release()

    def add(self, rows: Iterable[tuple]) -> None:
        """Append rows: name, mark, score or None, reason or "", state."""
        self.file.write("".join(json.dumps(row) + "\n" for row in rows))
        self.file.flush()
