"""How decoding once grows: seconds, photos per second and peak memory of the first and the second run.

python -m benchmarks.decoding                        # 1,000, 10,000 and 100,000 photos
python -m benchmarks.decoding --photos 1000 5000

The photos: DISTINCT drawings of the synthetic catalogue, saved as JPEG; hard links to them make up the number, so
that the disk holds them once and reading costs what it costs from a warm cache.
"""

import tempfile
import time
from pathlib import Path

from benchmarks import apart, results

DISTINCT = 1000  # JPEG files
SIDE = 224  # pixels of the files
SIZE = 64  # pixels decoded to
QUALITY = (60, 96)  # JPEG, drawn per photo
GOAL = "Peak memory must not grow with the number of photos"


def draw(folder: str) -> dict:
    """Write the files <n>.jpg; their mean size."""
    import numpy as np
    from PIL import Image

    from vars_core.data import synthetic

    photos, _ = synthetic.draw(DISTINCT, SIDE, np.random.default_rng(0))
    quality = np.random.default_rng(1).integers(*QUALITY, DISTINCT)
    files = [Path(folder) / f"{n}.jpg" for n in range(DISTINCT)]
    for file, photo, value in zip(files, photos, quality, strict=True):
        Image.fromarray(photo).save(file, "JPEG", quality=int(value))
    return {"bytes_per_file": round(sum(file.stat().st_size for file in files) / DISTINCT)}


def measure(drawn: str, links: str, cache: str, n: int) -> dict:
    """One run over `n` photos; links are made first where there are none."""
    from vars_core.data import decoded

    files = [Path(links) / f"{row}.jpg" for row in range(n)]
    if not files[0].exists():
        Path(links).mkdir()
        for row, file in enumerate(files):
            file.hardlink_to(Path(drawn) / f"{row % DISTINCT}.jpg")
    before, start = apart.peak(), time.perf_counter()
    array, bad = decoded.decode_files(files, SIZE, Path(cache))
    seconds = time.perf_counter() - start
    if bad or array.shape != (n, SIZE, SIZE, 3):
        raise RuntimeError(f"{len(bad)} photos were refused, the first: {bad[:1]}")
    after = apart.peak()
    if not all(array[row].any() for row in (0, n // 2, n - 1)):
        raise RuntimeError("rows are empty")
    return {"seconds": seconds, "before": before, "peak": after}


def rows(sizes: list[int], folder: Path) -> tuple[list[dict], dict]:
    drawn = folder / "drawn"
    drawn.mkdir()
    about = apart.call(draw, drawn)
    found = []
    for n in sizes:
        for run in ("first", "second"):
            got = apart.call(measure, drawn, folder / f"links-{n}", folder / f"cache-{n}", n)
            found.append(
                {
                    "photos": n,
                    "run": run,
                    "seconds": round(got["seconds"], 2),
                    "photos_per_second": round(n / got["seconds"]),
                    "peak_mb": round(got["peak"]),
                    "peak_mb_before": round(got["before"]),
                    "decoded_mb": round(n * SIZE * SIZE * 3 / 1e6),
                }
            )
            print(found[-1], flush=True)
    return found, about


def main() -> None:
    parser = results.parser("decoding", __doc__)
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, about = rows(options.photos, Path(folder))
    import pandas  # after the measurements: a process starts with its parent's peak memory

    made = (
        f"{DISTINCT:,} drawings of {SIDE} px as JPEG of quality {QUALITY[0]} to {QUALITY[1] - 1} "
        f"({about['bytes_per_file'] / 1000:.1f} kB each), hard-linked to the number, decoded to {SIZE} px"
    )
    caption = (
        f"Decoding once: {made}; files in the system's cache. Each run in a process of its own; its peak memory is "
        "ru_maxrss, before (Python, libraries, list of files) and after. The second run reads the index only."
    )
    results.write("decoding", pandas.DataFrame(found), {"photos": made, "goal": GOAL}, options.out, caption)


if __name__ == "__main__":
    main()
