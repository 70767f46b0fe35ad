"""The stage runner, on throwaway notebooks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT

from vars_core import param_file, paths, seal
from vars_core.__main__ import main
from vars_core.pipeline import faults, lock, stage

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
    values = param_file.read(ROOT / "profiles/smoke.yaml")
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


# faults

WRITE = """
from vars_core import paths
paths.write(paths.write_to("models/filter") / "net", f"seed {seed}")
"""
READ = """
from vars_core import paths
paths.read_from("models/filter")
"""


def artefacts(root):
    return {p.name: p.read_text() for p in (root / "models/filter").rglob("*") if p.is_file()}


def test_artefacts_are_sealed_and_a_failed_stage_leaves_them(tiny, capsys):
    tiny.add("04_reconstruction", PARAMETERS, WRITE)
    assert main(["stage", "04_reconstruction"]) == 0
    made = artefacts(tiny.root)
    assert (
        made["net"] == "seed 3"
        and set(made) == {"net", seal.NAME}
        and seal.fault(tiny.root / "models/filter") is None
    )
    tiny.add("04_reconstruction", PARAMETERS, WRITE.replace("seed {", "{"), "from vars_core.errors import InputError",
             "raise InputError('shop/items.csv, row 3: a photo is expected')")  # fmt: skip
    assert main(["stage", "04_reconstruction"]) == 1
    assert artefacts(tiny.root) == made
    line = "04_reconstruction, cell 5: shop/items.csv, row 3: a photo is expected\n"
    assert capsys.readouterr().err == line  # an InputError says all in its line
    assert not (tiny.root / "scratch/staging/04_reconstruction").exists()


def test_a_flipped_bit_stops_the_next_stage_in_a_line(tiny, capsys):
    tiny.add("05_detection", PARAMETERS, READ)
    (tiny.root / "models/filter").mkdir(parents=True)
    (tiny.root / "models/filter/net").write_bytes(b"\x00")
    seal.put(tiny.root / "models/filter")
    (tiny.root / "models/filter/net").write_bytes(b"\x01")
    assert main(["stage", "05_detection"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("05_detection, cell 3: models/filter/net is damaged") and said.count("\n") == 1


def test_a_killed_kernel_is_a_line(tiny, capsys):
    tiny.add("03_tiny", PARAMETERS, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert tiny() == 1
    said = capsys.readouterr().err
    assert said.startswith("03_tiny: its kernel died (killed by signal 9, SIGKILL: usually because memory ran out); ")
    assert said.count("\n") == 1 and "reports are as they were" in said and "dvc repro tiny" in said


def test_a_full_disk_is_a_line(tiny, capsys):
    tiny.add("03_tiny", PARAMETERS, "raise OSError(28, 'No space left on device', 'photos.npy')")
    assert tiny() == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "03_tiny failed, no space left: OSError: [Errno 28] No space left on device: 'photos.npy' ("
    )
    assert said.count("\n") == 1 and "MB free on the disk of" in said and "make room" in said


def test_reports_that_cannot_be_written_stop_a_stage_before_it_runs(tiny, capsys, monkeypatch):
    monkeypatch.setattr(stage, "_execute", lambda *_, **__: pytest.fail("it ran"))
    tiny.add("03_tiny", PARAMETERS, METRICS)
    (tiny.root / "reports").write_text("a file")
    assert tiny() == 1
    assert capsys.readouterr().err == f"03_tiny not run: {tiny.root}/reports: not a folder\n"
    (tiny.root / "reports").unlink()

    def read_only(dir):
        raise OSError(30, "Read-only file system", f"{dir}/tmp123")

    monkeypatch.setattr(faults.tempfile, "TemporaryFile", read_only)
    assert tiny() == 1
    assert capsys.readouterr().err == f"03_tiny not run: {tiny.root}: Read-only file system\n"


def test_reports_that_can_no_longer_be_written_stay_as_they_were(tiny, capsys, monkeypatch):
    tiny.add("03_tiny", PARAMETERS, METRICS)

    def executed(name, source, values, staging, workspace, fork):
        nbformat.write(nbformat.read(source, 4), staging / "running.ipynb")
        paths.write(staging / "reports/metrics/03_tiny.json", "{}")

    monkeypatch.setattr(stage, "_execute", executed)
    assert tiny() == 0
    before = content(tiny.root)
    monkeypatch.setattr(
        paths.shutil, "move", lambda *_: (_ for _ in ()).throw(OSError(122, "Disk quota exceeded", "x"))
    )
    assert tiny() == 1
    assert content(tiny.root) == before
    said = capsys.readouterr().err
    assert said.startswith("03_tiny failed: x: no space left (") and said.count("\n") == 1


def test_a_second_run_in_the_folder_is_refused(tiny, capsys, monkeypatch):
    monkeypatch.setattr(stage, "_execute", lambda *_, **__: pytest.fail("it ran"))
    tiny.add("03_tiny", PARAMETERS, METRICS)
    with lock.held(tiny.root):
        assert tiny() == 1
    assert capsys.readouterr().err == (
        f"{tiny.root}: another run (process {os.getpid()}) works here; wait for it, or end it\n"
    )


def test_what_is_left_in_the_environment_does_not_lead_a_stage_astray(tiny, monkeypatch, tmp_path):
    for name in ("VARS_WORKSPACE", "VARS_REPORTS", "VARS_ARTEFACTS"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    tiny.add("04_reconstruction", PARAMETERS, WRITE, METRICS.replace("03_tiny", "04_reconstruction"))
    assert main(["stage", "04_reconstruction"]) == 0
    assert (
        artefacts(tiny.root)["net"] == "seed 3" and (tiny.root / "reports/metrics/04_reconstruction.json").is_file()
    )
    assert not (tmp_path / "elsewhere").exists()


SLEEP = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(100)"


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_stage_that_is_ended_takes_its_kernel_along(tiny, number):
    tiny.add("03_tiny", PARAMETERS, SLEEP)
    (tiny.root / "reports").mkdir()
    (tiny.root / "reports/kept").write_text("")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "vars_core", "stage", "03_tiny"]
    run = subprocess.Popen(
        command, cwd=tiny.root, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    pid = tiny.root / "pid"
    until(lambda: pid.is_file() and pid.read_text())
    run.send_signal(number)
    said = run.communicate()[1]
    until(lambda: gone(int(pid.read_text())))
    if number != signal.SIGKILL:
        assert run.returncode == 130 and said.startswith("stopped; ") and said.count("\n") == 1
    assert list(content(tiny.root)) == [Path("reports/kept")]
    with lock.held(tiny.root):  # the lock went with the process
        pass


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_stage_ends_with_the_dvc_that_runs_it(tiny):
    tiny.add("03_tiny", PARAMETERS, SLEEP)
    code = """
