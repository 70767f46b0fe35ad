"""Checks that an attack's numbers must pass before they may be believed (Carlini et al. 2019; Tramèr et al. 2020).

Any attack can be put through them, against any system: an attack is called as `attack(objective, images, epsilon,
steps=…, generator=…)`, which is how `engine.linf` and `apgd.apgd` are called, and the system is whatever the
objective looks through. A defence that only hides its gradient, or an attack with a bug in it, fails some of them.

The objective's best value is 0: hook, promote, class → class. What an attack *closes* of an image is the share of the
way from the untouched photo's value to 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from vars_core.attacks.engine import eval_mode, evaluate, fgsm, gradient, noise
from vars_core.attacks.objectives import Objective, hook
from vars_core.attacks.square import square
from vars_core.runtime import generator

Attack = Callable[..., object]
MARGIN = 0.05  # of the way: two good attacks of one photo end this far apart by their random starts
REACHED = -1e-6  # an objective's value from which on there is no way left to close; features are of spread 1
BATCH = 64


class _OneBit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0.5).to(x)

    @staticmethod
    def backward(ctx, slope):
        return slope


class OneBitInput(nn.Module):
    """A deliberately broken defence: 1-bit input that passes gradients straight through."""

    def forward(self, images):
        return _OneBit.apply(images)


class ZeroGradientFirst(Objective):
    """The same objective, with a gradient of zero the first time it is asked: an attack must survive that."""

    def __init__(self, objective):
        self.objective, self.asked = objective, False

    @property
    def modules(self):
        return self.objective.modules

    def __getitem__(self, rows):
        return ZeroGradientFirst(self.objective[rows])

    def __call__(self, images):
        values = self.objective(images)
        if not self.asked:
            self.asked, values = True, values.detach() + 0 * images.sum((1, 2, 3))
        return values


def share_closed(objective, images, attacked) -> np.ndarray:
    """(N,) the share of the way from the untouched photo's value to the best one, 0, that `attacked` is on; NaN where
    the untouched photo is there already."""
    with eval_mode(objective):
        start, end = _values(objective, images), _values(objective, attacked)
    return 1 - end / np.where(start < REACHED, start, np.nan)


@dataclass(frozen=True)
class _Trial:
    """An attack, its objective and its images; results are shares (N,) of the way."""

    attack: Attack
    objective: Objective
    images: torch.Tensor
    seed: int
    kept: np.ndarray  # places of its images among those given
    start: np.ndarray

    @classmethod
    def of(cls, attack, objective, images, seed) -> "_Trial":
        """Without the photos that are at the objective's best value untouched, as copies of the hook's photo are."""
        with eval_mode(objective):
            start = _values(objective, images)
        kept = np.flatnonzero(start < REACHED)
        best = start.max(initial=-np.inf)
        if len(kept) < len(
            start
        ):  # copies of the hook's photo get worse by noise; what has no best value gets better
            with eval_mode(objective):
                noisy = noise(images, 8, generator=generator(seed, "best value"))
                best = max(best, _values(objective, noisy).max())
        if best > 0:
            raise ValueError(f"the best value of an objective is 0; this one has {best:.3g}")
        rows = torch.from_numpy(kept).to(images.device)
        return cls(attack, objective[rows], images[rows], seed, kept, start[kept])

    def aside(self, n: int) -> list:
        """A row that says how many of `n` photos can't be judged, where there are any; it holds if some can."""
        left = len(self.images)
        detail = f"{n - left} of {n} photos have the objective's best value untouched, and are left out"
        return [] if left == n else [("has_something_to_reach", left > 0, detail)]

    def photos(self, epsilon, steps: int, objective=None, attack=None) -> torch.Tensor:
        """The attacked images; `objective` and `attack` where they aren't the trial's own."""
        objective, parts = objective or self.objective, []
        draw = generator(self.seed, "sanity", epsilon, steps)
        for rows in _slices(len(self.images)):
            found = (attack or self.attack)(objective[rows], self.images[rows], epsilon, steps=steps, generator=draw)
            parts.append(getattr(found, "images", found))
        return torch.cat(parts)

    def closed(self, photos: torch.Tensor) -> np.ndarray:
        with eval_mode(self.objective):
            return 1 - _values(self.objective, photos) / self.start


