"""Square attack, L∞: a random search that needs scores only (Andriushchenko et al., ECCV 2020)."""

import torch

from vars_core.attacks.engine import AttackResult, ObjectiveFn, budget, eval_mode, evaluate, per_photo, quantise

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the squares' area, in steps of 10,000


def area(step: int, queries: int, p_init: float) -> float:
    """Share of the picture that a square covers at `step` of `queries`: halved along the paper's schedule."""
    place = int(step / queries * 10_000)
    return p_init / 2 ** sum(place > at for at in HALVINGS)


def square(
    objective: ObjectiveFn,
    images: torch.Tensor,
    epsilon,
    *,
    queries: int,
    p_init: float = 0.8,
    generator: torch.Generator,
) -> AttackResult:
    """Maximise `objective` in the L∞ ball of `epsilon`/255 around `images` (N, 3, H, W in [0, 1], 8-bit grid) by
    asking for its value at most `queries` times per image, never for a gradient.

    The start is vertical stripes of ±ε; then a square of ±ε, one sign per channel, at a random place, kept by those
    images that it helps. The square's area follows the paper's schedule, stretched to `queries` as in AutoAttack,
    whose `p_init` of 0.8 is the default (the paper: 0.05). `epsilon` is one number or one per image, in 8-bit steps.
    An image that has `objective.success_threshold` (see `objectives.WithThreshold`) asks no further; the others are
    narrowed to.

    Ours: all images of a batch draw the same stripes and squares, so that an image ends the same alone and in any
    batch; and each query is an image on the 8-bit grid, one that could be uploaded.
    Raises ValueError for a budget that isn't 1 to 255, no query, or an objective without one value per image.
    """
    eps = budget(epsilon, images)
    if queries < 1:
        raise ValueError(f"square needs at least one query, got {queries}")
    channels, height, width = images.shape[1:]
    enough = getattr(objective, "success_threshold", None)
    with eval_mode(objective):
        best = quantise((images + eps * _signs((channels, 1, width), generator, images)).clamp(0, 1))
        value = evaluate(objective, best)
        asked = torch.ones(len(images), dtype=torch.int64, device=images.device)
        for step in range(1, queries):
            side = max(1, min(round((area(step, queries, p_init) * height * width) ** 0.5), height, width))
            top, left = (int(torch.randint(0, room - side + 1, (), generator=generator)) for room in (height, width))
            signs = _signs((channels, 1, 1), generator, images)
            rows = slice(None) if enough is None else (value < enough).nonzero().flatten()
            if enough is not None and not len(rows):
                break
            trial = best[rows].clone()
            window = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
            trial[window] = (images[rows][window] + eps[rows] * signs).clamp(0, 1)
            trial = quantise(trial)
            found = evaluate(objective if enough is None else objective[rows], trial)
            better = found > value[rows]
            best[rows] = torch.where(per_photo(better), trial, best[rows])
            value[rows] = torch.where(better, found, value[rows])
            asked[rows] += 1
    return AttackResult(best, value, None if enough is None else value >= enough, asked)


def _signs(shape, generator, like) -> torch.Tensor:
    return (2 * torch.randint(0, 2, shape, generator=generator) - 1).to(like)
