"""Run one notebook as a stage of the pipeline: `vars stage 03_attacks`.

The sections of params.yaml that its `parameters` cell names are validated and given to the notebook; its executed
copy goes to reports/notebooks/. A stage that fails leaves every report as it was.
"""

import logging
import shutil
import sys
import time
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError

from vars_core import params, paths
from vars_core.errors import InputError
from vars_core.pipeline import kernels, notebooks, timings


class StageError(InputError, RuntimeError):
    """A stage failed; the message holds the error's last lines and the way back."""


def run(name: str, params_file: Path | None = None, workspace: Path | None = None, *, fork: bool = False) -> float:
    """Execute notebooks/<name>.ipynb in `workspace` (the repository by default); returns seconds.

    `params_file` is the repository's params.yaml by default; `fork` as in `kernels.manager`. The time is noted in the
    workspace's scratch/timings.json. Raises ParameterError before anything is touched, StageError when the notebook
    fails.
    """
    root = paths.root()
    workspace, params_file = (workspace or root).resolve(), params_file or root / "params.yaml"
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.is_file():
        raise StageError(f"notebooks/{name}.ipynb is missing")
    values = params.load(params_file, notebooks.sections(source))
    staging = workspace / "scratch" / "staging" / name
    running = staging / "running.ipynb"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for artefact in (a for a, writer in paths.ARTEFACTS.items() if writer == name):
        shutil.rmtree(workspace / artefact, ignore_errors=True)  # else files of an earlier run would linger
    environment = {
        "VARS_ROOT": str(root),
        "VARS_WORKSPACE": str(workspace),
        "VARS_REPORTS": str(staging),
        "VARS_QUIET": "1",
        "PYTHONHASHSEED": "0",  # else the order of sets of strings differs from run to run
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS is deterministic only with a fixed workspace
    }
    logging.getLogger("papermill").setLevel(logging.ERROR)
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            source,
            running,
            parameters=values,
            cwd=root,
            kernel_name="python3",
            language="python",
            kernel_manager_class=kernels.manager(environment, fork=fork),
            progress_bar=False,
            stderr_file=sys.stderr,
            record_timing=False,
        )
    except PapermillExecutionError as error:
        raise StageError(_failed(name, error, running, workspace, ours=workspace == root)) from None
    seconds = time.monotonic() - start
    _publish(name, running, root, workspace, staging)
    timings.record(workspace / "scratch" / "timings.json", name, seconds, timings.profile(params.read(params_file)))
    return seconds


def _publish(name: str, running: Path, root: Path, workspace: Path, staging: Path) -> None:
    reports = workspace / "reports"
    ours = {f"figures/{name}", f"tables/{name}", f"metrics/{name}.json"}
    for path in staging.rglob("*"):
        inside = path.relative_to(staging).as_posix()
        if path.is_file() and path != running and not any(inside == o or inside.startswith(o + "/") for o in ours):
            raise StageError(f"{name} wrote reports/{inside}; a notebook reports under its own name only")
    places = {str(staging): "reports", str(workspace): ".", str(root): "."}
    executed = notebooks.canonical(notebooks.read(running), places)
    paths.write(reports / "notebooks" / f"{name}.ipynb", notebooks.text(executed))
    for kind in ("figures", "tables"):
        new = staging / kind / name
        new.mkdir(parents=True, exist_ok=True)
        paths.replace_folder(new, reports / kind / name)
    metrics = staging / "metrics" / f"{name}.json"
    if metrics.is_file():
        paths.write(reports / "metrics" / metrics.name, metrics.read_bytes())
    else:
        (reports / "metrics" / metrics.name).unlink(missing_ok=True)
    shutil.rmtree(staging)


def _failed(name: str, error: PapermillExecutionError, running: Path, workspace: Path, *, ours: bool) -> str:
    kept = workspace / "scratch" / "failed" / f"{name}.ipynb"
    kept.parent.mkdir(parents=True, exist_ok=True)
    running.replace(kept)
    trace = notebooks.without_colours("\n".join(error.traceback)).strip().splitlines()
    shown = "\n".join(f"    {line}" for line in trace[-8:])
    written = [artefact for artefact, writer in paths.ARTEFACTS.items() if writer == name]
    back = "run the same command again; stages that are done are skipped"
    if ours:
        restore = f"`dvc checkout {' '.join(written)}` restores its outputs, " if written else ""
        back = f"{restore}`dvc repro {name.split('_', 1)[-1]}` runs it again"
    return (
        f"{name} failed in cell {error.exec_count}:\n{shown}\n"
        f"The failed notebook is {kept.relative_to(workspace)}.\n"
        f"Way back: reports/ is as it was; {back}."
    )
