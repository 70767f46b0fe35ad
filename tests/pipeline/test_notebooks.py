"""Notebooks as files, and the rules the eight follow."""

import ast
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from imports import cells

from vars_core import param_file
from vars_core.pipeline import notebooks, stages

SOURCES = notebooks.sources(ROOT)
STORY = [path for path in SOURCES if path.parent.name != notebooks.APPENDIX]
CLASS = param_file.load(ROOT / "profiles/class.yaml")
each = pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)


def executed():
    v4 = nbformat.v4
    outputs = [
        v4.new_output("stream", name="stdout", text="<object at 0x7f00deadbeef> in /home/me/p/"),
        v4.new_output("stream", name="stderr", text="a warning"),
        v4.new_output("stream", name="stdout", text="reports: /home/me/p/scratch/staging/x/t.csv\n"),
        v4.new_output("display_data", data={notebooks.WIDGET: {"model_id": "1"}, "text/plain": "bar"}),
        v4.new_output("display_data", data={"image/png": "AAAA", "text/plain": "<Figure at 0x7f00deadbeef>"}),
        v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=9),
    ]
    cells = [
        v4.new_markdown_cell("text", metadata={"collapsed": True}),
        v4.new_code_cell(
            "1", execution_count=7, outputs=outputs, metadata={"execution": {"t": "now"}, "tags": ["a"]}
        ),
        v4.new_code_cell("skipped", metadata={"tags": ["skip-execution"]}),
        v4.new_code_cell("seed = 0", execution_count=9, metadata={"tags": ["injected-parameters"]}),
    ]
    return v4.new_notebook(cells=cells, metadata={"papermill": {"start_time": "now"}, "widgets": {"state": {}}})


def test_canonical_keeps_only_what_the_code_says():
    places = {"/home/me/p": ".", "/home/me/p/scratch/staging/x": "reports"}
    found = notebooks.canonical(executed(), places)
    _, cell, skipped, injected = found.cells
    assert (cell.execution_count, skipped.execution_count, injected.execution_count) == (1, None, 2)
    assert cell.outputs[0].text == "<object> in ./reports: reports/t.csv\n"
    assert [o.output_type for o in cell.outputs] == ["stream", "display_data", "execute_result"]
    assert cell.outputs[1].data == {"image/png": "AAAA", "text/plain": "<Figure>"}
    assert cell.outputs[2].execution_count == 1
    assert injected.id == "injected-parameters" and cell.metadata == {"tags": ["a"]}
    assert set(found.metadata) == {"kernelspec", "language_info"}
    text = notebooks.text(found)
    assert "now" not in text and text == notebooks.text(notebooks.canonical(found, places))
    nbformat.validate(found)


def test_strip_in_place_check_and_student_copies(tmp_path, capsys):
    path = tmp_path / "01_x.ipynb"
    notebook = executed()
    notebook.cells.append(nbformat.v4.new_code_cell("answer = 42", metadata={"tags": ["solution"]}))
    nbformat.write(notebook, path)
    assert notebooks.main(["strip", "--check", str(path)]) == 1
    assert "not stripped" in capsys.readouterr().err
    assert notebooks.main(["strip", str(path)]) == 0
    assert notebooks.main(["strip", "--check", str(path)]) == 0
    found = nbformat.read(path, 4)
    assert all(not c.get("outputs") and c.get("execution_count") is None for c in found.cells)
    assert "answer = 42" in path.read_text()
    assert notebooks.main(["student", str(path), "--to", str(tmp_path / "s")]) == 0
    assert "answer = 42" not in (tmp_path / "s/01_x.ipynb").read_text()


def test_copies_to_work_on_are_brought_up_to_date_unless_edited(tmp_path, capsys):
    def write(path, code, output=False):
        cell = nbformat.v4.new_code_cell(code, id="a")
        cell.outputs = [nbformat.v4.new_output("stream", text="seen")] if output else []
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)

    sources, folder = [tmp_path / f"0{n}_x.ipynb" for n in (1, 2, 3)], tmp_path / "lab"
    copies = [folder / path.name for path in sources]

    def lab():
        assert notebooks.main(["lab", *map(str, sources), "--to", str(folder)]) == 0
        return capsys.readouterr().out, [nbformat.read(path, 4).cells[0].source for path in copies]

    for path in sources:
        write(path, "first")
    assert lab() == ("", ["first"] * 3)
    write(copies[0], "first", output=True)  # run, not edited
    write(copies[1], "mine")
    assert lab() == ("", ["first", "mine", "first"]) and "seen" in copies[0].read_text()
    for path in sources:
        write(path, "second")
    said, found = lab()
    assert found == ["second", "mine", "second"]
    assert (
        said
        == f"{copies[1]} was edited and is kept; {sources[1]} has changed since it was copied: move yours to get it\n"
    )
    copies[1].unlink()
    copies[2].write_text("half a noteb")
    (folder / ".copied.json").unlink()
    said, found = notebooks.main(["lab", *map(str, sources), "--to", str(folder)]), capsys.readouterr().out
    assert said == 0 and f"{copies[2]} was edited and is kept" in found and copies[2].read_text() == "half a noteb"
    assert nbformat.read(copies[1], 4).cells[0].source == "second"


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        (
            "notebooks/01_x.ipynb",
            "[a](../README.md) and [b](02_x.ipynb), [c](https://x.org/../y), [d](appendix/A1_x.ipynb)",
            "[a](../../README.md) and [b](02_x.ipynb), [c](https://x.org/../y), [d](A1_x.ipynb)",
        ),
        (
            "notebooks/appendix/A1_x.ipynb",
            "[a](../../README.md) and [b](../02_x.ipynb), [c](https://x.org/../y), [d](A2_x.ipynb)",
            "[a](../../README.md) and [b](02_x.ipynb), [c](https://x.org/../y), [d](A2_x.ipynb)",
        ),
    ],
)
def test_copies_that_lie_together_one_folder_deeper_keep_their_links(path, text, expected):
    source = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("'](../'")]
    )
    copy = notebooks.together(source, Path(path))
    assert copy.cells[0].source == expected
    assert copy.cells[1].source == "'](../'" and source.cells[0].source == text


