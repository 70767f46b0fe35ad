"""What screening a folder costs: photos per second and core, memory, and the bookkeeping of a million photos.

python -m benchmarks.screening                                # 2,000 photos screened; 10⁶ listed and taken up again
python -m benchmarks.screening --photos 500 --listed 10000

Screened are drawings of the synthetic catalogue as JPEG of SIDE pixels, by a defence of the laptop profile's size
with random weights, which costs what a trained one costs. Seconds of CPU count beside those of the clock: on a
machine that others use, too, only the first say what a photo costs. Listed are hard links to a few files, whose
verdicts are made up.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import apart, results

DISTINCT = 100  # files that are linked to
SIDE = 500  # pixels of the photos
GOAL = "Memory above the libraries: at most 300 MB for a million photos"


def make_defence(folder: str) -> dict:
    """A defence with random weights and its extractor."""
    import numpy as np
    import torch

    from vars_core import params
    from vars_core.data import synthetic
    from vars_core.detection.defence import Defence
    from vars_core.detection.detectors import Detector
    from vars_core.extractor import Extractor
    from vars_core.reconstruction.filters import GlobalViT

    torch.manual_seed(0)
    shots, _ = synthetic.draw(128, 64, np.random.default_rng(0))
    extractor = Extractor("small_cnn")
    extractor.freeze_scaler(shots)
    extractor.eval().requires_grad_(False).save(Path(folder) / "extractor.safetensors")
    image_filter = GlobalViT(**params.Reconstruction().shape).eval().requires_grad_(False)
    defence = Defence(image_filter, Detector(extractor.dim).eval().requires_grad_(False), extractor)
    defence.calibrate(shots)
    defence.save(Path(folder) / "defence")
    return {}


def draw(folder: str, n: int) -> dict:
    """Write `n` JPEG files, all different."""
    import numpy as np
    from PIL import Image

    from vars_core.data import synthetic

    rng = np.random.default_rng(0)
    drawings, _ = synthetic.draw(min(n, 400), 125, rng)
    Path(folder).mkdir()
    for row in range(n):
        large = np.asarray(Image.fromarray(drawings[row % len(drawings)]).resize((SIDE, SIDE)), np.int16)
        noisy = np.clip(large + rng.integers(-6, 7, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(Path(folder) / f"{row:06}.jpg", quality=85)
    return {}


def screened(photos: Path, files: Path, out: Path, processes: int) -> dict:
    """One run of the command, under torchrun where there are several processes: seconds, seconds of CPU, peak MB."""
    command = ["vars_core", "screen", photos, "--out", out, "--defence", files / "defence"]
    command += ["--extractor", files / "extractor.safetensors"]
    started = [sys.executable, "-m"]
    if processes > 1:
        started += ["torch.distributed.run", "--nproc-per-node", processes, "-m"]
    environment = os.environ | {"VARS_QUIET": "1", "VARS_DEVICE": "cpu"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*map(str, started), *map(str, command)], check=True, env=environment, capture_output=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "peak": after.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6}


def bookkeeping(folder: str, n: int) -> dict:
    """List `n` photos, note a verdict of each, take the run up again, and write scores.csv."""
    import numpy as np

    from vars_core.detection import screen
    from vars_core.detection.journal import FINAL, Journal, Verdicts
    from vars_core.detection.listing import Listing

    photos, out, head = Path(folder) / "links", Path(folder) / "out", "# benchmark\n"
    (out / "parts").mkdir(parents=True)
    for row in range(DISTINCT):
        (Path(folder) / f"{row}.jpg").write_bytes(b"x" * row)
    for row in range(n):
        if row % 1000 == 0:
            (photos / f"{row // 1000:06}").mkdir(parents=True)
        os.link(Path(folder) / f"{row % DISTINCT}.jpg", photos / f"{row // 1000:06}" / f"{row:08}.jpg")
    found, times = {"before": apart.peak()}, [time.perf_counter()]
    listing = Listing.of(photos, without=out)
    times.append(time.perf_counter())
    with Journal(out / "parts" / "0-of-1.jsonl", head) as journal:
        for start in range(0, n, 32):
            rows = range(start, min(n, start + 32))
            journal.add([(listing.names[r], int(listing.marks[r]), r / 7, "", FINAL) for r in rows])
    times.append(time.perf_counter())
    verdicts = Verdicts.read((out / "parts").glob("*.jsonl"), head, listing)
    if not (verdicts.state == FINAL).all() or not np.allclose(verdicts.scores, np.arange(n) / 7):
        raise RuntimeError("verdicts are missing")
    times.append(time.perf_counter())
    screen.write_scores(out / "scores.csv", listing, verdicts, 0.5)
    times.append(time.perf_counter())
    if sum(1 for _ in (out / "scores.csv").open()) != n + 1:
        raise RuntimeError("rows are missing")
    steps = ("list", "note", "take up again", "write scores.csv")
    found |= {name: end - start for name, start, end in zip(steps, times, times[1:], strict=False)}
    return found | {"peak": apart.peak()}


def rows(options, folder: Path) -> list[dict]:
    """One row for each measurement."""
    apart.call(make_defence, folder)
    one = folder / "one"
    apart.call(draw, folder / "photos", options.photos)
    apart.call(draw, one, 1)
    found = []
    for processes in options.processes:
        base = screened(one, folder, folder / f"one-{processes}", processes)  # imports and models
        whole = screened(folder / "photos", folder, folder / f"out-{processes}", processes)
        again = screened(folder / "photos", folder, folder / f"out-{processes}", processes)
        cpu, wall = whole["cpu"] - base["cpu"], whole["seconds"] - base["seconds"]
        found.append(
            {
                "what": f"screened, {processes} processes" if processes > 1 else "screened",
                "photos": options.photos,
                "photos/s": round(options.photos / wall),
                "photos per CPU second": round(options.photos / cpu),
                "start, CPU s": round(base["cpu"], 1),
                "peak MB": round(whole["peak"]),
                "MB above one photo": round(whole["peak"] - base["peak"]),
                "again, s": round(again["seconds"], 1),
            }
        )
        print(found[-1], flush=True)
    for n in options.listed:
        with tempfile.TemporaryDirectory() as links:
            got = apart.call(bookkeeping, links, n)
        above = round(got["peak"] - got.pop("before"))
        found.append({"what": "listed", "photos": n, "peak MB": round(got.pop("peak")), "MB above libraries": above})
        found[-1] |= {f"{step}, s": round(seconds, 1) for step, seconds in got.items()}
        print(found[-1], flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = results.parser("screening", __doc__)
    parser.add_argument("--photos", type=int, default=2000, help="screened (%(default)s)")
    parser.add_argument("--listed", type=int, nargs="*", default=[1000, 1_000_000], help="listed only")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = rows(options, Path(folder))
    import pandas as pd  # after the measurements: a process starts with its parent's peak memory

    load = [round(value, 1) for value in os.getloadavg()]
    caption = (
        f"Screening JPEG of {SIDE} px, decoded to 64 px, with the laptop profile's filter and detector on CPU. Peak "
        f"memory is ru_maxrss of the largest process. Load averages of the machine at the end: {load}."
    )
    table = pd.DataFrame(found).astype(object).fillna("")  # a row has its own measures only
    results.write("screening", table, {"goal": GOAL, "load": load, "rows": found}, options.out, caption)


if __name__ == "__main__":
    main()
