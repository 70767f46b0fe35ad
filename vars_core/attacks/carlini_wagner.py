"""Carlini and Wagner's L2 attack (S&P 2017) for any objective: the smallest change that reaches a value."""

import torch

from vars_core.attacks.engine import (
    AttackResult,
    ObjectiveFn,
    QueryCounter,
    eval_mode,
    per_photo,
    quantise,
    shared_noise,
    value_and_gradient,
)

GROWTH = 10  # of c while an image has not been reached


def cw_l2(
    objective: ObjectiveFn,
    images: torch.Tensor,
    *,
    threshold=None,
    steps: int = 100,
    search_steps: int = 6,
    learning_rate: float = 0.01,
    constant: float = 1.0,
    confidence: float = 0.0,
    generator: torch.Generator,
) -> AttackResult:
    """Minimise ‖δ‖² + c · relu(τ + `confidence` − J(x + δ)) / g for images (N, 3, H, W in [0, 1], 8-bit grid).

    τ, `threshold`, is one value or one per image; None takes `objective.success_threshold` (see
    `objectives.WithThreshold`). c starts at `constant` and is searched per image: ten times as much until the image
    is reached, then halving the interval. Each of `search_steps` rounds takes `steps` steps of Adam, with
    `learning_rate` in [0, 1] units. g is what relu(…) is at the start, so that c is in units of ‖δ‖² and no scale of
    J needs a search of its own.

    Where this differs from the paper. There is no tanh: its slope at 0 and 255 is zero, so that a white background
    could not be attacked; δ is clamped to the box after every step instead. J is evaluated on the *rounded* image,
    with the gradient passed straight through the rounding, so that what counts as reached is what can be uploaded.
    Nothing looks at another image of the batch (no common early stop). An image whose gradient is zero while it is
    not reached moves in one random direction, the same for all images.

    Returns per image the reached candidate of smallest L2 distance; where none reached τ, the one of largest J.
    Raises ValueError without a threshold, or for an objective without one value per image.
    """
    threshold = getattr(objective, "success_threshold", None) if threshold is None else threshold
    if threshold is None:
        raise ValueError("cw_l2 needs a threshold to reach: give one, or an objective that has `success_threshold`")
    counted = QueryCounter(objective)
    counted.success_threshold = torch.as_tensor(threshold, dtype=images.dtype, device=images.device).expand(
        len(images)
    )
    search = _Search(images, counted.success_threshold + confidence, constant)
    kick = shared_noise(images, generator).sign()
    with eval_mode(objective):
        for _ in range(search_steps):
            _minimise(counted, images, search, kick, steps, learning_rate)
            search.narrow()
    return counted.result(search.best, search.best_value)


def _minimise(objective, images, search, kick, steps, learning_rate) -> None:
    """One round of Adam with the present c of each image; every rounded candidate is shown to `search`."""
    delta = torch.zeros_like(images)
    optimiser = torch.optim.Adam([delta], lr=learning_rate)  # elementwise, so images do not meet in it
    for _ in range(steps):
        candidate = quantise(images + delta)
        value, slope = value_and_gradient(objective, candidate)
        search.see(candidate, value)
        flat = slope.abs().amax((1, 2, 3), keepdim=True) == 0
        pull = torch.where(per_photo(value < search.wanted), torch.where(flat, kick, slope), 0)
        delta.grad = 2 * delta - per_photo(search.c / search.gap) * pull
        optimiser.step()
        torch.clamp(images + delta, 0, 1, out=delta).sub_(images)


class _Search:
    """c per image (N,), and the best candidate seen."""

    def __init__(self, images, wanted, constant):
        self.images, self.wanted = images, wanted
        self.c, self.lower = torch.full_like(wanted, constant), torch.zeros_like(wanted)
        self.upper = torch.full_like(wanted, torch.inf)
        self.best, self.best_value = images, torch.full_like(wanted, -torch.inf)
        self.distance = torch.full_like(wanted, torch.inf)  # of the best reached candidate
        self.reached = torch.zeros_like(wanted, dtype=torch.bool)  # in this round
        self.gap = None  # what was missing at the start

    def see(self, candidate, value) -> None:
        far = (candidate - self.images).square().sum((1, 2, 3))
        there = value >= self.wanted
        if self.gap is None:
            self.gap = torch.where(there, 1, self.wanted - value)
        self.reached = self.reached | there
        nearer = there & (far < self.distance)
        closest_miss = ~there & self.distance.isinf() & (value > self.best_value)
        better = nearer | closest_miss
        self.best = torch.where(per_photo(better), candidate, self.best)
        self.best_value = torch.where(better, value, self.best_value)
        self.distance = torch.where(nearer, far, self.distance)

    def narrow(self) -> None:
        self.upper = torch.where(self.reached, torch.minimum(self.upper, self.c), self.upper)
        self.lower = torch.where(self.reached, self.lower, torch.maximum(self.lower, self.c))
        self.c = torch.where(self.upper.isinf(), GROWTH * self.c, (self.lower + self.upper) / 2)
        self.reached = torch.zeros_like(self.reached)
