"""A throwaway project of two stages, run by DVC: reruns, failures, experiments, and `make check`."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from vars_core import param_file
from vars_core.errors import InputError
from vars_core.pipeline import check

FIRST = """
import matplotlib.pyplot as plt
import pandas as pd
from vars_core import paths, plots, report
(paths.write_to("data/prepared") / "sub").mkdir()
paths.write(paths.write_to("data/prepared") / "sub" / "a.txt", str(seed))
report.table(pd.DataFrame({"a": [seed]}), "01_data/t", "A table")
report.answer("01_data", "Which seed?", f"{seed}.")
report.metrics("01_data", {"users": 1234, "seed": seed})
fig, ax = plt.subplots()
plots.save(fig, "01_data/f", "Nothing")
"""
SECOND = """
import pandas as pd
from vars_core import paths, report
text = (paths.read_from("data/prepared") / "sub" / "a.txt").read_text()
assert attacks["steps"] < 99, "too many steps"
report.table(pd.DataFrame({"text": [text]}), "03_attacks/t", "A table")
report.answer("03_attacks", "How many steps?", f"{attacks['steps']}.")
report.metrics("03_attacks", {"exposure@20": {"none": 0.012345}})
"""
README = "".join(f"<!-- begin:{b} -->\n<!-- end:{b} -->\n" for b in ("notebooks", "times", "recommenders"))


def notebook(path, parameters, source):
    cells = [nbformat.v4.new_code_cell(parameters, id="p", metadata={"tags": ["parameters"]})]
    nbformat.write(nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell(source, id="c")]), path)
    command(path.parents[1], "vars_core.pipeline.notebooks", "strip", str(path))


def command(root, module, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VARS_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "t", f"GIT_{who}_EMAIL": "t@example.org"}
    line = [module, *arguments] if module == "git" else [sys.executable, "-m", module, *arguments]
    return subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The project after its first `dvc repro`, with everything committed."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "vars_core", root / "vars_core", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "profiles", root / "profiles")
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copy(ROOT / "profiles/smoke.yaml", root / "params.yaml")
    (root / "README.md").write_text(README)
    (root / "notebooks").mkdir()
    notebook(root / "notebooks/01_data.ipynb", "seed = 0", FIRST)
    notebook(root / "notebooks/03_attacks.ipynb", "attacks = dict()", SECOND)
    reports = "{cache: false, persist: true}"
    stages = "stages:\n"
    for name, sections, outs in (("01_data", "seed", "data/prepared"), ("03_attacks", "attacks", "")):
        stages += f"  {name[3:]}:\n    cmd: python -m vars_core stage {name}\n"
        deps = f"notebooks/{name}.ipynb, vars_core/report.py" + ", data/prepared, vars_core/attacks" * (not outs)
        stages += f"    deps: [{deps}]\n    params: [{sections}]\n    outs:\n"
        kinds = (f"notebooks/{name}.ipynb", f"figures/{name}", f"tables/{name}")
        stages += f"      - {outs}\n" * bool(outs) + "".join(f"      - reports/{k}: {reports}\n" for k in kinds)
        stages += f"    metrics:\n      - reports/metrics/{name}.json: {reports}\n"
    (root / "dvc.yaml").write_text(stages)
    command(root, "git", "init", "-q")
    command(root, "dvc", "init", "-q")
    shutil.copy(ROOT / ".dvc/config", root / ".dvc/config")
    done = command(root, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert command(root, "vars_core.pipeline.readme").returncode == 0
    command(root, "git", "add", "-A")
    assert command(root, "git", "commit", "-qm", "all").returncode == 0
    return root


@pytest.fixture
def clone(made, tmp_path):
    """A fresh clone: reports from git, no cache, no data."""
    command(made, "git", "clone", "-q", str(made), str(tmp_path / "clone"))
    root = tmp_path / "clone"
    assert not (root / "data").exists()
    return root


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_second_run_forced_changes_nothing_in_git(made):
    assert "up to date" in command(made, "dvc", "repro").stdout
    done = command(made, "dvc", "repro", "-f")
    assert done.returncode == 0, done.stderr
    assert command(made, "git", "status", "--porcelain").stdout == ""
    tracked = command(made, "git", "ls-files").stdout
    assert "reports/metrics/01_data.json" in tracked and not any(
        line.startswith("data/") for line in tracked.splitlines()
    )


def test_a_clone_is_green_without_cache_and_data(clone):
    done = command(clone, "vars_core", "check")
    assert (done.returncode, done.stdout) == (0, "reports are those of this code\n"), done.stdout + done.stderr
    assert "| 1234 |" in (clone / "README.md").read_text() or "1,234" in (clone / "README.md").read_text()


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        ("params.yaml", "seed: 0 ", "seed: 1 ", "params.yaml equals none of profiles/"),
        ("params.yaml", "seed: 0 ", "seed: 1 ", "data: params.yaml's seed changed since it ran"),
        (
            "vars_core/report.py",
            "DIGITS = 4",
            "DIGITS = 5",
            "attacks: vars_core/report.py changed since it ran",
        ),
        (
            "notebooks/01_data.ipynb",
            "Nothing",
            "Something",
            "data: notebooks/01_data.ipynb changed since it ran",
        ),
        (
            "reports/metrics/01_data.json",
            "1234",
            "4321",
            "data: reports/metrics/01_data.json isn't what it wrote",
        ),
        ("reports/tables/01_data/t.csv", "0", "1", "data: reports/tables/01_data isn't what it wrote"),
        ("README.md", "How many steps?", "How?", "README.md: its tables are old"),
        (
            "vars_core/attacks/campaign.py",
            "UNSEEN_ATTACKS",
            "UNSEEN",
            "attacks: vars_core/attacks changed since it ran",
        ),
        ("dvc.yaml", "stage 01_data", "stage  01_data", "data: its command changed since it ran"),
        ("dvc.yaml", "vars_core/report.py", "vars_core/paths.py", "data: vars_core/paths.py changed since it ran"),
        ("notebooks/03_attacks.ipynb", '"outputs": []', '"outputs":  []', "not stripped; run `make strip`"),
        ("dvc.lock", "  attacks:", "  other:", "attacks: never run (not in dvc.lock)"),
        ("dvc.lock", "  attacks:", "  other:", "other: in dvc.lock, not in dvc.yaml"),
    ],
)
def test_each_stale_thing_is_one_line(clone, path, old, new, said):
    edit(clone / path, old, new)
    lines = check.problems(clone)
    assert any(said in line for line in lines), lines
    assert all("\n" not in line for line in lines)


def test_without_git_one_line_names_two_cures(clone):
    shutil.rmtree(clone / ".git")
    for module, arguments in (("vars_core", ["check"]), ("vars_core.pipeline.check", [])):
        done = command(clone, module, *arguments)
        assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
        assert "is no git repository" in done.stderr and "`git init`" in done.stderr
    cure = re.search("python -m (dvc config .*)`", done.stderr)[1]
    assert command(clone, *cure.split()).returncode == 0
    assert command(clone, "vars_core.pipeline.check").returncode == 0
    assert command(clone, "vars_core", "check").stdout == "reports are those of this code\n"
    (clone / ".dvc/config.local").unlink()
    command(clone, "git", "init", "-q")
    assert command(clone, "vars_core", "check").stdout == "reports are those of this code\n"


@pytest.mark.parametrize(
    ("depth", "name"),
    [(1, "shallow"), (0, """a 'b' "c" $HOME `id` #;&%20 é目 [x]*?{y}!~=,""")],
    ids=["shallow", "odd"],
)
def test_a_clone_is_green_wherever_it_lies(made, tmp_path, depth, name):
    git = ["clone", "-q", *(["--depth", "1"] if depth else []), made.as_uri(), str(tmp_path / name)]
    assert command(made, "git", *git).returncode == 0
    done = command(tmp_path / name, "vars_core", "check")
    assert (done.returncode, done.stdout) == (0, "reports are those of this code\n"), done.stdout + done.stderr
    assert command(tmp_path / name, "vars_core", "compare").returncode == 0
    assert command(tmp_path / name, "git", "status", "--porcelain").stdout == ""


