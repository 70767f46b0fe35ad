"""Are the committed reports those of the committed code? Seconds, without DVC's cache.

DVC says what changed since each stage ran. What its cache would have to say, whether data and models that this clone
doesn't hold are those that the next stage saw, dvc.lock says. `python -m vars_core.pipeline.check` only asks whether
DVC can work here."""

import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

from vars_core import param_file, paths
from vars_core.errors import InputError
from vars_core.pipeline import kept, notebooks, readme, stages, timings

EMPTY = "d751713988987e9331980363e24189ce.dir"  # DVC's hash of an empty folder, which git doesn't hold
REPORTED = ("figures", "metrics", "notebooks", "tables")


def problems(root: Path) -> list[str]:
    """One line for each thing that isn't as the code says; empty when all is well."""
    declared = stages.stages(root)
    lock = root / "dvc.lock"
    locked = stages.read(lock).get("stages", {}) if lock.is_file() else {}
    found = []
    if timings.profile(param_file.read(root / "params.yaml"), root / "profiles") == "own":
        found.append("params.yaml equals none of profiles/: `make profile P=laptop` restores it")
    found += [f"{s.name}: never run (not in dvc.lock); run `make repro`" for s in declared if s.name not in locked]
    found += [f"{name}: in dvc.lock, not in dvc.yaml" for name in locked if name not in {s.name for s in declared}]
    ran = [stage for stage in declared if stage.name in locked]
    found += [f"{stage}: {problem}" for stage, problem in (*_changed(ran, locked, root), *_made_anew(ran, locked))]
    found += _strays(declared, root) + kept.old(root)
    for path in notebooks.sources(root):
        if path.read_text(encoding="utf-8") != notebooks.text(notebooks.stripped(notebooks.read(path))):
            found.append(f"{path.relative_to(root).as_posix()}: not stripped; run `make strip`")
    return found + _readme(root)


def repository(root: Path):
    """DVC's view of the project. Raises InputError, with the cure, where DVC can't work."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo  # here: it takes most of a second to import
    from dvc.scm import SCMError

    try:
        return Repo(root)
    except SCMError:
        raise InputError(
            f"{root} is no git repository (a downloaded archive is none), which DVC asks for: `git init` here, or, "
            f"without git, `.venv/bin/python -m dvc config --local core.no_scm true`"
        ) from None
    except DvcException as error:
        raise InputError(f"DVC can't work here: {error}") from None


def _changed(ran: list[stages.Stage], locked: dict, root: Path) -> Iterator[tuple[str, str]]:
    """What `dvc status` says, less what a clone without data and models can't have."""
    from dvc.exceptions import DvcException

    absent = {out for stage in ran for out, cached in stage.outs.items() if cached and not (root / out).exists()}
    try:
        with chdir(root), repository(root) as repo:  # elsewhere DVC names stages and paths from there
            status = repo.status()
    except DvcException as error:
        raise InputError(f"DVC can't say what changed: {error}") from None
    for stage in ran:
        empty = {out["path"] for out in locked[stage.name].get("outs", []) if out["md5"] == EMPTY}
        for change in status.get(stage.name, []):
            if change == "changed command":
                yield stage.name, "its command changed since it ran"
                continue
            for path, what in change.get("changed deps", {}).items():
                if isinstance(what, dict):
                    yield from ((stage.name, f"{path}'s {section} changed since it ran") for section in what)
                elif path not in absent:
                    yield stage.name, f"{path} changed since it ran"
            for path, what in change.get("changed outs", {}).items():
                if path not in absent and path not in empty and what != "not in cache":
                    yield stage.name, f"{path} is missing" if what == "deleted" else f"{path} isn't what it wrote"


def _made_anew(ran: list[stages.Stage], locked: dict) -> Iterator[tuple[str, str]]:
    made = {out["path"]: out["md5"] for stage in ran for out in locked[stage.name].get("outs", [])}
    for stage in ran:
        for dep in locked[stage.name].get("deps", []):
            if made.get(dep["path"], dep["md5"]) != dep["md5"]:
                yield stage.name, f"{dep['path']} was made anew since it ran"


def _strays(declared: list[stages.Stage], root: Path) -> list[str]:
    outs = {out for stage in declared for out in stage.outs}
    found = (path for kind in REPORTED for path in sorted((root / "reports" / kind).glob("[!.]*")))
    names = (path.relative_to(root).as_posix() for path in found)
    return [f"{name}: no stage writes it" for name in names if name not in outs]


def _readme(root: Path) -> list[str]:
    if not (root / "README.md").is_file():
        return ["README.md is missing"]
    try:
        return [f"{p.relative_to(root)}: its tables are old; run `make readme`" for p in readme.old_pages(root)]
    except ValueError as error:
        return [str(error)]


def report() -> int:
    """Print what is stale, a line each; 1 when anything is, else 0."""
    found = problems(paths.root())
    for line in found:
        print(line)
    print(f"{len(found)} stale; reports are not those of this code" if found else "reports are those of this code")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        repository(paths.root()).close()
    except InputError as error:
        sys.exit(str(error))
