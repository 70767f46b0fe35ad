"""Notebooks as files: sources without outputs, executed copies without anything that changes from run to run.

python -m vars_core.pipeline.notebooks strip            # in place; the files named, or all
python -m vars_core.pipeline.notebooks strip --check    # exit 1 when one isn't stripped
python -m vars_core.pipeline.notebooks student --to scratch/student
python -m vars_core.pipeline.notebooks lab --to scratch/lab    # copies to work on
"""

import argparse
import ast
import hashlib
import json
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from vars_core import params, paths

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
APPENDIX = "appendix"  # folder of the side studies
FOLDED = "hide-input"  # tag of a cell whose code JupyterLab and the site show when asked to
WIDGET = "application/vnd.jupyter.widget-view+json"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def read(path: Path) -> NotebookNode:
    """A notebook of format 4. Raises ValueError when the file isn't one."""
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path.name} is not a notebook: {str(error)[:80]}") from None


def text(notebook: NotebookNode) -> str:
    """The notebook's file content: one way to write the same notebook."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def sources(root: Path) -> list[Path]:
    """Every notebook of the study: the story in its order, then the appendix."""
    return [*sorted((root / "notebooks").glob("*.ipynb")), *sorted((root / "notebooks" / APPENDIX).glob("*.ipynb"))]


def source(root: Path, name: str) -> Path | None:
    """The file of the notebook called `name`, such as "03_attacks"; None where there is none."""
    return next((path for path in sources(root) if path.stem == name), None)


def together(notebook: NotebookNode, path: Path) -> NotebookNode:
    """A copy of the notebook at `path` whose links hold in a folder where all notebooks lie together, and which lies
    one deeper than notebooks/: reports/notebooks and scratch/lab."""
    copy, side = nbformat.from_dict(notebook), path.parent.name == APPENDIX
    for cell in copy.cells:
        if cell.cell_type == "markdown" and side:
            cell.source = re.sub(r"\]\(\.\./(?!\.\./)", "](", cell.source)
        elif cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", "](../../").replace(f"]({APPENDIX}/", "](")
    return copy


def stripped(notebook: NotebookNode) -> NotebookNode:
    """A copy without outputs, counts, or metadata other than tags and what they fold."""
    notebook = _tidied(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def canonical(notebook: NotebookNode, places: dict[str, str] | None = None) -> NotebookNode:
    """A copy of an executed notebook that depends on its code and parameters only.

    Timings, ids, addresses, stderr, widgets and the machine's paths go; `places` maps absolute paths to what
    is written instead. Two runs that compute the same give the same bytes.
    """
    notebook = _tidied(notebook)
    places = dict(sorted((places or {}).items(), key=lambda p: -len(p[0])))
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        ran = cell.get("execution_count") is not None
        count += ran
        cell.execution_count = count if ran else None
        cell.source = _relative(cell.source, places)
        cell.outputs = _outputs(cell.outputs, places, cell.execution_count)
    return notebook


def student(notebook: NotebookNode) -> NotebookNode:
    """A stripped copy without the solutions."""
    notebook = stripped(notebook)
    notebook.cells = [cell for cell in notebook.cells if "solution" not in tags(cell)]
    return notebook


def sections(path: Path) -> list[str]:
    """Sections of the parameter file that the notebook takes: the names that its `parameters` cell sets."""
    cells = [cell.source for cell in read(path).cells if "parameters" in tags(cell)]
    nodes = [node for source in cells[:1] for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    names = [target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if name in params.Study.model_fields]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def without_colours(text: str) -> str:
    """`text` without terminal colours."""
    return _ANSI.sub("", text)


def _tidied(notebook: NotebookNode) -> NotebookNode:
    copy = nbformat.from_dict(notebook)
    copy.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    copy.nbformat, copy.nbformat_minor = 4, 5
    used = set()
    for number, cell in enumerate(copy.cells):
        kept = tags(cell)
        if "injected-parameters" in kept and FOLDED not in kept:
            kept = [*kept, FOLDED]
        metadata = {"tags": list(kept)} if kept else {}
        if FOLDED in kept:
            metadata["jupyter"] = {"source_hidden": True}
        cell.metadata = nbformat.from_dict(metadata)
        cell.pop("attachments", None)
        injected = "injected-parameters" in kept  # papermill draws a random id for it
        name = "injected-parameters" if injected else cell.get("id") or f"cell-{number:02d}"
        while name in used:
            name = f"{name[:50]}-{number:02d}"
        used.add(name)
        cell.id = name
    return copy


def _outputs(outputs: list, places: dict, count: int | None) -> list:
    kept = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            words = _relative(output.text, places)
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += words  # where a stream is cut depends on the clock
            else:
                kept.append(nbformat.from_dict({"output_type": "stream", "name": "stdout", "text": words}))
            continue
        if output.output_type in ("display_data", "execute_result"):
            if WIDGET in output.data:
                continue
            output.data = {m: _relative(d, places) if _is_text(m, d) else d for m, d in output.data.items()}
            output.pop("transient", None)
        if output.output_type == "execute_result":
            output.execution_count = count
        if output.output_type == "error":
            output.traceback = [_relative(line, places) for line in output.traceback]
        kept.append(output)
    return kept


def _is_text(mime: str, data) -> bool:
    return isinstance(data, str) and (mime.startswith("text/") or mime == "image/svg+xml")


def _relative(text: str, places: dict[str, str]) -> str:
    for place, instead in places.items():
        text = text.replace(place, instead)
    return _ADDRESS.sub("", text)


def _strip(files: list[Path], check: bool) -> int:
    stale = 0
    for path in files:
        wanted = text(stripped(read(path)))
        if path.read_text(encoding="utf-8") == wanted:
            continue
        stale += 1
        if check:
            print(f"{path}: not stripped; run `make strip`", file=sys.stderr)
        else:
            paths.write(path, wanted)
            print(f"{path}: stripped")
    return 1 if check and stale else 0


def _to_work_on(files: list[Path], folder: Path) -> None:
    """Copy `files` to `folder`, where people run and edit them: JupyterLab saves by itself, and sources must stay as
    they are. A copy that somebody edited is kept, also when its source has changed since, which is said."""
    record = folder / ".copied.json"  # the hash of each source as it was copied
    known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    for path in files:
        source, target = text(together(stripped(read(path)), path)), folder / path.name
        digest = _hash(source)
        if target.is_file() and known.get(path.name) == digest:
            continue  # as new as it can be, edited or not
        if target.is_file() and _hash_of_copy(target) not in (known.get(path.name), digest):
            print(f"{target} was edited and is kept; {path} has changed since it was copied: move yours to get it")
            continue
        paths.write(target, source)
        known[path.name] = digest
    paths.write(record, json.dumps(known, indent=1, sort_keys=True) + "\n")


def _hash_of_copy(path: Path) -> str:
    try:
        return _hash(text(stripped(read(path))))
    except ValueError:  # edited out of shape: none that is known
        return ""


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vars_core.pipeline.notebooks", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    strip = commands.add_parser("strip", help="remove outputs, in place")
    strip.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file would change")
    copies = commands.add_parser("student", help="copies without solutions")
    lab = commands.add_parser("lab", help="copies to work on; those that were edited are kept")
    for command in (copies, lab):
        command.add_argument("--to", type=Path, required=True, help="folder of the copies")
    for command in (strip, copies, lab):
        command.add_argument("files", nargs="*", type=Path, help="notebooks; without any, all")
    options = parser.parse_args(arguments)
    options.files = options.files or sources(Path())
    try:
        if options.command == "strip":
            return _strip(options.files, options.check)
        if options.command == "lab":
            _to_work_on(options.files, options.to)
            return 0
        for path in options.files:
            paths.write(options.to / path.name, text(together(student(read(path)), path)))
            print(options.to / path.name)
    except (OSError, ValueError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
