"""Sources of the site: `python -m vars_core.pipeline.site FOLDER` lays out what Sphinx builds; `make site` does both.

Pages keep the places that they have in the repository, so that their links hold. Notebooks are shown as they were
executed. What a page links to and no page shows is copied along, such as a table; a link to a folder becomes text.
"""

import argparse
import ast
import json
import re
import shutil
import sys
from pathlib import Path

from vars_core import paths
from vars_core.pipeline import notebooks

PAGES = (
    "TEACHING.md", "CONTRIBUTING.md", "docs/*.md", "reports/README.md", "reports/gpu/README.md",
    "benchmarks/README.md", "data/README.md", "pretrained/*/README.md",
)  # fmt: skip
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(<?([^)\s>]+)>?\)")
SITE = Path("docs/site")
EXPLORER = "reports/tables/00_one_photo/explorer.json"
LARGEST = 2**20  # bytes of a file that a page links to


def lay_out(root: Path, target: Path) -> None:
    """Fill the folder `target` anew with the site's sources."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / SITE, target)
    for page in target.glob("*.md"):
        paths.write(page, _linked(page.read_text(encoding="utf-8"), Path(), root, target))
    shown = [path for pattern in PAGES for path in sorted(root.glob(pattern))]
    for page in shown:
        place = page.relative_to(root)
        paths.write(target / place, _linked(page.read_text(encoding="utf-8"), place.parent, root, target))
    for source in notebooks.sources(root):
        executed = root / "reports" / "notebooks" / source.name
        if executed.is_file():
            copy = notebooks.read(executed)
            for cell in copy.cells:
                if cell.cell_type == "markdown":
                    cell.source = _linked(cell.source, Path("reports/notebooks"), root, target)
            paths.write(target / "reports" / "notebooks" / source.name, notebooks.text(copy))
    _pages_of_the_code(root / "vars_core", target / "api")
    found = root / EXPLORER
    data = json.loads(found.read_text(encoding="utf-8")) if found.is_file() else None
    # a script, as a page that is opened from a disk may read no other file
    paths.write(target / "static" / "explorer-data.js", f"const EXPLORER = {json.dumps(data)};\n")


def _linked(text: str, folder: Path, root: Path, target: Path) -> str:
    """`text` of a page in `folder` with links that hold on the site."""

    def there(found: re.Match) -> str:
        picture, words, link = found.groups()
        if re.match(r"[a-z]+:|#", link):
            return found[0]
        name, _, anchor = link.partition("#")
        path = (root / folder / name).resolve()
        if (target / folder / name).is_file():
            return found[0]
        if not path.is_relative_to(root.resolve()) or not path.exists():
            return words
        place = path.relative_to(root.resolve())
        if place.suffix == ".ipynb":
            place = Path("reports/notebooks") / place.name
        if place == Path("README.md"):
            place = Path("index.md")
        elif place.is_relative_to(SITE):
            place = place.relative_to(SITE)
        elif path.is_dir() and (path / "README.md").is_file():
            place = place / "README.md"
        page = place.suffix == ".ipynb" or any(place.match(p) for p in PAGES) or (root / SITE / place).is_file()
        if not page:
            if not path.is_file() or path.stat().st_size > LARGEST or path.suffix in (".py", ".yaml", ".toml"):
                return words
            copy = target / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        up = "/".join([".."] * len(folder.parts)) or "."
        return f"{picture}[{words}]({up}/{place.as_posix()}{'#' * bool(anchor)}{anchor})"

    return LINK.sub(there, text)


def _pages_of_the_code(package: Path, target: Path) -> None:
    """A page for each room of `package`, and one for the modules at its top: what their docstrings say."""
    rooms = ["data", "recommender", "attacks", "reconstruction", "detection", "adaptive", "exercises", "pipeline"]
    listed = []
    for room in ["", *rooms]:
        folder = package / room
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        name = f"vars_core.{room}".rstrip(".")
        lines = [f"# {name}", "", f"```text\n{text}\n```", ""]
        for module in sorted(folder.glob("[!_]*.py")):
            told = f"```{{eval-rst}}\n.. automodule:: {name}.{module.stem}\n   :members:\n```\n"
            lines += [f"## {module.stem}", "", told]
        page = room or "top"
        paths.write(target / f"{page}.md", "\n".join(lines))
        listed.append(page)
    tree = "\n".join(["```{toctree}", ":maxdepth: 1", "", *listed, "```"])
    about = "A room a page, from the lowest up; each imports from those before it only."
    paths.write(target / "index.md", f"# The code\n\n{about}\n\n{tree}\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vars_core.pipeline.site", description="lay out the sources of the site"
    )
    parser.add_argument("folder", type=Path)
    lay_out(paths.root(), parser.parse_args(arguments).folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
