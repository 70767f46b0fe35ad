"""kill -9 in every stage, for a maintainer: python tests/pipeline/kill_matrix.py [study kernel dvc stage]

Runs the smoke profile once without disturbance, then once more for each thing to kill: in each stage that process is
killed, nothing of it may live on, and the same command has to end with the same bytes. Some minutes each.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
STAGES = sorted(path.stem for path in (ROOT / "notebooks").glob("0*.ipynb"))
VICTIMS = {"study": "study", "kernel": "study", "dvc": "dvc", "stage": "dvc"}  # and what runs it


def content(folder: Path) -> dict:
    """Every report and artefact below `folder`, by its path."""
    found = (path for kind in ("reports", "models", "data") for path in (folder / kind).rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {
        name: path.read_bytes() for name, path in names.items() if "catalogues/" not in name and "/gpu/" not in name
    }


def start(runner: str, folder: Path) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VARS_")} | {"PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    arguments = ["vars_core", "study", "kill", "--profile", "smoke", "--work", str(folder)]
    place = ROOT
    if runner == "dvc":
        arguments, place = ["dvc", "repro"], folder
        environment.pop("PYTHONPATH")
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=place, env=environment, stdout=log, stderr=log
        )


def copy(folder: Path) -> None:
    """A repository of its own with the smoke profile, for DVC."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copyfile(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")
    (folder / "dvc.lock").unlink(missing_ok=True)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def victim(kind: str, run: subprocess.Popen) -> psutil.Process | None:
    """The process to kill; None when the run is over."""
    while run.poll() is None:
        below = psutil.Process(run.pid).children(recursive=True)
        if kind in ("study", "dvc"):
            return psutil.Process(run.pid)
        lines = {process: " ".join(process.cmdline()) for process in below if process.is_running()}
        wanted = "vars_core stage" if kind == "stage" else "forkserver"
        found = [process for process, line in lines.items() if wanted in line]
        if kind == "kernel":  # the fork server's child
            found = [child for process in found for child in process.children()]
        if found:
            return found[-1]
        time.sleep(0.1)
    return None


def kill_in_every_stage(kind: str, folder: Path) -> None:
    for name in STAGES:
        run = start(VICTIMS[kind], folder)
        running = folder / "scratch" / "staging" / name / "running.ipynb"
        while run.poll() is None and not running.is_file():
            time.sleep(0.1)
        time.sleep(3)  # until it computes
        process = victim(kind, run)
        assert process, f"{kind} in {name}: it ended before"
        family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
        process.kill()
        run.wait(60)
        left = psutil.wait_procs(family, timeout=30)[1]
        left = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"{kind} in {name}: {left} live on"
        print(f"{kind} killed in {name}: nothing lives on", flush=True)
    run = start(VICTIMS[kind], folder)
    assert run.wait() == 0, f"{kind}: the same command fails, see {folder}.log"


def main(kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place, "whole")
        whole.mkdir()
        assert start("study", whole).wait() == 0, Path(place, "whole.log").read_text()
        wanted = content(whole)
        for kind in kinds or list(VICTIMS):
            folder = Path(place, kind)
            folder.mkdir()
            if VICTIMS[kind] == "dvc":
                copy(folder)
            kill_in_every_stage(kind, folder)
            found = content(folder)
            other = [name for name in wanted if found.get(name) != wanted[name]]
            assert not other, f"{kind}: {other} differ"
            print(f"{kind}: {len(STAGES)} kills, {len(wanted)} files with the same bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
