"""Slides for each session of the course: `python -m vars_core.pipeline.slides FOLDER` lays out what Sphinx builds;
`make slides` does both.

A slide for each notebook's question and answer, one for each of its figures, under the section it stands in, and one
for what it found: all from the executed copies in reports/notebooks/.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from vars_core import paths
from vars_core.pipeline import notebooks

SESSIONS = {
    "session0": ("00_one_photo",),
    "session1": ("01_data", "02_recommender"),
    "session2": ("03_attacks",),
    "session3": ("04_reconstruction",),
    "session4": ("05_detection", "06_ablations"),
    "session5": ("07_adaptive",),
    "session6": ("08_certificate",),
}
SAVED = re.compile(r'"((?:\d\d|A\d)_\w+/\w+)"')


def lay_out(root: Path, target: Path) -> None:
    """Fill the folder `target` anew with the slides' sources, and the figures that they show."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "docs" / "slides", target)
    listed = []
    for session, names in SESSIONS.items():
        executed = [root / "reports" / "notebooks" / f"{name}.ipynb" for name in names]
        slides = [slide for path in executed if path.is_file() for slide in _slides(path, root)]
        if not slides:
            continue
        for figure in {slide[1] for slide in slides if slide[1]}:
            copy = target / "figures" / figure.relative_to(root / "reports" / "figures")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(figure, copy)
        text = "\n\n".join([f"# Session {session[-1]}", *(_written(*slide, root) for slide in slides)])
        paths.write(target / f"{session}.md", text + "\n")
        listed.append(session)
    tree = "\n".join(["```{toctree}", "", *listed, "```"])
    paths.write(target / "index.md", f"# Slides\n\n{tree}\n")


def _slides(path: Path, root: Path) -> list[tuple[str, Path | None, str]]:
    """(heading, figure, text) of each slide that the executed notebook at `path` gives."""
    found, heading, closing = [], "", False
    for cell in notebooks.read(path).cells:
        if {"exercise", "solution"} & set(notebooks.tags(cell)):
            continue
        if cell.cell_type == "markdown":
            first = cell.source.splitlines()[0]
            if first.startswith("# "):
                heading = first[2:]
                question = cell.source.split("\n\n")[1].replace("\n", " ")
                answer = re.search(r"\*\*In short:\*\* (.*)", cell.source)
                found.append((heading, None, f"**Question.** {question}\n\n{answer[1] if answer else ''}".rstrip()))
            elif first.startswith("## "):
                heading, closing = first[3:], first == "## What we found"
        elif "plots.save(" in cell.source:
            for name in dict.fromkeys(SAVED.findall(cell.source)):
                figure = root / "reports" / "figures" / f"{name}.png"
                if figure.is_file():
                    found.append((heading, figure, figure.with_suffix(".txt").read_text(encoding="utf-8").strip()))
        elif closing:
            said = [o.data.get("text/markdown", "") for o in cell.get("outputs", []) if "data" in o]
            found.append((heading, None, "\n\n".join(said)))
            closing = False
    return found


def _written(heading: str, figure: Path | None, text: str, root: Path) -> str:
    lines = [f"## {heading}"]
    if figure is not None:
        place = Path("figures") / figure.relative_to(root / "reports" / "figures")
        lines.append(f"![{text.translate(str.maketrans('[]', '()'))}]({place.as_posix()})")
    return "\n\n".join([*lines, text])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vars_core.pipeline.slides", description="lay out the sources of the slides"
    )
    parser.add_argument("folder", type=Path)
    lay_out(paths.root(), parser.parse_args(arguments).folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