def test_a_worktree_is_green(made, tmp_path):
    command(made, "git", "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    try:
        assert command(tmp_path / "tree", "vars_core", "check").stdout == "reports are those of this code\n"
    finally:
        command(made, "git", "worktree", "remove", "--force", str(tmp_path / "tree"))


@pytest.mark.parametrize("file", ["dvc.lock", "dvc.yaml"])
@pytest.mark.parametrize(("text", "said"), [("a: 1\n<<<<<<< HEAD\n{b\n", "not YAML"), ("", "names expected")])
def test_a_damaged_file_of_dvc_is_a_line(clone, file, text, said):
    (clone / file).write_text(text)
    with pytest.raises(InputError, match=f"^{file}.*{said}"):
        check.problems(clone)


def test_a_stale_clone_exits_1(clone):
    (clone / "reports/tables/01_data/t.csv").unlink()
    (clone / "reports/metrics/08_other.json").write_text("{}")
    done = command(clone, "vars_core", "check")
    assert done.returncode == 1
    assert "reports/metrics/08_other.json: no stage writes it" in done.stdout
    assert "2 stale" in done.stdout


def test_data_that_the_stage_after_did_not_see_is_stale(clone):
    lock = (clone / "dvc.lock").read_text()
    at = lock.rindex("path: data/prepared")
    (clone / "dvc.lock").write_text(lock[:at] + lock[at:].replace(".dir", "0.dir").replace("md5: ", "md5: 0", 1))
    assert any("data/prepared was made anew" in line or "isn't what" in line for line in check.problems(clone))


def test_a_failing_stage_in_dvc_leaves_the_reports(made):
    before = {p: p.read_bytes() for p in (made / "reports").rglob("*") if p.is_file()}
    edit(made / "params.yaml", "  steps: 5 ", "  steps: 99 ")
    done = command(made, "dvc", "repro")
    assert done.returncode != 0 and "Way back:" in done.stderr and "too many steps" in done.stderr
    assert {p: p.read_bytes() for p in (made / "reports").rglob("*") if p.is_file()} == before
    command(made, "git", "checkout", "params.yaml")
    assert "up to date" in command(made, "dvc", "repro").stdout
    assert command(made, "git", "status", "--porcelain").stdout == ""


def test_an_experiment_changes_a_parameter_by_name(made):
    done = command(made, "dvc", "exp", "run", "-n", "more", "-S", "attacks.steps=7", "-S", "attacks.epsilons=[2,3]")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        values = param_file.load(made / "params.yaml")
        assert (values["attacks"]["steps"], values["attacks"]["epsilons"]) == (7, [2, 3])
        assert values["recommender"]["learning_rate"] == 5e-3
        answer = json.loads((made / "reports/tables/03_attacks/answer.json").read_text())
        assert answer["answer"] == "7."
        shown = command(made, "dvc", "params", "diff", "HEAD").stdout
        assert "attacks.steps" in shown
    finally:
        command(made, "git", "checkout", ".")
        command(made, "dvc", "checkout")
    assert "up to date" in command(made, "dvc", "repro").stdout
