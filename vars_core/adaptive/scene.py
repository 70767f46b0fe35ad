"""The scene of an adaptive attack: items and their hooks, the shop with and without the filter, and the defence."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from vars_core.attacks.campaign import AIMS
from vars_core.attacks.objectives import Evade, hook
from vars_core.detection.defence import Defence
from vars_core.detection.detectors import score_photos
from vars_core.extractor import to_images
from vars_core.recommender.shop import Shop

DEFENCES = ("none", "filter", "detector", "both")
MARGIN = 0.5  # below τ, in logits: rounding must not bring the score back over it
GATE_MARGIN = 4.0  # below 0, in logits of a filter's gate: at −4 the filter takes back 2 % of what it would
GATE_PENALTY = 0.3  # weight of the gate's logit for the attacker; ten times as much or as little changes little


class _Cached(nn.Module):
    """A module that several parts ask for the same photo, raw and filtered: it computes once for each."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.answers = module, []

    def compute(self, images):
        return self.module(images)

    def ask(self, images):
        graph = torch.is_grad_enabled()
        for asked, kept, answer in self.answers:
            if asked is images and kept == graph:
                return answer
        answer = self.compute(images)
        self.answers = [(images, graph, answer), *self.answers[:1]]
        return answer

    def forward(self, images):
        return self.ask(images)


class _CachedFilter(_Cached):
    """A filter that objective, detector and gate ask."""

    def compute(self, images):
        with_gate = getattr(self.module, "forward_with_gate", None)
        return with_gate(images) if with_gate else (self.module(images), None)

    def forward_with_gate(self, images):
        return self.ask(images)

    def forward(self, images):
        return self.forward_with_gate(images)[0]


class _Gate(nn.Module):
    """The logit of the filter's gate (N,)."""

    def __init__(self, image_filter: _CachedFilter):
        super().__init__()
        self.image_filter = image_filter

    def forward(self, images):
        return self.image_filter.forward_with_gate(images)[1]


@dataclass(frozen=True)
class Scene:
    """What all tiers share: the items, their hooks, the shop with and without the filter, and the defence."""

    undefended: Shop
    filtered: Shop
    defence: Defence
    items: np.ndarray
    hooks: np.ndarray
    targets: torch.Tensor  # f(x_h) (A, D), as the shop in question sees the hook
    filtered_targets: torch.Tensor
    rate: str = "1"  # false alarms in percent at which the detector flags

    @classmethod
    def build(cls, shop: Shop, defence: Defence, items, hooks, rate: str | None = None) -> "Scene":
        """`rate`: by default the defence's operating rate, which is 1 % where its calibration photos suffice."""
        through = shop.with_filter(defence.image_filter)
        served = torch.from_numpy(through.features[hooks])
        targets = shop.hook_features(hooks)
        shared = replace(
            defence, image_filter=_CachedFilter(defence.image_filter), extractor=_Cached(defence.extractor)
        )
        return cls(shop, through, shared, items, hooks, targets, served.to(targets), rate or defence.operating_rate)

    def first(self, n: int) -> "Scene":
        """The first `n` items only."""
        parts = {name: getattr(self, name)[:n] for name in ("items", "hooks", "targets", "filtered_targets")}
        return replace(self, **parts)

    @property
    def threshold(self) -> float:
        return self.defence.threshold(self.rate)

    @property
    def gated(self) -> bool:
        """Whether the filter has a gate, which who knows the filter can shut."""
        return getattr(self.defence.image_filter.module, "gate", None) is not None

    def objective(self, defended: bool, aim: str):
        """The attacker's objective, one of AIMS, through what it attacks: f, or f∘R behind a filter."""
        if aim not in AIMS:
            raise ValueError(f"unknown aim {aim!r}; known: {', '.join(AIMS)}")
        shop = self.filtered if defended else self.undefended
        extractor = self.defence.extractor
        features = nn.Sequential(self.defence.image_filter, extractor) if defended else extractor
        if aim == "hook":  # a look as this very shop sees it
            return hook(features, self.filtered_targets if defended else self.targets)
        return AIMS[aim](shop, self.items, self.hooks, features)

    def evading_detector(self, objective, penalties):
        """`objective` with the detector's score held under τ, one λ for each image."""
        n = len(self.items)
        penalty = torch.tensor(penalties, dtype=torch.float32).repeat_interleave(n).to(self.targets.device)
        rows = torch.arange(n).repeat(len(penalties)).to(penalty.device)
        return Evade(objective[rows], self.defence.score, self.threshold, MARGIN, penalty)

    def holding_gate_shut(self, objective, n: int):
        """`objective` of `n` images with the filter's gate held shut. Its gradient says little of that: where the
        gate is open it is flat, and an attack that only follows f∘R fights the filter instead of passing it."""
        weight = torch.full((n,), GATE_PENALTY, device=self.targets.device)
        return Evade(objective, _Gate(self.defence.image_filter), 0.0, GATE_MARGIN, weight)

    def images(self) -> torch.Tensor:
        return to_images(self.undefended.photos(self.items))

    def flagged(self, photos: np.ndarray) -> np.ndarray:
        """(A,) whether the detector flags the uploaded photos."""
        return score_photos(self.defence.score, photos) > self.threshold

    def exposed_by_defence(self, photos: np.ndarray) -> dict[str, np.ndarray]:
        """1[r ≤ k and not flagged] (U, A) of the uploads under each of DEFENCES; NaN where the user has the item."""
        undefended, filtered = self.undefended.exposed(self.items, photos), self.filtered.exposed(self.items, photos)
        passed = np.where(self.flagged(photos), 0.0, 1.0)[None]
        return dict(zip(DEFENCES, (undefended, filtered, undefended * passed, filtered * passed), strict=True))
