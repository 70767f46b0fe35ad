"""What every recommender is: the interface that rankings and attacks use, checks, training by BPR, files.

    fit(split, features, cfg, seed)      train (resumable with `checkpoint=path`); returns the recommender itself
    scores(users, features)              (U, I) float32, what full ranking needs
    item_scores(users, items, features)  (U, A) for A photos, differentiable in `features` (for attacks)
    save(path), Class.load(path)         safetensors with the class, its sizes and the catalogue's fingerprint

Features are float32 (I, D), standardised on training items. Negatives are drawn uniformly from the items that
have training interactions and that the user has not: an item that nobody could have bought yet is no evidence
of dislike, and sampling it would teach VBPR that its photo is unwanted. For the same reason an item without
training interactions keeps γ_i = 0 and gets the mean bias of the others, the best guess when nothing is
known. A user without training interactions has all factors 0.
"""

from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import nn

from vars_core import checkpoint, runtime
from vars_core.checkpoint import Checkpoint
from vars_core.recommender import bpr

INITIAL_STD = 0.1  # of factors and projections


def checked_features(features, n_items: int | None = None) -> torch.Tensor:
    """Features as a tensor (I, D), or a ValueError that says what is wrong with them."""
    features = torch.as_tensor(features)
    if features.ndim != 2 or (n_items is not None and len(features) != n_items):
        raise ValueError(f"features have shape {tuple(features.shape)}, not ({n_items or 'items'}, dimensions)")
    if not torch.isfinite(features).all():
        item, column = (int(v) for v in (~torch.isfinite(features)).nonzero()[0])
        raise ValueError(f"features hold NaN or infinite values, first at item {item}, dimension {column}")
    return features


class Recommender(nn.Module):
    """What recommenders share: the item bias, checks, training by BPR, saving and loading."""

    def __init__(self):
        super().__init__()
        self.sizes: dict[str, int | str] = {}
        self.fingerprint = ""
        self.history: list[dict] = []  # epoch, loss and, where looked at, validation_auc

    def _build(self, generator: torch.Generator | None = None, **sizes: int) -> None:
        self.sizes = sizes
        self.bias = nn.Parameter(torch.zeros(sizes["items"]))

    @classmethod
    def _of_sizes(cls, **sizes):
        model = cls()
        model._build(**sizes)
        return model

    def _table(self, *shape: int, generator) -> nn.Parameter:
        return nn.Parameter(torch.randn(*shape, generator=generator) * INITIAL_STD)

    def _index(self, numbers, size: str) -> torch.Tensor:
        if not self.sizes:
            raise ValueError(f"{type(self).__name__} has not been fitted")
        numbers = np.arange(self.sizes[size]) if numbers is None else numbers
        index = torch.as_tensor(numbers, dtype=torch.long, device=self.bias.device)
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < self.sizes[size]:
            raise ValueError(f"{size} must be numbers from 0 to {self.sizes[size] - 1}")
        return index

    def _features(self, features, n_items: int) -> torch.Tensor | None:
        return None  # popularity and BPR-MF do not look

    @torch.no_grad()
    def scores(self, users, features=None) -> torch.Tensor:
        """s(u, i) of the given users (None: all) for the whole catalogue: float32 (U, I)."""
        items = self._index(None, "items")
        return self._score(self._index(users, "users"), items, self._features(features, len(items)))

    def item_scores(self, users, items, features=None) -> torch.Tensor:
        """s(u, i) of the given users for `items` (A,) with `features` (A, D): (U, A), differentiable."""
        items = self._index(items, "items")
        return self._score(self._index(users, "users"), items, self._features(features, len(items)))

    def _score(self, users, items, features) -> torch.Tensor:
        return self.bias[items].expand(len(users), -1)

    def fit(self, split, features=None, cfg=None, seed: int = 0, *, device=None, checkpoint=None):
        """Train on `split.train` with `cfg` (`params.Recommender`); keep the epoch of best validation AUC.

        With a path as `checkpoint`, a training that takes long notes there where it is; interrupted and called again
        with the same arguments it goes on, and ends as if it had not been interrupted.
        """
        train = self._history(split)
        self._prepare(train, features, cfg, runtime.generator(seed, type(self).__name__))
        return self._train(train, split, features, cfg, seed, device, checkpoint)

    def _history(self, split):
        train = sparse.csr_array(split.train).astype(bool)
        train.eliminate_zeros()
        if not train.nnz:
            raise ValueError("the split holds no training interaction")
        return train

    def _train(self, train, split, features, cfg, seed: int, device, checkpoint):
        self.to(torch.device(device or runtime.device())).requires_grad_(True)
        noted = self._checkpoint(checkpoint, train, split.validation, features, cfg, seed)
        bpr.train(self, train, split.validation, features, cfg, seed, noted)
        return self.requires_grad_(False)

    def _checkpoint(self, path, train, validation, features, cfg, seed: int) -> Checkpoint | None:
        """A file for this very training: same class, data, parameters, seed and start."""
        if path is None:
            return None
        plan = [type(self).__name__, self.sizes, sorted(vars(cfg).items()), seed]
        data = (train.indptr, train.indices, np.asarray(validation), features)
        return Checkpoint(path, checkpoint.fingerprint(plan, *data, *self.state_dict().values()))

    def _prepare(self, train, features, cfg, generator) -> None:
        raise NotImplementedError

    def refresh(self, features) -> None:
        """Compute what is served from what was learned, after each epoch; most serve what they learn."""

    def score_difference(self, users, positives, negatives, features) -> tuple[torch.Tensor, torch.Tensor]:
        """s(u, i) − s(u, j) per triple (B,), and the mean squared norm of the parameters that took part."""
        raise NotImplementedError

    def training_loss(self, users, positives, negatives, features) -> tuple[torch.Tensor, torch.Tensor]:
        """What training minimises over triples (B,), and the penalty of `difference`: the mean BPR loss."""
        difference, penalty = self.score_difference(users, positives, negatives, features)
        return bpr.loss(difference).mean(), penalty

    def save(self, path, fingerprint: str = "") -> Path:
        """Write the tables to a safetensors file, with the class, sizes and the catalogue's fingerprint."""
        self.fingerprint = fingerprint or self.fingerprint
        notes = {"class": type(self).__name__, "sizes": self.sizes, "fingerprint": self.fingerprint}
        return checkpoint.write(Path(path), self.state_dict(), **notes)

    @classmethod
    def load(cls, path, fingerprint: str | None = None):
        """Read a file written by `save`. With `fingerprint`, refuse one made from another catalogue."""
        notes, tables = checkpoint.read(Path(path))
        if notes.get("class") != cls.__name__:
            raise ValueError(f"{path} holds a {notes.get('class')}, not a {cls.__name__}")
        if fingerprint is not None and notes.get("fingerprint") != fingerprint:
            raise ValueError(
                f"{path} was trained on another catalogue ({notes.get('fingerprint') or 'unnamed'}, "
                f"not {fingerprint}); run the recommender stage again"
            )
        if not isinstance(notes.get("sizes"), dict):
            raise checkpoint.ModelFileError(
                f"{path} holds no {cls.__name__} of the study (its notes: {notes!s:.150})"
            )
        model = checkpoint.build(cls._of_sizes, notes["sizes"], tables, Path(path), cls.__name__)
        model.fingerprint = notes.get("fingerprint", "")
        return model.to(runtime.device()).requires_grad_(False)
