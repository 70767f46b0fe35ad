"""Is the attack engine as fast as its network allows, and as fast as others' engines?

- FLOPs of PGD, counted by torch.utils.flop_counter, against steps × (forward + gradient of the input alone).
- Seconds of PGD against those of that floor, run by itself.
- Images per second against foolbox, ART and torchattacks: the same network, photos, budget, steps and start. Twice:
  `trainable`, parameters as a network has them when it comes, and `frozen`, without gradients, as the study's are.
- bf16 autocast, which only training uses (reported attacks are fp32): images per second, and what it costs in
  strength: the share of the distance to the target that a hook attack closes, on the fp32 features of its photos.
- Variants, on a GPU (or with --variants): channels_last or not, torch.compile, each also in bf16.

Runs take turns, each round starts with another; ratios are medians over rounds of the ratio within one. The photos
are drawings of the synthetic catalogue; small_cnn learns their categories first.

    python -m benchmarks.attacks --weights squeezenet1_0.safetensors
    python -m benchmarks.attacks --quick

ART and torchattacks are measured where they can be imported: after `make peers`, with PYTHONPATH=scratch/peers.
"""

import copy
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import attack_peers, results
from benchmarks.turns import alternating, ratio
from vars_core.attacks.engine import linf, quantise
from vars_core.attacks.objectives import TargetClass, hook
from vars_core.data import synthetic
from vars_core.extractor import Extractor, to_images, train_on_categories
from vars_core.runtime import device, generator, mixed_precision, rng, seed_everything

CLASSES = len(synthetic.CATEGORIES)
GOALS = {"FLOPs": 1.02, "seconds": 1.05, "foolbox": 1.4, "ART": 1.4, "torchattacks": 1.0, "bf16": 1.5}

SETTINGS = ("image_size", "batch", "epsilon", "steps", "repeat", "threads")


def small_cnn(drawings: tuple[np.ndarray, pd.DataFrame], epochs: int) -> Extractor:
    """The study's default extractor, trained on the drawings' categories."""
    seed_everything(0)
    photos, items = drawings
    eye = Extractor("small_cnn")
    labels = items["category"].map(synthetic.CATEGORIES.index).to_numpy(copy=True)
    train_on_categories(eye, photos, labels, epochs, generator(0, "benchmark"))
    eye.freeze_scaler(photos)
    return eye


def pretrained(weights: Path, drawings: tuple[np.ndarray, pd.DataFrame]) -> Extractor:
    """The torchvision or timm model that the file is named after."""
    eye = Extractor(weights.stem, str(weights)).to(device())
    eye.freeze_scaler(drawings[0])
    return eye


def classifier(eye: Extractor) -> nn.Module:
    """`network` and a linear layer on it, since peers attack classifiers. What it says doesn't matter to speed."""
    torch.manual_seed(0)
    net = nn.Sequential(copy.deepcopy(eye), nn.Linear(eye.dim, CLASSES))
    return net.to(device(), memory_format=torch.channels_last).eval()


def floor(objective: Callable, images: torch.Tensor, steps: int) -> None:
    """What no attack of `steps` gradients can do without: forward, and the gradient of the input alone."""
    for _ in range(steps):
        x = images.detach().requires_grad_(True)
        torch.autograd.grad(objective(x).sum(), x)


def flops(attack: Callable, objective: Callable, images: torch.Tensor) -> float:
    """Floating-point operations per image of matrix products and convolutions in `attack(objective, images)`,
    backward included."""

    def cloned(x):  # the counter's hooks can't stand a leaf as a module's input
        return objective(x.clone())

    with FlopCounterMode(display=False) as counter:
        attack(cloned, images)
    return counter.get_total_flops() / len(images)


def engine(objective: Callable, images: torch.Tensor, epsilon: int, steps: int) -> torch.Tensor:
    """Our PGD as the peers run theirs: from the image itself, steps of ε/4."""
    return linf(
        objective,
        images,
        epsilon,
        steps=steps,
        step=epsilon / 4,
        random_start=False,
        generator=generator(0, "benchmark"),
    )


