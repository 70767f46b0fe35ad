"""dvc.yaml says what the notebooks import, read and take."""

import shutil

import pytest
from conftest import ROOT

from vars_core import paths, pipeline

STAGES = pipeline.stages(ROOT)
each = pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)


def test_seven_stages_of_one_vocabulary():
    names = ["data", "recommender", "attacks", "reconstruction", "detection", "ablations", "adaptive"]
    assert [s.name for s in STAGES] == names
    assert [s.notebook for s in STAGES] == [f"{n:02d}_{name}" for n, name in enumerate(names, 1)]


@each
def test_deps_and_params_are_the_notebooks(stage):
    deps, sections = pipeline.expected(stage, ROOT)
    assert sorted(stage.deps) == sorted(deps), "run `make deps`"
    assert stage.sections == sections
    assert stage.cmd == pipeline.command(stage.notebook, sections)


@each
def test_outs_are_the_stages_own(stage):
    name = stage.notebook
    reports = {f"reports/notebooks/{name}.ipynb", f"reports/figures/{name}", f"reports/tables/{name}"}
    reports.add(f"reports/metrics/{name}.json")
    cached = {artefact for artefact, writer in paths.WRITER.items() if writer == name}
    assert {o for o, c in stage.outs.items() if not c} == reports
    assert {o for o, c in stage.outs.items() if c} == cached


def test_every_module_exists_and_the_package_itself_holds_no_code():
    for stage in STAGES:
        for dep in stage.deps:
            assert not dep.startswith("vars_core/") or (ROOT / dep).is_file(), dep
    assert (ROOT / "vars_core/__init__.py").read_text().count("\n") == 1  # so it needn't be a dep


def test_imports_are_followed_and_magic_is_skipped(project):
    package = project.root / "vars_core"
    package.mkdir()
    (package / "a.py").write_text("def f():\n    from vars_core import b\n")
    (package / "b.py").write_text("import vars_core.c\n")
    (package / "c.py").write_text("from vars_core.d import x\nfrom vars_core import a\n")
    (package / "d.py").write_text("x = 1\n")
    (package / "e.py").write_text("")
    path = project(
        "03_tiny",
        ("seed = 0\nattacks = dict(steps=1)\nother = 2", ["parameters"]),
        "%pylab\n!ls\nfrom vars_core import a, paths\nx = 5 % 3\npaths.inp('data/prepared/a.json')",
        ("from vars_core import e", ["skip-execution"]),
    )
    assert pipeline.modules(path) == [f"vars_core/{m}.py" for m in "abcd"]
    assert pipeline.artefacts(path) == ["data/prepared"]
    assert pipeline.sections(path) == ["seed", "attacks"]


def test_deps_can_be_fixed_in_place(project):
    shutil.copytree(ROOT / "vars_core", project.root / "vars_core", ignore=shutil.ignore_patterns("__pycache__"))
    (project.root / "dvc.yaml").write_text(
        "# kept\nstages:\n  tiny:\n    cmd: python -m vars_core.stage 03_tiny --params seed\n"
        "    deps: [notebooks/03_tiny.ipynb]\n    params: [seed]\n    outs: [data/attacked]\n"
    )
    project("03_tiny", ("seed = 0\ndata = {}", ["parameters"]), "from vars_core import runtime")
    assert pipeline.fix() == ["tiny"]
    text = (project.root / "dvc.yaml").read_text()
    assert "# kept" in text
    (stage,) = pipeline.stages()
    assert stage.deps == ["notebooks/03_tiny.ipynb", "vars_core/runtime.py"]
    assert stage.cmd.endswith("--params seed data") and stage.sections == ["seed", "data"]
    assert pipeline.fix() == []
