"""Device, seeds and progress: what a run needs besides its parameters.

torch is imported where it is used: reading, checking and converting a catalogue need neither it nor its 450 MB.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from vars_core.errors import InputError

if TYPE_CHECKING:
    import torch


def _keep_freed_memory() -> None:
    """Have glibc keep the memory of a network's maps for the next ones. It gives blocks that large back to the system
    by default, and fetching them anew, page by page, takes up to half of a pass on a CPU."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt
            library = ctypes.CDLL(None)
            library.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, bytes: the largest that it takes
            library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


_keep_freed_memory()


def device() -> torch.device:
    """VARS_DEVICE if set, else cuda when there is one, else cpu. Never a parameter of the study.

    Raises InputError, naming the device, when VARS_DEVICE isn't one that computes here.
    """
    import torch

    # fp32 means fp32 in all that is reported: TF32, cuDNN's default for convolutions, keeps ten bits of a factor, and
    # a photo's features then depend on the batch it comes in. Training computes in bf16, see `mixed_precision`.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    name = os.environ.get("VARS_DEVICE")
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta" or torch.ones(1, device=device).add(1).item() != 2:
            raise RuntimeError("it does not compute")
    # torch has no one error for it: AssertionError without CUDA, RuntimeError and its kin for names and numbers
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, ValueError, TypeError):
        there = f"cuda is here, {torch.cuda.device_count()} of them" if torch.cuda.is_available() else "cpu is here"
        raise InputError(f"VARS_DEVICE={name}: no such device here; unset it, or name one ({there})") from None
    return device


def images_at_once() -> int:
    """How many images go through the networks at once where nobody says: 256 on a GPU, 32 on a CPU. More take up to
    twice as long there behind a filter, as memory for maps that large is fetched from the system page by page."""
    return 256 if device().type == "cuda" else 32


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch, and ask cudnn for deterministic kernels."""
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that still draw from the global state
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def generator(seed: int, *salt: object) -> torch.Generator:
    """A CPU generator of its own for each purpose: `generator(0, "pgd", 8)`. Same arguments, same numbers."""
    import torch

    return torch.Generator().manual_seed(_stream(seed, salt))


def rng(seed: int, *salt: object) -> np.random.Generator:
    """numpy's twin of `generator`."""
    return np.random.default_rng(_stream(seed, salt))


def mixed_precision(images: torch.Tensor):
    """bf16 autocast, for training only: on CPUs with bf16 it doubles the extractor's throughput."""
    import torch

    return torch.autocast(images.device.type, torch.bfloat16)


def progress(iterable: Iterable, desc: str, total: int | None = None) -> Iterator:
    """A bar in JupyterLab and in a terminal; in a stage's log one plain line per quarter, with the time left where
    that is a minute or more."""
    if not os.environ.get("VARS_QUIET"):
        from tqdm.auto import tqdm

        yield from tqdm(iterable, desc=desc, total=total, leave=False, mininterval=0.5)
        return
    total = len(iterable) if total is None and hasattr(iterable, "__len__") else total
    quarters = {-(-total * q // 4): 25 * q for q in (1, 2, 3, 4)} if total else {}
    print(f"{desc}: start" + (f", {total} steps" if total and total > 1 else ""), file=sys.stderr, flush=True)
    start = time.monotonic()
    for done, thing in enumerate(iterable, 1):
        yield thing
        if done in quarters:
            left = (time.monotonic() - start) * (total / done - 1) / 60
            ahead = f", {left:.0f} min left" if left >= 1 else ""
            print(f"{desc}: {quarters[done]} %{ahead}", file=sys.stderr, flush=True)


def _stream(seed: int, salt: tuple) -> int:
    # hash() of strings changes from process to process; this doesn't. 63 bits: torch refuses more.
    text = "\x1f".join([str(int(seed)), *map(str, salt)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