def against_peers(eye: Extractor, images: torch.Tensor, frozen: bool, options) -> tuple[pd.DataFrame, dict]:
    """Images per second of the floor, the engine and the peers, one column each; and FLOPs of engine and floor, and
    the share of values in which a peer's photos differ from the engine's after rounding."""
    net = classifier(eye).requires_grad_(not frozen)
    with torch.no_grad():
        labels = net(images).argmax(1)
    objective = -TargetClass(net, labels)
    ours = partial(engine, epsilon=options.epsilon, steps=options.steps)
    least = partial(floor, steps=options.steps)
    counted = {"FLOPs per image": flops(ours, objective, images), "floor's": flops(least, objective, images)}
    ours, least = partial(ours, objective, images), partial(least, objective, images)
    jobs = {"floor": least, "ours": ours}
    jobs |= attack_peers.attacks(net, images, labels, options.epsilon, options.steps)
    found = ours()
    differ = {}
    for name, job in jobs.items():
        if name not in ("floor", "ours"):
            theirs = quantise(torch.as_tensor(job()).to(found))  # also the first call, which is slow
            differ[name] = float((theirs != found).double().mean())
    speeds = alternating({name: (job, len(images)) for name, job in jobs.items()}, options.repeat)
    return speeds, counted | {"values that differ": differ}


def hooked(eye: Extractor, images: torch.Tensor, options) -> tuple[Callable, Callable]:
    """The attack, autocast or not, that gives each photo the next one's features; and how strong photos are: the
    mean share of the distance ‖f(x) − t‖ that they close, in fp32."""
    net = copy.deepcopy(eye).to(device(), memory_format=torch.channels_last).eval().requires_grad_(False)
    with torch.no_grad():
        own = net(images)
    targets = own.roll(1, 0)

    def attack(cast: bool) -> torch.Tensor:
        with mixed_precision(images) if cast else nullcontext():
            return engine(hook(net, targets), images, options.epsilon, options.steps)

    @torch.no_grad()
    def strength(found: torch.Tensor) -> float:
        left = (net(found) - targets).norm(dim=1) / (own - targets).norm(dim=1)
        return float(1 - left.mean())

    return attack, strength


def precision(eye: Extractor, images: torch.Tensor, options) -> tuple[pd.DataFrame, dict]:
    """Images per second in fp32 and bf16, and the strength of both."""
    attack, strength = hooked(eye, images, options)
    strengths = {name: strength(attack(cast)) for name, cast in (("fp32", False), ("bf16", True))}
    jobs = {name: (partial(attack, cast), len(images)) for name, cast in (("fp32", False), ("bf16", True))}
    return alternating(jobs, options.repeat), strengths


def variants(eye: Extractor, images: torch.Tensor, options) -> tuple[pd.DataFrame, dict]:
    """Images per second of the engine with the network laid out or compiled in other ways, in fp32 and bf16; and why
    those that can't run here don't (without a C compiler nothing is compiled)."""
    jobs, failed = {}, {}
    for layout in (torch.channels_last, torch.contiguous_format):
        name = "channels last" if layout is torch.channels_last else "contiguous"
        net = copy.deepcopy(eye).to(device(), memory_format=layout).eval().requires_grad_(False)
        seen = images.contiguous(memory_format=layout)
        with torch.no_grad():
            targets = net(seen).roll(1, 0)
        for kind, model in ((name, net), (f"{name}, compiled", torch.compile(net))):
            objective = hook(_Plain(model), targets)
            for cast in (False, True):
                job = partial(_cast, cast, engine, objective, seen, options.epsilon, options.steps)
                variant = f"{kind}, {'bf16' if cast else 'fp32'}"
                try:
                    job()  # compiles
                except RuntimeError as error:
                    failed[variant] = str(error).strip().splitlines()[0]
                else:
                    jobs[variant] = (job, len(images))
    return alternating(jobs, options.repeat), failed


def _cast(cast: bool, job: Callable, objective, images, *rest):
    with mixed_precision(images) if cast else nullcontext():
        return job(objective, images, *rest)


class _Plain:
    """A compiled network as a callable: `eval_mode` has nothing to flip back, and a flip would compile anew."""

    def __init__(self, net: Callable):
        self.net = net

    def modules(self):
        return ()

    def __call__(self, images):
        return self.net(images)


def rows(speeds: pd.DataFrame, network: str, what: str, base: str) -> list[dict]:
    """One row per way: median, least and most images per second, and how many times as fast `base` is."""
    return [
        {"network": network, "what": what, "side": side, "images/s": values.median(), "least": values.min(),
         "most": values.max(), "base": base, "base is faster by": ratio(speeds, base, side)}
        for side, values in speeds.items()
    ]  # fmt: skip


