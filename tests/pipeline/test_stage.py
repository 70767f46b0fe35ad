"""The stage runner, on throwaway notebooks."""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

from vars_core import params
from vars_core.__main__ import main

PARAMETERS = ("seed = 1", ["parameters"])
METRICS = """
import sys, warnings
from vars_core import paths, report
warnings.warn("once")
print("quiet", file=sys.stderr)
print(object(), paths.root(), {"a", "b", "c", "d"})
report.metrics("03_tiny", {"a": seed})
"""
FIGURE = """
import matplotlib.pyplot as plt
from vars_core import plots
fig, ax = plt.subplots()
ax.plot([0, 1])
plots.save(fig, "03_tiny/line", "A line")
"""
TABLE = """
import pandas as pd
report.table(pd.DataFrame({"a": [1, 2], "b": [0.1, None]}), "03_tiny/t", "A table")
"""


@pytest.fixture
def tiny(project):
    (project.root / "params.yaml").write_text("seed: 3\n")

    def run():
        return main(["stage", "03_tiny"])

    run.add, run.root = project, project.root
    return run


def content(root):
    return {p.relative_to(root): p.read_bytes() for p in (root / "reports").rglob("*") if p.is_file()}


def test_a_stage_writes_the_same_bytes_twice_and_nothing_of_the_machine(tiny):
    tiny.add("03_tiny", PARAMETERS, METRICS, FIGURE + TABLE, "{'x', 'y'}, object()")
    assert tiny() == 0
    first = content(tiny.root)
    assert tiny() == 0
    assert content(tiny.root) == first
    text = (tiny.root / "reports/notebooks/03_tiny.ipynb").read_text()
    assert json.loads((tiny.root / "reports/metrics/03_tiny.json").read_text()) == {"a": 3}
    for unwanted in (
        str(tiny.root),
        " at 0x",
        "start_time",
        "duration",
        "stderr",
        "warn(",
        "execution_timings",
    ):
        assert unwanted not in text.replace('warnings.warn(\\"once\\")', "").replace("sys.stderr", ""), unwanted
    counts = [c.execution_count for c in nbformat.reads(text, 4).cells]
    assert counts == [1, 2, 3, 4, 5]
    assert "03_tiny" in (tiny.root / "scratch/timings.json").read_text()


def test_the_kernel_is_this_interpreter_in_the_root(tiny):
    tiny.add(
        "03_tiny",
        PARAMETERS,
        f"import sys, os\nassert sys.executable == {sys.executable!r}, sys.executable",
        f"assert os.getcwd() == {str(tiny.root)!r} == os.environ['VARS_WORKSPACE']",
        "assert os.environ['PYTHONHASHSEED'] == '0' and os.environ['VARS_QUIET']",
    )
    assert tiny() == 0


def test_cells_tagged_skip_execution_do_not_run(tiny):
    tiny.add("03_tiny", PARAMETERS, ("1 / 0", ["exercise", "skip-execution"]), "seed")
    assert tiny() == 0
    cells = nbformat.read(tiny.root / "reports/notebooks/03_tiny.ipynb", 4).cells
    assert [c.execution_count for c in cells] == [1, 2, None, 3]
    assert cells[2].outputs == [] and cells[3].outputs[0].execution_count == 3


def test_a_failed_stage_leaves_the_old_reports_and_says_the_way_back(tiny, capsys):
    tiny.add("03_tiny", PARAMETERS, METRICS, TABLE)
    assert tiny() == 0
    before = content(tiny.root)
    tiny.add("03_tiny", PARAMETERS, METRICS.replace("seed}", "seed + 1}"), "raise RuntimeError('out of luck')")
    assert tiny() == 1
    assert content(tiny.root) == before
    said = capsys.readouterr().err
    assert "out of luck" in said and "03_tiny failed" in said
    assert "Way back:" in said and "dvc repro tiny" in said
    assert "\x1b" not in said
    assert "out of luck" in (tiny.root / "scratch/failed/03_tiny.ipynb").read_text()


def test_files_of_an_earlier_run_vanish(tiny):
    tiny.add("03_tiny", PARAMETERS, METRICS, TABLE)
    assert tiny() == 0
    assert (tiny.root / "reports/tables/03_tiny/t.csv").is_file()
    tiny.add("03_tiny", PARAMETERS, METRICS)
    assert tiny() == 0
    assert not (tiny.root / "reports/tables/03_tiny/t.csv").exists()
    assert not list((tiny.root / "reports").rglob(".*"))


def test_reports_under_another_name_are_refused(tiny, capsys):
    tiny.add("03_tiny", PARAMETERS, METRICS.replace("03_tiny", "04_other"))
    assert tiny() == 1
    assert "reports/metrics/04_other.json" in capsys.readouterr().err
    assert not (tiny.root / "reports").exists()


def test_a_wrong_parameter_stops_before_anything_is_touched(tiny, capsys):
    tiny.add("03_tiny", ("seed = 1\nattacks = dict()", ["parameters"]), METRICS)
    (tiny.root / "params.yaml").write_text("seed: 0\nattacks: {epsilons: [0, 300], hoks: 3}\n")
    assert tiny() == 1
    said = capsys.readouterr().err
    assert "ε in 8-bit steps, 1 to 255; got 0" in said and "got 300" in said
    assert "attacks.hoks: unknown parameter; did you mean hooks?" in said
    assert not (tiny.root / "scratch").exists()


def test_a_missing_notebook_is_named(tiny, capsys):
    assert tiny() == 1
    assert "notebooks/03_tiny.ipynb is missing" in capsys.readouterr().err


def test_numbers_reach_the_notebook_as_numbers(tiny):
    values = params.read(ROOT / "profiles/smoke.yaml")
    assert values["recommender"]["learning_rate"] == 5e-3
    (tiny.root / "params.yaml").write_text((ROOT / "profiles/smoke.yaml").read_text())
    got = "(recommender['learning_rate'], recommender['pretrained'], data['path'])"
    tiny.add(
        "03_tiny", ("recommender = dict()\ndata = dict()", ["parameters"]), f"assert {got} == (5e-3, False, None)"
    )
    assert tiny() == 0


def test_run_all_in_jupyterlab_writes_to_scratch(tiny):
    tiny.add("03_tiny", PARAMETERS, METRICS, TABLE)
    assert tiny() == 0
    before = content(tiny.root)
    code = "\n".join(["seed = 9", METRICS, TABLE, "paths.write_to('models/filter')"])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VARS_")} | {"VARS_ROOT": str(tiny.root)}
    environment |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, check=True, cwd=tiny.root / "notebooks", env=environment, capture_output=True)
    assert content(tiny.root) == before
    assert json.loads((tiny.root / "scratch/reports/metrics/03_tiny.json").read_text()) == {"a": 9}
    assert (tiny.root / "scratch/models/filter").is_dir() and not (tiny.root / "models").exists()
