"""The study runner, on two throwaway notebooks: settings, resumption, what is published."""

import json
import os
import shutil

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from vars_core.__main__ import main, parser
from vars_core.pipeline import kernels, study

FIRST = """
import json
from vars_core import paths, report
import pandas as pd
meta = {"name": "posters", "simulated": True}
paths.write(paths.write_to("data/prepared") / "meta.json", json.dumps(meta))
report.table(pd.DataFrame({"a": [seed]}), "01_data/t", "A table")
report.metrics("01_data", {"source": data["source"]})
"""
SECOND = """
from vars_core import paths, report
paths.read_from("data/prepared")
assert attacks["steps"] != 99, "too many"
report.metrics("03_attacks", {"steps": attacks["steps"]})
"""
STAGE = """
  {short}:
    cmd: python -m vars_core stage {name}
    deps: [notebooks/{name}.ipynb{more}]
    params: [{commas}]
    outs: [{outs}]
"""


@pytest.fixture
def small(project, tmp_path, monkeypatch):
    """A project of two stages; returns a function that runs a study and returns what it said."""
    monkeypatch.setattr(kernels, "HEAVY", [])  # these notebooks import next to nothing
    root = project.root
    shutil.copytree(ROOT / "profiles", root / "profiles")
    shutil.copytree(ROOT / "vars_core", root / "vars_core", ignore=shutil.ignore_patterns("__pycache__"))
    project("01_data", ("seed = 0\ndata = dict()", ["parameters"]), FIRST)
    project("03_attacks", ("attacks = dict()", ["parameters"]), SECOND)
    stages = [("01_data", "seed data", "", "data/prepared"), ("03_attacks", "attacks", ", data/prepared", "")]
    text = "stages:" + "".join(
        STAGE.format(short=n[3:], name=n, commas=p.replace(" ", ", "), more=m, outs=o) for n, p, m, o in stages
    )
    (root / "dvc.yaml").write_text(text)

    def run(*arguments, name="posters"):
        return main(["study", name, "--profile", "laptop", *arguments])

    run.root, run.add = root, project
    return run


def test_a_study_is_resumed_and_published(small, capsys, tmp_path):
    catalogue, weights = tmp_path / "in" / "posters", tmp_path / "in" / "net.safetensors"
    catalogue.mkdir(parents=True)
    (catalogue / "items.csv").write_text("item_id,category\n")
    weights.write_bytes(b"weights")
    given = ["--data", str(catalogue), "--weights", str(weights)]
    assert small(*given, "--publish") == 0
    assert "skipped" not in capsys.readouterr().out

    assert small(*given, "--set", "attacks.steps=3") == 0  # another parameter: only its stage runs
    said = capsys.readouterr().out
    assert "01_data: unchanged, skipped" in said and "03_attacks: running" in said

    os.utime(catalogue / "items.csv", (0, 0))  # another date, as after a copy: nothing runs
    assert small(*given, "--set", "attacks.steps=3") == 0
    assert "running" not in capsys.readouterr().out

    folder = small.root / "reports/catalogues/posters"
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {"run.json", "metrics/01_data.json", "metrics/03_attacks.json", "tables/01_data/t.csv"}
    run = json.loads((folder / "run.json").read_text())
    assert run["catalogue"] == "posters" and run["simulated"] is True and run["profile"] == "laptop"
    assert run["weights"]["file"] == "net.safetensors" and len(run["weights"]["sha256"]) == 64
    assert run["parameters"]["data"]["path"] == "posters"
    assert run["parameters"]["recommender"]["extractor"] == "net"
    assert set(run["minutes"]) == {"01_data", "03_attacks"} and run["machine"]["cores"] and run["date"]
    assert str(tmp_path) not in (folder / "run.json").read_text()
    assert not (small.root / "reports/metrics").exists()

    folder, earlier = small.root / "reports/gpu", ["tables/09_gone/t.csv", "defence/run.json"]
    for file in earlier:
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text("{}")
    assert small(*given, "--set", "attacks.steps=3", "--publish", "gpu") == 0
    assert [(folder / file).exists() for file in earlier] == [False, True]  # benchmarks of the GPU stay beside
    assert found < {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    beside = json.loads((folder / "run.json").read_text())
    assert beside["parameters"]["attacks"]["steps"] == 3 != run["parameters"]["attacks"]["steps"]
    assert "running" not in capsys.readouterr().out

    (catalogue / "items.csv").write_text("item_id,category,\n")  # the catalogue changed: everything runs
    assert small(*given) == 0
    assert "skipped" not in capsys.readouterr().out


def test_a_failing_stage_is_not_taken_for_done(small, capsys):
    assert small("--set", "attacks.steps=99") == 1
    said = capsys.readouterr().err
    assert "too many" in said and "run the same command again" in said
    assert small("--set", "attacks.steps=99") == 1
    assert "01_data: unchanged, skipped" in capsys.readouterr().out
    assert small("--publish", "--only", "01") == 1
    assert "not published: 03_attacks not run yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--weights", "nothing.safetensors"], "--weights nothing.safetensors: no such file"),
        (["--profile", "huge"], "no profile is called huge; known: gpu, laptop, real, smoke"),
        (["--set", "attacks.steps"], "expected section.parameter=value"),
        (["--set", "atacks.steps=3"], "expected section.parameter=value"),
        (["--set", "attacks.stops=3"], "attacks.stops: unknown parameter; did you mean steps?"),
        (["--set", "attacks.epsilons=[300]"], "ε in 8-bit steps, 1 to 255; got 300"),
        (["--set", "attacks.epsilons=[3"], "the value isn't YAML"),
    ],
)
def test_wrong_requests_are_explained(small, capsys, arguments, said):
    assert small(*arguments) == 1
    assert said in capsys.readouterr().err


def test_a_name_is_a_folder_name(small, capsys):
    assert small(name="../x") == 1
    assert "a study's name" in capsys.readouterr().err


def test_set_reads_yaml_1_2(small):
    options = parser().parse_args(["study", "x", "--profile", "smoke", "--set", "recommender.learning_rate=1e-3"])
    assert study.study_params(options, small.root)["recommender"]["learning_rate"] == 0.001
    options = parser().parse_args(["study", "x", "--profile", "smoke", "--set", "seed=7"])
    values = study.study_params(options, small.root)
    assert values["seed"] == 7
    assert YAML(typ="safe", pure=True).load("a: on")["a"] == "on"
