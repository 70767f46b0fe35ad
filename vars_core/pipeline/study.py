"""Run all notebooks on another catalogue or profile, in a work folder of its own; can be taken up again.

A stage is skipped when its parameters, notebook, rooms and inputs are those of its last run, and what it wrote is
still there as it was: `vars study`.
"""

import hashlib
import io
import json
import re
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from vars_core import param_file, paths, seal, weights
from vars_core.pipeline import faults, lock, publish, stage, stages
from vars_core.pipeline.request import StudyError, study_params


def run(options) -> int:
    """Run the study that the command's `options` describe, and publish it if they say so; 0. Raises StudyError for
    what can't be run or published as asked, ParameterError, StageError, RunError, LockedError."""
    root = paths.root()
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", options.name):
        raise StudyError(f"a study's name has letters, digits, -, . and _; got {options.name!r}")
    work = (options.work.expanduser() if options.work else root / "scratch" / "studies" / options.name).resolve()
    notebooks = [step.notebook for step in stages.stages(root)]
    for only in options.only:
        if not any(name.startswith(only) for name in notebooks):
            raise StudyError(f"--only {only}: no notebook's name begins so; there are {', '.join(notebooks)}")
    with faults.in_a_line(f"study {options.name}", Path(tempfile.gettempdir())):
        text, values = _parameters(options, root)
    target = root / "reports" / (Path("gpu") if options.publish == "gpu" else Path("catalogues", options.name))
    if options.publish:  # before hours of work
        catalogue = Path(values["data"]["path"]).name if values["data"]["source"] == "folder" else "synthetic"
        publish.refuse(options.profile, catalogue, target, replace=options.replace)
    _check_place(work, values)
    with faults.in_a_line(f"study {options.name}", work), lock.held(work):
        if not (work / "state.json").is_file():
            _keep(work, {})
        paths.write(work / "params.yaml", text)
        execute(work, options.only)
        if options.publish:
            state = _finished(work)
            publish.publish(options.name, work, options.profile, target, state, replace=options.replace)
            print(f"published: {target.relative_to(root)}")
    return 0


def execute(work: Path, only: list[str]) -> None:
    """Run the stages in `work`, skipping unchanged ones; `only` holds beginnings of names, or nothing."""
    root = paths.root()
    file = work / "params.yaml"
    values = param_file.load(file)
    outside = _outside(values)
    for step in stages.stages(root):
        state = _state(work)
        if only and not any(step.notebook.startswith(o) for o in only):
            continue
        mark, last = _mark(step, values, outside, state, root), state.get(step.notebook, {})
        if last.get("mark") == mark:
            spoilt = [out for out, digest in _outs(step, work).items() if last["outs"].get(out) != digest]
            if not spoilt:
                print(f"{step.notebook}: unchanged, skipped", flush=True)
                continue
            print(f"{step.notebook}: {', '.join(spoilt)}: not as the stage left it", flush=True)
        _keep(work, {k: v for k, v in state.items() if k != step.notebook})
        print(f"{step.notebook}: running", flush=True)
        seconds = stage.execute(step.notebook, file, work, fork=True)
        done = {"mark": mark, "seconds": round(seconds, 1), "outs": _outs(step, work)}
        _keep(work, {**_state(work), step.notebook: done})
        print(f"{step.notebook}: {seconds / 60:.1f} min", flush=True)


def _parameters(options, root: Path) -> tuple[str, dict]:
    """The study's parameter file and its values, validated: no work folder gets any other."""
    buffer = io.StringIO()
    YAML(typ="safe", pure=True).dump(study_params(options, root), buffer)
    with tempfile.TemporaryDirectory() as folder:
        file = paths.write(Path(folder) / "params.yaml", buffer.getvalue())
        return buffer.getvalue(), param_file.load(file)


