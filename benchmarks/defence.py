"""What does the defence cost per photo?

- At --large px (224): filter and detector together against ResNet-50's forward, what a shop's own extractor may be.
- At --small px (64): filter, detector and both beside the small extractor's forward, JPEG re-encoding, the
  convolutional denoiser of equal multiply-adds, and *tiny*, the smallest filter that keeps 95 % of the recovery in
  notebook 6.
- How seconds per photo and peak memory grow with the batch and with the photos' side.

Weights are random: what a network has learnt doesn't change what it costs. fp32, eval mode, photos channels last. The
detector's own part is measured given f(x) and f(R(x)), which the shop computes anyway, and with them. Runs take
turns; ratios are medians over rounds. Peak memory is measured in a process of its own for each row.

    python -m benchmarks.defence
    python -m benchmarks.defence --quick
"""

from collections.abc import Callable

import pandas as pd
import torch
from torch import nn

from benchmarks import apart, results
from benchmarks.turns import alternating, ratio
from vars_core.detection.detectors import Detector, DetectorScore
from vars_core.extractor import Extractor
from vars_core.reconstruction.classics import JPEG
from vars_core.reconstruction.filters import ConvDenoiser, GlobalViT, conv_of_equal_cost, multiply_adds
from vars_core.runtime import device

SMALL = dict(channels=24, patch=4, width=64, depth=3, heads=2)  # the laptop profile's
TINY = dict(channels=12, width=32, depth=1)  # what differs in notebook 6's smallest
LARGE = SMALL | {"patch": 14}  # as many tokens at 224 px as at 64
GOAL = 1.5  # × ResNet-50's forward, for filter and detector at 224 px


def ready(net: nn.Module) -> nn.Module:
    """On the device, frozen, as it is served."""
    return net.to(device(), memory_format=torch.channels_last).eval().requires_grad_(False)


def photos(batch: int, side: int) -> torch.Tensor:
    drawn = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    return drawn.mul(255).round().div(255).to(device(), memory_format=torch.channels_last)


class Detection(nn.Module):
    """The detector's own part: residual and features are there."""

    def __init__(self, dim: int, images: torch.Tensor, filtered: torch.Tensor):
        super().__init__()
        self.net, self.filtered = ready(Detector(dim)), filtered
        self.raw, self.served = (torch.zeros(len(images), dim, device=images.device) for _ in range(2))

    def forward(self, images):
        return self.net(images, self.filtered, self.raw, self.served)


class Both(nn.Module):
    """Filter and detector, given the features."""

    def __init__(self, image_filter: nn.Module, detection: Detection):
        super().__init__()
        self.image_filter, self.detection = image_filter, detection

    def forward(self, images):
        self.detection.filtered = self.image_filter(images)
        return self.detection(images)


def networks(side: int, batch: int, extractor: str, shape: dict) -> tuple[dict[str, nn.Module], torch.Tensor]:
    """Everything that is measured at one size, by name; and the photos."""
    torch.manual_seed(0)
    images, eye, image_filter = photos(batch, side), ready(Extractor(extractor)), ready(GlobalViT(**shape))
    detection = Detection(eye.dim, images, images)
    nets = {
        extractor: eye,
        "filter": image_filter,
        "detector": detection,
        "filter + detector": Both(image_filter, detection),
    }
    nets["all that a shop runs"] = DetectorScore(detection.net, image_filter, eye).eval()
    nets["tiny"] = ready(GlobalViT(**shape | TINY))
    nets["convolution"] = ready(conv_of_equal_cost(image_filter, side))
    return nets | {"jpeg75": JPEG(75)}, images


def speeds(nets: dict[str, nn.Module], images: torch.Tensor, repeat: int) -> pd.DataFrame:
    """Photos per second, a column per network."""

    def job(net: nn.Module) -> Callable:
        def once():
            with torch.no_grad():
                net(images)

        once()  # the first call is slow
        return once

    return alternating({name: (job(net), len(images)) for name, net in nets.items()}, repeat)


