"""The instructor's copies: solutions before their checks, nothing skipped, executed, taken up again."""

import json

import pytest
from conftest import ROOT

from vars_core.pipeline import notebooks, solutions

EXERCISE = ["exercise", "skip-execution"]
STORY = [path for path in notebooks.sources(ROOT) if path.parent.name != notebooks.APPENDIX]
YAML = "stages:\n" + "".join(
    f"  {name[3:]}: {{cmd: python -m vars_core stage {name}, deps: [], params: [], outs: []}}\n"
    for name in ("01_one", "02_two")
)


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", STORY, ids=lambda path: path.stem)
def test_each_solution_stands_between_its_stub_and_its_check(path):
    source, copy = notebooks.read(path), solutions.worked(notebooks.read(path))
    assert sorted(cell.source for cell in copy.cells) == sorted(cell.source for cell in source.cells)
    assert not any(solutions.SKIPPED in notebooks.tags(cell) for cell in copy.cells)
    checks = [
        n for n, cell in enumerate(copy.cells) if "exercise" in notebooks.tags(cell) and "check(" in cell.source
    ]
    checks = [n for n in checks if copy.cells[n].cell_type == "code"]
    assert len(checks) >= 4
    for n in checks:
        assert "solution" in notebooks.tags(copy.cells[n - 1])


@pytest.fixture
def course(project):
    (project.root / "dvc.yaml").write_text(YAML)
    (project.root / "vars_core").mkdir()
    check = ("# check(\nanswer, os.environ['VARS_STAGE']", EXERCISE)
    project("01_one", "import os", ("answer = ...", EXERCISE), check, ("answer = 42", ["solution"]))
    project("02_two", "from vars_core import paths\n(paths.reports() / 'x').write_text('x')\nstr(paths.workspace())")
    return project


def outputs(path):
    return [o.data["text/plain"] for cell in notebooks.read(path).cells for o in cell.get("outputs", [])]


def test_they_are_executed_once_until_something_changes(course, capsys):
    folder = course.root / "a folder"
    assert solutions.main([str(folder)]) == 0
    assert outputs(folder / "01_one.ipynb") == ["(42, '01_one')"]
    assert outputs(folder / "02_two.ipynb") == ["'.'"]  # no path of this machine
    assert (folder / "work" / "reports" / "x").is_file() and not (course.root / "reports").exists()
    assert "01_one: running" in capsys.readouterr().out
    before = (folder / "01_one.ipynb").read_text()
    assert solutions.main([str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == ["01_one: done before", "02_two: done before"]
    (course.root / "vars_core" / "new.py").write_text("x = 1\n")
    assert solutions.main([str(folder), "--only", "01"]) == 0
    assert "01_one: running" in capsys.readouterr().out and (folder / "01_one.ipynb").read_text() == before
    assert set(json.loads((folder / ".done.json").read_text())) == {"01_one", "02_two"}


def test_what_fails_is_named_and_an_earlier_copy_stays(course, capsys):
    folder = course.root / "copies"
    assert solutions.main([str(folder), "--only", "01"]) == 0
    before = (folder / "01_one.ipynb").read_text()
    course("01_one", ("answer = 1 / 0", ["solution"]))
    assert solutions.main([str(folder)]) == 1
    said = capsys.readouterr().err
    assert "01_one: ZeroDivisionError: division by zero" in said and "answer = 1 / 0" in said
    assert (folder / "01_one.ipynb").read_text() == before
    assert solutions.main([str(folder), "--only", "9"]) == 1
    assert "no notebook's name begins so; there are 01_one, 02_two" in capsys.readouterr().err
