"""The victims that score by tables and features: popularity, BPR-MF and VBPR. All victims share this interface.

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

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy import sparse
from torch import nn
from torch.nn import functional

from vars_core import bpr, paths, runtime
from vars_core.checkpoint import Checkpoint

INITIAL_STD = 0.1  # of factors and projections


def checked(features, n_items: int | None = None) -> torch.Tensor:
    """Features as a tensor (I, D), or a ValueError that says what is wrong with them."""
    features = torch.as_tensor(features)
    if features.ndim != 2 or (n_items is not None and len(features) != n_items):
        raise ValueError(f"features have shape {tuple(features.shape)}, not ({n_items or 'items'}, dimensions)")
    if not torch.isfinite(features).all():
        item, column = (int(v) for v in (~torch.isfinite(features)).nonzero()[0])
        raise ValueError(f"features hold NaN or infinite values, first at item {item}, dimension {column}")
    return features


class Recommender(nn.Module):
    """What the three share: the item bias, checks, training by BPR, saving and loading."""

    def __init__(self):
        super().__init__()
        self.sizes: dict[str, int | str] = {}
        self.fingerprint = ""
        self.history: list[dict] = []  # epoch, loss and, where looked at, validation_auc

    def _build(self, generator: torch.Generator | None = None, **sizes: int) -> None:
        self.sizes = sizes
        self.bias = nn.Parameter(torch.zeros(sizes["items"]))

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
        mark = hashlib.sha256(repr([type(self).__name__, self.sizes, sorted(vars(cfg).items()), seed]).encode())
        start = [table.detach().cpu().numpy() for table in self.state_dict().values()]
        for array in (train.indptr, train.indices, np.asarray(validation), features, *start):
            mark.update(np.ascontiguousarray(array if array is not None else []))
        return Checkpoint(path, mark.hexdigest())

    def _prepare(self, train, features, cfg, generator) -> None:
        raise NotImplementedError

    def difference(self, users, positives, negatives, features) -> tuple[torch.Tensor, torch.Tensor]:
        """s(u, i) − s(u, j) per triple (B,), and the mean squared norm of the parameters that took part."""
        raise NotImplementedError

    def error(self, users, positives, negatives, features) -> tuple[torch.Tensor, torch.Tensor]:
        """What training minimises over triples (B,), and the penalty of `difference`: the mean BPR loss."""
        difference, penalty = self.difference(users, positives, negatives, features)
        return bpr.loss(difference).mean(), penalty

    def save(self, path, fingerprint: str = "") -> Path:
        """Write a safetensors file: the tables, and the class, sizes and catalogue fingerprint as JSON."""
        path = Path(path)
        self.fingerprint = fingerprint or self.fingerprint
        header = {"class": type(self).__name__, "sizes": self.sizes, "fingerprint": self.fingerprint}
        tables = {name: table.detach().cpu().contiguous() for name, table in self.state_dict().items()}
        return paths.write(path, save(tables, metadata={"recommender": json.dumps(header, sort_keys=True)}))

    @classmethod
    def load(cls, path, fingerprint: str | None = None):
        """Read a file written by `save`. With `fingerprint`, refuse one made from another catalogue."""
        path = Path(path)
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["recommender"])
                tables = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ValueError(f"{path} is not a recommender's safetensors file ({error})") from None
        if header["class"] != cls.__name__:
            raise ValueError(f"{path} holds a {header['class']}, not a {cls.__name__}")
        if fingerprint is not None and header["fingerprint"] != fingerprint:
            raise ValueError(
                f"{path} was trained on another catalogue ({header['fingerprint'] or 'unnamed'}, "
                f"not {fingerprint}); run the recommender stage again"
            )
        model = cls()
        model._build(**header["sizes"])
        try:
            model.load_state_dict(tables)
        except RuntimeError as error:
            raise ValueError(f"{path}: its tables do not fit its sizes {header['sizes']}: {error}") from None
        model.fingerprint = header["fingerprint"]
        return model.to(runtime.device()).requires_grad_(False)


class Popularity(Recommender):
    """s(u, i) = number of training interactions of i."""

    def _build(self, generator=None, **sizes):
        super()._build(**sizes)

    def fit(self, split, features=None, cfg=None, seed: int = 0, *, device=None, checkpoint=None):
        train = sparse.csr_array(split.train)
        self._build(users=train.shape[0], items=train.shape[1])
        counts = np.asarray(train.astype(np.int64).sum(0)).ravel()
        self.bias.data = torch.from_numpy(counts).float()
        return self.to(torch.device(device or runtime.device())).requires_grad_(False)


class BPRMF(Recommender):
    """s(u, i) = β_i + γ_u · γ_i, trained by BPR. Rendle et al., UAI 2009."""

    def _build(self, generator=None, **sizes):
        super()._build(**sizes)
        self.user = self._table(sizes["users"], sizes["factors"], generator=generator)
        self.item = self._table(sizes["items"], sizes["factors"], generator=generator)

    def _prepare(self, train, features, cfg, generator):
        self._build(generator, users=train.shape[0], items=train.shape[1], factors=cfg.factors)
        self._zero_unknown(train)

    @torch.no_grad()
    def _zero_unknown(self, train) -> None:
        # They are in no triple, so their gradient is 0 and Adam leaves them at 0.
        self.user[torch.from_numpy(np.diff(train.indptr) == 0)] = 0
        self.item[torch.from_numpy(np.bincount(train.indices, minlength=train.shape[1]) == 0)] = 0

    def _score(self, users, items, features):
        return self.bias[items] + self.user[users] @ self.item[items].T

    def difference(self, users, positives, negatives, features):
        user = functional.embedding(users, self.user)
        item = functional.embedding(positives, self.item)
        other = functional.embedding(negatives, self.item)
        bias = functional.embedding(torch.stack([positives, negatives]), self.bias[:, None])[..., 0]
        difference = bias[0] - bias[1] + (user * (item - other)).sum(1)
        penalty = (user**2 + item**2 + other**2).sum(1).mean() + (bias**2).sum(0).mean()
        return difference, penalty


class VBPR(BPRMF):
    """s(u, i) = β_i + γ_u · γ_i + θ_u · (E f_i) + β′ · f_i, trained by BPR. He & McAuley, AAAI 2016.

    Inside, f_i is divided by √D, so that its length is about 1 whatever the extractor and one learning rate
    fits all tables; `visual_matrix` gives the rows w_u = (θ_u E + β′) / √D that hold for f_i itself:
    s(u, i) = β_i + γ_u · γ_i + w_u · f_i.

    E f_i and β′ · f_i are penalised, as γ_i and β_i are, not E and β′: that would depend on D and its scale.
    All items share E, so `visual_l2` makes that part of the penalty lighter.
    """

    visual_l2: float

    def _build(self, generator=None, **sizes):
        super()._build(generator, **sizes)
        self.taste = self._table(sizes["users"], sizes["visual_factors"], generator=generator)  # θ
        self.projection = self._table(sizes["dimensions"], sizes["visual_factors"], generator=generator)  # Eᵀ
        self.visual_bias = nn.Parameter(torch.zeros(sizes["dimensions"]))  # β′

    def _prepare(self, train, features, cfg, generator):
        dimensions = checked(features, train.shape[1]).shape[1]
        self._build(
            generator,
            users=train.shape[0],
            items=train.shape[1],
            factors=cfg.factors,
            visual_factors=cfg.visual_factors,
            dimensions=dimensions,
        )
        self._zero_unknown(train)
        with torch.no_grad():
            self.taste[torch.from_numpy(np.diff(train.indptr) == 0)] = 0

    def _train(self, train, split, features, cfg, *where):
        self.visual_l2 = cfg.visual_l2
        return super()._train(train, split, features, cfg, *where)

    def _features(self, features, n_items):
        if features is None:
            raise ValueError("VBPR needs the items' features")
        features = checked(features, n_items).to(self.bias)
        if features.shape[1] != self.sizes["dimensions"]:
            expected = self.sizes["dimensions"]
            raise ValueError(f"features have {features.shape[1]} dimensions, this VBPR expects {expected}")
        return features

    def _score(self, users, items, features):
        scaled = features / features.shape[1] ** 0.5
        visual = self.taste[users] @ (scaled @ self.projection).T + scaled @ self.visual_bias
        return super()._score(users, items, None) + visual

    def difference(self, users, positives, negatives, features):
        difference, penalty = super().difference(users, positives, negatives, None)
        taste = functional.embedding(users, self.taste)
        seen, other = self._views(torch.stack([positives, negatives]), features)
        gap = seen - other
        difference = difference + (taste * gap[:, :-1]).sum(1) + gap[:, -1]
        look = (seen**2 + other**2).sum(-1).mean()
        return difference, penalty + (taste**2).sum(1).mean() + self.visual_l2 * look

    def _views(self, items, features) -> torch.Tensor:
        """(E f_i, β′ · f_i) of `items` (2, B): (2, B, factors + 1)."""
        look = torch.cat([self.projection, self.visual_bias[:, None]], dim=1) / features.shape[1] ** 0.5
        if len(features) <= items.numel():  # then projecting every item once is less work
            return functional.embedding(items, features @ look)
        return functional.embedding(items, features) @ look

    @torch.no_grad()
    def visual_matrix(self) -> torch.Tensor:
        """Rows w_u (U, D): how much user u's score changes per unit of each feature."""
        return (self.taste @ self.projection.T + self.visual_bias) / self.sizes["dimensions"] ** 0.5

    @torch.no_grad()
    def base_scores(self, users=None) -> torch.Tensor:
        """β_i + γ_u · γ_i: what is left of the scores (U, I) without photos."""
        return BPRMF._score(self, self._index(users, "users"), self._index(None, "items"), None)
