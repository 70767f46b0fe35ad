"""Photos decoded once: a uint8 memory map and an index of what lies in it; second runs only read the index."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vars_core import paths
from vars_core.data import arrays
from vars_core.data import photos as decoder
from vars_core.runtime import progress

BATCH = 512  # photos between two notes in the index; bounds memory


def cache_folder(source: Path, cache: Path) -> Path:
    """The folder in `cache` for the photos of the catalogue folder `source`: its name and a hash of its path."""
    mark = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:8]
    return cache / f"{source.name}-{mark}"


def decode_files(files: list[Path], size: int, folder: Path) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """uint8 (N, size, size, 3) of `files`, a read-only memory map, and (row, reason) of those that can't be decoded.

    Decoding is parallel and goes straight to disk, so memory does not grow with N. The index (`index.json` beside
    `photos.npy` in `folder`) holds a hash of each file's name, length and dates: when they are the same nothing is
    decoded but what could not be read the last time, and an interrupted run goes on where it stopped. Rows of bad
    photos are 0."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, shape = _mark(files, size), (len(files), size, size, 3)
    data, index = folder / "photos.npy", folder / "index.json"
    state = _noted(index, len(files))
    if state.get("mark") != mark or not _whole(data, shape):
        index.unlink(missing_ok=True)
        np.lib.format.open_memmap(data, mode="w+", dtype=np.uint8, shape=shape).flush()
        state = {"mark": mark, "done": 0, "bad": [], "unread": []}
    again = [row for row in state["unread"] if row < state["done"]]
    rows = [*again, *range(state["done"], len(files))]
    if rows:
        state["bad"] = [pair for pair in state["bad"] if pair[0] not in set(again)]
        _decode(files, size, data, index, state, rows)
    return arrays.load(data, mapped=True), sorted((row, reason) for row, reason in state["bad"])


def _decode(files, size, data, index, state, rows) -> None:
    block = np.empty((min(BATCH, len(rows)), size, size, 3), np.uint8)

    def one(place, row):
        try:
            block[place] = decoder.decode(files[row], size)
        except decoder.PhotoError as error:
            block[place] = 0
            return row, str(error), error.transient

    # Written, not mapped: the pages of a map stay in the process until others need the memory.
    with data.open("r+b") as file, ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        first = data.stat().st_size - len(files) * block[0].nbytes  # after the header
        for start in progress(range(0, len(rows), BATCH), "decoding photos"):  # outside the interpreter lock
            batch = rows[start : start + BATCH]
            failed = [result for result in pool.map(one, range(len(batch)), batch) if result]
            for place, row in enumerate(batch):
                file.seek(first + row * block[0].nbytes)
                file.write(block[place])
            file.flush()
            os.fsync(file.fileno())  # before the index says that they are there
            state["bad"] += [(row, reason) for row, reason, _ in failed]
            state["unread"] = sorted(
                {*state["unread"]} - {*batch} | {row for row, _, transient in failed if transient}
            )
            state["done"] = max(state["done"], batch[-1] + 1)
            paths.write(index, json.dumps(state))


def _noted(index: Path, n: int) -> dict:
    """What the index says of `n` photos; {} where there is none, or it is damaged."""
    try:
        state = json.loads(index.read_text(encoding="utf-8"))
        rows = [row for row, reason in state["bad"] if isinstance(reason, str)] + state["unread"]
        sound = len(rows) == len(state["bad"]) + len(state["unread"]) and 0 <= state["done"] <= n
        return state if sound and all(type(row) is int and 0 <= row < n for row in rows) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _whole(data: Path, shape: tuple) -> bool:
    try:
        array = arrays.load(data, mapped=True)
    except (FileNotFoundError, arrays.ArrayFileError):
        return False
    return array.shape == shape and array.dtype == np.uint8


def _mark(files: list[Path], size: int) -> str:
    """A hash that changes with the size, the files, any file's length or dates, and with what decodes them."""
    digest = hashlib.sha256(json.dumps([size, len(files), decoder.VERSION]).encode())
    for file in files:
        digest.update(json.dumps([file.name, *_stat(file)]).encode())
    return digest.hexdigest()


def _stat(file: Path) -> tuple[int, ...]:
    """Length, date of the content and date of the file's entry: a copy in its place may keep the first two."""
    try:
        stat = file.stat()
    except (OSError, ValueError):
        return (-1,)
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
