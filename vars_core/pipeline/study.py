"""Run all notebooks on another catalogue or profile, in a work folder of its own; can be taken up again.

A stage is skipped when its parameters, notebook, rooms and inputs are those of its last run: `vars study`.
"""

import hashlib
import io
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vars_core import params, paths
from vars_core.errors import InputError
from vars_core.pipeline import stage, stages, timings


class StudyError(InputError, RuntimeError):
    """The study can't be run or published as asked."""


def study_params(options, root: Path) -> dict:
    """The profile's values with the catalogue, the weights and every --set put in."""
    profile = root / "profiles" / f"{options.profile}.yaml"
    if not profile.is_file():
        known = ", ".join(sorted(p.stem for p in profile.parent.glob("*.yaml")))
        raise StudyError(f"no profile is called {options.profile}; known: {known}")
    values = params.read(profile)
    if options.data:
        if not options.data.is_dir():
            raise StudyError(f"--data {options.data}: no such folder")
        values["data"] |= {"source": "folder", "path": str(options.data.resolve())}
    if options.weights:
        if not options.weights.is_file():
            raise StudyError(f"--weights {options.weights}: no such file")
        extractor = options.extractor or options.weights.stem
        values["recommender"] |= {"pretrained": str(options.weights.resolve()), "extractor": extractor}
    elif options.extractor:
        values["recommender"]["extractor"] = options.extractor
    for change in options.set:
        name, equals, text = change.partition("=")
        *sections, key = name.split(".")
        if not equals or len(sections) > 1 or (sections and sections[0] not in values):
            raise StudyError(f"--set {change}: expected section.parameter=value, such as attacks.steps=5")
        try:
            (values[sections[0]] if sections else values)[key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            raise StudyError(f"--set {change}: the value isn't YAML") from None
    return values


def run(options) -> int:
    """Run the study that the command's `options` describe, and publish it if they say so; 0. Raises StudyError for
    what can't be run or published as asked, ParameterError, StageError."""
    root = paths.root()
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", options.name):
        raise StudyError(f"a study's name has letters, digits, - and _; got {options.name!r}")
    work = (options.work or root / "scratch" / "studies" / options.name).resolve()
    buffer = io.StringIO()
    YAML(typ="safe", pure=True).dump(study_params(options, root), buffer)
    paths.write(work / "params.yaml", buffer.getvalue())
    execute(work, options.only)
    if options.publish:
        place = Path("gpu") if options.publish == "gpu" else Path("catalogues", options.name)
        published = publish(options.name, work, options.profile, root / "reports" / place)
        print(f"published: {published.relative_to(root)}")
    return 0


def execute(work: Path, only: list[str]) -> None:
    """Run the stages in `work`, skipping unchanged ones; `only` holds beginnings of names, or nothing."""
    root = paths.root()
    file = work / "params.yaml"
    values = params.load(file)
    outside = _outside(values)
    for step in stages.stages(root):
        state = _state(work)
        if only and not any(step.notebook.startswith(o) for o in only):
            continue
        mark = _mark(step, values, outside, state, root)
        if state.get(step.notebook, {}).get("mark") == mark and all((work / out).exists() for out in step.outs):
            print(f"{step.notebook}: unchanged, skipped", flush=True)
            continue
        _keep(work, {k: v for k, v in state.items() if k != step.notebook})
        print(f"{step.notebook}: running", flush=True)
        seconds = stage.run(step.notebook, file, work, fork=True)
        _keep(work, {**_state(work), step.notebook: {"mark": mark, "seconds": round(seconds, 1)}})
        print(f"{step.notebook}: {seconds / 60:.1f} min", flush=True)


def publish(name: str, work: Path, profile: str, target: Path) -> Path:
    """Copy metrics and tables (CSV: no photo leaves `work`) to `target`, with a run.json; other files stay."""
    root = paths.root()
    values, state = params.load(work / "params.yaml"), _state(work)
    absent = [s.notebook for s in stages.stages(root) if s.notebook not in state]
    if absent:
        raise StudyError(f"not published: {', '.join(absent)} not run yet")
    meta = json.loads((work / "data" / "prepared" / "meta.json").read_text(encoding="utf-8"))
    beside = target.with_name(f".{name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    kinds = {"metrics": "*.json", "tables": "*/*.csv"}
    for kind, pattern in kinds.items():
        (beside / kind).mkdir(parents=True)
        for path in sorted((work / "reports" / kind).glob(pattern)):
            copy = beside / path.relative_to(work / "reports")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    weights = values["recommender"]["pretrained"]
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "catalogue": Path(str(meta.get("name") or name)).name,
        "simulated": bool(meta.get("simulated")),
        "profile": profile,
        "parameters": _shortened(values),
        "machine": timings.machine(),
        "minutes": {k: round(v["seconds"] / 60, 2) for k, v in sorted(state.items())},
    }
    if isinstance(weights, str):
        content["weights"] = {"file": Path(weights).name, "sha256": _sha256(Path(weights))}
    for kind in kinds:
        paths.replace_folder(beside / kind, target / kind)
    beside.rmdir()
    paths.write(target / "run.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return target


def _mark(step: stages.Stage, values: dict, outside: dict, state: dict, root: Path) -> str:
    """What a run of the stage depends on, as one hash: parameters, code, the stages before, what lies outside."""
    code = [dep for dep in step.deps if dep not in paths.ARTEFACTS]
    ingredients = {
        "parameters": {section: values[section] for section in step.sections},
        "code": {path: _sha256(root / path) for path in code},
        "before": {w: state.get(w, {}).get("mark") for w in (paths.ARTEFACTS.get(dep) for dep in step.deps) if w},
        "outside": {section: outside[section] for section in step.sections if section in outside},
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def _outside(values: dict) -> dict:
    """Fingerprints of what lies outside, the catalogue's folder and the weights: by content, dates don't count."""
    tastes, weights = values["data"]["taste_weights"], values["recommender"]["pretrained"]
    files = {
        "data": [Path(values["data"]["path"])] if values["data"]["path"] else [],
        "recommender": [Path(weights)] if isinstance(weights, str) else [],
    }
    if tastes:
        files["data"].append(paths.root() / Path(tastes).expanduser())
    # what is missing, the stage names
    return {section: [_sha256(path) for path in found if path.exists()] for section, found in files.items() if found}


def _shortened(values):
    if isinstance(values, dict):
        return {key: _shortened(value) for key, value in values.items()}
    return Path(values).name if isinstance(values, str) and "/" in values else values


def _state(work: Path) -> dict:
    path = work / "state.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _keep(work: Path, state: dict) -> None:
    paths.write(work / "state.json", json.dumps(state, indent=2, sort_keys=True) + "\n")


def _sha256(path: Path) -> str:
    """Of a file's content, or of a folder's names and contents."""
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        listing = sorted((p.relative_to(path).as_posix(), _sha256(p)) for p in inside)
        return hashlib.sha256(repr(listing).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
