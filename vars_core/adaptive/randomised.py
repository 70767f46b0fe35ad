"""A shop that adds Gaussian noise to every photo before its filter, and serves by what several draws say.

A photo x is served as R(x + η), η ~ N(0, σ²I), not clipped before R. Rules of serving: *one* draw for each serving;
the *mean* of the scores of n draws; their *median*, with a vote on uploads. By that a new item is listed only where
so many of its draws exceed the last place among the established items (those with sales) that one whose chance is
below a half is listed with probability ≤ an error. The last two rules are computed once after the upload and cached.
As the bar is set by established items alone, new items can't lower it for one another, however many are attacked.

The draws are the shop's secret: an attacker who knew them would face a network without noise. Seeds make a study's
own runs repeatable and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vars_core import checkpoint, pretrained, runtime
from vars_core.adaptive import certificate
from vars_core.checkpoint import Checkpoint
from vars_core.data import arrays
from vars_core.recommender import accuracy_metrics, ranking
from vars_core.recommender.shop import Shop
from vars_core.recommender.vbpr import VBPR
from vars_core.reconstruction.filters import load_filter
from vars_core.reconstruction.serving import RULES, check_rule, noisy_features, served_features
from vars_core.runtime import progress


@dataclass(frozen=True)
class RandomisedShop:
    """`shop`'s catalogue, split, extractor and recommender, behind noise of standard deviation `sigma` ([0, 1] units)
    and `image_filter` (nn.Identity() for none). Each score is made of `draws` draws by `rule`, one of RULES.

    By the median, `upload_draws` of a new photo (None: as many) also vote on where it is listed; `votes` of them must
    agree: enough for `error` (see `certificate.votes_needed`), or, with `error` None, more than half."""

    shop: Shop
    image_filter: nn.Module
    sigma: float
    rule: str = "median"
    draws: int = 64
    upload_draws: int | None = None
    error: float | None = None
    seed: int = 0

    def __post_init__(self):
        check_rule(self.rule, self.draws)
        if not self.sigma >= 0:
            raise ValueError(f"sigma is a standard deviation, at least 0; got {self.sigma}")
        if self.rule == "median":
            self.votes  # noqa: B018 - raises where there are too few draws

    @classmethod
    def open(cls, shop: Shop, sigma: float, **options) -> RandomisedShop:
        """`shop` behind noise of `sigma`, with the denoiser and the recommender that notebook 4 trained for it."""
        folder, name = pretrained.read_from("models/filter"), f"{sigma:g}"
        model = VBPR.load(folder / f"vbpr-{name}.safetensors", shop.catalogue.fingerprint).to(runtime.device())
        denoiser, kept = load_filter(folder / f"denoiser-{name}.safetensors"), folder / f"features-{name}.npy"
        seed = options.get("seed", 0)
        features = arrays.load(kept) if kept.is_file() else served_features(shop, denoiser, sigma, seed)
        return cls(replace(shop, recommender=model, features=features), denoiser, sigma, **options)

    @classmethod
    def by_mean(cls, shop: Shop, image_filter: nn.Module, sigma: float, draws: int, seed: int) -> RandomisedShop:
        """A shop of the rule *mean* whose catalogue is served by `shop`'s own features, means over draws such as
        `serving.retrained` gives them: VBPR is linear, so the score of the mean is the mean of the scores."""
        made = cls(shop, image_filter, sigma, "mean", draws, seed=seed)
        made._cache(shop.recommender.scores(range(shop.split.train.shape[0]), shop.features))
        return made

    @property
    def voters(self) -> int:
        """How many draws of an upload vote, by the median rule."""
        return self.upload_draws or self.draws

    @property
    def votes(self) -> int:
        """How many of them must exceed the last place of a list."""
        return self.voters // 2 + 1 if self.error is None else certificate.votes_needed(self.voters, self.error)

    def features(self, photo: np.ndarray, draws: int, *stream) -> torch.Tensor:
        """f(R(x + η)) of one uint8 photo (H, W, 3) under `draws` draws that `stream` names: (draws, D). Draws depend
        on nothing else, so a photo's scores don't depend on which others are served."""
        source = self.noise_source(*stream)
        return noisy_features(self.shop.extractor, self.image_filter, self.sigma, photo, draws, source)

    def noise_source(self, *stream) -> torch.Generator:
        """Where the draws that `stream` names come from: the secret."""
        return runtime.generator(self.seed, "serving", *stream)

    def scores_by_draw(self, users, item: int, photo: np.ndarray, draws: int, *stream) -> torch.Tensor:
        """s(u, i, f(R(x + η))) (U, draws)."""
        return self.shop.recommender.item_scores(users, [item] * draws, self.features(photo, draws, *stream))

    def served_scores(self, users, items, photos: np.ndarray | None = None, *stream, label="") -> torch.Tensor:
        """What `items` (A,) score by the rule as new ones, with `photos` (A, H, W, 3) for their own: (U, A)."""
        photos = self.shop.photos(items) if photos is None else photos
        bars, columns = self.bars(users, items) if self.rule == "median" else None, []
        draws = {"one": 1, "mean": self.draws, "median": self.voters}[self.rule]
        for place, (item, photo) in enumerate(progress(list(zip(items, photos, strict=True)), label or "serving")):
            scores = self.scores_by_draw(users, item, photo, draws, item, *stream)
            columns.append(self._by_rule(scores) if bars is None else self._by_vote(scores, bars[:, place]))
        return torch.stack(columns, 1)

    def _by_rule(self, scores: torch.Tensor) -> torch.Tensor:
        """What the draws' scores (U, draws) make of an established item: (U,)."""
        if self.rule == "one":
            return scores[:, 0]
        return scores.mean(1) if self.rule == "mean" else scores.median(1).values

    def _by_vote(self, scores: torch.Tensor, bar: torch.Tensor) -> torch.Tensor:
        """The median of the draws' scores (U, draws), kept below `bar` (U,) where too few draws exceed that: (U,)."""
        median, agreed = scores.median(1).values, (scores > bar[:, None]).sum(1) >= self.votes
        below = torch.nextafter(bar, torch.full_like(bar, -torch.inf))
        return torch.where(agreed, median, torch.minimum(median, below))

    @cached_property
    def established_scores(self) -> torch.Tensor:
        """Everybody's cached scores for the items with sales (U, I), minus infinite for new ones; by the median."""
        users, scores = range(self.shop.split.train.shape[0]), []
        cold = np.isin(range(self.shop.split.train.shape[1]), self.shop.split.cold)
        for item in progress(np.flatnonzero(~cold), f"σ = {self.sigma:g}, {self.rule}"):
            scores.append(
                self._by_rule(self.scores_by_draw(users, item, self.shop.photos([item])[0], self.draws, item))
            )
        found = torch.full((len(users), len(cold)), -torch.inf, device=scores[0].device, dtype=scores[0].dtype)
        found[:, ~torch.from_numpy(cold)] = torch.stack(scores, 1)
        return found

    @cached_property
    def clean_scores(self) -> torch.Tensor:
        """Everybody's cached scores for the whole catalogue (U, I)."""
        users, items = range(self.shop.split.train.shape[0]), range(self.shop.split.train.shape[1])
        if self.rule != "median":
            return self.served_scores(users, items, label=f"σ = {self.sigma:g}, {self.rule}")
        scores, new = self.established_scores.clone(), self.shop.split.cold
        if len(new):
            scores[:, new] = self.served_scores(users, new)
        return scores

    def by_every_rule(self, kept: Path | None = None) -> dict[str, RandomisedShop]:
        """This shop under each of RULES, their cached scores from one pass over the catalogue, or from what
        `keep_scores` wrote to `kept`, where that is of the same shop, noise and draws."""
        shops = {rule: replace(self, rule=rule) for rule in RULES}
        if kept is not None and kept.is_file():
            notes, tensors = checkpoint.read(kept)
            if notes.get("fingerprint") == self._fingerprint():
                for rule, shop in shops.items():
                    shop._cache(tensors[rule].to(runtime.device()))
                return shops
        users, items = range(self.shop.split.train.shape[0]), range(self.shop.split.train.shape[1])
        columns = {rule: [] for rule in RULES}
        for item in progress(items, f"σ = {self.sigma:g}"):
            scores = self.scores_by_draw(users, item, self.shop.photos([item])[0], self.draws, item)
            for rule, shop in shops.items():
                columns[rule].append(shop._by_rule(scores))
        for rule, shop in shops.items():
            shop._cache(torch.stack(columns[rule], 1))
        voted, new = shops["median"], self.shop.split.cold
        if len(new):
            voted.clean_scores[:, new] = voted.served_scores(users, new)
        return shops

    def _cache(self, scores: torch.Tensor) -> None:
        """Take `scores` (U, I), by this shop's rule, as they are."""
        self.__dict__["clean_scores"] = scores
        new = torch.as_tensor(self.shop.split.cold, device=scores.device)
        self.__dict__["established_scores"] = scores.index_fill(1, new, -torch.inf)

    def keep_scores(self, shops: dict[str, RandomisedShop], file: Path) -> None:
        """Write what `by_every_rule` gave, for another notebook."""
        scores = {rule: shop.clean_scores for rule, shop in shops.items()}
        checkpoint.write(file, scores, fingerprint=self._fingerprint())

    def _fingerprint(self, *things) -> str:
        """A hash of what scores depend on, and of `things`."""
        parts = (self.image_filter, self.shop.extractor, self.shop.recommender)
        tensors = [tensor for part in parts for tensor in part.state_dict().values()]
        settings = (self.sigma, self.seed, self.draws, self.voters, self.error, self.shop.features)
        return checkpoint.fingerprint(*settings, *things, *tensors)

    def accuracy(self) -> dict[str, np.ndarray]:
        """Per-user accuracy on the held-out items, by the cached scores."""
        ks = sorted({k for k in (*accuracy_metrics.KS, self.shop.k) if k <= self.clean_scores.shape[1]})
        return accuracy_metrics.full_ranking(_Cached(self.clean_scores), None, self.shop.split, ks)

    def entry_scores(self, users, items) -> torch.Tensor:
        """What the items' scores must exceed to be in the users' lists among all others' cached scores: (U, A)."""
        return self._last_places(self.clean_scores[users], users, items)

    def bars(self, users, items) -> torch.Tensor:
        """What enough draws of the items must exceed: the last place of users' lists of established items (U, A)."""
        return self._last_places(self.established_scores[users], users, items)

    def _last_places(self, scores: torch.Tensor, users, items) -> torch.Tensor:
        owned = torch.as_tensor(np.asarray(self.shop.split.train[users].todense(), bool))
        return ranking.entry_scores(scores, owned.to(scores.device), torch.as_tensor(items), self.shop.k)

    def exposed(self, items, photos: np.ndarray | None = None, *stream) -> np.ndarray:
        """Whether each item is in the reporting users' lists (U, A), NaN where they have it. By one draw: how often,
        of `draws` servings."""
        if self.rule == "one":
            return self.hits(items, photos, self.draws, *stream).shares
        users = self.shop.reporting_users
        needed = self.entry_scores(users, items)
        listed = self.served_scores(users, items, photos, "upload", *stream) > needed
        return np.where(torch.isposinf(needed).cpu(), np.nan, listed.cpu().double())

    def ranks(self, items, photos: np.ndarray | None = None) -> np.ndarray:
        """Ranks (U, A) for the reporting users, each item alone with its photo replaced (None: its own)."""
        users = self.shop.reporting_users
        lookup = ranking.RankLookup(self.clean_scores[users], self.shop.split.train[users])
        return lookup.ranks(items, self.served_scores(users, items, photos, "upload"))

    def lists(self, rows, length: int) -> np.ndarray:
        """The first items of the lists of reporting users number `rows`: (len(rows), length)."""
        users = self.shop.reporting_users[rows]
        return ranking.top_k(self.clean_scores[users], self.shop.split.train[users], length)

    def hits(self, items, photos: np.ndarray | None, draws: int, *stream, one: RandomisedShop | None = None,
        progress_file: Path | None = None,
    ) -> Hits:  # fmt: skip
        """In how many of `draws` draws each of `items` (A,), alone with its photo in `photos` (None: its own), enters
        the reporting users' lists; by the median, the lists of established items, on which draws vote. The shares by
        draw are of the lists of `one`, this shop by that rule, if given.
        With a path as `progress_file` a count notes there where it is; interrupted, or done, and called again with
        the same arguments, it goes on from there."""
        users, photos = self.shop.reporting_users, self.shop.photos(items) if photos is None else photos
        needed = self.bars(users, items) if self.rule == "median" else self.entry_scores(users, items)
        needed_by_one = needed if one is None else one.entry_scores(users, items)
        can = ~torch.isposinf(needed)
        noted = self._checkpoint(progress_file, items, photos, draws, stream, needed, needed_by_one)
        found = noted.load() if noted else None
        counts, by_draw = ([], []) if found is None else (list(found[1]["counts"]), list(found[1]["by_draw"]))
        for place in progress(range(len(counts), len(items)), "draws"):
            scores = self.scores_by_draw(users, items[place], photos[place], draws, "hits", items[place], *stream)
            counts.append((scores > needed[:, place, None]).sum(1).cpu())
            by_draw.append(((scores > needed_by_one[:, place, None]).sum(0) / can[:, place].sum().clamp_min(1)).cpu())
            if noted and (noted.due() or place == len(items) - 1):
                noted.save({}, {"counts": torch.stack(counts), "by_draw": torch.stack(by_draw)})
        counts = torch.stack(counts, 1).double().numpy()
        return Hits(np.where(can.cpu(), counts, np.nan), torch.stack(by_draw).double().numpy(), draws)

    def _checkpoint(self, path, items, *things) -> Checkpoint | None:
        if path is None:
            return None
        return Checkpoint(path, self._fingerprint(np.asarray(items), *things))


@dataclass(frozen=True)
class Hits:
    """How often items entered lists in `draws` draws: `counts` (U, A), NaN where the user has the item, and the share
    of lists by draw (A, draws)."""

    counts: np.ndarray
    by_draw: np.ndarray
    draws: int

    @property
    def shares(self) -> np.ndarray:
        """The share of draws (U, A)."""
        return self.counts / self.draws

    def first(self, n: int) -> Hits:
        """Of the first `n` items."""
        return Hits(self.counts[:, :n], self.by_draw[:n], self.draws)


class _Cached:
    """A recommender that says what was computed before."""

    def __init__(self, scores: torch.Tensor):
        self._scores = scores

    def scores(self, users, features=None) -> torch.Tensor:
        return self._scores[users]
