"""The study runner, on two throwaway notebooks: settings, resumption, what is published."""

import json
import os
import shutil

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from vars_core import paths
from vars_core.__main__ import main, parser
from vars_core.pipeline import kernels, lock, publish, stage, study

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

    run.root, run.add, run.work = root, project, root / "scratch/studies/posters"
    return run


def ran(capsys):
    """What the study says of each notebook: "running" or "unchanged, skipped"."""
    lines = [line.split(": ", 1) for line in capsys.readouterr().out.splitlines()]
    return {line[0]: line[1] for line in lines if line[-1] in ("running", "unchanged, skipped")}


BOTH = {"01_data": "running", "03_attacks": "running"}
FIRST_ONLY = {"01_data": "running", "03_attacks": "unchanged, skipped"}
NONE = dict.fromkeys(BOTH, "unchanged, skipped")


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
    assert "too many" in said and "run the same study again" in said
    assert f"The failed notebook is {small.root}/scratch/studies/posters/scratch/failed/03_attacks.ipynb" in said
    assert small("--set", "attacks.steps=99") == 1
    assert "01_data: unchanged, skipped" in capsys.readouterr().out
    assert small("--publish", "--only", "01") == 1
    assert "not published: 03_attacks not run yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--weights", "nothing.safetensors"], "--weights nothing.safetensors: no such file"),
        (["--profile", "huge"], "no profile is called huge; known: class, gpu, laptop, real, real-gpu, smoke"),
        (["--set", "attacks.steps"], "expected section.parameter=value"),
        (["--set", "atacks.steps=3"], "expected section.parameter=value"),
        (["--set", "attacks.stops=3"], "attacks.stops: unknown parameter; did you mean steps?"),
        (["--set", "attacks.epsilons=[300]"], "ε in 8-bit steps, 1 to 255; got 300"),
        (["--set", "attacks.epsilons=[3"], "not a value that a parameter takes"),
        (["--set", "seed.x=3"], "expected section.parameter=value"),
        (["--set", "attacks.=3"], "expected section.parameter=value"),
        (["--set", "=3"], "expected section.parameter=value"),
        (["--set", "attacks.steps.x=3"], "expected section.parameter=value"),
        (["--set", "attacks.steps=!!python/object:os.system x"], "not a value that a parameter takes"),
        (["--set", "attacks.epsilons=&a [*a]"], "nested too deeply"),
        (["--set", "attacks.steps=*a"], "not a value that a parameter takes"),
        (["--set", "attacks.steps=2001-13-45"], "not a value that a parameter takes"),
        (["--set", "attacks.steps=" + "9" * 5000], "not a value that a parameter takes"),
        (["--set", "attacks.steps=" + "[" * 5000], "nested too deeply"),
        (["--set", "attacks.steps=\x00"], "not a value that a parameter takes"),
        (["--set", "attacks={1: 2}"], "attacks"),
        (["--set", "attacks=3"], "attacks: a section of parameters; got 3"),
        (["--set", "seed=1", "--set", "seed=2"], "--set seed=2 and --set seed=1 both name seed; give one"),
        (["--data", "profiles", "--set", "data.path=x"], "--set data.path=x and --data profiles both name data.path"),
        (["--weights", "params.yaml", "--set", "recommender.pretrained=true"], "both name recommender.pretrained"),
        (["--only", "01", "99"], "--only 99: no notebook's name begins so; there are 01_data, 03_attacks"),
        (["--work", "params.yaml"], "params.yaml: a folder is expected, this is a file"),
        (["--work", "."], "expected an empty folder or an earlier study's; it holds"),
        (["--work", ".."], "expected an empty folder or an earlier study's; it holds"),
        (["--data", "profiles", "--work", "profiles/x"], "lies in the catalogue"),
        (["--data", "profiles", "--work", "profiles"], "lies in the catalogue"),
        (["--profile", "../profiles/smoke"], "no profile is called ../profiles/smoke"),
        (["--data", "\udcff"], "not UTF-8"),
    ],
)
def test_wrong_requests_are_explained(small, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(small.root)
    (small.root / "params.yaml").write_text("")
    if "\udcff" in arguments:
        (small.root / "\udcff").mkdir()
    assert small(*arguments) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and len(error) < 500
    assert not (small.root / "scratch").exists() and (small.root / "params.yaml").read_text() == ""


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


REPORTS = ("reports/tables/01_data", "reports/metrics/01_data.json", "reports/notebooks/01_data.ipynb")
HARM = [
    lambda work: (work / "data/prepared/meta.json").unlink(),
    lambda work: (work / "data/prepared/meta.json").write_text("{"),
    lambda work: (work / "data/prepared/SHA256SUMS").unlink(),
    lambda work: (work / "data/prepared/more").write_text(""),
    lambda work: shutil.rmtree(work / "data"),
    lambda work: (work / "reports/metrics/01_data.json").write_text("{}"),
    lambda work: shutil.rmtree(work / "reports/tables/01_data"),
    lambda work: (work / "reports/notebooks/01_data.ipynb").unlink(),
]


def test_a_stage_runs_again_when_anything_it_wrote_is_damaged_or_gone(small, capsys, monkeypatch):
    def execute(name, file, work, fork):
        if name == "01_data":
            for out in ("data/prepared/meta.json", "data/prepared/SHA256SUMS", *REPORTS[1:], f"{REPORTS[0]}/t.csv"):
                paths.write(work / out, "good")
            (work / "data/prepared/more").unlink(missing_ok=True)
        return 1.0

    monkeypatch.setattr(stage, "execute", execute)
    text = (small.root / "dvc.yaml").read_text()
    (small.root / "dvc.yaml").write_text(
        text.replace("[data/prepared]\n", f"[data/prepared, {', '.join(REPORTS)}]\n", 1)
    )
    assert small() == 0 and ran(capsys) == BOTH
    for harm in HARM:
        harm(small.work)
        assert small() == 0 and ran(capsys) == FIRST_ONLY
        assert small() == 0 and ran(capsys) == NONE
    (small.work / "reports/tables/01_data/.DS_Store").write_text("")  # a look at the folder harms nothing
    assert small() == 0 and ran(capsys) == NONE
    for state in ('{"01_data": ', "[]", '{"01_data": {"mark": 3}}'):
        (small.work / "state.json").write_text(state)
        assert small() == 0 and ran(capsys) == BOTH


def test_a_stage_does_not_compute_with_what_is_damaged(small, capsys):
    assert small() == 0
    (small.work / "data/prepared/meta.json").write_text("{")
    assert small("--only", "03", "--set", "attacks.steps=7") == 1
    said = capsys.readouterr().err
    assert "data/prepared/meta.json is damaged" in said and said.count("\n") == 1
    assert "the same study, run again with 01_data" in said
    assert small("--set", "attacks.steps=7") == 0  # what the message says works
    assert ran(capsys) == BOTH


def test_what_the_command_names_wins_over_the_environment(small, capsys, tmp_path, monkeypatch):
    for name in ("asked", "left"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("VARS_DATA", str(tmp_path / "left"))
    check = "import os\nassert not os.environ['VARS_DATA']"
    small.add("01_data", ("seed = 0\ndata = dict()", ["parameters"]), FIRST, check)
    assert small("--data", str(tmp_path / "asked"), "--only", "01") == 0
    assert f"VARS_DATA={tmp_path}/left doesn't count: --data" in capsys.readouterr().out
    assert f"{tmp_path}/asked" in (small.work / "params.yaml").read_text()
    assert small("--set", "data.source=folder", "--only", "01") == 0  # nothing named: the environment's
    assert f"catalogue: {tmp_path}/left, which VARS_DATA names" in capsys.readouterr().out
    assert f"{tmp_path}/left" in (small.work / "params.yaml").read_text()
    monkeypatch.setenv("VARS_DATA", "/nowhere")
    assert small("--set", "data.source=folder", "--only", "01") == 1
    assert capsys.readouterr().err == "VARS_DATA=/nowhere: no such folder; unset it, or give --data\n"


def test_a_wrong_request_leaves_the_study_as_it_was(small):
    assert small("--only", "01") == 0
    before = (small.work / "params.yaml").read_text()
    assert small("--set", "attacks.stops=3") == 1
    assert (small.work / "params.yaml").read_text() == before


def test_a_study_and_its_catalogue_may_move(small, capsys, tmp_path, monkeypatch):
    (tmp_path / "in" / "posters").mkdir(parents=True)
    (tmp_path / "in" / "posters" / "items.csv").write_text("item_id,category\n")
    monkeypatch.chdir(tmp_path)
    assert small("--data", "in/posters", "--work", "w 1/a.b-c", name="a.b-c") == 0
    (tmp_path / "in").rename(tmp_path / "moved")
    (tmp_path / "w 1").rename(tmp_path / "w2")
    monkeypatch.chdir(tmp_path / "moved")
    capsys.readouterr()
    assert small("--data", "posters", "--work", "../w2/a.b-c", name="a.b-c") == 0
    assert ran(capsys) == NONE


def test_two_runs_of_a_study_at_once_are_refused(small, capsys):
    with lock.held(small.work):
        assert small() == 1
    said = capsys.readouterr().err
    assert f"another run (process {os.getpid()}) works here" in said and said.count("\n") == 1
    assert not (small.work / "params.yaml").exists()


def test_a_disk_without_locks_is_said_and_used(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    with lock.held(tmp_path):
        pass
    assert (
        capsys.readouterr().err
        == f"{tmp_path}: no locks on this disk (No locks available); start no second run here\n"
    )


def test_a_full_disk_is_a_line_wherever_the_study_writes(small, capsys, monkeypatch):
    def write(work, _):
        raise OSError(28, "No space left on device", f"{work}/state.json")

    monkeypatch.setattr(study, "_keep", write)
    assert small() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"study posters: {small.work}/state.json: no space left (") and said.count("\n") == 1


# what may be published, and over what


def published(there, catalogue="posters", profile="laptop", fingerprint="f1", **options):
    (there / "run.json").write_text(
        json.dumps({"catalogue": "posters", "profile": "laptop"} | options.pop("has", {"fingerprint": "f1"}))
    )
    publish.refuse(profile, catalogue, there, fingerprint=fingerprint, **({"replace": False} | options))


def test_results_go_over_those_of_the_same_catalogue_and_profile_only(tmp_path):
    published(tmp_path)
    published(tmp_path, fingerprint=None)  # before it is known
    published(tmp_path, has={})  # published before there were fingerprints
    for other in ({"catalogue": "films"}, {"profile": "real"}, {"fingerprint": "f2"}):
        ((name, value),) = other.items()
        with pytest.raises(study.StudyError, match=f"holds results of {name} .*, not of {value}; say --replace"):
            published(tmp_path, **other)
        published(tmp_path, **other, replace=True)
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(study.StudyError, match="is damaged; restore it"):
        publish.refuse("laptop", "posters", tmp_path, replace=False)
    publish.refuse("laptop", "posters", tmp_path / "new", replace=False)
    with pytest.raises(study.StudyError, match="the numbers of profile smoke mean nothing"):
        publish.refuse("smoke", "posters", tmp_path / "new", replace=True)


def test_another_catalogues_numbers_are_not_replaced_without_a_word(small, capsys, tmp_path):
    for name in ("posters", "films"):
        (tmp_path / name).mkdir()
    assert small("--data", str(tmp_path / "posters"), "--publish", "--set", "attacks.steps=3") == 0
    run = small.root / "reports/catalogues/posters/run.json"
    before = run.read_bytes()
    assert json.loads(before)["changed"] == {"attacks.steps": 3}
    capsys.readouterr()
    assert small("--data", str(tmp_path / "films"), "--publish") == 1
    out, error = capsys.readouterr()
    assert "holds results of catalogue posters, not of films; say --replace" in error and not out  # nothing ran
    assert small("--profile", "smoke", "--publish") == 1 and run.read_bytes() == before
    # only a part was run with other parameters: the rest isn't of these
    assert small("--data", str(tmp_path / "posters"), "--publish", "--only", "01", "--set", "attacks.steps=4") == 1
    assert "not published: 03_attacks isn't of these parameters" in capsys.readouterr().err
    assert run.read_bytes() == before
