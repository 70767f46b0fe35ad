"""Kernels forked from a zygote are processes of their own, and end with it."""

import json
import os
import signal
import sys
import time

import nbformat
import papermill
import pytest

from vars_core import kernels

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forking is sound on Linux only")
ABOUT = """
import json, os, sys
print(json.dumps([os.getpid(), os.getcwd(), os.environ.get("VARS_X"), "fractions" in sys.modules, hash("a")]))
"""


@pytest.fixture
def zygote(monkeypatch):
    monkeypatch.setattr(kernels, "HEAVY", ("fractions",))
    with kernels.zygote() as process:
        yield process


def execute(zygote, folder, source=ABOUT, mark="1"):
    file = folder / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id="c")]), file)
    kernel = kernels.manager({"VARS_X": mark, "PYTHONHASHSEED": "0"}, zygote)
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
def test_every_notebook_gets_a_process_environment_and_folder_of_its_own(zygote, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first = execute(zygote, tmp_path / "a")
    second = execute(zygote, tmp_path / "b", mark="2")
    assert first[0] != second[0] and not {first[0], second[0]} & {os.getpid(), zygote._process.pid}
    assert (first[1], second[1]) == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert (first[2], second[2]) == ("1", "2") and "VARS_X" not in os.environ
    assert first[3] and second[3]  # imported before the fork
    assert not alive(first[0]) and not alive(second[0])  # waited for, no zombies


@linux
def test_a_forked_kernel_computes_what_a_new_one_does(zygote, tmp_path):
    forked, new = execute(zygote, tmp_path), execute(None, tmp_path)
    assert forked[1:3] == new[1:3] and forked[4] == new[4]  # hashes of strings too
    assert forked[3] and not new[3]


@linux
def test_an_error_in_a_forked_kernel_is_the_notebooks(zygote, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="out of luck"):
        execute(zygote, tmp_path, "raise RuntimeError('out of luck')")
    assert execute(zygote, tmp_path, "print(40 + 2)") == 42


@linux
def test_a_zygote_that_died_is_told(zygote, tmp_path):
    assert execute(zygote, tmp_path, "print(1)") == 1
    zygote._process.kill()
    with pytest.raises(RuntimeError, match="starts kernels is gone"):
        execute(zygote, tmp_path, "print(1)")


@linux
def test_kernels_can_be_killed_and_the_zygote_stays(zygote):
    pid = zygote.ask(arguments=["--version"], environment=dict(os.environ), folder="/")
    child = kernels._Child(zygote, pid)
    deadline = time.monotonic() + 20
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert child.returncode == 0 and child.wait() == 0
    child.send_signal(signal.SIGKILL)  # of a process that is gone: nothing
    assert zygote._process.poll() is None


@linux
def test_a_study_that_ends_early_leaves_no_kernel_behind(zygote, tmp_path):
    pid = zygote.ask(arguments=["-f", str(tmp_path / "c.json")], environment=dict(os.environ), folder="/")
    assert kernels._Child(zygote, pid).poll() is None and alive(pid)  # it waits for somebody to connect
    zygote.close()  # what the end of our process does to its stdin
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)
