"""The package is a tower of rooms: what may import what, what dvc.yaml depends on, and names that no longer exist."""

import ast
import re

import pytest
from conftest import ROOT
from imports import BESIDE, PACKAGE, ROOMS, cells, imported, modules, reached, room

from vars_core import params, paths
from vars_core.pipeline import notebooks, stages

TREES = modules()
IMPORTS = {name: imported(tree, TREES) - {"vars_core", name} for name, tree in TREES.items()}
STAGES = stages.stages(ROOT)
each = pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)


def upward(name: str, other: str) -> bool:
    """Whether the import of `other` in `name` leads out of the tower's order."""
    here, there = room(name), room(other)
    if name == "vars_core.__main__":  # the commands stand above everything
        return False
    if here in BESIDE or there in BESIDE:
        return here not in BESIDE or there not in (here, "")
    return there != here and there != "" and (here == "" or ROOMS.index(there) > ROOMS.index(here))


def test_every_module_stands_in_a_room_or_at_the_top():
    assert {room(name) for name in TREES} == {"", *BESIDE, *ROOMS}


def test_no_import_runs_upward_or_into_the_pipeline():
    wrong = [f"{name} imports {other}" for name, found in IMPORTS.items() for other in found if upward(name, other)]
    assert not wrong, wrong


def test_no_import_runs_in_a_circle():
    for name, found in IMPORTS.items():
        assert name not in reached(found, TREES), f"{name} imports itself through others"


@pytest.mark.parametrize(
    ("name", "other", "wrong"),
    [
        ("vars_core.data.split", "vars_core.recommender.bpr", True),
        ("vars_core.recommender.bpr", "vars_core.data.split", False),
        ("vars_core.stats", "vars_core.data.split", True),
        ("vars_core.data.split", "vars_core.pipeline.stage", True),
        ("vars_core.pipeline.stage", "vars_core.data.split", True),
        ("vars_core.pipeline.stage", "vars_core.params", False),
        ("vars_core.__main__", "vars_core.pipeline.stage", False),
        ("vars_core.exercises.checks", "vars_core.report", False),
        ("vars_core.exercises.checks", "vars_core.data.split", True),
        ("vars_core.data.split", "vars_core.exercises.checks", True),
        ("vars_core.exercises.checks", "vars_core.pipeline.stage", True),
    ],
)
def test_the_order_is_judged_right(name, other, wrong):
    assert upward(name, other) == wrong


def test_imports_are_seen_wherever_they_stand():
    code = "def f():\n    from vars_core.attacks import engine, nothing\n"
    code += "import vars_core.stats as s\nfrom vars_core import paths"
    known = {"vars_core", "vars_core.attacks", "vars_core.attacks.engine", "vars_core.stats", "vars_core.paths"}
    assert imported(ast.parse(code), known) == known - {"vars_core"}


def test_a_rooms_page_says_what_is_in_it_and_imports_nothing():
    for name in (*ROOMS, *BESIDE):
        tree = TREES[f"vars_core.{name}"]
        assert len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr), f"{name}/__init__.py is a docstring"
        text = ast.get_docstring(tree)
        missing = [p.stem for p in (PACKAGE / name).glob("[!_]*.py") if not re.search(rf"^ *{p.stem} ", text, re.M)]
        assert not missing, f"{name}/__init__.py doesn't list {missing}"
        listed = re.findall(r"^    (\w+) {2,}\S", text, re.M)
        assert sorted(listed) == sorted(p.stem for p in (PACKAGE / name).glob("[!_]*.py")), name


def test_files_are_short_but_for_drawing_data():
    long = {p.name for p in PACKAGE.rglob("*.py") if p.read_text(encoding="utf-8").count("\n") > 300}
    assert long <= {"silhouettes.py"}


# dvc.yaml


def test_stages_of_one_vocabulary():
    names = ["data", "recommender", "attacks", "reconstruction", "detection", "ablations", "adaptive", "certificate"]
    story = [f"{n:02d}_{name}" for n, name in enumerate(names, 1)]
    # the first notebook to read needs the models of others; side studies follow the story
    assert [s.notebook for s in STAGES] == [*story, "00_one_photo", "A3_attacks_more", "A5_detection_more"]
    assert all(s.name == s.notebook.split("_", 1)[1] for s in STAGES)
    assert set(ROOMS) == set(names) - {"ablations", "certificate"}  # which own no module


