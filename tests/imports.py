"""What imports what: read from the code, nothing is run."""

import ast

from conftest import ROOT

from vars_core.pipeline import notebooks

PACKAGE = ROOT / "vars_core"
# the tower, lowest first; what stands at the top of the package is below all rooms, the commands are above them
ROOMS = ("data", "recommender", "attacks", "reconstruction", "detection", "adaptive")
BESIDE = ("pipeline", "exercises")  # the tower: they know the modules at the top of the package, no room knows them


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name, parsed."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.AST, known) -> set[str]:
    """The `known` modules that the code imports, anywhere in it. Raises AssertionError for a relative import."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in inside}
    return names & set(known)


def reached(start: set[str], trees: dict[str, ast.Module]) -> set[str]:
    """The modules that those of `start` import, directly or through others."""
    todo, seen = set(start), set()
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= imported(trees[name], trees) - seen
    return seen


def cells(notebook) -> list[ast.Module]:
    """The notebook's cells that run, parsed; lines of IPython magic are left out."""
    parsed = []
    for cell in notebooks.read(notebook).cells:
        if cell.cell_type == "code" and "skip-execution" not in notebooks.tags(cell):
            lines = ["" if line.lstrip()[:1] in ("%", "!") else line for line in cell.source.split("\n")]
            parsed.append(ast.parse("\n".join(lines)))
    return parsed


def room(module: str) -> str:
    """ "attacks" of vars_core.attacks.engine; "" of a module at the top of the package."""
    return module.split(".")[1] if module.count(".") > 1 or module.split(".")[-1] in (*ROOMS, *BESIDE) else ""
