"""Photos decoded once: a uint8 memory map and an index of what lies in it; second runs only read the index."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vars_core import paths
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
    `photos.npy` in `folder`) holds a hash of each file's name, length and date: when they are the same nothing is
    decoded, and an interrupted run goes on where it stopped. Rows of bad photos are 0."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = _mark(files, size)
    data, index = folder / "photos.npy", folder / "index.json"
    state = json.loads(index.read_text()) if index.is_file() else {}
    if state.get("mark") != mark or not data.is_file():
        shape = (len(files), size, size, 3)
        index.unlink(missing_ok=True)
        np.lib.format.open_memmap(data, mode="w+", dtype=np.uint8, shape=shape).flush()
        state = {"mark": mark, "done": 0, "bad": []}
    if state["done"] < len(files):
        _decode(files, size, data, index, state)
    return np.load(data, mmap_mode="r", allow_pickle=False), [tuple(pair) for pair in state["bad"]]


def _decode(files, size, data, index, state) -> None:
    block = np.empty((min(BATCH, len(files)), size, size, 3), np.uint8)

    def one(row):
        place = block[row - start]
        try:
            place[:] = decoder.decode(files[row], size)
        except decoder.PhotoError as error:
            place[:] = 0
            return row, str(error)

    starts = range(state["done"], len(files), BATCH)
    # Written, not mapped: the pages of a map stay in the process until others need the memory.
    with data.open("r+b") as file, ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        first = data.stat().st_size - len(files) * block[0].nbytes  # after the header
        for start in progress(starts, "decoding photos"):  # PIL decodes outside the interpreter lock
            end = min(start + BATCH, len(files))
            state["bad"] += [result for result in pool.map(one, range(start, end)) if result]
            file.seek(first + start * block[0].nbytes)
            file.write(block[: end - start])
            file.flush()
            os.fsync(file.fileno())  # before the index says that they are there
            state["done"] = end
            paths.write(index, json.dumps(state))


def _mark(files: list[Path], size: int) -> str:
    """A hash that changes with the size, the files, or any file's length or date."""
    digest = hashlib.sha256(json.dumps([size, len(files)]).encode())
    for file in files:
        digest.update(json.dumps([file.name, *_stat(file)]).encode())
    return digest.hexdigest()


def _stat(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)
