"""Check cells: right, wrong, why, and nothing that an answer could be makes one raise."""

import numpy as np
import pytest
from conftest import ROOT
from in_process import run

from vars_core import param_file, plots
from vars_core.exercises import checks


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(checks.report, "text", texts.append)
    monkeypatch.setattr(checks, "_EXERCISES", {})
    monkeypatch.setattr(checks, "_GOALS", {})
    checks.goal("0.5")(lambda answer, limit: (answer < limit, f"{answer:g} of {limit:g}"))
    checks.exercise("0.1")(lambda share: (share, {"you count the others": 1 - share}))
    checks.exercise("0.2")(lambda: ("median", {}))
    checks.exercise("0.3")(lambda: (np.array([1.0, 2, 3]), {"it is upside down": np.array([3.0, 2, 1])}))
    checks.exercise("0.4")(lambda: (np.bool_(True), {"you turned it round": False}))
    return texts


@pytest.mark.parametrize(
    ("name", "answer", "given", "result", "text"),
    [
        ("0.1", ..., {"share": 0.2}, None, "no answer yet"),
        ("0.1", None, {"share": 0.2}, None, "no answer yet"),
        ("0.1", 0.2, {"share": 0.2}, True, "right: 0.2."),
        ("0.1", np.float32(0.199), {"share": 0.2}, True, "right: 0.2."),  # rounded
        ("0.1", 0.8, {"share": 0.2}, False, "when you count the others"),
        ("0.1", 20, {"share": 0.2}, False, "not per cent"),
        ("0.1", 0.1, {"share": 0.2}, False, "should be larger"),
        ("0.1", 0.3, {"share": 0.2}, False, "should be smaller"),
        ("0.1", [0.2], {"share": 0.2}, False, "Expected one number; yours has the shape (1,)"),
        ("0.1", "many", {"share": 0.2}, False, "A number is expected"),
        ("0.1", object(), {"share": 0.2}, False, "A number is expected"),
        ("0.1", float("nan"), {"share": 0.2}, False, "not yet"),
        ("0.2", " Median", {}, True, "right: median"),
        ("0.2", 3, {}, False, "Look at the last figure"),
        ("0.3", [1, 2, 3], {}, True, "right: 1, 2, 3"),
        ("0.3", (3, 2, 1), {}, False, "when it is upside down"),
        ("0.3", [1, 2, 4], {}, False, "1 of 3 values are off"),
        ("0.3", "x", {}, False, "3 numbers are expected"),
        ("0.4", True, {}, True, "right: True"),
        ("0.4", False, {}, False, "you turned it round"),
        ("0.4", "True", {}, False, "Look at"),
        ("0.5", 1, {"limit": 2}, True, "right: 1 of 2"),
        ("0.5", 3, {"limit": 2}, False, "not yet: 3 of 2"),
        ("0.5", "x", {"limit": 2}, False, "could not be judged: '<' not supported"),
        ("0.5", None, {"limit": 2}, None, "no answer yet"),
    ],
)
def test_an_answer_is_judged_and_explained(said, name, answer, given, result, text):
    checks.check(name, answer, **given)
    start = {True: "right", False: "not yet", None: "no answer yet"}[result]
    assert len(said) == 1 and said[0].startswith(f"**{name}** · {start}") and text in said[0]


def test_an_exercise_that_is_none_is_an_error(said):
    with pytest.raises(KeyError, match=r"there is no exercise 9\.9; there are 0\.1, "):
        checks.check("9.9", 1)


@pytest.mark.usefixtures("on_cpu")
def test_stubs_never_raise_and_solutions_are_right(workspace, monkeypatch):
    monkeypatch.setattr(plots, "_drawn", lambda figure, **options: b"")  # other tests look at figures
    texts, genuine = [], checks.report.text
    monkeypatch.setattr(checks.report, "text", lambda text: texts.append(text) or genuine(text))
    run(param_file.load(ROOT / "profiles" / "smoke.yaml"), exercises=True)
    verdicts = [text for text in texts if text.startswith("**") and "** · " in text[:12]]
    assert len(verdicts) == 2 * 38
    for before, after in zip(verdicts[::2], verdicts[1::2], strict=True):
        assert "no answer yet" in before and after.startswith(before[: before.index("·") + 2] + "right: "), after
