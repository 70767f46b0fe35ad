"""The stages of dvc.yaml, in order: which notebook each runs, what it reads and what it writes."""

from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vars_core.errors import InputError


@dataclass(frozen=True)
class Stage:
    """One stage: `name` is "attacks", `notebook` is "03_attacks"."""

    name: str
    notebook: str
    sections: list[str]
    deps: list[str]
    outs: dict[str, bool]  # path → whether DVC caches it (and git doesn't hold it)


def stages(root: Path) -> list[Stage]:
    """The stages that root/dvc.yaml declares."""
    found = []
    for name, stage in read(root / "dvc.yaml").get("stages", {}).items():
        outs = {}
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            outs[path] = options.get("cache", True)
        found.append(Stage(name, stage["cmd"].split()[-1], stage["params"], stage["deps"], outs))
    return found


def read(path: Path) -> dict:
    """dvc.yaml or dvc.lock. Raises InputError for a file that is missing or that a merge, say, has broken."""
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except OSError as error:
        raise InputError(f"{path.name}: can't be read ({error.strerror})") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{path.name}{f', line {mark.line + 1}' if mark else ''}: not YAML") from None
    if not isinstance(content, dict):
        raise InputError(f"{path.name}: names expected at the top, found {type(content).__name__}")
    return content
