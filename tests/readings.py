"""What a reader stumbles over in the sentences of an executed notebook."""

import re

import nbformat

ODD = (
    r"(?<![\w.])(nan|NaN|NaT|[+-]?inf)(?![\w])",  # a number that isn't one
    r"(?<![\d.])[+-]0(\.0+)? ?%",  # a sign before nothing
    r"(?<![\d.])0\.000(?!\d)",  # more zeros than digits
    r"(?<![\d.,])1 (trainings|seeds|photos|items|users|steps|checks|draws|queries|uploads)\b",
    r"ε = (\d+)[^.]{0,40} ε = \1(?!\d)[^.]{0,20} ε = \1(?!\d)",  # the same budget compared with itself
)


def odd(path):
    """(cell, words) of each oddity in what the executed notebook at `path` says."""
    found = []
    for number, cell in enumerate(nbformat.read(path, 4).cells):
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/markdown", "")
            if not text.startswith("```"):  # source code that is shown
                for pattern in ODD:
                    found += [
                        (number, text[max(0, m.start() - 40) : m.end() + 20]) for m in re.finditer(pattern, text)
                    ]
    return found
