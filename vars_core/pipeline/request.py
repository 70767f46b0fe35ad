"""What a study is asked to compute: a profile with the catalogue, the weights and every `--set` put in."""

import os
from pathlib import Path

from vars_core import param_file, plain_yaml
from vars_core.errors import InputError


class StudyError(InputError, RuntimeError):
    """The study can't be run or published as asked."""


def study_params(options, root: Path) -> dict:
    """The profile's values with the catalogue, the weights and every --set put in. What the command line names wins
    over the environment's VARS_DATA, and that over the profile. Raises StudyError, also for what is named twice."""
    profile = root / "profiles" / f"{options.profile}.yaml"
    if Path(options.profile).name != options.profile or not profile.is_file():
        known = ", ".join(sorted(p.stem for p in profile.parent.glob("*.yaml")))
        raise StudyError(f"no profile is called {options.profile}; known: {known}")
    values, named = param_file.read(profile), {}
    if options.data:
        if not options.data.expanduser().is_dir():
            raise StudyError(f"--data {options.data}: no such folder")
        values["data"] |= {"source": "folder", "path": str(options.data.expanduser().resolve())}
        named |= dict.fromkeys(("data.source", "data.path"), f"--data {options.data}")
    if options.weights:
        if not options.weights.expanduser().is_file():
            raise StudyError(f"--weights {options.weights}: no such file")
        values["recommender"] |= {
            "pretrained": str(options.weights.expanduser().resolve()),
            "extractor": options.weights.stem,  # unless --extractor or --set says otherwise
        }
        named["recommender.pretrained"] = f"--weights {options.weights}"
    if options.extractor:
        values["recommender"]["extractor"] = options.extractor
        named["recommender.extractor"] = f"--extractor {options.extractor}"
    for change in options.set:
        place, value = _change(change, values)
        if place in named:
            raise StudyError(f"--set {_short(change)} and {named[place]} both name {place}; give one of them")
        named[place] = f"--set {_short(change)}"
        *section, key = place.split(".")
        (values[section[0]] if section else values)[key] = value
    _from_environment(values, named)
    try:
        "".join(_texts(values)).encode()
    except UnicodeEncodeError:
        raise StudyError("a parameter or path holds bytes that are not UTF-8; rename the file or folder") from None
    return values


def _from_environment(values: dict, named: dict) -> None:
    folder, data = os.environ.get("VARS_DATA"), values.get("data")
    if not folder or not isinstance(data, dict) or data.get("source") != "folder":
        return
    if "data.path" in named:
        print(f"VARS_DATA={folder} doesn't count: {named['data.path']} names the catalogue", flush=True)
    elif not Path(folder).expanduser().is_dir():
        raise StudyError(f"VARS_DATA={folder}: no such folder; unset it, or give --data")
    else:
        data["path"] = str(Path(folder).expanduser().resolve())
        print(f"catalogue: {data['path']}, which VARS_DATA names", flush=True)


def _change(change: str, values: dict) -> tuple[str, object]:
    place, equals, text = change.partition("=")
    *section, key = place.split(".")
    known = not section or (len(section) == 1 and isinstance(values.get(section[0]), dict))
    if not equals or not key or not known:
        raise StudyError(f"--set {_short(change)}: expected section.parameter=value, such as attacks.steps=5")
    try:
        return place, plain_yaml.parse(text)
    except ValueError as error:
        raise StudyError(f"--set {_short(change)}: not a value that a parameter takes: {error}") from None


def _texts(values) -> list[str]:
    inside = [*values.keys(), *values.values()] if isinstance(values, dict) else values
    if isinstance(values, dict | list):
        return [text for value in inside for text in _texts(value)]
    return [values] if isinstance(values, str) else []


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