def check_attack(
    attack: Attack,
    objective: Objective,
    images: torch.Tensor,
    *,
    epsilon: int,
    steps: int,
    seed: int,
    transferred: Mapping[str, torch.Tensor] | None = None,
    queries: int = 200,
    most: int = 16,
) -> pd.DataFrame:
    """Put `attack` on `objective` through the checks; one row per check: check, passed, detail.

    Photos that have reached the objective untouched (copies of the hook's photo, say) tell nothing of an attack: they
    are left out, and a row `has_something_to_reach` counts them. It is the only one where none is left.
    `images` (N, 3, H, W) are untouched photos on the 8-bit grid; `transferred` names photos of the same items within
    the same ε that were made without knowing the system. Steps are doubled until that changes little, up to `most`
    times `steps`; Square gets `queries`. Raises ValueError for an objective with positive values."""
    trial = _Trial.of(attack, objective, images, seed)
    aside = trial.aside(len(images))
    if not len(trial.images):
        return _table(aside)
    kept = torch.from_numpy(trial.kept).to(images.device)
    images, transferred = images[kept], {name: sheet[kept] for name, sheet in (transferred or {}).items()}
    before = _state(objective)
    photos = trial.photos(epsilon, steps)
    restored = _state(objective) == before
    rows = [*aside, _budget(images, photos, epsilon), _both_ways(images, photos, epsilon)]
    detail = "training flags and .grad are " + ("as before" if restored else "changed")
    rows.append(("gives_flags_and_gradients_back", restored, detail))
    rows += _strength(trial, photos, epsilon, steps)
    doubled, strongest, needed = _more_steps(trial, photos, epsilon, steps, most)
    rows.append(doubled)
    rows += _others(trial, strongest, epsilon, transferred, queries)
    rows += _gradients(trial, photos, epsilon, steps)
    rows.append(_unbounded("unbounded_attack_succeeds", trial, max(50, needed), 0.99))
    return _table(rows)


def check_broken_defence(attack: Attack, extractor: nn.Module, images: torch.Tensor, *, steps: int, seed: int):
    """`attack` must get through 1-bit input, which hides nothing from a gradient; one row as above.

    Every image shall become the next one, as the extractor sees it behind 1-bit input: with ε = 255 it can (128 lets
    white turn black too, but in the ball's last corner only). One that looks like the next one there, as two light
    products on white ground do, shall become its own negative. Images that the extractor can't tell from their
    negatives are left out, as in `check_attack`."""
    system = nn.Sequential(OneBitInput(), extractor)
    with torch.no_grad():
        own, other, negative = (
            torch.cat([system(x[rows]) for rows in _slices(len(x))]) for x in (images, images.roll(-1, 0), 1 - images)
        )
    alike = (own - other).square().mean(1) <= -REACHED
    trial = _Trial.of(attack, hook(system, torch.where(alike[:, None], negative, other)), images, seed)
    aside = trial.aside(len(images))
    if not len(trial.images):
        return _table(aside)
    return _table([*aside, _unbounded("breaks_a_broken_defence", trial, max(50, steps), 0.9, 255)])


