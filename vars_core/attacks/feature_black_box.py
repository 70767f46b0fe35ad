"""A black box for visually-aware recommenders: the gradient of the score in the features is estimated by asking.

After Cohen, Sar Shalom, Jannach and Amir, "A Black-Box Attack Model for Visually-Aware Recommender Systems" (WSDM
2021) and the code published with it. The recommender is unknown, the extractor is public. A seller uploads slightly
changed photos of the item, reads where they rank for users under their control, and regresses that on the features.
"""

from dataclasses import dataclass

import torch
from torch import nn

from vars_core.attacks.engine import (
    AttackResult,
    ObjectiveFn,
    budget,
    eval_mode,
    evaluate,
    gradient,
    per_photo,
    quantise,
)
from vars_core.attacks.objectives import Objective


def normal_score(ranks: torch.Tensor, n_items: int) -> torch.Tensor:
    """Φ⁻¹(1 − r / (n + 1)): a rank of n items as a normal score, about linear in the hidden score where scores are
    normally distributed over items. Theirs."""
    return torch.special.ndtri(1 - ranks / (n_items + 1))


@dataclass(frozen=True)
class RankFeedback(Objective):
    """What the shop shows the attacker: the mean over their `users` (U,) of the item's rank, as `normal_score`.

    `others` (U, I) are the users' scores of the whole catalogue in ascending order, −∞ for what they own, `own`
    (U, A) the clean scores of the pushed `items` (A,), which do not compete with their changed selves. `features` is
    what the shop computes of a photo, its filter included. Piecewise constant: there is nothing to differentiate."""

    looks = ("features", "recommender")

    features: nn.Module
    recommender: nn.Module
    users: torch.Tensor
    items: torch.Tensor
    others: torch.Tensor
    own: torch.Tensor

    @classmethod
    def of(cls, features, recommender, users, items, served, owned) -> "RankFeedback":
        """`served` (I, D) are the features that the shop serves now, `owned` boolean (U, I)."""
        scores = recommender.scores(users, served)
        hidden = scores.masked_fill(torch.as_tensor(owned, dtype=torch.bool, device=scores.device), -torch.inf)
        users, items = (torch.as_tensor(numbers, device=scores.device) for numbers in (users, items))
        return cls(features, recommender, users, items, hidden.sort(dim=1).values, hidden[:, items])

    def __getitem__(self, rows):
        return RankFeedback(
            self.features, self.recommender, self.users, self.items[rows], self.others, self.own[:, rows]
        )

    @torch.no_grad()
    def ranks(self, images: torch.Tensor) -> torch.Tensor:
        """r_u(i′) (U, A), ties against the item."""
        new = self.recommender.item_scores(self.users, self.items, self.features(images)).contiguous()
        above = self.others.shape[1] - torch.searchsorted(self.others, new) - (self.own >= new).long()
        return 1 + above

    def __call__(self, images):
        ranks = self.ranks(images).to(images.dtype)
        return normal_score(ranks, self.others.shape[1]).mean(0)


def regressed_gradient(changes: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Least squares with an intercept of `answers` (N, M) on feature `changes` (N, M, D), the shortest solution
    where there are fewer answers than features: (N, D)."""
    changes, answers = changes - changes.mean(1, keepdim=True), answers - answers.mean(1, keepdim=True)
    return (torch.linalg.pinv(changes) @ answers[..., None])[..., 0]


def feature_black_box(
    objective: ObjectiveFn,
    features: nn.Module,
    images: torch.Tensor,
    epsilon,
    *,
    steps: int = 20,
    examples: int = 32,
    gamma: int = 7,
    step: float = 1.0,
    generator: torch.Generator,
) -> AttackResult:
    """Raise `objective`, asked and never differentiated, in the L∞ ball of `epsilon`/255 around images (N, 3, H, W).

    Theirs: in each of `steps` steps, `examples` photos with independent noise of −`gamma` to `gamma` grey levels are
    uploaded, the answers are regressed linearly on the photos' features, the slope is sent back through the public
    extractor `features`, and the photo takes a signed step of `step` grey levels. Defaults are those of their code.
    Ours: the photo stays within ε (they bound steps · `step`, or ε = 30 in a variant); several users' answers are
    averaged by `RankFeedback` (they follow one user at a time); the best photo asked about is kept, not the last; all
    images of a batch share their noise, so that an image ends the same alone and in any batch. The probes are uploads
    too, and not within ε.

    `queries` is `steps` · (`examples` + 1) + 1 per image: a query is one upload, read for all users under control.
    Where no probe changes an answer, as coarse ranks of a small catalogue may not, nothing is learnt: raise `gamma`.
    Raises ValueError for a budget that isn't 1 to 255, for fewer than two examples, or for a `gamma` below 1.
    """
    eps = budget(epsilon, images)
    if examples < 2 or gamma < 1:
        raise ValueError(f"a regression needs at least 2 examples of noise of 1 grey level; got {examples}, {gamma}")
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    x = best = images
    best_value = torch.full((len(images),), -torch.inf).to(images)
    asked = 0
    with eval_mode(objective, *[features] * isinstance(features, nn.Module)):
        for done in range(steps + 1):
            value = evaluate(objective, x)
            asked += 1
            better = value > best_value
            best = torch.where(per_photo(better), x, best)
            best_value = torch.where(better, value, best_value)
            if done == steps:
                break
            slope = _asked_slope(objective, features, x, value, examples, gamma, generator)
            asked += examples
            uphill = gradient(lambda z, slope=slope: (features(z) * slope).sum(1), x)
            x = quantise(torch.clamp(x + step / 255 * uphill.sign(), low, high))
    enough = getattr(objective, "success_threshold", None)
    queries = torch.full((len(images),), asked, dtype=torch.int64, device=images.device)
    return AttackResult(best, best_value, None if enough is None else best_value >= enough, queries)


def _asked_slope(objective, features, x, value, examples, gamma, generator) -> torch.Tensor:
    """The estimated ∂ objective / ∂ features at `x`: (N, D)."""
    with torch.no_grad():
        here, changes, answers = features(x), [], []
        for _ in range(examples):
            noise = torch.randint(-gamma, gamma + 1, x.shape[1:], generator=generator).to(x) / 255
            probe = quantise(x + noise)
            changes.append(features(probe) - here)
            answers.append(evaluate(objective, probe) - value)
    return regressed_gradient(torch.stack(changes, 1), torch.stack(answers, 1))
