"""Models in files, and training under way: safetensors with notes as JSON, replaced whole or not at all."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vars_core import paths

SECONDS = 30  # between two saves of a training; shorter ones never write


def write(path: Path, tensors: dict[str, torch.Tensor], **notes) -> Path:
    """Write `tensors` by name, and `notes`, which must be plain values, to one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return paths.write(path, save(tensors, {"notes": json.dumps(notes)}))


def read(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """(notes, tensors) that `write` wrote. Raises FileNotFoundError, and ValueError for a file of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})["notes"])
            return notes, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a safetensors file of the study ({error})") from None


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
    """One training under way in one file, known by its `mark`, a `fingerprint` of data, parameters and seed.

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

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


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
