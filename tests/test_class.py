"""The profile of a lesson: whether its notebooks show the story. `make class` runs them, which takes minutes."""

import json

import nbformat
import pytest
from conftest import ROOT
from readings import odd
from studies import study

from vars_core import param_file

FIRST = ("00", "01", "02", "03", "04", "05")


@pytest.fixture(scope="module")
def lesson(tmp_path_factory, pytestconfig):
    """The reports of a run of the profile `class`: all of it with --whole, else what tells the story."""
    work = tmp_path_factory.mktemp("class")
    only = () if pytestconfig.getoption("--whole") else ("--only", *FIRST)
    study("class", "--work", work, *only, profile="class", threads=None)
    return work / "reports"


def headline(reports, name):
    return json.loads((reports / "tables" / name / "headline.json").read_text())


@pytest.mark.lesson
def test_a_lesson_shows_the_story(lesson):
    attacked = headline(lesson, "03_attacks")
    assert attacked["lists_reach_subtle"] > 5 * attacked["lists_untouched"] > 0
    assert attacked["lists_noise"] < 2 * attacked["lists_untouched"]
    assert headline(lesson, "04_reconstruction")["recovery_main"] > 0.8
    detector = headline(lesson, "05_detection")
    assert detector["auroc_main"] > 0.95 and detector["false_alarms"] < 0.03
    one = headline(lesson, "00_one_photo")
    assert one["lists_attacked"] > 5 * one["lists_untouched"]
    assert one["lists_filtered"] < 0.25 * one["lists_attacked"]  # the seller doesn't know
    assert min(one["lists_known"], one["lists_unflagged"]) > 0.5 * one["lists_attacked"]  # the seller knows
    assert one["lists_behind_noise"] < 0.5 * one["lists_attacked"] and one["flagged"] > 0.9


@pytest.mark.lesson
def test_the_attacker_who_knows_and_the_promise(lesson):
    if not (lesson / "notebooks" / "08_certificate.ipynb").is_file():
        pytest.skip("the whole class is run with --whole")
    known, promised = headline(lesson, "07_adaptive"), headline(lesson, "08_certificate")
    assert known["lists_oblivious"] < 0.25 * known["lists_both_known"]
    assert known["lists_both_known"] > 0.5 * known["lists_undefended"]
    assert known["lists_noise_known"] < 0.6 * known["lists_both_known"]
    assert promised["lists_behind_noise"] <= promised["promised_subtle"] < 1


@pytest.mark.lesson
def test_a_lesson_reads_well(lesson):
    found = {path.stem: odd(path) for path in (lesson / "notebooks").glob("*.ipynb")}
    assert len(found) >= len(FIRST) and not any(found.values()), found


@pytest.mark.parametrize("path", sorted((ROOT / "reports" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_committed_notebooks_read_well(path):
    assert not odd(path)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("falls by -0.0% here", 1), ("by +0% of", 1), ("-0.4% [-0.5%, +0.0%]", 1), ("nan of 1,000", 1),
        ("is inf.", 1), ("changes by 0.000 with", 1), ("Over 1 trainings", 1), ("1 steps: 2", 1),
        ("0.0% flagged", 0), ("±0 %", 0), ("11 trainings, 0.0004, information", 0), ("0.00% of", 0), ("-0.05%", 0),
        ("At ε = 8 it is 3, at ε = 8 4, at ε = 8", 1),
    ],
)  # fmt: skip
def test_what_is_odd_is_found(tmp_path, text, count):
    v4 = nbformat.v4
    output = v4.new_output("display_data", data={"text/markdown": text})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=[output])]), tmp_path / "a.ipynb")
    assert len(odd(tmp_path / "a.ipynb")) == count, odd(tmp_path / "a.ipynb")


def test_a_lesson_starts_from_pretrained_models_that_are_there():
    values = param_file.load(ROOT / "profiles" / "class.yaml")
    assert values["reconstruction"]["start"] == "pretrained"
    assert (ROOT / values["recommender"]["pretrained"]).is_file()
    assert values["data"] == param_file.load(ROOT / "params.yaml")["data"]  # the photos that they learned from
