"""Photos decoded once: a uint8 memory map and an index of what lies in it; second runs only read the index."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vars_core import paths
from vars_core import photos as decoder
from vars_core.runtime import progress

BATCH = 512  # photos between two notes in the index; bounds memory


def place(source: Path, cache: Path) -> Path:
    """The folder in `cache` for the photos of the catalogue folder `source`: its name and a hash of its path."""
    mark = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:8]
    return cache / f"{source.name}-{mark}"


def photos(files: list[Path], size: int, folder: Path) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """uint8 (N, size, size, 3) of `files`, a read-only memory map, and (row, reason) of those that can't be decoded.

    Decoding is parallel and goes straight to disk, so memory does not grow with N. The index (`index.json` beside
    `photos.npy` in `folder`) holds each file's name, length and date: when they are the same nothing is decoded, and
    an interrupted run goes on where it stopped. Rows of bad photos are 0."""
    folder.mkdir(parents=True, exist_ok=True)
    listing = [(file.name, *_stat(file)) for file in files]
    mark = hashlib.sha256(json.dumps([size, listing]).encode()).hexdigest()
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
    array = np.load(data, mmap_mode="r+", allow_pickle=False)

    def one(row):
        try:
            array[row] = decoder.decode(files[row], size)
        except decoder.PhotoError as error:
            return row, str(error)

    starts = range(state["done"], len(files), BATCH)
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # PIL decodes outside the interpreter lock
        for start in progress(starts, "decoding photos"):
            end = min(start + BATCH, len(files))
            state["bad"] += [result for result in pool.map(one, range(start, end)) if result]
            array.flush()
            state["done"] = end
            paths.write(index, json.dumps(state))


def _stat(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)
