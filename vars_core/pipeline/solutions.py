"""The instructor's copies: every exercise with its solution, its verdict and the output: `make solutions`.

In each copy the solution follows the stub, and the check cell follows the solution. All notebooks run in the order of
the pipeline, with the values that stand in them, those of a lesson, and write to a work folder of their own. A
notebook that is done, of the same code, is not run again.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import nbclient
import nbformat
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from vars_core import paths
from vars_core.errors import InputError
from vars_core.pipeline import faults, kernels, lock, notebooks, stages

WORK = "work"  # folder beside the copies: what they write
SKIPPED = "skip-execution"


class SolutionError(InputError, RuntimeError):
    """A notebook of the instructor's copies failed; the message names it, the error and the cell."""


def worked(notebook: NotebookNode) -> NotebookNode:
    """A stripped copy in which each solution stands before the check cell of its exercise, and no cell is skipped."""
    copy = notebooks.stripped(notebook)
    cells, held = [], []  # check cells wait for the solution
    for cell in copy.cells:
        kept = set(notebooks.tags(cell))
        if cell.cell_type == "code" and "exercise" in kept and "check(" in cell.source:
            held.append(cell)
            continue
        if held and "solution" not in kept:
            cells, held = cells + held, []
        cells.append(cell)
    copy.cells = cells + held
    for cell in copy.cells:
        cell.metadata["tags"] = [tag for tag in notebooks.tags(cell) if tag != SKIPPED]
    return copy


def solve(root: Path, folder: Path, only: list[str]) -> None:
    """Write the executed copies to `folder`; `only` holds beginnings of names, or nothing. Raises SolutionError."""
    names = [step.notebook for step in stages.stages(root)]
    for start in only:
        if not any(name.startswith(start) for name in names):
            raise SolutionError(f"--only {start}: no notebook's name begins so; there are {', '.join(names)}")
    folder.mkdir(parents=True, exist_ok=True)
    with faults.in_a_line("solutions", folder), lock.held(folder):
        record = folder / ".done.json"
        done = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        code = b"".join(path.read_bytes() for path in sorted((root / "vars_core").rglob("*.py")))
        for name in names:
            source = notebooks.source(root, name)
            copy = notebooks.together(worked(notebooks.read(source)), source)
            mark = hashlib.sha256(code + notebooks.text(copy).encode()).hexdigest()
            target = folder / f"{name}.ipynb"
            if only and not name.startswith(tuple(only)):
                continue
            if done.get(name) == mark and target.is_file():
                print(f"{name}: done before", flush=True)
                continue
            print(f"{name}: running", flush=True)
            start = time.monotonic()
            executed = _executed(copy, name, root, folder / WORK)
            places = {str(folder / WORK): ".", str(root): "."}
            paths.write(target, notebooks.text(notebooks.canonical(executed, places)))
            done[name] = mark
            paths.write(record, json.dumps(done, indent=1, sort_keys=True) + "\n")
            print(f"{name}: {(time.monotonic() - start) / 60:.1f} min", flush=True)


def _executed(notebook: NotebookNode, name: str, root: Path, work: Path) -> NotebookNode:
    work.mkdir(parents=True, exist_ok=True)
    environment = {
        "VARS_ROOT": str(root), "VARS_WORKSPACE": str(work), "VARS_STAGE": name, "VARS_QUIET": "1",
        "PYTHONHASHSEED": "0",
    }  # fmt: skip
    manager = kernels.manager(environment, fork=True)
    copy = nbformat.from_dict(notebook)
    client = nbclient.NotebookClient(
        copy, timeout=None, startup_timeout=600, kernel_name="python3", kernel_manager_class=manager,
        resources={"metadata": {"path": str(root)}}, store_widget_state=False,
    )  # fmt: skip
    try:
        client.execute()
    except CellExecutionError as error:
        raise SolutionError(f"{name}: {error.ename}: {error.evalue}, in this cell:\n{_cell(copy)}") from None
    except DeadKernelError:
        raise SolutionError(f"{name}: its kernel died{faults.death(manager.ended)}") from None
    return copy


def _cell(notebook: NotebookNode) -> str:
    """The source of the cell that failed."""
    failed = [c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", []))]
    return failed[-1].source if failed else "(none)"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vars_core.pipeline.solutions", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="of the copies")
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of names; what they read must be there")
    options = parser.parse_args(arguments)
    try:
        solve(paths.root(), options.folder.resolve(), options.only)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
