"""How long notebooks 1 and 2 take on a catalogue as large as MovieLens 1M, and how much memory.

python -m benchmarks.large_catalogue                  # 3,103 films, 6,034 users, 570,000 interactions
python -m benchmarks.large_catalogue --share 0.1      # a tenth of the films and of the users

The catalogue is drawn: films of eight hidden factors, whose photos show three of them, ratings with dates, histories
from 20 to 1,500 films. Each notebook runs as a stage of `vars study` with the profile `real`.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from PIL import Image

from benchmarks import results
from vars_core import paths

FILMS, USERS, MEAN = 3103, 6034, 95
FEWEST = 20  # ratings of a user, as in MovieLens
NOTEBOOKS = ("01", "02")


def write(folder: Path, films: int = FILMS, users: int = USERS, mean: float = MEAN, seed: int = 0) -> Path:
    """A catalogue folder of drawn `films` that `users` have rated, `mean` each on average, and some a hundred times
    as many as others; skewed popularity, dates, photos of 64 px."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    tastes, kinds = rng.normal(size=(users, 8)), rng.normal(size=(films, 8))
    popularity = -1.3 * np.log1p(rng.permutation(films) / 30)
    activity = rng.lognormal(0, 1, users)
    most = max(1, films // 2)
    counts = np.clip(FEWEST + activity / activity.mean() * (mean - FEWEST), min(FEWEST, most), most).astype(int)
    rows = []
    for user, count in enumerate(counts):
        odds = 0.6 * (tastes[user] @ kinds.T) + popularity + rng.gumbel(size=films)
        chosen = np.argsort(-odds)[:count]
        rows.append(np.stack([np.full(count, user), chosen, rng.integers(9 * 10**8, 10**9, count)], axis=1))
    frame = pd.DataFrame(np.concatenate(rows), columns=["user_id", "item_id", "timestamp"])
    frame["user_id"], frame["item_id"] = "u" + frame["user_id"].astype(str), "f" + frame["item_id"].astype(str)
    frame.to_csv(folder / "interactions.csv", index=False)
    genres = [f"genre {kind}" for kind in kinds[:, :3].argmax(1)]
    items = pd.DataFrame({"item_id": [f"f{film}" for film in range(films)], "category": genres})
    items.to_csv(folder / "items.csv", index=False)
    for film, ground in enumerate(128 + 40 * kinds[:, :3]):
        photo = np.clip(ground + rng.normal(0, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"f{film}.png")
    return folder


def row(catalogue: Path, work: Path, notebook: str, profile: str) -> dict:
    """Run one notebook on `catalogue`; its minutes and the peak memory of its kernel, in GB (10^9 bytes)."""
    command = [sys.executable, "-m", "vars_core", "study", "films", "--data", catalogue, "--work", work]
    run = subprocess.Popen([*map(str, command), "--profile", profile, "--only", notebook], cwd=paths.root())
    peak = 0
    while run.poll() is None:
        peak = max(peak, largest(psutil.Process(run.pid)))
        time.sleep(0.2)
    if run.returncode:
        raise SystemExit(f"notebook {notebook} failed")
    state = json.loads((work / "state.json").read_text(encoding="utf-8"))
    seconds = next(entry["seconds"] for name, entry in state.items() if name.startswith(notebook))
    return {"notebook": notebook, "minutes": seconds / 60, "peak_gb": peak / 1e9}


def largest(process: psutil.Process) -> int:
    """Bytes in memory of the largest process of a family: the kernel is a child of a child."""
    found = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found = max(found, one.memory_info().rss)
    return found


def main(arguments=None) -> int:
    parser = results.parser("large_catalogue", __doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of films and users")
    parser.add_argument("--profile", default="real")
    parser.add_argument("--only", nargs="+", default=NOTEBOOKS, help="numbers of notebooks, in order")
    options = parser.parse_args(arguments)
    films, users = round(options.share * FILMS), round(options.share * USERS)
    with tempfile.TemporaryDirectory() as folder:
        catalogue = write(Path(folder) / "films", films, users)
        rows = [row(catalogue, Path(folder) / "work", notebook, options.profile) for notebook in options.only]
    about = {"films": films, "users": users, "profile": options.profile}
    title = f"Notebooks on {films:,} films and {users:,} users, profile {options.profile}"
    results.write("large_catalogue", pd.DataFrame(rows), about, options.out, title)
    return 0


if __name__ == "__main__":
    sys.exit(main())
