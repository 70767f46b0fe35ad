"""What do VBPR's training and full ranking cost as the catalogue grows? Seconds and peak memory, one process a point.

n items and n users with 10 random interactions each and 64 random features per item, n from 1,000 to 100,000.
Training is timed per epoch (no looks at validation AUC); full ranking
(`vars_core.recommender.accuracy_metrics.full_ranking`) over the users, where there are more than --most-users over
the first so many of them: seconds are then scaled up to all users, memory isn't, since ranking goes through users in
blocks.

    python -m benchmarks.recommenders_cost
    python -m benchmarks.recommenders_cost --quick
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import sparse

from benchmarks import results
from vars_core import paths, runtime
from vars_core.data import split
from vars_core.recommender import accuracy_metrics
from vars_core.recommender.vbpr import VBPR

DIMENSIONS, PER_USER = 64, 10
CFG = SimpleNamespace(
    factors=20, visual_factors=20, batch_size=2048, learning_rate=1e-2, l2=0.03, visual_l2=0.3, epochs=3
)


def shop(n: int) -> tuple[split.Split, np.ndarray]:
    """n users with 10 distinct random items each of n, one more of their own held out, and random features."""
    rng = runtime.rng(0, "cost", n)
    first = rng.integers(n, size=(n, 1))
    steps = rng.integers(1, max(2, n // (PER_USER + 2)), size=(n, PER_USER)).cumsum(1)
    chosen = np.concatenate([first, first + steps], axis=1) % n  # distinct: the steps' sum stays below n
    users = np.repeat(np.arange(n), PER_USER)
    train = sparse.csr_matrix((np.ones(len(users), bool), (users, chosen[:, 1:].ravel())), shape=(n, n))
    features = rng.standard_normal((n, DIMENSIONS), dtype=np.float32)
    nobody, nothing = np.full(n, -1), sparse.csr_matrix((n, n), dtype=bool)
    return split.Split(train, nobody, chosen[:, 0], np.zeros(0, np.int64), nothing, {}), features


def point(what: str, n: int, most_users: int) -> dict:
    """One measurement, in this process: seconds (per epoch, or for all users) and peak memory in MB.

    The libraries alone take the "MB at start".
    """
    VBPR().fit(*shop(100), CFG, 0)  # torch's first calls are slow
    before = _peak()
    parts, features = shop(n)
    cfg = CFG if what == "training" else SimpleNamespace(**vars(CFG) | {"epochs": 1})
    start = time.perf_counter()
    model = VBPR().fit(parts, features, cfg, 0)
    seconds, users = (time.perf_counter() - start) / cfg.epochs, n
    if what == "full ranking":
        users = min(n, most_users)
        some = split.Split(parts.train[:users], parts.validation[:users], parts.test[:users], parts.cold,
                           parts.cold_positives[:users], {})  # fmt: skip
        start = time.perf_counter()
        accuracy_metrics.full_ranking(model, features, some, ks=(20,))
        seconds = (time.perf_counter() - start) * n / users
    return {
        "what": what,
        "n": n,
        "users measured": users,
        "seconds": seconds,
        "peak MB": _peak(),
        "MB at start": before,
    }


def _peak() -> float:
    """Peak resident memory of this process so far, in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def figure(table: pd.DataFrame, place: Path) -> None:
    """Seconds and memory against n, both axes logarithmic: cost.svg and cost.png in `place`."""
    import io

    import matplotlib.pyplot as plt
    import seaborn as sns

    from vars_core import plots

    plots.theme()
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for axis, column, unit in zip(axes, ("seconds", "peak MB"), ("seconds", "peak memory (MB)"), strict=True):
        sns.lineplot(table, x="n", y=column, hue="what", style="what", markers=True, dashes=False, ax=axis, ms=8)
        axis.set(xscale="log", yscale="log", xlabel="items, and users", ylabel=unit)
        axis.legend(title=None)
    axes[0].set_ylabel("seconds per epoch, or for all users")
    with plt.rc_context({"svg.hashsalt": "recommenders_cost"}):
        for kind, extra in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 120})):
            drawn = io.BytesIO()
            fig.savefig(drawn, format=kind, bbox_inches="tight", **extra)
            paths.write(place / f"cost.{kind}", drawn.getvalue())
    plt.close(fig)


def main(arguments: list[str] | None = None) -> int:
    parser = results.parser("recommenders_cost", __doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="items, and users")
    parser.add_argument("--most-users", type=int, default=5_000, help="users ranked at most (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one tiny size, in this process: does it run at all?")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)  # one measurement, in the process that it needs
    options = parser.parse_args(arguments)
    if options.point:
        print(json.dumps(point(options.point[0], int(options.point[1]), options.most_users)))
        return 0
    measured = []
    for what in ("training", "full ranking"):
        for n in [100] if options.quick else options.sizes:
            if options.quick:
                measured.append(point(what, n, options.most_users))
                continue
            command = [sys.executable, "-m", "benchmarks.recommenders_cost", "--point", what, str(n)]
            command += ["--most-users", str(options.most_users)]
            root = Path(__file__).parents[1]
            done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
            measured.append(json.loads(done.stdout.splitlines()[-1]))
            print(measured[-1], flush=True)
    table = pd.DataFrame(measured)
    about = {"interactions_per_user": PER_USER, "dimensions": DIMENSIONS, "settings": vars(CFG)}
    title = "VBPR: seconds per epoch of training, and for ranking all items for all users; peak memory of the process"
    figure(table, results.write("recommenders_cost", table, about, options.out, title))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
