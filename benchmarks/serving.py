"""What does a shop that adds noise pay, per upload and for its promise?

One draw is a pass through the denoiser and the extractor; the score is a product of small matrices. A rule of serving
costs its draws once per upload, and nothing at a request: the scores are cached. Only *one* draw per serving, if the
promise for it shall hold, is paid at each request. What is measured:

- draws a second at the photos' side, beside a pass of the extractor alone and of filter and detector;
- milliseconds per upload by rule and number of draws, with the scores of all users and their median;
- what a promise takes: draws of an item, and hours for a thousand items;
- peak memory above the libraries.

Weights are random: what a network has learnt doesn't change what it costs. fp32.

    python -m benchmarks.serving
    python -m benchmarks.serving --quick
"""

from functools import partial

import numpy as np
import pandas as pd
import torch

from benchmarks import apart, results
from benchmarks.turns import alternating, ratio, seconds_of
from vars_core.adaptive import certificate
from vars_core.detection.detectors import Detector, DetectorScore
from vars_core.extractor import Extractor
from vars_core.reconstruction.filters import GlobalViT
from vars_core.reconstruction.serving import noisy_features
from vars_core.runtime import device

DENOISER = dict(channels=24, patch=8, width=96, depth=3, heads=2, gated=False)  # the laptop profile's
FILTER = dict(channels=24, patch=4, width=64, depth=3, heads=2)


def ready(net):
    """On the device, frozen, as it is served."""
    return net.to(device(), memory_format=torch.channels_last).eval().requires_grad_(False)


def draw(extractor, denoiser, photo, draws: int):
    return noisy_features(extractor, denoiser, 0.25, photo, draws, torch.Generator().manual_seed(0))


def upload(extractor, denoiser, photo, draws: int, heads: torch.Tensor) -> torch.Tensor:
    """The median score of every user, (U,)."""
    return (heads @ draw(extractor, denoiser, photo, draws).T).median(1).values


def peak(side: int, draws: int) -> float:
    """MB above the libraries for an upload of `draws` draws, in a process of its own."""
    torch.manual_seed(0)
    extractor, denoiser = ready(Extractor("small_cnn")), ready(GlobalViT(**DENOISER))
    before = apart.peak()
    draw(extractor, denoiser, np.zeros((side, side, 3), np.uint8), draws)
    return apart.peak() - before


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("serving", __doc__)
    parser.add_argument("--side", type=int, default=64, help="pixels, square (%(default)s)")
    parser.add_argument("--users", type=int, default=2000, help="whose scores are computed (%(default)s)")
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 32, 64, 256], help="of an upload")
    parser.add_argument("--repeat", type=int, default=9, help="rounds of alternating runs (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny photos, one round: does it run at all?")
    options = parser.parse_args(arguments)
    if options.quick:
        options.side, options.users, options.draws, options.repeat = 32, 50, [1, 4], 1
    needed = {n: apart.call(peak, options.side, n) for n in options.draws}  # before the rest
    torch.manual_seed(0)
    extractor, denoiser = ready(Extractor("small_cnn")), ready(GlobalViT(**DENOISER))
    static = DetectorScore(ready(Detector(extractor.dim)), ready(GlobalViT(**FILTER)), extractor).eval()
    photo = np.random.default_rng(0).integers(0, 256, (options.side, options.side, 3), np.uint8)
    heads = torch.randn(options.users, extractor.dim).to(device())
    batch = torch.rand(32, 3, options.side, options.side).to(device(), memory_format=torch.channels_last)

    def once(net):
        def run():
            with torch.no_grad():
                net(batch)

        run()  # the first call is slow
        return run

    jobs = {"extractor": (once(extractor), 32), "filter, detector and extractor": (once(static), 32)}
    jobs["one draw"] = (lambda: draw(extractor, denoiser, photo, 32), 32)
    found = alternating(jobs, options.repeat)
    per_draw = 1 / found["one draw"].median()
    rows = []
    for count in options.draws:
        job = partial(upload, extractor, denoiser, photo, count, heads)
        taken = [seconds_of(job) for _ in range(max(3, options.repeat))]
        rows.append({"draws": count, "ms per upload": 1000 * float(np.median(taken)), "MB": needed[count]})
    promised = {}
    for epsilon in (1, 2, 4):
        radius, error = certificate.radius(epsilon, (3, options.side, options.side)), 1e-6
        for sigma in (0.25, 0.5, 1.0):
            count = certificate.draws_needed(radius, sigma, error)
            hours = 1000 * count * per_draw / 3600
            promised[f"ε = {epsilon}, σ = {sigma:g}"] = {"draws": count, "hours for 1,000 items": hours}
    about = {
        "settings": {k: getattr(options, k) for k in ("side", "users", "repeat")},
        "draws a second": float(found["one draw"].median()),
        "one draw × the extractor": ratio(found, "extractor", "one draw"),
        "one draw × filter, detector and extractor": ratio(found, "filter, detector and extractor", "one draw"),
        "a promise takes, error 1e-6": promised,
        "threads": torch.get_num_threads(),
        "device": str(device()),
    }
    title = f"An upload's cost by the number of draws, {options.side} px, {options.users:,} users, fp32"
    results.write("serving", pd.DataFrame(rows), about, options.out, title)
    print(f"{about['draws a second']:.0f} draws a second")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