@each
def test_a_stage_depends_on_the_rooms_that_its_notebook_stands_on(stage):
    source = notebooks.source(ROOT, stage.notebook)
    parsed = cells(source)
    found = reached(set().union(*(imported(tree, TREES) for tree in parsed)), TREES) - {"vars_core"}
    rooms = {f"vars_core/{room(name)}" for name in found if room(name)}
    top = {name.replace(".", "/") + ".py" for name in found if not room(name)}
    read = {a for tree in parsed for a in artefacts(tree)}
    own = {dep for dep in stage.deps if dep not in paths.ARTEFACTS}
    assert own == {source.relative_to(ROOT).as_posix()} | rooms | top
    assert read <= set(stage.deps)


@each
def test_a_stage_takes_the_parameters_of_its_notebook(stage):
    assert stage.sections == notebooks.sections(notebooks.source(ROOT, stage.notebook))


@each
def test_a_stages_outs_are_its_own(stage):
    name = stage.notebook
    reports = {f"reports/notebooks/{name}.ipynb", f"reports/figures/{name}", f"reports/tables/{name}"}
    reports.add(f"reports/metrics/{name}.json")
    cached = {artefact for artefact, writer in paths.ARTEFACTS.items() if writer == name}
    assert {o for o, c in stage.outs.items() if not c} == reports
    assert {o for o, c in stage.outs.items() if c} == cached


def artefacts(tree: ast.Module) -> set[str]:
    """The artefacts that the code reads: the literals in its calls of `read_from`."""
    readers = ("paths.read_from", "pretrained.read_from")
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) in readers]
    names = [str(call.args[0].value) for call in calls if call.args and isinstance(call.args[0], ast.Constant)]
    return {a for a in paths.ARTEFACTS for name in names if name == a or name.startswith(a + "/")}


# names


def texts():
    """What people read: pages, notebooks, docstrings and comments, by file."""
    files = [
        *ROOT.glob("*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("notebooks/**/*.ipynb"),
        *PACKAGE.rglob("*.py"),
    ]
    files += [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("tests/**/*.py"), ROOT / "Makefile", ROOT / "dvc.yaml"]
    files.remove(ROOT / "tests" / "test_tower.py")  # it names what isn't there
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}


def defined(tree: ast.Module) -> set[str]:
    """Names that a module gives: of functions, classes, their methods and fields, constants."""
    names = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    bodies = [tree.body, *(n.body for n in ast.walk(tree) if isinstance(n, ast.ClassDef))]
    lines = [n for body in bodies for n in body if isinstance(n, ast.Assign | ast.AnnAssign)]
    targets = [t for n in lines for t in (n.targets if isinstance(n, ast.Assign) else [n.target])]
    return names | {t.id for t in targets if isinstance(t, ast.Name)}


def test_no_path_of_a_module_dangles():
    wrong = []
    for file, text in texts().items():
        for found in re.finditer(r"\bvars_core(?:[./]\w+)+", text):
            parts = re.split(r"[./]", found[0].removesuffix(".py"))
            names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            module = next(name for name in names if name in TREES)
            rest = parts[module.count(".") + 1 :]
            if rest and rest[0] not in defined(TREES[module]) and not (ROOT / found[0]).exists():
                wrong.append(f"{file}: {found[0]}")
    assert not wrong, wrong


def test_no_path_of_a_test_dangles():
    mentioned = {(f, found) for f, text in texts().items() for found in re.findall(r"\btests/[\w/]+\.py", text)}
    assert not [pair for pair in mentioned if not (ROOT / pair[1]).is_file()]


def test_every_row_of_the_table_of_faults_has_its_test():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith(("| fault", "| ---"))]
    named = [re.findall(r"`(tests/[\w/]+\.(?:py|sh))(?:::(\w+))?`", row.split(" | ")[-1]) for row in rows]
    assert len(rows) > 50 and all(named), [row for row, tests in zip(rows, named, strict=True) if not tests]
    for file, test in (pair for tests in named for pair in tests):
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_no_name_in_a_docstring_dangles():
    """`module.name` in backticks is a name that the module gives, `room.name` a module or a parameter."""
    short = {name.split(".")[-1]: name for name in TREES if name.count(".") and room(name) != name.split(".")[-1]}
    endings = {"py", "yaml", "json", "csv", "npy", "ipynb"}
    given = {word: defined(TREES[name]) for word, name in short.items()}
    for name in (folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()):
        section = params.Study.model_fields.get(name)
        given[name] = {path.stem for path in (PACKAGE / name).glob("*.py")}
        given[name] |= set(section.annotation.model_fields) if section else set()
    wrong = []
    for file, text in texts().items():
        for word, name in re.findall(r"`(\w+)\.([A-Za-z_]\w*)", text):
            if word in given and name not in given[word] | endings:
                wrong.append(f"{file}: {word}.{name}")
    assert not wrong, wrong
