"""Every relative link of a page or notebook leads to a file, and to a heading where it names one."""

import re

import pytest
from conftest import ROOT

from vars_core.pipeline import notebooks

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "data/*.md", "benchmarks/*.md", "reports/**/*.md", "pretrained/*/*.md")
    for path in ROOT.glob(pattern)
)
SOURCES = sorted((ROOT / "notebooks").rglob("*.ipynb"))
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?\)")


def broken(text, folder):
    """The relative links in Markdown `text`, seen from `folder`, that lead nowhere."""
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    found = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (folder / name).resolve()
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8") if name else text)):
            found.append(link)
    return found


def anchors(text):
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.md").write_text("# One & two\n")
    text = "[a](a.md) [b](b.md) [c](a.md#one--two) [d](a.md#three) [e](https://x.org/y) `[f](f.md)` ![g](g.png)"
    assert broken(text, tmp_path) == ["b.md", "a.md#three", "g.png"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_pages(path):
    assert not broken(path.read_text(encoding="utf-8"), path.parent)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_links_of_notebooks_where_they_are_and_where_copies_go(path):
    source = notebooks.read(path)
    assert not broken(prose(source), path.parent)
    text = prose(notebooks.together(source, path))
    siblings = {other.name for other in SOURCES}
    for folder in ("reports/notebooks", "scratch/lab", "scratch/student"):  # made when asked for
        there = [link for link in broken(text, ROOT / folder) if link not in siblings]
        assert not there
