"""Run all notebooks on another catalogue or profile, in a work folder of its own; can be taken up again.

    python -m vars_core.study posters --data data/raw/posters --weights squeezenet1_0.safetensors --publish

A stage is skipped when its parameters, notebook, modules and inputs are those of its last run.
"""

import argparse
import hashlib
import io
import json
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vars_core import kernels, params, paths, pipeline, stage, timings


class StudyError(RuntimeError):
    """The study can't be run or published as asked."""


def settings(options: argparse.Namespace, root: Path) -> dict:
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


def run(work: Path, only: list[str]) -> None:
    """Run the stages in `work`, skipping unchanged ones; `only` holds beginnings of names, or nothing."""
    root = paths.root()
    file = work / "params.yaml"
    values = params.load(file)
    given = _given(values)
    with kernels.zygote() as zygote:
        for step in pipeline.stages(root):
            state = _state(work)
            if only and not any(step.notebook.startswith(o) for o in only):
                continue
            mark = _mark(step, values, given, state, root)
            if state.get(step.notebook, {}).get("mark") == mark and _complete(step, work):
                print(f"{step.notebook}: unchanged, skipped", flush=True)
                continue
            _keep(work, {k: v for k, v in state.items() if k != step.notebook})
            print(f"{step.notebook}: running", flush=True)
            seconds = stage.run(step.notebook, step.sections, file, work, zygote)
            _keep(work, {**_state(work), step.notebook: {"mark": mark, "seconds": round(seconds, 1)}})
            profile = timings.profile(values)
            if profile != "own":
                timings.note(paths.scratch() / "timings.json", step.notebook, seconds, profile)
            print(f"{step.notebook}: {seconds / 60:.1f} min", flush=True)


def publish(name: str, work: Path, profile: str, target: Path) -> Path:
    """Copy metrics and tables (CSV: no photo leaves `work`) to `target`, with a run.json; other files stay."""
    root = paths.root()
    values, state = params.load(work / "params.yaml"), _state(work)
    absent = [s.notebook for s in pipeline.stages(root) if s.notebook not in state]
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


def _mark(step: pipeline.Stage, values: dict, given: dict, state: dict, root: Path) -> str:
    notebook = root / "notebooks" / f"{step.notebook}.ipynb"
    files = [notebook, *(root / module for module in pipeline.modules(notebook, root))]
    writers = [paths.WRITER[dep] for dep in step.deps if dep in paths.WRITER]
    ingredients = {
        "parameters": {section: values[section] for section in step.sections},
        "files": {path.name: _sha256(path) for path in files},
        "before": {writer: state.get(writer, {}).get("mark") for writer in writers},
        "given": {section: given[section] for section in step.sections if section in given},
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def _given(values: dict) -> dict:
    """Fingerprints of what lies outside, the catalogue's folder and the weights: by content, dates don't count."""
    given = {}
    if values["data"]["path"]:
        folder = Path(values["data"]["path"])
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        listing = [(p.relative_to(folder).as_posix(), _sha256(p)) for p in files]
        given["data"] = hashlib.sha256(repr(listing).encode()).hexdigest()
    tastes = values["data"]["taste_weights"]
    if tastes and (file := paths.root() / Path(tastes).expanduser()).is_file():  # the stage tells if it's missing
        given["data"] = given.get("data", "") + _sha256(file)
    if isinstance(values["recommender"]["pretrained"], str):
        given["recommender"] = _sha256(Path(values["recommender"]["pretrained"]))
    return given


def _complete(step: pipeline.Stage, work: Path) -> bool:
    return all((work / out).exists() for out in step.outs)


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vars_core.study", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the study, such as posters")
    parser.add_argument("--data", type=Path, help="folder of a catalogue; drawn here by default")
    parser.add_argument("--weights", type=Path, help="safetensors file of the extractor")
    parser.add_argument("--extractor", help="model name; the weights' file name by default")
    parser.add_argument("--profile", default="laptop", help="laptop (default), real, smoke or gpu")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.PARAMETER=VALUE")
    parser.add_argument("--work", type=Path, help="work folder; scratch/studies/NAME by default")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers of notebooks to run")
    parser.add_argument(
        "--publish",
        nargs="?",
        choices=["catalogues", "gpu"],
        const="catalogues",
        help="copy metrics and tables to reports/catalogues/NAME, or to reports/gpu",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    root = paths.root()
    try:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", options.name):
            raise StudyError(f"a study's name has letters, digits, - and _; got {options.name!r}")
        work = (options.work or root / "scratch" / "studies" / options.name).resolve()
        buffer = io.StringIO()
        YAML(typ="safe", pure=True).dump(settings(options, root), buffer)
        paths.write(work / "params.yaml", buffer.getvalue())
        run(work, options.only)
        if options.publish:
            place = Path("gpu") if options.publish == "gpu" else Path("catalogues", options.name)
            published = publish(options.name, work, options.profile, root / "reports" / place)
            print(f"published: {published.relative_to(root)}")
    except (params.ParameterError, StudyError, stage.StageError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
