"""The tables of README.md, reports/README.md and docs/times.md, regenerated from the reports:
`python -m vars_core.pipeline.readme [--timings]`.

A block stands between `<!-- begin:NAME -->` and `<!-- end:NAME -->`; NAME is one of BLOCKS.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from vars_core import labels, param_file, paths
from vars_core.pipeline import headlines, notebooks, timings

PAGES = ("README.md", "reports/README.md", "docs/times.md")
ABSENT = "–"
BLOCK = re.compile(r"(<!-- begin:(?P<name>[\w-]+) -->\n).*?(<!-- end:(?P=name) -->)", re.DOTALL)


def regenerated(text: str, root: Path, page: str = "README.md") -> str:
    """`text` of `page`, with its blocks as the reports have them now. Raises ValueError for other blocks."""

    def block(match: re.Match) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise ValueError(f"{page}: no block is called {name}; known: {', '.join(BLOCKS)}")
        return f"{match[1]}\n{BLOCKS[name](root, '../' * page.count('/'))}\n\n{match[3]}"

    return BLOCK.sub(block, text)


def old_pages(root: Path) -> dict[Path, str]:
    """Each of PAGES whose tables are old → its text as it should be. Raises OSError without README.md."""
    found = {}
    for name in PAGES:
        path = root / name
        if name == PAGES[0] or path.is_file():
            text = path.read_text(encoding="utf-8")
            new = regenerated(text, root, name)
            if new != text:
                found[path] = new
    return found


def notebook_table(root: Path, up: str = "") -> str:
    """Question and answer of each notebook of the story, linked to the executed copy; of appendices the question."""
    tables = {"": [], "A": []}
    for path in notebooks.sources(root):
        found = root / "reports" / "tables" / path.stem / "answer.json"
        answer = _json(found) if found.is_file() else {}
        number, name = path.stem.split("_", 1)
        link = f"[{number.lstrip('0') or 0} · {name.replace('_', ' ')}]({up}reports/notebooks/{path.name})"
        row = [link, answer.get("question", ABSENT), answer.get("answer", ABSENT)]
        tables["A" * number.startswith("A")].append(row)
    story = _table(["notebook", "question", "answer"], tables[""])
    sides = "; ".join(f"{link}, *{question}*" for link, question, _ in tables["A"])
    return f"{story}\n\nAppendices: {sides}" if sides else story


def time_table(root: Path, up: str = "") -> str:
    """Minutes per stage, a column per profile and machine."""
    entries = timings.read(root / "reports" / "timings.json")
    if not entries:
        return "*No times yet.*"
    heads = [f"{e['profile']}: {e['cores']} × {e['cpu']}" + (f", {e['gpu']}" if "gpu" in e else "") for e in entries]
    stages = sorted({stage for e in entries for stage in e["seconds"]})
    rows = [[s, *(_minutes(e["seconds"].get(s)) for e in entries)] for s in stages]
    rows.append(["**all**", *(f"**{_minutes(sum(e['seconds'].values()))}**" for e in entries)])
    return _table(["minutes", *heads], rows)


def numbers_table(name: str, *, intervals: bool = True) -> Callable[[Path, str], str]:
    """Makes the table `name` of `headlines`: a column for the synthetic catalogue and for every published one, values
    with their intervals where the run gives them."""

    def made(root: Path, up: str = "") -> str:
        known = list(_catalogues(root, up))
        rows = [
            [row.title, *(_written(found, row, intervals) for *_, found in known)] for row in headlines.TABLES[name]
        ]
        about = [["profile", *_profiles(root)]] if name == "recommenders" else []
        return _table([headlines.HEADS[name], *(column for column, *_ in known)], [*about, *rows])

    return made


def honest_table(root: Path, up: str = "") -> str:
    """What share of honestly edited or noisy photos each catalogue's detector flags."""
    columns, shares = [], []
    for (head, *_), folder in zip(_catalogues(root, up), _folders(root), strict=True):
        columns.append(head)
        shares.append(_flagged(folder / "tables" / "05_detection" / "benign.csv"))
    rows = [
        [labels.in_column("edit", edit), *(found.get(edit, ABSENT) for found in shares)] for edit in headlines.HONEST
    ]
    return _table(["honest photos flagged at 1 % false alarms", *columns], rows)


def _flagged(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("detector") == "contrastive"]
    return {row["edit"]: _share(*(float(row[name]) for name in ("value", "ci_low", "ci_high"))) for row in rows}


def _written(found: dict, row: headlines.Row, intervals: bool) -> str:
    """A value as a table has it, "2.6 % [1.5, 3.9] (1.1 %)", or a dash where the run has none."""
    metrics = found.get(row.file, {})
    value, bounds = _value(metrics, row.keys), _value(metrics, [*row.keys[:-1], f"{row.keys[-1]}_ci"])
    if value is None:
        return ABSENT
    bounds = bounds if intervals and bounds else ()
    price = row.price(found) if row.price else None
    if row.kind == "share":
        return _share(value, *bounds) + (
            f" ({_share(price)})".replace(" %", "\N{NO-BREAK SPACE}%") if price is not None else ""
        )
    if row.kind == "score":
        return f"{value:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")
    return f"{value:,}"


def _share(value: float, low: float | None = None, high: float | None = None) -> str:
    """A share in per cent, with its interval; more digits below 10."""
    text = [f"{100 * x:.2g}" if abs(x) < 0.0995 else f"{100 * x:.3g}" for x in (value, low, high) if x is not None]
    return f"{text[0]} %" + (f" [{text[1]}, {text[2]}]" if len(text) == 3 else "")


def _catalogues(root: Path, up: str) -> Iterator[tuple[str, dict]]:
    """Column head and metrics by notebook of the pipeline's own run and of every published one."""
    yield "synthetic", _metrics(root / "reports" / "metrics")
    for folder in _folders(root)[1:]:
        simulated = ", simulated feedback" * bool(_json(folder / "run.json").get("simulated"))
        yield f"[{folder.name}]({up}reports/catalogues/{folder.name}){simulated}", _metrics(folder / "metrics")


def _profiles(root: Path) -> Iterator[str]:
    """The profile of each of these."""
    yield timings.profile(param_file.read(root / "params.yaml"), root / "profiles")
    for folder in _folders(root)[1:]:
        yield _json(folder / "run.json").get("profile", ABSENT)


def _folders(root: Path) -> list[Path]:
    """Where the reports of the pipeline's own run lie, and of every published one."""
    published = sorted((root / "reports" / "catalogues").glob("*/run.json"))
    return [root / "reports", *(run.parent for run in published)]


def _metrics(folder: Path) -> dict:
    return {path.stem: _json(path) for path in folder.glob("*.json")}


BLOCKS = {
    "lists": numbers_table("lists", intervals=False),
    "notebooks": notebook_table,
    "times": time_table,
    "honest": honest_table,
    **{name: numbers_table(name) for name in headlines.TABLES if name != "lists"},
}


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in r) + " |" for r in lines
    )


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None


def _minutes(seconds: float | None) -> str:
    return ABSENT if seconds is None else f"{seconds / 60:.1f}"


def _value(metrics: dict, keys: list[str]):
    value = metrics
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return None if isinstance(value, dict) else value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vars_core.pipeline.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--timings", action="store_true", help="first take the times of this machine's whole runs")
    options = parser.parse_args(arguments)
    root = paths.root()
    if options.timings:
        timings.publish(root)
    try:
        old = old_pages(root)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for path, new in old.items():
        paths.write(path, new)
        print(f"{path.relative_to(root)}: tables regenerated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
