"""Attacks in the settings of the papers they come from, by name, as data.

A preset fixes algorithm, steps and step size; the objective, which belongs to a victim, and ε are the caller's.
`objective` names what in `objectives` or `promotion` makes the objective that the paper used, `differs` says where we
cannot or will not follow it. Images stay on the 8-bit grid and inside ε in pixels, except in `var-as-published`, an
exhibit.
"""

from dataclasses import dataclass

import torch
from torch import nn

from vars_core.attacks.as_published import var_as_published
from vars_core.attacks.engine import (
    AttackResult,
    ObjectiveFn,
    QueryCounter,
    budget,
    eval_mode,
    evaluate,
    gradient,
    linf,
    quantise,
    shared_noise,
)
from vars_core.attacks.feature_black_box import feature_black_box


@dataclass(frozen=True)
class Preset:
    """`step` is in units of ε for sign steps, in [0, 1] units (Adam's rate) for "adam", in grey levels for
    "feature_black_box". `epsilons` are the budgets that the paper reports, in 8-bit steps."""

    algorithm: str
    objective: str
    steps: int
    step: float
    random_start: bool
    epsilons: tuple[float, ...]
    source: str
    differs: str = ""


PRESETS = {
    "taamr-pgd10": Preset(
        "pgd", "TargetClass", 10, 1 / 6, True, (2, 4, 8, 16),
        "Di Noia, Malitesta and Merra, TAaMR, DSN-DSML 2020",
        "ε is spent in pixels and kept by rounding; in their code it is spent after normalisation",
    ),
    "normann-pgd": Preset(
        "pgd", "FeatureCosine", 64, 1 / 64, False, (2.55, 5.1, 7.65, 10.2, 12.75),
        "Normann et al., adversarial-recsys, 2022: cosine to the target item, α = ε/K, K from 8 to 128",
        "ε is a whole number of grey levels here",
    ),
    "aip-insa": Preset(
        "adam", "insa", 670, 1e-4, True, (4, 8, 16, 32),
        "Liu and Larson, Adversarial Item Promotion, WWW 2021: insider. Five epochs over users in batches of 256",
        "all known users at once, 670 steps being those of Amazon Men; log Σ exp(s) for Σ exp(s)",
    ),
    "aip-expa": Preset(
        "adam", "hook", 5000, 1e-3, False, (4, 8, 16, 32),
        "Liu and Larson, Adversarial Item Promotion, WWW 2021: expert, towards a popular item's features",
        "mean instead of summed squares, which Adam does not see",
    ),
    "cohen-bb": Preset(
        "feature_black_box", "promote", 20, 1.0, False, (20,),
        "Cohen, Sar Shalom, Jannach and Amir, WSDM 2021: 32 examples with noise of ±7 in each of 20 steps of 1",
        "bounded by ε; the best photo is kept; ask through `feature_black_box.RankFeedback`",
    ),
    "var-as-published": Preset(
        "var", "TargetClass", 10, 1 / 6, False, (4, 8, 16),
        "Anelli et al., A Study of Defensive Methods to Protect Visual Recommendation, SIGIR 2021",
        "in nothing: ε after normalisation, truncation to 8 bits. An exhibit; ε = 4 is 0.92 grey levels at most",
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def attack(
    name: str,
    objective: ObjectiveFn,
    images: torch.Tensor,
    epsilon,
    *,
    steps: int | None = None,
    features: nn.Module | None = None,
    generator: torch.Generator,
) -> AttackResult:
    """Attack `images` (N, 3, H, W in [0, 1], 8-bit grid) as the named preset does, with `epsilon` in 8-bit steps.

    `steps` replaces the paper's number (α = ε/K follows it); `features` is the public extractor that cohen-bb needs.
    `queries` counts evaluations of the objective; the last look at the value is one of them only in cohen-bb.
    Raises ValueError for an unknown name, naming the known ones, and for cohen-bb without `features`.
    """
    setting = preset(name)
    steps = setting.steps if steps is None else steps
    if setting.algorithm == "feature_black_box":
        if features is None:
            raise ValueError(f"{name} needs `features`, the public extractor that its answers are regressed on")
        return feature_black_box(
            objective, features, images, epsilon, steps=steps, step=setting.step, generator=generator
        )
    counted = QueryCounter(objective)
    found = _images(name, setting, counted, images, epsilon, steps, generator)
    with eval_mode(objective):
        return counted.result(found, evaluate(objective, found))


def _images(name, setting, objective, images, epsilon, steps, generator) -> torch.Tensor:
    if setting.algorithm == "var":
        return var_as_published(objective, images, epsilon, steps=steps, ratio=setting.step)
    if setting.algorithm == "adam":
        return _adam(objective, images, epsilon, steps, setting.step, setting.random_start, generator)
    ratio = 1 / steps if name == "normann-pgd" else setting.step
    step, start = 255 * ratio * budget(epsilon, images), setting.random_start
    return linf(objective, images, epsilon, steps=steps, step=step, random_start=start, generator=generator)


def _adam(objective, images, epsilon, steps, rate, random_start, generator) -> torch.Tensor:
    """Adam on δ, clamped to ball and box after every step; AIP's random δ is from [0, 1) and clamped at once."""
    eps = budget(epsilon, images)
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    start = (shared_noise(images, generator) + 1) / 2 if random_start else 0
    x = torch.clamp(images + start, low, high)
    optimiser = torch.optim.Adam([x], lr=rate)
    with eval_mode(objective):
        for _ in range(steps):
            x.grad = -gradient(objective, x)
            optimiser.step()
            x.copy_(torch.clamp(x, low, high))
    return quantise(x)
