"""Kernels forked from the fork server are processes of their own, and end with the study."""

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver

import nbformat
import papermill
import pytest
from conftest import ROOT

from vars_core.pipeline import kernels

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forking is sound on Linux only")
ABOUT = """
import json, os, sys
print(json.dumps([os.getpid(), os.getcwd(), os.environ.get("VARS_X"), "fractions" in sys.modules, hash("a")]))
"""


@pytest.fixture(autouse=True)
def light(monkeypatch):
    forkserver._forkserver._stop()  # another test's, with other imports
    monkeypatch.setattr(kernels, "HEAVY", ["fractions", "ipykernel.kernelapp"])


def execute(folder, source=ABOUT, mark="1", *, fork=True):
    file = folder / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id="c")]), file)
    kernel = kernels.manager({"VARS_X": mark, "PYTHONHASHSEED": "0"}, fork=fork)
    done = papermill.execute_notebook(
        file,
        None,
        cwd=folder,
        kernel_name="python3",
        language="python",
        kernel_manager_class=kernel,
        progress_bar=False,
    )  # fmt: skip
    return json.loads(done.cells[-1].outputs[0]["text"])


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@linux
def test_every_notebook_gets_a_process_environment_and_folder_of_its_own(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first = execute(tmp_path / "a")
    second = execute(tmp_path / "b", mark="2")
    assert first[0] != second[0] and os.getpid() not in (first[0], second[0])
    assert (first[1], second[1]) == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert (first[2], second[2]) == ("1", "2") and "VARS_X" not in os.environ and "PYTHONHASHSEED" not in os.environ
    assert first[3] and second[3]  # imported before the fork
    assert not alive(first[0]) and not alive(second[0])  # waited for, no zombies


@linux
def test_a_forked_kernel_computes_what_a_new_one_does(tmp_path):
    forked, new = execute(tmp_path), execute(tmp_path, fork=False)
    assert forked[1:3] == new[1:3] and forked[4] == new[4]  # hashes of strings too
    assert forked[3] and not new[3]


@linux
def test_an_error_in_a_forked_kernel_is_the_notebooks(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="out of luck"):
        execute(tmp_path, "raise RuntimeError('out of luck')")
    assert execute(tmp_path, "print(40 + 2)") == 42


@linux
def test_a_kernel_that_dies_is_said(tmp_path):
    with pytest.raises(RuntimeError, match="Kernel died"):
        execute(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")


@linux
def test_a_study_that_is_killed_leaves_no_kernel_behind(tmp_path):
    """A kernel ends with the process that asked for it, however that ends."""
    code = f"""
import os, time
from vars_core.pipeline import kernels
kernels.HEAVY[:] = ["ipykernel.kernelapp"]
import multiprocessing
multiprocessing.get_context("forkserver").set_forkserver_preload(kernels.HEAVY)
if __name__ == "__main__":
    child = kernels._Child(target=kernels._kernel, args=(["-f", {str(tmp_path / "c.json")!r}], dict(os.environ), "/"))
    child.start()
    print(child.pid, flush=True)
    time.sleep(60)
"""
    (tmp_path / "killed.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, tmp_path / "killed.py"]
    study = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    pid = int(study.stdout.readline())
    deadline = time.monotonic() + 30
    while not (tmp_path / "c.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)  # until it waits for somebody to connect
    assert alive(pid)
    study.send_signal(signal.SIGKILL)
    study.wait()
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)
