"""Copy the results of a finished study to where git holds them: `vars study NAME --publish`."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from vars_core import param_file, paths, seal, weights
from vars_core.pipeline import timings
from vars_core.pipeline.request import StudyError

NEVER = ("smoke",)  # profiles that show that notebooks run: their numbers mean nothing
GIVEN = ("data.source", "data.path", "recommender.pretrained", "recommender.extractor")  # by options of their own


def refuse(profile: str, catalogue: str, target: Path, *, replace: bool, fingerprint: str | None = None) -> None:
    """Raises StudyError when results may not go to `target`: those of a profile without meaning, or over those of
    another catalogue or profile unless `replace`. Without a `fingerprint` yet, names decide."""
    if profile in NEVER:
        raise StudyError(f"not published: the numbers of profile {profile} mean nothing; take another --profile")
    file = target / "run.json"
    if replace or not file.is_file():
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
        there = {name: there.get(name) for name in ("catalogue", "profile", "fingerprint")}
    except (ValueError, AttributeError):
        raise StudyError(f"not published: {file} is damaged; restore it, or say --replace") from None
    new = {"catalogue": catalogue, "profile": profile, "fingerprint": fingerprint}
    for name, value in new.items():
        if value and there[name] and value != there[name]:
            what = f"{name} {there[name]}, not of {value}"
            raise StudyError(f"not published: {target} holds results of {what}; say --replace, or take another name")


def publish(name: str, work: Path, profile: str, target: Path, state: dict, *, replace: bool) -> Path:
    """Copy metrics and tables (CSV: no photo leaves `work`) to `target`, with a run.json; other files stay.

    All of it is replaced, or nothing. Raises StudyError as `refuse` does.
    """
    values = param_file.load(work / "params.yaml")
    meta = json.loads((work / "data" / "prepared" / "meta.json").read_text(encoding="utf-8"))
    catalogue = Path(str(meta.get("name") or name)).name
    refuse(profile, catalogue, target, replace=replace, fingerprint=meta.get("fingerprint"))
    given = weights.file_of(values["recommender"]["extractor"], values["recommender"]["pretrained"])
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "catalogue": catalogue,
        "fingerprint": meta.get("fingerprint"),
        "simulated": bool(meta.get("simulated")),
        "profile": profile,
        "changed": changed(param_file.read(paths.root() / "profiles" / f"{profile}.yaml"), values),
        "parameters": shortened(values),
        "machine": timings.machine(),
        "minutes": {k: round(v["seconds"] / 60, 2) for k, v in sorted(state.items())},
    }
    if given:
        content["weights"] = {"file": given.name, "sha256": seal.of_file(given)}
    beside = work / "scratch" / "published"
    shutil.rmtree(beside, ignore_errors=True)
    pairs = []
    for kind, pattern in {"metrics": "*.json", "tables": "*/*.csv"}.items():
        (beside / kind).mkdir(parents=True)
        for path in sorted((work / "reports" / kind).glob(pattern)):
            copy = beside / path.relative_to(work / "reports")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        pairs.append((beside / kind, target / kind))
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    pairs.append((paths.write(beside / "run.json", text), target / "run.json"))
    paths.replace_all(pairs)
    shutil.rmtree(beside, ignore_errors=True)
    return target


def changed(profile: dict, values: dict) -> dict:
    """Parameters that aren't the profile's, by section.parameter; what options of their own give is left out."""
    before, after = _flat(profile), _flat(values)
    return {name: shortened(after[name]) for name in after if name not in GIVEN and before.get(name) != after[name]}


def shortened(values):
    """Parameters with the names of files and folders in place of their paths."""
    if isinstance(values, dict):
        return {key: shortened(value) for key, value in values.items()}
    return Path(values).name if isinstance(values, str) and "/" in values else values


def _flat(values: dict) -> dict:
    sections = {name: value for name, value in values.items() if isinstance(value, dict)}
    flat = {f"{section}.{name}": value for section, content in sections.items() for name, value in content.items()}
    return {name: value for name, value in values.items() if name not in sections} | flat