def _strength(trial: _Trial, photos, epsilon, steps) -> list:
    def single(objective, images, eps, **_):
        return fgsm(objective, images, eps)

    many, one = trial.closed(photos).mean(), trial.closed(trial.photos(epsilon, 1, attack=single)).mean()
    ladder = [max(1, epsilon // 2), epsilon, 2 * epsilon]
    climb = [many if e == epsilon else trial.closed(trial.photos(e, steps)).mean() for e in ladder]
    rising = all(a <= b for a, b in zip(climb, climb[1:], strict=False))
    detail = ", ".join(f"{c:.1%} at ε = {e}" for e, c in zip(ladder, climb, strict=True))
    return [
        ("iterated_beats_single_step", many >= one, f"{many:.1%} of the way closed, {one:.1%} in a single step"),
        ("success_rises_with_epsilon", rising, detail),
    ]


def _more_steps(trial: _Trial, photos, epsilon, steps, most) -> tuple[tuple, torch.Tensor, int]:
    """The verdict, the photos of the most steps tried, and how many those are."""
    closed, last = {steps: trial.closed(photos).mean()}, steps
    while True:
        photos = trial.photos(epsilon, 2 * last)
        closed[2 * last] = trial.closed(photos).mean()
        little = abs(closed[2 * last] - closed[last]) < 0.01
        if little or 2 * last >= most * steps:
            break
        last *= 2
    detail = ", ".join(f"{share:.1%} in {k}" for k, share in closed.items()) + " steps"
    enough = "enough" if little and last == steps else f"use {last}" if little else f"{2 * last} aren't enough"
    return ("more_steps_change_little", little and last == steps, f"{detail}: {enough}"), photos, 2 * last


def _others(trial: _Trial, photos, epsilon, transferred, queries) -> list:
    """Per image: nothing that knows less may get further, by a margin."""
    draw = generator(trial.seed, "sanity others", epsilon)
    strong = trial.closed(photos)
    controls = {"noise": noise(trial.images, epsilon, generator=draw), **transferred}

    def asking(objective, images, eps, *, steps, generator):
        return square(objective, images, eps, queries=steps, generator=generator)

    def row(check, rivals):
        ahead = {name: (trial.closed(p) > strong + MARGIN) for name, p in rivals.items()}
        worst = np.mean(np.any(list(ahead.values()), axis=0))
        detail = ", ".join(f"{name} on {np.mean(a):.0%}" for name, a in ahead.items())
        return check, worst <= 0.01, f"gets further on the same photo: {detail}"

    asked = {f"Square ({queries} queries)": trial.photos(epsilon, queries, attack=asking)}
    return [row("white_box_beats_transfer_and_noise", controls), row("white_box_beats_black_box", asked)]


def _gradients(trial: _Trial, photos, epsilon, steps) -> list:
    with eval_mode(trial.objective):
        slopes = torch.cat([gradient(trial.objective[r], trial.images[r]) for r in _slices(len(trial.images))])
    sizes = slopes.abs().amax((1, 2, 3))
    bad = int((~(torch.isfinite(sizes) & (sizes > 0))).sum())
    usual = trial.closed(photos).mean()
    flat = trial.closed(trial.photos(epsilon, steps + 1, objective=ZeroGradientFirst(trial.objective))).mean()
    survives = bool(np.isfinite(flat) and usual > 0 and flat >= 0.5 * usual)
    detail = f"{flat:.1%} closed after a first gradient of zero, {usual:.1%} without"
    return [
        ("no_zero_gradient", bad == 0, f"{bad} images without a (finite) gradient"),
        ("recovers_from_zero_gradient", survives, detail),
    ]


def _unbounded(name: str, trial: _Trial, steps: int, share: float, epsilon: int = 128) -> tuple:
    """With so large an ε almost any photo can be reached. Steps are doubled three times before giving up."""
    for k in (steps, 2 * steps, 4 * steps, 8 * steps):
        reached = (trial.closed(trial.photos(epsilon, k)) > 0.5).mean()
        if reached >= share:
            break
    return name, reached >= share, f"{reached:.0%} of images get half the way or more at ε = {epsilon} in {k} steps"


def _budget(images, photos, epsilon) -> tuple:
    change, values = (photos - images).mul(255), photos.mul(255)
    largest = change.abs().amax().item()
    on_grid = (values - values.round()).abs().amax().item() < 1e-3
    valid = bool(((photos >= 0) & (photos <= 1)).all())
    held = largest <= epsilon + 1e-3 and on_grid and valid
    where = "on" if on_grid and valid else "off"
    return "stays_in_budget_and_on_grid", held, f"largest change {largest:.2f} of {epsilon}, {where} the 8-bit grid"


def _both_ways(images, photos, epsilon) -> tuple:
    """Cutting off instead of rounding loses the half of an attack that brightens; a wrong ε loses both."""
    change, values = (photos - images).mul(255).round().flatten(1), images.flatten(1)
    up = (change.amax(1) >= epsilon) | (values > 1 - epsilon / 255).all(1)
    down = (change.amin(1) <= -epsilon) | (values < epsilon / 255).all(1)
    free = change[(values >= epsilon / 255) & (values <= 1 - epsilon / 255)]  # a white ground can only get darker
    share, above, below = (x.float().mean().item() for x in (up & down, free > 0, free < 0))
    held = share >= 0.99 and (len(free) == 0 or 0.5 < above / max(below, 1e-9) < 2)
    detail = f"{share:.0%} of images reach ±ε; of values free to move {above:.0%} go up, {below:.0%} down"
    return "uses_the_budget_both_ways", held, detail


def _state(objective) -> list:
    """What an attack must leave alone in the modules it looks through."""
    modules = [m for module in objective.modules for m in module.modules()]
    parameters = [p for module in objective.modules for p in module.parameters()]
    return [m.training for m in modules] + [(p.requires_grad, p.grad is None) for p in parameters]


def _values(objective, images) -> np.ndarray:
    return np.concatenate([evaluate(objective[r], images[r]).cpu().numpy() for r in _slices(len(images))])


def _slices(n: int) -> list[slice]:
    return [slice(i, i + BATCH) for i in range(0, n, BATCH)]


def _table(rows) -> pd.DataFrame:
    return pd.DataFrame(
        [(name, bool(ok), detail) for name, ok, detail in rows], columns=["check", "passed", "detail"]
    )
