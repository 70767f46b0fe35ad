"""Models in files, and training under way: safetensors with notes as JSON, replaced whole or not at all."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from vars_core import paths
from vars_core.errors import InputError

HEADER = 16 * 2**20  # bytes; those of large models have some 100 kB
SECONDS = 30  # between two saves of a training; shorter ones never write
SCALES = "/scales"  # what the name of a packed tensor's scales ends in
PACKED = 1024  # values from which on a matrix is packed; smaller ones weigh nothing


def write(path: Path, tensors: dict[str, torch.Tensor], **notes) -> Path:
    """Write `tensors` by name, and `notes`, which must be plain values, to one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return paths.write(path, save(tensors, {"notes": json.dumps(notes)}))


class ModelFileError(InputError, ValueError):
    """A file that should hold a model and doesn't; the message names it, and the tensor if it is one."""


def read(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """(notes, tensors) that `write` wrote.

    Raises FileNotFoundError, and ModelFileError for a file that is damaged or of another kind, or has NaN in it."""
    tensors, notes = load_tensors(path, "a safetensors file of the study")
    try:
        notes = json.loads(notes["notes"])
        if not isinstance(notes, dict):
            raise ValueError(f"its notes are a {type(notes).__name__}")
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not a safetensors file of the study ({_first_line(error)})") from None
    return notes, _unpacked(tensors, path)


def pack(path: Path, target: Path) -> None:
    """Write the model in `path` to `target` in about a quarter of the bytes, for `read` to unpack: each row of a
    matrix as 8-bit whole numbers and one scale, so that a value is off by at most 1/254 of its row's largest."""
    notes, tensors = read(path)
    packed = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.numel() < PACKED:
            packed[name] = tensor
            continue
        scales = tensor.flatten(1).float().abs().amax(1) / 127
        packed[name] = (tensor.float() / _along(scales.clamp_min(1e-30), tensor)).round().to(torch.int8)
        packed[name + SCALES] = scales
    write(target, packed, **notes)


def _unpacked(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    whole = {}
    for name, tensor in tensors.items():
        scales = tensors.get(name + SCALES)
        if name.endswith(SCALES) and name.removesuffix(SCALES) in tensors:
            continue
        if scales is not None:
            if tensor.dtype != torch.int8 or tensor.ndim < 2 or scales.shape != tensor.shape[:1]:
                raise ModelFileError(
                    f"{path}: tensor {name!r}: its scales are {tuple(scales.shape)}, a row one expected"
                )
            tensor = tensor.float() * _along(scales.float(), tensor)
        whole[name] = tensor
    return whole


def _along(scales: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    return scales.view(-1, *[1] * (tensor.ndim - 1))


def load_tensors(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors, metadata) of the safetensors file `path`; errors as `read` has them, calling it `kind`."""
    try:
        with Path(path).open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > min(HEADER, Path(path).stat().st_size):
            raise ValueError(f"it says that its header has {header:,} bytes")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = file.metadata() or {}
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors, the system, and torch for types it has no tensors of
        raise ModelFileError(f"{path} is not {kind} ({_first_line(error)})") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = f"{int((~torch.isfinite(tensor)).sum()):,} of {tensor.numel():,} values"
            raise ModelFileError(f"{path}: tensor {name!r}: {bad} are not finite")
    return tensors, notes


def fit(model: nn.Module, tensors: dict[str, torch.Tensor], path: Path, kind: str) -> None:
    """Put `tensors`, read from `path`, into `model`, a `kind`. Raises ModelFileError, naming the first tensor that is
    missing, unknown, of another shape or of another sort of numbers (whole ones for fractions, say)."""
    _compare(model.state_dict(), tensors, path, kind)
    _put(model, tensors, path)


def _put(model: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    model.load_state_dict(tensors)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelFileError(f"{path}: tensor {name!r} has values beyond those of {tensor.dtype}")


def build(make: Callable[..., nn.Module], settings: dict, tensors: dict, path: Path, kind: str) -> nn.Module:
    """`make(**settings)`, a `kind`, with `tensors` in it; both were read from `path`.

    The sizes are compared before any memory is taken for them. Raises ModelFileError as `fit` does, and for settings
    that no model can be made with."""
    try:
        with torch.device("meta"):
            shapes = make(**settings).state_dict()
    except Exception as error:  # settings that a network can't be built with fail anywhere
        raise ModelFileError(f"{path} holds no {kind} of the study ({_first_line(error)})") from None
    kind = f"{kind} of {settings!s:.300}"
    _compare(shapes, tensors, path, kind)
    model = make(**settings)
    _put(model, tensors, path)
    return model


def _compare(own: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], path: Path, kind: str) -> None:
    wrong = []
    for name in (*own, *(name for name in tensors if name not in own)):
        if name not in tensors:
            wrong.append(f"{name!r} is missing")
        elif name not in own:
            wrong.append(f"{name!r} is unknown")
        elif own[name].shape != tensors[name].shape:
            wrong.append(f"{name!r} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}")
        elif _sort(own[name]) != _sort(tensors[name]):
            wrong.append(f"{name!r} is of {tensors[name].dtype}, not {own[name].dtype}")
    if wrong:
        about = f"{len(wrong)} of {len(own)} tensors missing, unknown, of another shape or type, first: {wrong[0]}"
        raise ModelFileError(f"{path}: these weights are of another architecture than {kind}: {about}")


def _sort(tensor: torch.Tensor) -> str:
    return "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else str(tensor.dtype)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def fingerprint(*things) -> str:
    """A hash that changes with any of `things`: arrays and tensors by content, anything else by its `repr`."""
    digest = hashlib.sha256()
    for thing in things:
        if isinstance(thing, torch.Tensor):
            thing = thing.detach().cpu().numpy()
        digest.update(np.ascontiguousarray(thing) if isinstance(thing, np.ndarray) else repr(thing).encode())
    return digest.hexdigest()


def prefixed(prefix: str, tensors: dict) -> dict:
    """`tensors` with `prefix` before each name, so that several sets go into one file."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: dict) -> dict:
    """The set that `prefixed` put among `tensors`."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Checkpoint:
    """One training in one file, known by its `mark`, a `fingerprint` of data, parameters and seed: under way, or
    done, where what comes after it may still be interrupted.

    A file of another training or a damaged one is ignored, and overwritten."""

    def __init__(self, path: Path, mark: str):
        self.path, self.mark = Path(path), mark
        self._saved = time.monotonic()

    def load(self) -> tuple[dict, dict[str, torch.Tensor]] | None:
        """(notes, tensors) of the last save, or None."""
        try:
            notes, tensors = read(self.path)
        except (FileNotFoundError, ValueError):
            return None
        return (notes, tensors) if notes.pop("mark", None) == self.mark else None

    def due(self) -> bool:
        """Whether the last save is long enough ago."""
        return time.monotonic() - self._saved >= SECONDS

    def save(self, notes: dict, tensors: dict[str, torch.Tensor]) -> None:
        write(self.path, tensors, **notes, mark=self.mark)
        self._saved = time.monotonic()


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What the optimiser remembers, as flat names and tensors."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{number}.{key}": value for number, kept in state.items() for key, value in kept.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Give the optimiser back what `optimiser_tensors` took."""
    state: dict[int, dict] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
