"""Headline numbers beside the committed ones, on examples worked out by hand."""

import json
import subprocess

import pytest

from vars_core.__main__ import main
from vars_core.errors import InputError
from vars_core.pipeline import compare

COMMITTED = {
    "02_recommender": {
        "vbpr": {"hr@20": 0.2356, "hr@20_ci": [0.2185, 0.2535], "auc": 0.8684, "auc_ci": [0.86, 0.877], "mrr": 0.05},
        "bprmf": {"hr@20": 0.1865, "hr@20_ci": [0.1715, 0.201]},
        "users": 2000,
    },
    "03_attacks": {"none": 0.0, "broken": True, "cold": 0.5, "cold_ci": [0.5, 0.5]},
}


@pytest.fixture
def run():
    """A run that says the same, to be changed."""
    return json.loads(json.dumps(COMMITTED))


def verdicts(found, committed=COMMITTED):
    return {number.name: number.verdict for number in compare.compare(found, committed)}


def test_a_run_is_equal_to_itself(run):
    found = verdicts(run)
    assert len(found) == 8 and set(found.values()) == {"equal"}


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (0.23561, "equal"),  # to 4 digits
        (0.2357, "inside"),
        (0.2185, "inside"),  # its ends belong to an interval
        (0.2535, "inside"),
        (0.2184, "outside"),
        (0.2536, "outside"),
        (1, "outside"),
    ],
)
def test_a_number_with_an_interval(run, value, verdict):
    run["02_recommender"]["vbpr"]["hr@20"] = value
    run["02_recommender"]["vbpr"]["hr@20_ci"] = [0, 1]  # the run's own interval doesn't count
    assert verdicts(run)["02_recommender: vbpr.hr@20"] == verdict


def test_numbers_without_an_interval_differ_by_so_much(run):
    run["02_recommender"]["vbpr"]["mrr"] = 0.04
    run["02_recommender"]["users"] = 2500
    run["03_attacks"] |= {"none": 0.001, "broken": False}
    differ = {n.name: n.change for n in compare.compare(run, COMMITTED) if n.verdict == "different"}
    assert differ == {
        "02_recommender: vbpr.mrr": pytest.approx(0.2),  # 0.01 of 0.05
        "02_recommender: users": pytest.approx(0.25),  # 500 of 2000
        "03_attacks: none": float("inf"),
        "03_attacks: broken": float("inf"),
    }


def test_an_interval_without_width_holds_its_number_only(run):
    run["03_attacks"]["cold"] = 0.5001
    assert verdicts(run)["03_attacks: cold"] == "outside"


def test_a_yes_is_no_number(run):
    run["02_recommender"]["users"], run["03_attacks"]["broken"] = True, 1
    found = verdicts(run)
    assert found["02_recommender: users"] == found["03_attacks: broken"] == "different"


def test_what_one_side_lacks_is_counted(run):
    del run["03_attacks"]["none"], run["02_recommender"]["bprmf"]
    run["03_attacks"]["more"], run["08_certificate"] = 1, {"draws": 100}
    found = verdicts(run)
    assert found["03_attacks: none"] == found["02_recommender: bprmf.hr@20"] == "gone"
    assert found["03_attacks: more"] == found["08_certificate: draws"] == "new"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"none": "0.1"}, r"03_attacks: none: a number, true or false expected, found '0.1'"),
        ({"none": None}, r"03_attacks: none: a number, true or false expected, found None"),
        ({"none": [1, 2]}, r"03_attacks: none: a number, true or false expected, found \[1, 2\]"),
        ({"none": float("nan")}, r"03_attacks: none: a number, true or false expected, found nan"),
    ],
)
def test_what_is_no_number_is_named(run, change, said):
    run["03_attacks"] |= change
    for pair in ((run, COMMITTED), (COMMITTED, run)):
        with pytest.raises(InputError, match=said):
            compare.compare(*pair)


@pytest.mark.parametrize("interval", [[1], [0.6, 0.4], ["0", "1"], 0.5, [float("nan"), 1], [0, 1, 2]])
def test_a_committed_interval_is_two_numbers_in_order(run, interval):
    run["03_attacks"]["cold_ci"] = interval
    with pytest.raises(InputError, match=r"03_attacks: cold_ci: \[low, high\] expected, found"):
        compare.compare(COMMITTED, run)


def written(folder, metrics):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in metrics.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("inside", ["", "metrics", "reports/metrics"])
def test_a_folder_of_a_run_may_be_named_as_one_has_it(run, tmp_path, capsys, inside):
    written(tmp_path / "run" / inside, run)
    if inside:
        (tmp_path / "run" / "state.json").write_text("[]")
    theirs = written(tmp_path / "theirs", COMMITTED)
    assert main(["compare", str(tmp_path / "run"), "--against", str(theirs)]) == 0
    assert "8 equal to 4 digits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "status", "said"),
    [
        ("hr@20", 0.24, 0, "1 differ, inside the interval"),
        ("mrr", 0.04, 0, "02_recommender: vbpr.mrr: 0.04, committed 0.05 (0.2 of it)"),
        ("hr@20", 0.3, 1, "02_recommender: vbpr.hr@20: 0.3, committed 0.2356 [0.2185, 0.2535]"),
        ("hr@20", None, 1, "02_recommender: vbpr.hr@20: absent, committed 0.2356 [0.2185, 0.2535]"),
        ("mrr", None, 0, "1 not in this run"),
    ],
)
def test_only_intervals_decide(run, tmp_path, capsys, key, value, status, said):
    run["02_recommender"]["vbpr"][key] = value
    if value is None:
        del run["02_recommender"]["vbpr"][key]
    folders = written(tmp_path / "ours", run), written(tmp_path / "theirs", COMMITTED)
    assert main(["compare", str(folders[0]), "--against", str(folders[1])]) == status
    assert said in capsys.readouterr().out


def test_a_run_is_compared_with_the_last_commit(run, project, capsys):
    root = project.root
    ours = written(root / "reports" / "metrics", COMMITTED)

    def git(*arguments):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", root, *who, *arguments], check=True, capture_output=True)

    assert main(["compare"]) == 1
    assert "git has no commit with reports/metrics here; name a folder" in capsys.readouterr().err
    git("init", "-q")
    assert main(["compare"]) == 1
    git("add", "-A"), git("commit", "-qm", "all")
    assert main(["compare"]) == 0
    run["02_recommender"]["vbpr"]["hr@20"] = 0.3
    written(ours, run)
    assert main(["compare"]) == 1
    assert "1 outside the interval" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"{", "not JSON"), (b"[1]", "named numbers expected"), (b"[" * 99999, "not JSON"), (b"\xff", "not JSON")],
)
def test_what_cannot_be_compared_is_a_line(tmp_path, capsys, content, said):
    theirs = written(tmp_path / "theirs", COMMITTED)
    for folder in (tmp_path / "nowhere", written(tmp_path / "empty", {})):
        assert main(["compare", str(folder), "--against", str(theirs)]) == 1
        assert f"{folder}: no metrics here" in capsys.readouterr().err
    (theirs / "02_recommender.json").write_bytes(content)
    assert main(["compare", str(theirs), "--against", str(theirs)]) == 1
    error = capsys.readouterr().err
    assert said in error and "02_recommender.json" in error and error.count("\n") == 1
