"""Studies a few minutes at a time, on one machine after the other."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import odd_catalogues as odd
import pytest
from conftest import ROOT

from benchmarks import gpu_jobs
from vars_core import param_file, params


def test_what_is_kept_comes_back_in_small_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_jobs, "PART", 20_000)
    work, kept, again = tmp_path / "a" / "shop", tmp_path / "kept", tmp_path / "b" / "shop"
    content = np.random.default_rng(0).bytes(50_000)
    for name in (
        "models/filter/w.safetensors",
        "scratch/checkpoints/filters.safetensors",
        "data/prepared/p.npy",
    ):
        (work / name).parent.mkdir(parents=True)
        (work / name).write_bytes(content)
    (work / "state.json").write_text("{}")
    (kept / "shop").mkdir(parents=True)
    (kept / "shop" / "study.tar.099").write_bytes(b"of an earlier call")
    files = gpu_jobs.keep(work, kept)
    assert (
        len(files) > 5
        and sorted((kept / "shop").iterdir()) == files
        and max(f.stat().st_size for f in files) <= 20_000
    )
    assert gpu_jobs.restore(kept, again) and not gpu_jobs.restore(kept, tmp_path / "b" / "other")
    assert (again / "state.json").read_text() == "{}"
    assert (again / "scratch/checkpoints/filters.safetensors").read_bytes() == content
    assert not (again / "data").exists()


def test_a_study_goes_on_elsewhere(tmp_path, monkeypatch, capfd):
    shop = odd.write(tmp_path / "shop", *odd.KINDS["white"](np.random.default_rng(0), 24))
    monkeypatch.setattr(gpu_jobs, "ORDER", (("01",),))
    common = [str(shop), "--profile", "smoke", "--kept", str(tmp_path / "kept"), "--minutes", "5"]
    assert gpu_jobs.main([*common, "--work", str(tmp_path / "here")]) == 0
    assert capfd.readouterr().out.endswith("all done\n")
    first = json.loads((tmp_path / "here" / "shop-smoke" / "state.json").read_text())
    assert gpu_jobs.main([*common, "--work", str(tmp_path / "there")]) == 0
    said = capfd.readouterr().out
    assert "shop-smoke: goes on from" in said and "01_data: data/prepared: not as the stage left it" in said
    again = json.loads((tmp_path / "there" / "shop-smoke" / "state.json").read_text())
    assert first["01_data"]["outs"] == again["01_data"]["outs"]  # made again, to the bit


def test_it_stops_in_time_and_says_that_there_is_more(tmp_path, monkeypatch, capsys):
    asked = []

    def run(work, options, data, only, until):
        asked.append((work.name, only))
        work.mkdir(parents=True, exist_ok=True)
        return len(asked) < 3

    monkeypatch.setattr(gpu_jobs, "run", run)
    common = ["a", "b", "--kept", str(tmp_path / "kept"), "--work", str(tmp_path / "work")]
    assert gpu_jobs.main([*common, "--minutes", "8"]) == 0
    four = ("01", "02", "03", "04")
    assert asked == [("a-real-gpu", four), ("b-real-gpu", four), ("a-real-gpu", ("05",))]
    assert capsys.readouterr().out.endswith("more to do: run the same command again\n")
    gpu_jobs.main([*common, "--minutes", "0.1"])  # less than it takes to keep what is there
    assert len(asked) == 3


def test_a_notebook_under_way_is_stopped_as_by_hand(tmp_path, monkeypatch):
    program = """
import pathlib, sys, time
try:
    pathlib.Path(sys.argv[1]).write_text("started")
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1]).write_text("stopped")
"""
    sent, start, said = [], subprocess.Popen, tmp_path / "said"

    class Study(start):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", program, str(said)])

        def wait(self, timeout=None):
            while not said.is_file() or not said.read_text():
                time.sleep(0.05)
            return super().wait(timeout)

        def send_signal(self, number):
            sent.append(number)
            super().send_signal(number)

    monkeypatch.setattr(gpu_jobs.subprocess, "Popen", Study)
    options = type("Options", (), {"profile": "smoke", "weights": None, "set": []})
    assert not gpu_jobs.run(tmp_path / "shop", options, tmp_path, ("01",), until=0)
    assert sent == [signal.SIGINT] and said.read_text() == "stopped"


def test_a_failure_is_not_taken_for_the_end_of_time(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        gpu_jobs.main(["nowhere", "--kept", str(tmp_path), "--work", str(tmp_path / "work"), "--minutes", "1"])


def test_its_profile_is_the_real_one_trained_longer():
    real, long = (param_file.load(ROOT / "profiles" / f"{name}.yaml") for name in ("real", "real-gpu"))
    assert long.keys() == real.keys() == set(params.Study.model_fields)
    for section, name in (("reconstruction", "steps"), ("detection", "steps"), ("ablations", "steps")):
        assert long[section][name] >= 6 * real[section][name]
    assert long["certificate"]["draws"] >= 10_000