def cost(net: nn.Module, side: int) -> float:
    """Millions of multiply-adds of one photo, for filters; NaN for what takes other things or can't be counted."""
    return multiply_adds(net, side) / 1e6 if isinstance(net, GlobalViT | ConvDenoiser) else float("nan")


def peak(batch: int, side: int, shape: dict) -> dict:
    """MB that filter, extractor and detector need for a batch: above the libraries, for a process of its own; on a
    GPU of its memory."""
    torch.manual_seed(0)
    eye = ready(Extractor("small_cnn"))
    defence = DetectorScore(ready(Detector(eye.dim)), ready(GlobalViT(**shape)), eye).eval()
    images = photos(batch, side)
    on_gpu = images.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    before = 0 if on_gpu else apart.peak()
    with torch.no_grad():
        defence(images)
    return {"MB": (torch.cuda.max_memory_allocated() / 1e6 if on_gpu else apart.peak()) - before}


def table_at(side: int, batch: int, extractor: str, shape: dict, repeat: int) -> tuple[list[dict], dict]:
    nets, images = networks(side, batch, extractor, shape)
    found = speeds(nets, images, repeat)
    by = {name: ratio(found, extractor, name) for name in found}
    rows = [
        {
            "side": side,
            "what": name,
            "ms per photo": 1000 / found[name].median(),
            "M multiply-adds": cost(nets[name], side),
            "base": extractor,
            "× base": by[name],
        }
        for name in found
    ]
    return rows, by


def growth(options) -> list[dict]:
    """Milliseconds per photo and megabytes of all that a shop runs, by batch and by side."""
    cases = [(batch, options.small) for batch in options.batches] + [(options.batch, side) for side in options.sides]
    cases, rows = list(dict.fromkeys(cases)), []
    if device().type == "cuda":
        needed = {case: peak(*case, SMALL)["MB"] for case in cases}
    else:  # before the rest: a process hands its peak on
        needed = {case: apart.call(peak, *case, SMALL)["MB"] for case in cases}
    for batch, side in cases:
        eye = ready(Extractor("small_cnn"))
        defence = DetectorScore(ready(Detector(eye.dim)), ready(GlobalViT(**SMALL)), eye).eval()
        found = speeds({"all": defence}, photos(batch, side), max(1, options.repeat // 3))
        rows.append(
            {"side": side, "batch": batch, "ms per photo": 1000 / found["all"].median(), "MB": needed[batch, side]}
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("defence", __doc__)
    parser.add_argument("--small", type=int, default=64, help="pixels, square (%(default)s)")
    parser.add_argument("--large", type=int, default=224, help="pixels, square (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="photos at once (%(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 128], help="for the growth")
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 128], help="for the growth")
    parser.add_argument("--repeat", type=int, default=9, help="rounds of alternating runs (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny photos, one round: does it run at all?")
    options = parser.parse_args(arguments)
    if options.quick:
        options.small, options.large, options.batch, options.repeat = 32, 56, 2, 1
        options.batches, options.sides = [2], [32]
    grown = growth(options)
    small, _ = table_at(options.small, options.batch, "small_cnn", SMALL, options.repeat)
    large, by = table_at(options.large, max(1, options.batch // 4), "resnet50", LARGE, options.repeat)
    together = by["filter + detector"]
    about = {
        "settings": {k: getattr(options, k) for k in ("small", "large", "batch", "repeat")},
        "filter + detector over ResNet-50": together,
        "goal": GOAL,
        "threads": torch.get_num_threads(),
        "device": str(device()),
        "growth": grown,
    }
    results.write("defence", pd.DataFrame(small + large), about, options.out, "Milliseconds per photo, fp32")
    print(pd.DataFrame(grown).to_markdown(index=False, floatfmt=".4g"))
    print(f"filter + detector at {options.large} px: {together:.2f} × ResNet-50's forward, goal {GOAL}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
