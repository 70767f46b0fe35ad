"""A model under training: optimiser, learning rate, the mean of its last weights, and its losses by step."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vars_core.checkpoint import optimiser_tensors, part, prefixed, restore_optimiser
from vars_core.runtime import device


class Losses:
    """Losses by step, fetched when they are asked for: a loop that asks for each one keeps a GPU waiting."""

    def __init__(self, rows: list[dict] | None = None):
        self._rows, self._waiting = list(rows or []), []

    @property
    def count(self) -> int:
        return len(self._rows) + len(self._waiting)

    def note(self, losses: dict[str, torch.Tensor], **labels) -> None:
        """A row of `labels` and `losses`, which are scalars."""
        self._waiting.append((labels, list(losses), torch.stack([v.detach().float() for v in losses.values()])))

    def rows(self) -> list[dict]:
        values = torch.cat([values for *_, values in self._waiting]).tolist() if self._waiting else []
        for labels, names, _ in self._waiting:
            self._rows.append(labels | dict(zip(names, values, strict=False)))
            del values[: len(names)]
        self._waiting = []
        return self._rows


class Trainer:
    """A model under training: AdamW, a rate that warms up and falls as a cosine, and the mean of its last weights."""

    def __init__(self, model: nn.Module, rate: float, steps: int):
        self.model, self.rate, self.steps = model, rate, steps
        model.to(device(), memory_format=torch.channels_last).train().requires_grad_(True)
        self.optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
        # the mean reaches back over a thirtieth of the training, where the rate is low anyway
        self.mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / max(1, steps / 30)))

    def step(self, loss: torch.Tensor, step: int) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * learning_rate_factor((step + 0.5) / self.steps)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.mean.update_parameters(self.model)

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """All that a checkpoint needs of the training, under `name`."""
        parts = prefixed("model/", self.model.state_dict()) | prefixed("mean/", self.mean.state_dict())
        return prefixed(f"{name}/", parts | prefixed("adam/", optimiser_tensors(self.optimiser)))

    def load(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        """Take back what `tensors` gave."""
        own = part(f"{name}/", tensors)
        self.model.load_state_dict(part("model/", own))
        self.mean.load_state_dict(part("mean/", own))
        restore_optimiser(self.optimiser, part("adam/", own))

    def finish(self) -> None:
        """The running mean becomes the model, frozen."""
        self.model.load_state_dict(self.mean.module.state_dict())
        self.model.eval().requires_grad_(False)


def learning_rate_factor(part: float) -> float:
    """The learning rate at `part` (0 to 1) of the training, relative to its peak: up in a tenth, down as a cosine."""
    return 0.1 + 9 * part if part < 0.1 else 0.5 + 0.5 * math.cos(math.pi * (part - 0.1) / 0.9)