def test_what_is_no_notebook_is_named(tmp_path, capsys):
    (tmp_path / "a.ipynb").write_text("{")
    assert notebooks.main(["strip", str(tmp_path / "a.ipynb")]) == 1
    assert "a.ipynb is not a notebook" in capsys.readouterr().err


def test_each_has_a_stage_and_its_name():
    declared = {stage.notebook: stage.name for stage in stages.stages(ROOT)}
    assert {path.stem: path.stem.split("_", 1)[1] for path in SOURCES} == declared


@each
def test_no_outputs(path):
    assert path.read_text() == notebooks.text(notebooks.stripped(notebooks.read(path)))


@each
def test_definitions_have_at_most_ten_lines(path):
    for tree in cells(path):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.end_lineno - node.lineno < 10, node.name


@each
def test_the_parameters_cell_holds_the_values_of_a_lesson(path):
    cells = [c for c in notebooks.read(path).cells if "parameters" in notebooks.tags(c)]
    assert len(cells) == 1, "one cell is tagged `parameters`"
    values = {}
    exec(cells[0].source, values)
    stage = next(s for s in stages.stages(ROOT) if s.notebook == path.stem)
    assert notebooks.sections(path) == stage.sections
    for section in stage.sections:
        assert values[section] == CLASS[section], section


@pytest.mark.parametrize("path", STORY, ids=lambda p: p.stem)
def test_at_least_four_exercises_with_solutions(path):
    cells = notebooks.read(path).cells
    exercises = [c for c in cells if "exercise" in notebooks.tags(c)]
    assert sum("Try it" in c.source for c in exercises) >= 4
    assert sum("solution" in notebooks.tags(c) for c in cells) >= 4
    assert all("skip-execution" in notebooks.tags(c) for c in exercises if c.cell_type == "code")


@each
def test_it_opens_and_closes_as_the_others(path):
    cells = notebooks.read(path).cells
    number = path.stem.split("_")[0]
    opening = cells[0].source
    assert opening.startswith(f"# {number.lstrip('0') or 0} · ") and "*Reads*" in opening
    assert "*writes*" in opening and "*takes*" in opening
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    for heading in ("What we found", "References", *(["Try it"] if path in STORY else [])):
        assert heading in text, heading
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    assert "report.answer(" in code and "report.metrics(" in code


@each
def test_what_is_not_the_lesson_is_folded(path):
    """Parameters, imports, figures, long cells, what only writes a sentence, and solutions: the reader opens them."""
    for cell in notebooks.read(path).cells:
        if cell.cell_type != "code" or "exercise" in notebooks.tags(cell):
            continue
        body = ast.parse(cell.source).body
        imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in body)
        lines = [line for line in cell.source.splitlines() if line.strip()]
        machinery = "parameters" in notebooks.tags(cell) or imports or "plots.save(" in cell.source or len(lines) > 20
        only_says = all(ast.unparse(node).startswith(("report.text", "report.answer")) for node in body)
        if machinery or only_says or "solution" in notebooks.tags(cell):
            assert notebooks.FOLDED in notebooks.tags(cell) and cell.metadata.jupyter.source_hidden, cell.source[:80]


@each
def test_no_bare_relative_paths(path):
    calls = [node for tree in cells(path) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in calls:
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        literal = call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
        assert not (literal and name in ("open", "Path", "read_csv", "imread")), (
            f"{name}: use paths.read_from or paths.write_to"
        )


@each
def test_a_story_has_forty_cells_at_most(path):
    cells = [c for c in notebooks.read(path).cells if not {"exercise", "solution"} & set(notebooks.tags(c))]
    assert len(cells) <= 40