def measured(name: str, eye: Extractor, images: torch.Tensor, options) -> tuple[list[dict], dict]:
    """Table rows and findings of one network."""
    table, about = [], {}
    for kind, frozen in (("trainable", False), ("frozen", True)):
        speeds, counted = against_peers(eye, images, frozen, options)
        table += rows(speeds, name, f"PGD, {kind}", "ours")
        about[kind] = counted | {
            "FLOPs over floor's": counted["FLOPs per image"] / counted["floor's"],
            "seconds over floor's": ratio(speeds, "floor", "ours"),
            "faster than": {peer: ratio(speeds, "ours", peer) for peer in speeds if peer not in ("floor", "ours")},
        }
    speeds, strengths = precision(eye, images, options)
    table += rows(speeds, name, "hook, precision", "fp32")
    about["bf16"] = {"faster by": ratio(speeds, "bf16", "fp32"), "share of the distance closed": strengths}
    if images.is_cuda or options.variants:
        speeds, failed = variants(eye, images, options)
        table += rows(speeds, name, "hook, variants", "channels last, fp32")
        about["variants"] = {"can't run here": failed}
    else:
        about["variants"] = "skipped: no GPU here"
    return table, about


def misses(name: str, about: dict) -> list[str]:
    """Which of GOALS this network's findings miss, one line each. Peers are held against the trainable network."""
    lines = []
    for kind in ("trainable", "frozen"):
        for what in ("FLOPs", "seconds"):
            if (value := about[kind][f"{what} over floor's"]) > GOALS[what]:
                lines.append(f"{name}, {kind}: {what} {value:.3f} × the floor's, goal {GOALS[what]}")
    sped = about["trainable"]["faster than"] | {"bf16": about["bf16"]["faster by"]}
    lines += [f"{name}: {peer} {v:.2f} ×, goal {GOALS[peer]}" for peer, v in sped.items() if v < GOALS[peer]]
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("attacks", __doc__)
    parser.add_argument("--weights", type=Path, help="safetensors of a torchvision or timm model, named as the model")
    parser.add_argument("--image-size", type=int, default=64, help="pixels, square (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="photos attacked at once (%(default)s)")
    parser.add_argument("--epsilon", type=int, default=4, help="budget in 8-bit steps (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="gradient steps (%(default)s)")
    parser.add_argument("--repeat", type=int, default=9, help="rounds of alternating runs (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch on the CPU (%(default)s)")
    parser.add_argument("--variants", action="store_true", help="measure the variants without a GPU too")
    parser.add_argument("--not-idle", action="store_true", help="note that other work ran on the machine")
    parser.add_argument("--quick", action="store_true", help="8 photos, one round: does it run at all?")
    options = parser.parse_args(arguments)
    if options.quick:
        options.batch, options.repeat, options.threads = 8, 1, 1  # two threads crawl where tests share two cores
    elif options.weights is None:
        parser.error("--weights is needed (or --quick)")
    if options.weights and not options.weights.is_file():
        parser.error(f"--weights {options.weights}: no such file")
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        return _run(options)
    finally:
        torch.set_num_threads(before)


def _run(options) -> int:
    drawings = synthetic.draw(max(options.batch, 64 if options.quick else 400), options.image_size, rng(0, "attacks"))
    images = to_images(drawings[0][: options.batch])
    networks = {"small_cnn": small_cnn(drawings, 1 if options.quick else 10)}
    if options.weights:
        networks[options.weights.stem] = pretrained(options.weights, drawings)
    table, about = [], {}
    for name, eye in networks.items():
        lines, about[name] = measured(name, eye, images, options)
        table += lines
    missed = [line for name in networks for line in misses(name, about[name])]
    about |= {
        "settings": {key: getattr(options, key) for key in SETTINGS},
        "other work on the machine": options.not_idle,
        "load at the end": os.getloadavg()[0],
        "not installed": attack_peers.missing(),
        "goals": GOALS,
        "missed": missed,
    }
    busy = "; other work ran on the machine" if options.not_idle else ""
    title = f"PGD-{options.steps}, ε = {options.epsilon}, {options.batch} photos of {options.image_size} px{busy}"
    results.write("attacks", pd.DataFrame(table), about, options.out, title)
    for name in networks:
        _say(name, about[name])
    if about["not installed"]:
        print(f"not installed, so not measured: {', '.join(about['not installed'])} (see `make peers`)")
    print("missed: " + ("; ".join(missed) or "nothing"))
    return 0


def _say(name: str, about: dict) -> None:
    for kind in ("trainable", "frozen"):
        found = about[kind]
        peers = ", ".join(f"{value:.2f} × {peer}" for peer, value in found["faster than"].items())
        flop, second = found["FLOPs over floor's"], found["seconds over floor's"]
        print(f"{name}, {kind}: FLOPs {flop:.4f} and seconds {second:.3f} × the floor's; images/s {peers}")
    strengths = about["bf16"]["share of the distance closed"]
    closed = ", ".join(f"{value:.4f} in {cast}" for cast, value in strengths.items())
    print(f"{name}: bf16 {about['bf16']['faster by']:.2f} × fp32; share of the distance closed {closed}")


if __name__ == "__main__":
    raise SystemExit(main())
