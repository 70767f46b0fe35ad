"""What each notebook depends on, read from its code, and the same as dvc.yaml states it."""

import ast
import shlex
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from vars_core import notebooks, params, paths


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml: `name` is "attacks", `notebook` is "03_attacks"."""

    name: str
    notebook: str
    cmd: str
    sections: list[str]
    deps: list[str]
    outs: dict[str, bool]  # path → whether DVC caches it (and git doesn't hold it)


def stages(root: Path | None = None) -> list[Stage]:
    """The stages of dvc.yaml, in order."""
    root = root or paths.root()
    found = []
    for name, stage in YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"].items():
        outs = {}
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            outs[path] = options.get("cache", True)
        notebook = shlex.split(stage["cmd"])[3]
        found.append(Stage(name, notebook, stage["cmd"], stage["params"], stage["deps"], outs))
    return found


def code(notebook: Path) -> list[ast.Module]:
    """The cells that run, parsed; lines of IPython magic are left out."""
    trees = []
    for cell in notebooks.read(notebook).cells:
        if cell.cell_type == "code" and "skip-execution" not in notebooks.tags(cell):
            lines = ["" if line.lstrip()[:1] in "%!" and line.strip() else line for line in cell.source.split("\n")]
            trees.append(ast.parse("\n".join(lines)))
    return trees


def modules(notebook: Path, root: Path | None = None) -> list[str]:
    """Files of vars_core that the notebook imports, directly or through others."""
    package = (root or paths.root()) / "vars_core"
    todo, seen = {name for tree in code(notebook) for name in _imported(tree, package)}, set()
    while todo:
        name = todo.pop()
        seen.add(name)
        tree = ast.parse((package / f"{name}.py").read_text(encoding="utf-8"))
        todo |= set(_imported(tree, package)) - seen
    return [f"vars_core/{name}.py" for name in sorted(seen)]


def artefacts(notebook: Path) -> list[str]:
    """Artefacts that the notebook reads: the literals in its calls of `paths.inp`."""
    found = set()
    for tree in code(notebook):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) == "inp" and node.args:
                literal = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
                found |= {a for a in paths.WRITER if literal == a or str(literal).startswith(a + "/")}
    return sorted(found)


def sections(notebook: Path) -> list[str]:
    """Sections that the notebook takes: the names its `parameters` cell sets."""
    for cell in notebooks.read(notebook).cells:
        if "parameters" in notebooks.tags(cell):
            targets = [
                t for node in ast.parse(cell.source).body if isinstance(node, ast.Assign) for t in node.targets
            ]
            return [t.id for t in targets if isinstance(t, ast.Name) and t.id in params.Study.model_fields]
    return []


def expected(stage: Stage, root: Path | None = None) -> tuple[list[str], list[str]]:
    """Deps and sections of the stage, as its notebook has them. Artefacts that dvc.yaml adds are kept."""
    root = root or paths.root()
    notebook = root / "notebooks" / f"{stage.notebook}.ipynb"
    read = {*artefacts(notebook), *(d for d in stage.deps if d in paths.WRITER)}
    order = [a for a in paths.WRITER if a in read]
    return [f"notebooks/{stage.notebook}.ipynb", *modules(notebook, root), *order], sections(notebook)


def fix(root: Path | None = None) -> list[str]:
    """Bring deps, params and commands of dvc.yaml in line with the notebooks; returns the changed stages."""
    root = root or paths.root()
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 200
    document = yaml.load(root / "dvc.yaml")
    changed = []
    for stage in stages(root):
        if not (root / "notebooks" / f"{stage.notebook}.ipynb").is_file():
            continue
        deps, wanted = expected(stage, root)
        cmd = command(stage.notebook, wanted)
        if (deps, wanted, cmd) == (stage.deps, stage.sections, stage.cmd):
            continue
        entry: CommentedMap = document["stages"][stage.name]
        entry["deps"], entry["params"], entry["cmd"] = deps, wanted, cmd
        changed.append(stage.name)
    if changed:
        with (root / "dvc.yaml").open("w", encoding="utf-8") as file:
            yaml.dump(document, file)
    return changed


def command(notebook: str, wanted: list[str]) -> str:
    return f"python -m vars_core.stage {notebook} --params {' '.join(wanted)}"


def _imported(tree: ast.AST, package: Path) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [a.name.split(".")[1] for a in node.names if a.name.startswith("vars_core.")]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 1:
                module = f"vars_core.{module}".rstrip(".")
            if module == "vars_core":
                names += [a.name for a in node.names]
            elif module.startswith("vars_core."):
                names.append(module.split(".")[1])
    return [name for name in names if (package / f"{name}.py").is_file()]


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
