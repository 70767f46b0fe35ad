"""The page of results reads like prose: at most three numbers a sentence, a table and a figure for each claim."""

import re

import pytest
from conftest import ROOT

PAGE = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
# an ε, a σ, a place in a list, a name or an interval is not one more number to keep in mind
NAMES = re.compile(
    r"\[-?[\d.]+, -?[\d.]+\]|[εσ] = [\d.]+|±\d+|@\d+|T\d|JPEG-\d+|[Nn]otebook \d|\d × \d|\d+ of 255|top-20"
)


def prose(page):
    """The sentences of `page`, without tables, links' addresses, code and comments."""
    text = re.sub(r"<!--.*?-->|`[^`]*`|\]\([^)]*\)", "", page, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "#", "!"))]
    return [s for line in lines for s in re.split(r"(?<=[.!?:;])\s+(?=\S)", line.strip("-* ")) if s]


def numbers(sentence):
    return re.findall(r"(?<![\w.])\d[\d.,]*\b", NAMES.sub("", sentence))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It is 0.92 [0.89, 0.95] at ε = 1 instead of 0.81.", 2),
        ("A 3 × 3 median of JPEG-75 in notebook 4, ±4.", 0),
        ("1,823 photos, 2 cores and 45 %", 3),
    ],
)
def test_numbers_are_counted(text, count):
    assert len(numbers(text)) == count


def test_a_sentence_has_three_numbers_at_most():
    sentences = prose(PAGE)
    assert len(sentences) > 40
    assert not [s for s in sentences if len(numbers(s)) > 3]


def test_each_claim_has_a_table_or_a_figure():
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:-2]:  # the last two say how it was made
        assert "<!-- begin:" in section and "![" in section, section.splitlines()[0]