import subprocess, sys
subprocess.run([sys.executable, "-m", "vars_core", "stage", "03_tiny"])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_STAGE": "tiny"}
    dvc = subprocess.Popen([sys.executable, "-c", code], cwd=tiny.root, env=environment, stderr=subprocess.DEVNULL)
    pid = tiny.root / "pid"
    until(lambda: pid.is_file() and pid.read_text())
    run = psutil.Process(dvc.pid).children()[0].pid
    dvc.kill()
    dvc.wait()
    until(lambda: gone(run) and gone(int(pid.read_text())))


def test_deaths_say_what_usually_is_behind_them():
    assert faults.death(-9) == " (killed by signal 9, SIGKILL: usually because memory ran out)"
    assert faults.death(-7) == " (killed by signal 7, SIGBUS: usually because the disk is full)"
    assert faults.death(-11) == " (killed by signal 11, SIGSEGV)" and faults.death(-99) == " (killed by signal 99)"
    assert faults.death(3) == " (exit status 3)" and faults.death(None) == ""


def test_paths_are_shown_as_they_can_be_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert faults.shown(tmp_path / "a/b") == "a/b" and faults.shown(tmp_path.parent / "b") == str(
        tmp_path.parent / "b"
    )


def test_braces_in_a_path_are_no_parameters(tiny, tmp_path):
    tiny.add("03_tiny", PARAMETERS, METRICS)
    work = tmp_path / "a {seed} {b}"
    stage.execute("03_tiny", tiny.root / "params.yaml", work)
    assert (work / "reports/metrics/03_tiny.json").is_file()
