"""Epochs until validation no longer rises; the best one is kept, and an interrupted training goes on."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from vars_core import runtime
from vars_core.checkpoint import Checkpoint, optimiser_tensors, part, prefixed, restore_optimiser

EVALUATE_EVERY = 2  # epochs between two looks at validation
PATIENCE = 5  # looks without a better score before training stops


def train(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    epochs: int,
    learn: Callable[[int], float],
    validate: Callable[[], float | None],
    checkpoint: Checkpoint | None = None,
) -> list[dict]:
    """Call `learn(epoch)` for epochs 1, 2, …; leaves `model` at the epoch of best `validate()` (higher is better).

    Returns a row per epoch: epoch, loss, and validation_auc where it was looked at. Without validation (None) every
    epoch is trained and the last one kept. `learn` must draw its random numbers from the epoch's number, so that a
    training resumed from `checkpoint` ends where an uninterrupted one does.
    """
    history, best, stale = [], (-1.0, None), 0
    resumed = checkpoint.load() if checkpoint else None
    if resumed:
        notes, tensors = resumed
        history, stale = notes["history"], notes["stale"]
        model.load_state_dict(part("model.", tensors))
        best = (notes["best"], part("best.", tensors) or None)
        restore_optimiser(optimiser, tensors)
    for epoch in runtime.progress(range(len(history) + 1, epochs + 1), type(model).__name__):
        if stale == PATIENCE:
            break
        history.append({"epoch": epoch, "loss": learn(epoch)})
        score = validate() if epoch % EVALUATE_EVERY == 0 or epoch == epochs else None
        if score is not None:
            history[-1]["validation_auc"] = score
            stale = 0 if score > best[0] else stale + 1
            if not stale:
                best = (score, copy.deepcopy(model.state_dict()))
        if checkpoint and (checkpoint.due() or epoch == epochs or stale == PATIENCE):
            tensors = (
                prefixed("model.", model.state_dict())
                | prefixed("best.", best[1] or {})
                | optimiser_tensors(optimiser)
            )
            checkpoint.save({"history": history, "stale": stale, "best": best[0]}, tensors)
    if best[1] is not None:
        model.load_state_dict(best[1])
    return history
