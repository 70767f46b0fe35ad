"""The stages of dvc.yaml, in order: which notebook each runs, what it reads and what it writes."""

from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML


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
    for name, stage in YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"].items():
        outs = {}
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            outs[path] = options.get("cache", True)
        found.append(Stage(name, stage["cmd"].split()[-1], stage["params"], stage["deps"], outs))
    return found
