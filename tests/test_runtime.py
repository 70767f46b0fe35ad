"""Seeds, device, progress."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from vars_core import runtime
from vars_core.errors import InputError


def test_streams_are_stable_and_their_own():
    def draw(*salt):
        return runtime.rng(0, *salt).integers(1 << 30)

    assert draw("pgd", 8) == draw("pgd", 8) != draw("pgd", 4)
    assert draw("ab") != draw("a", "b")
    # The same on every machine and in every process.
    assert runtime.rng(0, "x").integers(1 << 30) == 690440600
    first = torch.rand(3, generator=runtime.generator(1, "a"))
    assert torch.equal(first, torch.rand(3, generator=runtime.generator(1, "a")))


def test_seed_everything_seeds_what_draws_globally():
    runtime.seed_everything(3)
    first = np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    runtime.seed_everything(3)
    assert first == (np.random.rand(), torch.rand(1).item())  # noqa: NPY002


def test_the_device_can_be_chosen(monkeypatch):
    monkeypatch.setenv("VARS_DEVICE", "cpu")
    assert runtime.device().type == "cpu"


@pytest.mark.parametrize(
    "name", ["cuda", "cuda:7", "mps", "meta", "xpu", "gpu", "CPU", "cpu cuda", "cuda:-1", "../x"]
)
def test_a_device_that_is_not_here_is_named(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("VARS_DEVICE", name)
    if name in ("cuda", "mps", "xpu") and getattr(torch, name).device_count():
        pytest.skip("it is here")
    with pytest.raises(InputError, match=f"^VARS_DEVICE={name}: no such device here; unset it, or name one"):
        runtime.device()


def test_an_empty_device_is_none(monkeypatch):
    monkeypatch.setenv("VARS_DEVICE", "")
    assert runtime.device().type in ("cpu", "cuda")


def test_progress_in_a_stage_is_a_line_per_quarter(monkeypatch, capsys):
    monkeypatch.setenv("VARS_QUIET", "1")
    assert list(runtime.progress(range(10), "training")) == list(range(10))
    assert capsys.readouterr().err.splitlines() == [
        "training: start, 10 steps",
        *(f"training: {q} %" for q in (25, 50, 75, 100)),
    ]
    list(runtime.progress(iter([1, 2]), "reading"))
    assert capsys.readouterr().err.splitlines() == ["reading: start"]
    list(runtime.progress([], "nothing"))
    list(runtime.progress([1], "one"))
    assert capsys.readouterr().err.splitlines() == ["nothing: start", "one: start", "one: 100 %"]
    clock = iter(range(0, 10**6, 100))  # so many seconds for each step
    monkeypatch.setattr(runtime.time, "monotonic", lambda: next(clock))
    list(runtime.progress(range(4), "long"))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "long: 25 %, 5 min left",
        "long: 50 %, 3 min left",
        "long: 75 %, 2 min left",
        "long: 100 %",
    ]


def test_progress_by_hand_is_a_bar(monkeypatch, capsys):
    monkeypatch.delenv("VARS_QUIET", raising=False)
    assert list(runtime.progress(range(3), "training")) == [0, 1, 2]
    assert "training" in capsys.readouterr().err


FAULTS = """
import ctypes, resource, sys
if sys.argv[1] == "kept":
    from vars_core import runtime
library, size = ctypes.CDLL(None), 16 << 20
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    blocks = [library.malloc(size) for _ in range(5)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        library.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_memory_of_large_maps_is_kept_for_the_next():
    # 80 MB taken and freed ten times: kept, their pages are fetched from the system once
    runs = ([sys.executable, "-c", FAULTS, way] for way in ("kept", ""))
    kept, given_back = (int(subprocess.run(run, capture_output=True, check=True).stdout) for run in runs)
    assert 0 < 5 * kept < given_back
