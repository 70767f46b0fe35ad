"""The glossary: no notebook uses a term before the one that explains it, and every term is used.

Notebook 0 is for readers who know none of them, and explains what it needs itself."""

import json
import re

import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
TERMS = [
    (term, int(number))
    for names, number in re.findall(r"^\| ([^|]+) \| (\d) \| ", PAGE, re.MULTILINE)
    for term in re.sub(r" \(.*\)|tiers ", "", names).replace(" to T4", "").split(", ")
]


def prose(path):
    """The markdown of a notebook, without code, links' addresses and references."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    kept = [text for text in texts if not text.startswith("## References")]
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", "\n".join(kept))


NOTEBOOKS = {int(path.name[:2]): prose(path) for path in sorted((ROOT / "notebooks").glob("0[1-9]_*.ipynb"))}


def uses(term, text):
    """Whether `text` has `term` as a word or words; short ones and names as they are written."""
    flags = 0 if len(term) < 4 or term[0].isupper() else re.IGNORECASE
    return re.search(rf"(?<![\w-]){re.escape(term).replace('@k', '@')}", text, flags) is not None


def test_the_page_is_read():
    assert (
        len(TERMS) > 40 and ("exposure@k", 3) in TERMS and ("T0", 7) in TERMS and set(NOTEBOOKS) == set(range(1, 9))
    )
    assert (
        uses("hook", "a *hook* is")
        and uses("HR@k", "HR@20")
        and not uses("PGD", "APGD")
        and not uses("T0", "to T01"[3:4])
    )


@pytest.mark.parametrize(("term", "number"), TERMS)
def test_no_notebook_uses_a_term_before_it_is_explained(term, number):
    earlier = [other for other, text in NOTEBOOKS.items() if other < number and uses(term, text)]
    assert not earlier, f"notebook {earlier[0]} uses {term!r}, which notebook {number} explains"


@pytest.mark.parametrize(("term", "number"), TERMS)
def test_terms_are_used(term, number):
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").rglob("*.ipynb"))
    assert uses(term, code), f"nobody uses {term!r}"
