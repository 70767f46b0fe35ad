"""What a benchmark leaves: results.json (with machine, versions and date), results.csv and results.md."""

import datetime
import json
from importlib.metadata import version
from pathlib import Path

from vars_core import paths

PACKAGES = ("numpy", "pandas", "pillow", "torch")


def publish(folder: Path | None, name: str, rows: list[dict], caption: str, **about) -> Path:
    """Write `rows` and what is to be known `about` them to `folder` (by default reports/benchmarks/<name>)."""
    import pandas as pd

    from vars_core import timings  # here: both are large, and a measuring process starts with its parent's peak

    folder = folder or paths.root() / "reports" / "benchmarks" / name
    content = {
        "date": datetime.date.today().isoformat(),
        "machine": timings.machine(),
        "versions": {package: version(package) for package in PACKAGES},
        "about": about | {"caption": caption},
        "rows": rows,
    }
    table = pd.DataFrame(rows)
    paths.write(folder / "results.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    paths.write(folder / "results.csv", table.to_csv(index=False))
    shown = table.map(lambda value: f"{value:,}" if isinstance(value, int | float) else value)
    align = ["left" if table[column].dtype == object else "right" for column in table]
    text = shown.to_markdown(index=False, disable_numparse=True, colalign=align)
    where = content["machine"]
    text += f"\n\n*{caption} {where['cpu']}, {where['cores']} cores, Python {where['python']}; {content['date']}.*\n"
    return paths.write(folder / "results.md", text)
