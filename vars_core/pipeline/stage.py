"""Run one notebook as a stage of the pipeline: `vars stage 03_attacks`.

The sections of params.yaml that its `parameters` cell names are validated and given to the notebook; its executed
copy goes to reports/notebooks/. What it writes lies in scratch/staging/ until it has succeeded: a stage that fails,
or is killed, leaves every report and artefact as it was. Artefacts are sealed, see `vars_core.seal`.
"""

import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from threading import Thread

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from vars_core import param_file, paths, seal
from vars_core.errors import InputError
from vars_core.pipeline import faults, kernels, lock, notebooks, timings

REPORTS = ("figures", "tables")


class StageError(InputError, RuntimeError):
    """A stage failed; the message holds the error's last lines and the way back."""


def run(name: str, params_file: Path | None = None) -> float:
    """Execute notebooks/<name>.ipynb in the repository, `params_file` by default its params.yaml; returns seconds.

    Raises ParameterError before anything is touched, StageError when the notebook fails, RunError when the disk or
    the system does, LockedError when another stage runs.
    """
    root = paths.root()
    params_file = params_file or root / "params.yaml"
    _asked(name, params_file)
    end_with_dvc()
    with faults.in_a_line(name, root), lock.held(root):
        return execute(name, params_file, root)


def execute(name: str, params_file: Path, workspace: Path, *, fork: bool = False) -> float:
    """The same in `workspace`, whose lock is held, on parameters that are its own; returns seconds.

    `fork` as in `kernels.manager`. The time is noted in the workspace's scratch/timings.json.
    """
    root = paths.root()
    source, values = _asked(name, params_file)
    with faults.in_a_line(f"{name} not run", workspace):
        for kind in (*REPORTS, "metrics", "notebooks"):
            faults.check_writable(workspace / "reports" / kind)
        staging = workspace / "scratch" / "staging" / name
        shutil.rmtree(staging, ignore_errors=True)
        for part in ("reports", "artefacts"):
            (staging / part).mkdir(parents=True)
    try:
        with faults.in_a_line(f"{name} failed", workspace):
            start = time.monotonic()
            _execute(name, source, values, staging, workspace, fork=fork)
            seconds = time.monotonic() - start
            _publish(source, staging, root, workspace)
        shutil.rmtree(paths.checkpoints(workspace, name), ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    with contextlib.suppress(OSError):  # a time is not worth a failure
        timings.record(
            workspace / "scratch" / "timings.json", name, seconds, timings.profile(param_file.read(params_file))
        )
    return seconds


def end_with_dvc() -> None:
    """Where DVC runs this process, stop when DVC has gone: else it would compute on beside the next run."""
    if "DVC_STAGE" in os.environ:
        Thread(target=_stop_without, args=(os.getppid(),), daemon=True).start()


def _stop_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _asked(name: str, params_file: Path) -> tuple[Path, dict]:
    source = notebooks.source(paths.root(), name)
    if source is None:
        raise StageError(f"notebooks/{name}.ipynb is missing")
    return source, param_file.load(params_file, notebooks.sections(source))


def _execute(name: str, source: Path, values: dict, staging: Path, workspace: Path, *, fork: bool) -> None:
    root = paths.root()
    environment = {
        "VARS_ROOT": str(root),
        "VARS_WORKSPACE": str(workspace),
        "VARS_REPORTS": str(staging / "reports"),
        "VARS_ARTEFACTS": str(staging / "artefacts"),
        "VARS_STAGE": name,
        "VARS_QUIET": "1",
        "PYTHONHASHSEED": "0",  # else the order of sets of strings differs from run to run
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS is deterministic only with a fixed workspace
    }
    if workspace != root:
        environment["VARS_DATA"] = ""  # a study's parameters name its catalogue
    for library in ("papermill", "traitlets"):  # they say in many lines what we say in one
        logging.getLogger(library).setLevel(logging.CRITICAL)
    manager = kernels.manager(environment, fork=fork)
    try:
        papermill.execute_notebook(
            _literal(source),
            _literal(staging / "running.ipynb"),
            parameters=values,
            cwd=root,
            kernel_name="python3",
            language="python",
            kernel_manager_class=manager,
            progress_bar=False,
            stderr_file=sys.stderr,
            record_timing=False,
            start_timeout=600,  # a busy machine imports for a minute; a kernel that died is noticed before
        )
    except PapermillExecutionError as error:
        raise StageError(_failed(name, error, staging, workspace)) from None
    except DeadKernelError:
        raise StageError(_died(name, manager.ended, workspace)) from None
    except RuntimeError as error:  # jupyter_client's, of a kernel that doesn't start
        if manager.ended is None and "Kernel" not in str(error):
            raise
        raise StageError(_died(name, manager.ended, workspace)) from None


def _publish(source: Path, staging: Path, root: Path, workspace: Path) -> None:
    name, reports, new = source.stem, workspace / "reports", staging / "reports"
    ours = {f"figures/{name}", f"tables/{name}", f"metrics/{name}.json"}
    for path in new.rglob("*"):
        inside = path.relative_to(new).as_posix()
        if path.is_file() and not any(inside == o or inside.startswith(o + "/") for o in ours):
            raise StageError(f"{name} wrote reports/{inside}; a notebook reports under its own name only")
    places = {str(new): "reports", str(staging / "artefacts"): ".", str(workspace): ".", str(root): "."}
    executed = notebooks.canonical(notebooks.read(staging / "running.ipynb"), places)
    (new / "notebooks").mkdir(parents=True)
    pairs = [
        (
            paths.write(new / "notebooks" / f"{name}.ipynb", notebooks.text(notebooks.together(executed, source))),
            "notebooks",
        )
    ]
    for kind in REPORTS:
        (new / kind / name).mkdir(parents=True, exist_ok=True)
        pairs.append((new / kind / name, kind))
    moves = [(path, reports / kind / path.name) for path, kind in pairs]
    metrics = new / "metrics" / f"{name}.json"
    moves.append((metrics if metrics.is_file() else None, reports / "metrics" / metrics.name))
    for artefact in _artefacts(name):
        written = staging / "artefacts" / artefact
        if written.is_dir():
            seal.put(written)
        moves.append((written if written.is_dir() else None, workspace / artefact))
    paths.replace_all(moves)


def _literal(path: Path) -> str:
    return str(path).replace("{", "{{").replace("}", "}}")  # papermill takes braces for names of parameters


def _artefacts(name: str) -> list[str]:
    return [artefact for artefact, writer in paths.ARTEFACTS.items() if writer == name]


def _failed(name: str, error: PapermillExecutionError, staging: Path, workspace: Path) -> str:
    kept = workspace / "scratch" / "failed" / f"{name}.ipynb"
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        (staging / "running.ipynb").replace(kept)
    trace = [line for line in notebooks.without_colours("\n".join(error.traceback)).strip().splitlines() if line]
    if faults.full("\n".join(trace)):
        free = faults.space(workspace)
        return f"{name} failed, no space left: {trace[-1]} ({free}); make room, then {_again(name, workspace)}"
    if len(error.traceback) == 1:  # an InputError, which says all in its line
        return f"{name}, cell {error.exec_count}: {error.evalue}"
    shown = "\n".join(f"    {line}" for line in trace[-8:])
    return (
        f"{name} failed in cell {error.exec_count}:\n{shown}\n"
        f"The failed notebook is {faults.shown(kept)}.\n"
        f"Way back: reports and artefacts are as they were; mend the cause, then {_again(name, workspace)}."
    )


def _died(name: str, status: int | None, workspace: Path) -> str:
    return (
        f"{name}: its kernel died{faults.death(status)}; {faults.space(workspace)}; reports are as they were; "
        f"mend the cause, then {_again(name, workspace)}"
    )


def _again(name: str, workspace: Path) -> str:
    if workspace == paths.root():
        gone = _artefacts(name) if "DVC_STAGE" in os.environ else []  # DVC removes outputs before it runs a stage
        restore = f", `dvc checkout {' '.join(gone)}` brings its old outputs back" if gone else ""
        return f"`dvc repro {name.split('_', 1)[-1]}` runs it again{restore}"
    return "run the same study again; stages that are done are skipped"
