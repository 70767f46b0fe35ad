"""What do mixed precision, channels_last, fused attention and torch.compile gain, with the networks of a profile?

Three jobs that the study's minutes go into, each on one batch of the profile's size:

- *attack*: a gradient step towards a hook through the extractor, as in training's attack pass
- *attack through filter*: the same through filter and extractor, as in training's adaptive regime
- *filter step*: filter and extractor forward and back, and the optimiser's step, without the attack pass

Training runs them in bf16 with channels_last, uncompiled, and with fused attention on a GPU; each row turns one of
these around.
Attacks that are reported on run in fp32. The first call of a job is told apart: in it libraries load and
torch.compile compiles.
Weights are random: what a network has learnt doesn't change what it costs. Variants take turns.

    python -m benchmarks.training_step --profile gpu
    python -m benchmarks.training_step --quick
"""

import contextlib
from collections.abc import Callable

import pandas as pd
import torch
from timm.layers import Attention
from torch import nn

from benchmarks import results
from benchmarks.turns import alternating, ratio, seconds_of
from vars_core import param_file, params, paths
from vars_core.attacks.engine import gradient
from vars_core.attacks.objectives import FeatureDistance
from vars_core.extractor import Extractor
from vars_core.reconstruction.filters import GlobalViT
from vars_core.reconstruction.trainer import Trainer
from vars_core.reconstruction.training import FilterLoss
from vars_core.runtime import device, mixed_precision

AS_IT_IS = dict(mixed=True, last=True, fused=None, compiled=False)
VARIANTS = {
    "as the study does": {},
    "fp32": dict(mixed=False),
    "contiguous": dict(last=False),
    "attention fused": dict(fused=True),
    "attention not fused": dict(fused=False),
    "compiled": dict(compiled=True),
}


def jobs_of(cfg: params.Study, *, mixed: bool, last: bool, fused: bool | None, compiled: bool) -> dict[str, Callable]:
    """The three jobs in one variant, by name; `fused` None leaves it to the filter."""
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    n, side = cfg.reconstruction.batch_size, cfg.data.image_size
    eye = Extractor(cfg.recommender.extractor).to(device(), memory_format=layout).eval().requires_grad_(False)
    image_filter = GlobalViT(**cfg.reconstruction.shape)
    trainer = Trainer(image_filter, cfg.reconstruction.learning_rate, 1000)
    image_filter.to(memory_format=layout)
    if fused is not None:  # just before it counts: the filter chooses in each pass
        for module in image_filter.modules():
            if isinstance(module, Attention):
                module.register_forward_pre_hook(lambda own, _: setattr(own, "fused_attn", fused))
    images = torch.rand(n, 3, side, side).mul(255).round().div(255).to(device(), memory_format=layout)
    perturbed = torch.arange(n, device=device()) >= n // 4
    if compiled:
        eye, image_filter.forward_with_gate = torch.compile(eye), torch.compile(image_filter.forward_with_gate)
    ranking = torch.eye(eye.dim, device=device())
    loss = FilterLoss.weighted(eye, ranking, cfg.reconstruction)
    with torch.no_grad():
        own = eye(images).float()
    hooks = own.flip(0)
    autocast = mixed_precision if mixed else lambda _: contextlib.nullcontext()

    def attack(features: nn.Module) -> None:
        with autocast(images):
            gradient(FeatureDistance(features, hooks, torch.ones(n, device=device())), images)

    def step() -> None:
        with autocast(images):
            filtered, logit = image_filter.forward_with_gate(images)
            terms = loss(filtered, images, own, perturbed) | {"gate": loss.gate(logit, perturbed, perturbed)}
        trainer.step(sum(terms.values()), 500)

    through = nn.Sequential(image_filter, eye)
    return {"attack": lambda: attack(eye), "attack through filter": lambda: attack(through), "filter step": step}


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("training_step", __doc__)
    parser.add_argument("--profile", default="laptop", help="whose networks, photos and batches (%(default)s)")
    parser.add_argument("--repeat", type=int, default=15, help="rounds of alternating runs (%(default)s)")
    parser.add_argument("--batch", type=int, help="photos at once (the profile's)")
    parser.add_argument("--no-compile", action="store_true", help="where torch.compile finds no compiler")
    parser.add_argument("--quick", action="store_true", help="the smoke profile, one round: does it run at all?")
    options = parser.parse_args(arguments)
    if options.quick:
        options.profile, options.repeat, options.no_compile = "smoke", 1, True
    values = param_file.read(paths.root() / "profiles" / f"{options.profile}.yaml")
    if options.batch:
        values["reconstruction"]["batch_size"] = options.batch
    cfg = params.Study(**values)
    names = [name for name in VARIANTS if not (options.no_compile and name == "compiled")]
    size = cfg.reconstruction.batch_size
    made = {name: jobs_of(cfg, **AS_IT_IS | VARIANTS[name]) for name in names}
    first = {(name, job): seconds_of(made[name][job]) for name in names for job in made[name]}
    rows = []
    for job in made[names[0]]:
        speeds = alternating({name: (made[name][job], size) for name in names}, options.repeat)
        for name in names:
            rows.append(
                {
                    "job": job,
                    "variant": name,
                    "images/s": speeds[name].median(),
                    "× the study's": ratio(speeds, name, names[0]),
                    "first call, s": first[name, job],
                }
            )
    about = {
        "settings": {"profile": options.profile, "repeat": options.repeat, "extractor": cfg.recommender.extractor,
                     "side": cfg.data.image_size, "batch": cfg.reconstruction.batch_size},
        "device": torch.cuda.get_device_name(0) if device().type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    results.write(
        "training_step", pd.DataFrame(rows), about, options.out, f"Images per second, profile {options.profile}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
