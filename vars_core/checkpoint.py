"""Training under way, in a file: interrupted work goes on where it stopped."""

import json
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vars_core import paths

SECONDS = 30  # between two saves; shorter trainings never write


class Checkpoint:
    """One safetensors file with tensors by name and notes as JSON, for one training, told apart by its `mark`.

    A file of another training (other data, parameters, seed) or a damaged one is ignored, and overwritten.
    """

    def __init__(self, path: Path, mark: str):
        self.path, self.mark = Path(path), mark
        self._saved = time.monotonic()

    def load(self) -> tuple[dict, dict[str, torch.Tensor]] | None:
        """(notes, tensors) of the last save, or None."""
        try:
            with safe_open(self.path, framework="pt") as file:
                notes = json.loads((file.metadata() or {}).get("training", "{}"))
                if notes.pop("mark", None) != self.mark:
                    return None
                return notes, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError, ValueError):
            return None

    def due(self) -> bool:
        return time.monotonic() - self._saved >= SECONDS

    def save(self, notes: dict, tensors: dict[str, torch.Tensor]) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        paths.write(self.path, save(tensors, {"training": json.dumps(notes | {"mark": self.mark})}))
        self._saved = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def packed(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What the optimiser remembers, as flat names and tensors."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{number}.{key}": value for number, kept in state.items() for key, value in kept.items()}


def unpack(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Give the optimiser back what `packed` took."""
    state: dict[int, dict] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
