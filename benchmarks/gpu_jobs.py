"""Train the studies of real photos a few minutes at a time, wherever a card is at hand.

    python -m benchmarks.gpu_jobs DATA... --minutes 8 --kept FOLDER

goes on with a study of each catalogue with the profile `real-gpu` where the last call stopped, and stops when the
minutes are over: notebooks that are done are skipped, and a training that was stopped goes on from its checkpoint.
What must survive the machine lies in FOLDER afterwards, in files of at most 16 MiB: carry them to the next one.
Photos and attacked photos are not among them: notebooks 1 and 3 make those again, to the bit, in a few minutes.
Without a card the same command takes the CPU's cores: give it a night (`--minutes 600`).

The order is that of worth: the filters of all regimes (notebook 4) for every catalogue, then detectors (5), attackers
who know the defence (7), the certificate (8), ablations (6).
"""

import argparse
import io
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from vars_core import paths

PART = 15 << 20  # bytes, of files that places for results take
ORDER = (("01", "02", "03", "04"), ("05",), ("07",), ("08",), ("06",), ("00", "A3", "A5"))
LEFT = ("data",)  # of a study's work folder: made again, and large
LAST = 20  # seconds before the end, for what is kept


def restore(kept: Path, work: Path) -> bool:
    """Put what `keep` wrote of this study into `work`; False where there is nothing."""
    parts = sorted((kept / work.name).glob("*.tar.*"))
    if parts:
        whole = io.BytesIO(b"".join(part.read_bytes() for part in parts))
        with tarfile.open(fileobj=whole) as archive:
            archive.extractall(work, filter="data")
    return bool(parts)


def keep(work: Path, kept: Path) -> list[Path]:
    """Write the study in `work`, but for LEFT, to numbered files of at most PART bytes in a folder of `kept`, in the
    place of older ones once all are written."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path in sorted(work.rglob("*")):
            inside = path.relative_to(work)
            if path.is_file() and inside.parts[0] not in LEFT:
                archive.add(path, inside.as_posix())
    content, place = whole.getbuffer(), kept / work.name
    with tempfile.TemporaryDirectory(dir=kept) as beside:
        new = Path(beside) / work.name
        for number, start in enumerate(range(0, len(content), PART)):
            paths.write(new / f"study.tar.{number:03}", bytes(content[start : start + PART]))
        paths.replace_folder(new, place)
    return sorted(place.iterdir())


def run(work: Path, options, data: Path, only: tuple[str, ...], until: float) -> bool:
    """Go on with the study's notebooks `only` until the clock says `until`; whether they are done. Raises
    CalledProcessError when one of them fails."""
    command = [sys.executable, "-m", "vars_core", "study", work.name, "--data", str(data), "--work", str(work)]
    command += ["--profile", options.profile, "--only", *only]
    if options.weights:
        command += ["--weights", str(options.weights)]
    command += [f"--set={change}" for change in options.set]
    study = subprocess.Popen(command, cwd=paths.root())
    try:
        status = study.wait(max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        study.send_signal(signal.SIGINT)  # it stops, and what was there before is as it was
        study.wait()
        return False
    if status:
        raise subprocess.CalledProcessError(status, command)
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu_jobs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("data", type=Path, nargs="+", help="folders of catalogues, the most important first")
    parser.add_argument("--minutes", type=float, required=True, help="how long the machine is there")
    parser.add_argument("--kept", type=Path, required=True, help="folder for what goes on elsewhere")
    parser.add_argument("--profile", default="real-gpu", help="a file of profiles/ (%(default)s)")
    parser.add_argument("--weights", type=Path, help="safetensors file of the extractor, if not the profile's")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.PARAMETER=VALUE")
    parser.add_argument("--work", type=Path, help="where the studies are; scratch/studies by default")
    options = parser.parse_args(arguments)
    until = time.monotonic() + 60 * options.minutes - LAST
    options.kept.mkdir(parents=True, exist_ok=True)
    place = options.work or paths.root() / "scratch" / "studies"
    works = {place / f"{data.resolve().name}-{options.profile}": data for data in options.data}
    for work in works:
        if not (work / "state.json").is_file() and restore(options.kept, work):
            print(f"{work.name}: goes on from {options.kept}", flush=True)
    jobs = ((only, work, data) for only in ORDER for work, data in works.items())
    try:
        done = all(time.monotonic() < until and run(work, options, data, only, until) for only, work, data in jobs)
    finally:  # also of a study that failed
        for work in filter(Path.is_dir, works):
            files = keep(work, options.kept)
            size = sum(file.stat().st_size for file in files)
            print(f"{work.name}: {len(files)} files, {size >> 20} MiB in {options.kept}", flush=True)
    print("all done" if done else "more to do: run the same command again", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