def _check_place(work: Path, values: dict) -> None:
    if work.exists() and not work.is_dir():
        raise StudyError(f"--work {work}: a folder is expected, this is a file")
    if values["data"]["source"] == "folder" and values["data"]["path"]:
        catalogue = (paths.root() / values["data"]["path"]).resolve()
        if work.is_relative_to(catalogue):
            raise StudyError(f"--work {work} lies in the catalogue {catalogue}; take a folder elsewhere")
    if work.is_dir() and not (work / "state.json").is_file():
        others = sorted(path.name for path in work.iterdir() if path.name not in ("scratch", "lost+found"))
        if others:
            what = f"{others[0]} and {len(others) - 1} more" if len(others) > 1 else others[0]
            raise StudyError(f"--work {work}: expected an empty folder or an earlier study's; it holds {what}")


def _finished(work: Path) -> dict:
    """The state of a study of which every stage is that of its parameters, and as it was. Raises StudyError."""
    root, state, values = paths.root(), _state(work), param_file.load(work / "params.yaml")
    steps, outside = stages.stages(root), _outside(values)
    absent = [step.notebook for step in steps if step.notebook not in state]
    if absent:
        raise StudyError(f"not published: {', '.join(absent)} not run yet")
    for step in steps:
        last = state[step.notebook]
        if last["mark"] != _mark(step, values, outside, state, root) or last["outs"] != _outs(step, work):
            raise StudyError(f"not published: {step.notebook} isn't of these parameters and code; leave out --only")
    return state


def _mark(step: stages.Stage, values: dict, outside: dict, state: dict, root: Path) -> str:
    """What a run of the stage depends on, as one hash: parameters, code, the stages before, what lies outside."""
    code = [dep for dep in step.deps if dep not in paths.ARTEFACTS]
    made = {dep: state.get(paths.ARTEFACTS[dep], {}) for dep in step.deps if dep in paths.ARTEFACTS}
    ingredients = {
        # where the catalogue and the weights lie doesn't count: a folder may move
        "parameters": {section: publish.shortened(values[section]) for section in step.sections},
        "code": {path: _sha256(root / path) for path in code},
        "before": {dep: [last.get("mark"), last.get("outs", {}).get(dep)] for dep, last in made.items()},
        "outside": {section: outside[section] for section in step.sections if section in outside},
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def _outs(step: stages.Stage, work: Path) -> dict:
    """The hash of everything that the stage writes; None for what isn't there."""
    return {out: _sha256(work / out) if (work / out).exists() else None for out in step.outs}


def _outside(values: dict) -> dict:
    """Fingerprints of what lies outside, the catalogue's folder and the weights: by content, dates don't count."""
    data, recommender = values["data"], values["recommender"]
    given = weights.file_of(recommender["extractor"], recommender["pretrained"])
    tastes = weights.file_of(data["taste_extractor"], data["taste_weights"], "data.taste_weights")
    attacks = values["attacks"]
    other = weights.file_of(attacks["other_extractor"], attacks["other_pretrained"], "attacks.other_pretrained")
    folder = paths.root() / Path(data["path"]).expanduser() if data["path"] else None
    files = {"data": [folder, tastes], "recommender": [given], "attacks": [other]}
    named = {section: [path for path in several if path] for section, several in files.items()}
    # what is missing, the stage names
    return {section: [_sha256(p) for p in several if p.exists()] for section, several in named.items() if several}


def _state(work: Path) -> dict:
    """What is known of each notebook's last run; nothing of those of which the file tells no sense."""
    path = work / "state.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        print(f"{path} is damaged: every stage runs again", flush=True)
        return {}
    kinds = {"mark": str, "seconds": (int, float), "outs": dict}
    told = found.items() if isinstance(found, dict) else ()
    return {k: v for k, v in told if isinstance(v, dict) and all(isinstance(v.get(n), t) for n, t in kinds.items())}


def _keep(work: Path, state: dict) -> None:
    paths.write(work / "state.json", json.dumps(state, indent=2, sort_keys=True) + "\n")


def _sha256(path: Path) -> str:
    """Of a file's content, or of a folder's names and contents; the system's hidden files don't count."""
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        seen = (p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts))
        listing = sorted((p.relative_to(path).as_posix(), _sha256(p)) for p in seen)
        return hashlib.sha256(repr(listing).encode()).hexdigest()
    return seal.of_file(path)
