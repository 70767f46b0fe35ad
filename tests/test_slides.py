"""Slides: what is laid out for Sphinx, from executed notebooks."""

import re

import nbformat
from conftest import ROOT

from vars_core.pipeline import notebooks, slides

V4 = nbformat.v4


def test_a_slide_for_the_question_each_figure_and_what_was_found(tmp_path):
    for folder in ("reports/notebooks", "reports/figures/03_attacks", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "docs" / "slides").mkdir()
    (tmp_path / "reports/figures/03_attacks/curve.png").write_bytes(b"png")
    (tmp_path / "reports/figures/03_attacks/curve.txt").write_text("A curve [n = 3]\n")
    said = V4.new_output("display_data", data={"text/markdown": "- one\n- two"})
    cells = [
        V4.new_markdown_cell("# 3 · Attacks\n\nHow\nfar?\n\n**In short:** Far.\n\n*Reads* nothing"),
        V4.new_markdown_cell("## 3.1 Budget"),
        V4.new_code_cell('plots.save(fig, "03_attacks/curve", "x")\nplots.save(fig, "03_attacks/absent", "x")'),
        V4.new_markdown_cell("## What we found"),
        V4.new_code_cell("report.text()", outputs=[said]),
        V4.new_markdown_cell("**Try it**", metadata={"tags": ["exercise"]}),
        V4.new_code_cell('plots.save(fig, "03_attacks/curve", "x")', metadata={"tags": ["solution"]}),
    ]
    nbformat.write(V4.new_notebook(cells=cells), tmp_path / "reports/notebooks/03_attacks.ipynb")
    slides.lay_out(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "session2.md").read_text() == (
        "# Session 2\n\n## 3 · Attacks\n\n**Question.** How far?\n\nFar.\n\n## 3.1 Budget\n\n"
        "![A curve (n = 3)](figures/03_attacks/curve.png)\n\nA curve [n = 3]\n\n## What we found\n\n- one\n- two\n"
    )
    assert (tmp_path / "out" / "figures" / "03_attacks" / "curve.png").read_bytes() == b"png"
    assert "session2" in (tmp_path / "out" / "index.md").read_text()
    assert not (tmp_path / "out" / "session1.md").exists()


def test_sessions_are_those_of_the_plan_and_hold_the_whole_story():
    plan = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d), \d+ min \| ([^|]+) \|", plan, re.MULTILINE)
    planned = {f"session{n}": re.findall(r"\d", told) for n, told in rows}
    assert planned == {session: [str(int(n[:2])) for n in names] for session, names in slides.SESSIONS.items()}
    told = [name for names in slides.SESSIONS.values() for name in names]
    assert told == [path.stem for path in notebooks.sources(ROOT) if path.parent.name != notebooks.APPENDIX]
