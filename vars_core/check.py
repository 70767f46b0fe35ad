"""Are the committed reports those of the committed code? Seconds, without DVC's cache.

python -m vars_core.check               # one line per stale thing; exit 1 when there is any
python -m vars_core.check --deps        # what dvc.yaml should list, from the notebooks' imports
python -m vars_core.check --fix-deps    # write that into dvc.yaml
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from ruamel.yaml import YAML

from vars_core import notebooks, params, paths, pipeline, readme, timings

EMPTY = hashlib.md5(b"[]", usedforsecurity=False).hexdigest() + ".dir"  # git doesn't hold an empty folder
REPORTED = ("figures", "metrics", "notebooks", "tables")


def problems(root: Path) -> list[str]:
    """One line for each thing that isn't as the code says; empty when all is well."""
    found = []
    if timings.profile(params.read(root / "params.yaml"), root / "profiles") == "own":
        found.append("params.yaml equals none of profiles/: `make profile P=laptop` restores it")
    stages = pipeline.stages(root)
    lock = root / "dvc.lock"
    locked = YAML(typ="safe", pure=True).load(lock).get("stages", {}) if lock.is_file() else {}
    made = {out["path"]: out["md5"] for stage in locked.values() for out in stage.get("outs", [])}
    values = params.read(root / "params.yaml")
    for stage in stages:
        found += _declared(stage, root)
        if stage.name not in locked:
            found.append(f"{stage.name}: never run (not in dvc.lock); run `make repro`")
            continue
        found += [f"{stage.name}: {p}" for p in _stale(stage, locked[stage.name], made, values, root)]
    found += [f"{name}: in dvc.lock, not in dvc.yaml" for name in locked if name not in {s.name for s in stages}]
    found += _strays(stages, root)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        if path.read_text(encoding="utf-8") != notebooks.text(notebooks.stripped(notebooks.read(path))):
            found.append(f"notebooks/{path.name}: not stripped; run `make strip`")
    return found + _readme(root)


def md5(path: Path) -> str:
    """DVC's hash of a file, or of a folder (ends in ".dir")."""
    if path.is_dir():
        files = [p for p in path.rglob("*") if p.is_file() and not _ignored(p.relative_to(path))]
        listing = [{"md5": md5(p), "relpath": p.relative_to(path).as_posix()} for p in files]
        listing.sort(key=lambda entry: entry["relpath"])
        return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _declared(stage: pipeline.Stage, root: Path) -> list[str]:
    if not (root / "notebooks" / f"{stage.notebook}.ipynb").is_file():
        return [f"{stage.name}: notebooks/{stage.notebook}.ipynb is missing"]
    deps, sections = pipeline.expected(stage, root)
    if set(deps) != set(stage.deps) or sections != stage.sections:
        return [f"{stage.name}: dvc.yaml lists other deps or params than its notebook; run `make deps`"]
    return []


def _stale(stage: pipeline.Stage, lock: dict, made: dict, values: dict, root: Path) -> list[str]:
    found = []
    if lock["cmd"] != stage.cmd:
        found.append("its command changed since it ran")
    recorded = {dep["path"]: dep["md5"] for dep in lock.get("deps", [])}
    if set(recorded) != set(stage.deps):
        found.append("its deps in dvc.yaml changed since it ran")
    for path, known in recorded.items():
        if path in made:
            if made[path] != known:
                found.append(f"{path} was made anew since it ran")
        elif not (root / path).exists() or md5(root / path) != known:
            found.append(f"{path} changed since it ran")
    ran = lock.get("params", {}).get("params.yaml", {})
    found += [f"params.yaml's {s} changed since it ran" for s in stage.sections if ran.get(s) != values.get(s)]
    recorded = {out["path"]: out["md5"] for out in lock.get("outs", [])}
    if set(recorded) != set(stage.outs):
        found.append("its outs in dvc.yaml changed since it ran")
    for path, known in recorded.items():
        cached = stage.outs.get(path, True)
        if not (root / path).exists():
            found += [] if cached or known == EMPTY else [f"{path} is missing"]
        elif md5(root / path) != known:
            found.append(f"{path} isn't what it wrote")
    return found


def _strays(stages: list[pipeline.Stage], root: Path) -> list[str]:
    outs = {out for stage in stages for out in stage.outs}
    found = []
    for kind in REPORTED:
        for path in sorted((root / "reports" / kind).glob("*")):
            inside = path.relative_to(root).as_posix()
            if inside not in outs and not path.name.startswith("."):
                found.append(f"{inside}: no stage writes it")
    return found


def _readme(root: Path) -> list[str]:
    path = root / "README.md"
    if not path.is_file():
        return ["README.md is missing"]
    text = path.read_text(encoding="utf-8")
    try:
        return [] if readme.regenerated(text, root) == text else ["README.md: its tables are old; run `make readme`"]
    except ValueError as error:
        return [str(error)]


def _ignored(path: Path) -> bool:
    return "__pycache__" in path.parts or ".ipynb_checkpoints" in path.parts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vars_core.check", description=__doc__.splitlines()[0])
    parser.add_argument("--deps", action="store_true", help="print what dvc.yaml should list")
    parser.add_argument("--fix-deps", action="store_true", help="write it into dvc.yaml")
    options = parser.parse_args(arguments)
    root = paths.root()
    try:
        if options.deps:
            for stage in pipeline.stages(root):
                if (root / "notebooks" / f"{stage.notebook}.ipynb").is_file():
                    deps, sections = pipeline.expected(stage, root)
                    print(f"{stage.name}: {' '.join(sections)}", *deps, sep="\n  ")
            return 0
        if options.fix_deps:
            print("dvc.yaml:", ", ".join(pipeline.fix(root)) or "nothing to change")
            return 0
        found = problems(root)
    except (params.ParameterError, OSError, SyntaxError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for line in found:
        print(line)
    if found:
        print(f"{len(found)} stale; reports are not those of this code")
        return 1
    print("reports are those of this code")
    return 0


if __name__ == "__main__":
    sys.exit(main())
