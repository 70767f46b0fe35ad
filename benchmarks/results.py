"""What a benchmark leaves behind: a table (CSV and Markdown) and where, when and with what it was measured."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from vars_core import paths

if TYPE_CHECKING:  # a process that measures memory starts with its parent's peak, so a parent imports little
    import pandas as pd

PACKAGES = (
    *("torch", "numpy", "scipy", "pandas", "pillow", "cornac"),
    *("foolbox", "adversarial-robustness-toolbox", "torchattacks"),
)


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A command line for benchmark `name`, with --out."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=description, formatter_class=raw)
    made.add_argument("--out", type=Path, help="folder for the results (reports/benchmarks)")
    return made


def folder(name: str, out: Path | None = None) -> Path:
    """reports/benchmarks/<name>, or <out>/<name>."""
    return (out or paths.root() / "reports" / "benchmarks") / name


def write(name: str, table: pd.DataFrame, about: dict, out: Path | None = None, title: str = "") -> Path:
    """Write results.csv, results.md and run.json into the folder of benchmark `name`; print the table.

    `about` holds the settings and the findings; date, machine and package versions are added.
    """
    from vars_core.pipeline import timings

    place = folder(name, out)
    markdown = table.to_markdown(index=False, floatfmt=".4g", missingval="–")
    heading = f"{title}\n\n" if title else ""
    here = timings.machine()
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    places = [f"{here['cpu']}, {here['cores']} cores", *([here["gpu"]] if "gpu" in here else [])]
    source = f"\n\n*{' · '.join([day, *places, _versions(' ')])}*\n"
    paths.write(place / "results.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    paths.write(place / "results.md", heading + markdown + source)
    run = {"date": day, "machine": here, "packages": dict(p.split() for p in _versions("\n").split("\n"))} | about
    paths.write(place / "run.json", json.dumps(run, indent=2, ensure_ascii=False, default=float) + "\n")
    print(heading + markdown + source)
    return place


def _versions(between: str) -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return (", " if between == " " else between).join(found)
