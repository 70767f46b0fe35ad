"""Tables, metrics and sentences of a notebook, written so that the same run gives the same bytes.

A CSV is for programs: tidy rows, names as code has them. What is shown, in Markdown and LaTeX too, is for readers:
names from `labels`, a value with its interval in one cell.

Cells, column names and captions are plain text: whatever a catalogue calls its things is shown as it is written, and
no tag, link, formula or command in a name acts. A CSV holds names as they are: a spreadsheet takes a cell that
begins with = + - or @ for a formula.
"""

import hashlib
import html
import json
import math
import re
from numbers import Integral, Real

import numpy as np
import pandas as pd

from vars_core import labels, paths

DIGITS = 4  # significant; more would be noise from the order of floating-point sums
ABSENT = "–"
BOUNDS = (("ci_low", "ci_high"), ("low", "high"))  # of intervals: columns of tables
_TEX = str.maketrans(
    {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\textasciitilde{}"} | {sign: f"\\{sign}" for sign in "&%_#${}"}
)
# What means something in Markdown or HTML. A sign that can't act where it stands is left alone: 3 < 5, a_b, R & D.
_ACTS = re.compile(
    r"[\\`*|$]|~(?=~)|(?<=~)~|_(?![^\W_])|(?<![^\W_])_"  # code, emphasis, columns, formulas, escapes themselves
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])[(\[]"  # tags, entities, links
)
_ENTITIES = {"<": "&lt;", "&": "&amp;", "(": "&#40;", "[": "&#91;"}
_simulated = False


def mark_simulated(flag: bool) -> None:
    """From here on every caption says that the feedback is simulated (or no longer does)."""
    global _simulated
    _simulated = bool(flag)


def captioned(caption: str) -> str:
    """`caption`, with " (simulated feedback)" when the catalogue has none of its own."""
    return caption.rstrip(".") + " (simulated feedback)" if _simulated else caption


def one_line(text: object) -> str:
    """`text` without line breaks and other characters that can't be seen: a space stands for each."""
    return "".join(sign if sign.isprintable() else " " for sign in str(text))


def plain(text: object) -> str:
    """`text` for a sentence in Markdown, shown as it is written: for names that come from a catalogue."""
    return _ACTS.sub(lambda found: _ENTITIES.get(found[0], "\\" + found[0]), one_line(text))


def table(df: pd.DataFrame, name: str, caption: str):
    """Write `df` as reports/tables/<name>.csv, .md and .tex; return it styled for display.

    `name` is "03_attacks/rank_shift". A meaningful index becomes columns. Floats keep 4 significant digits;
    a missing value is empty in the CSV and "–" elsewhere. Columns `ci_low` and `ci_high`, `low` and `high`, or
    `<name> low` and `<name> high` stand behind the value that they belong to, and are shown with it: "0.236 [0.219,
    0.254]".
    """
    _check_name(name)
    tidy = df.reset_index(drop=_plain_index(df)).map(_rounded)
    tidy.columns = [" ".join(map(str, c)).strip() if isinstance(c, tuple) else str(c) for c in tidy.columns]
    text, aligned = _for_readers(tidy)
    caption = one_line(captioned(caption))
    base = paths.reports() / "tables" / name
    paths.write(base.with_name(base.name + ".csv"), tidy.to_csv(index=False, lineterminator="\n"))
    paths.write(base.with_name(base.name + ".md"), f"{_markdown(text, aligned)}\n\n*{plain(caption)}*\n")
    label = "tab:" + name.replace("/", ":")
    latex = text.to_latex(index=False, escape=True, caption=caption.translate(_TEX), label=label)
    paths.write(base.with_name(base.name + ".tex"), latex)
    return _styled(text, name, caption)


def intervals(df: pd.DataFrame, rows: str, columns: str, caption: str, *, value: str = "value"):
    """A tidy table's values with their intervals, "0.236 [0.219, 0.254]", a line for each of its `rows` and a column
    for each of its `columns`, in the order of the table: styled for display, and not written.

    `df` has columns `ci_low` and `ci_high` beside `value`."""
    cells = map(_with_interval, df[value], df["ci_low"], df["ci_high"])
    wide = df.assign(**{value: list(cells)}).pivot(index=rows, columns=columns, values=value)
    wide = wide.reindex(index=df[rows].unique(), columns=df[columns].unique()).fillna(ABSENT)
    wide.index = [one_line(labels.in_column(rows, name)) for name in wide.index]
    wide.columns = [one_line(labels.in_column(columns, name)) for name in wide.columns]
    wide = wide.rename_axis(index=labels.header(rows)).reset_index()
    return _styled(wide, f"{caption} {rows} {columns}", captioned(caption))


def _for_readers(tidy: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A table's cells as they are shown, and how Markdown aligns its columns."""
    shown, names = {}, list(tidy.columns)
    merged = {}  # the bounds of a column that stand behind it
    for name, *behind in zip(names, names[1:], names[2:], strict=False):
        if tuple(behind) in (*BOUNDS, (f"{name} low", f"{name} high")):
            merged[name] = behind
    for name in names:
        if any(name in bounds for bounds in merged.values()):
            continue
        cells = tidy[name].map(_shown)
        if name in merged:
            cells = map(_with_interval, tidy[name], *(tidy[bound] for bound in merged[name]))
        shown[name] = [one_line(labels.in_column(name, cell)) for cell in cells]
    aligned = ["---:" if pd.api.types.is_numeric_dtype(tidy[name]) else "---" for name in shown]
    return pd.DataFrame(shown).rename(columns=lambda name: one_line(labels.header(name))), aligned


def _with_interval(value, low, high) -> str:
    """ "0.236 [0.219, 0.254]": three digits, as more would be noise beside an interval."""
    value, low, high = (_shown(round_significant(float(x), 3) if _is_number(x) else x) for x in (value, low, high))
    return value if ABSENT in (low, high) else f"{value} [{low}, {high}]"


def _is_number(value) -> bool:
    return isinstance(value, (float, int, np.floating, np.integer)) and math.isfinite(value)


def _styled(text: pd.DataFrame, name: str, caption: str):
    # The default uuid is random and would change the executed notebook on every run.
    uuid = hashlib.sha256(name.encode()).hexdigest()[:8]
    styled = text.style.format(escape="html").format_index(escape="html", axis="columns").hide(axis="index")
    # without the class, MathJax would take what stands between two prices for a formula
    styled.set_table_attributes('class="tex2jax_ignore mathjax_ignore"')
    return styled.set_caption(html.escape(caption)).set_uuid(uuid)


def metrics(stage: str, values: dict) -> dict:
    """Write reports/metrics/<stage>.json: nested, sorted, 4 significant digits. Returns what was written.

    Raises ValueError with the key's name for NaN, infinity or None: leave out what a run cannot give.
    """
    clean = _metric(values, "")
    paths.write(paths.reports() / "metrics" / f"{stage}.json", _json(clean))
    return clean


def headline(stage: str, values: dict[str, float | None]) -> None:
    """Write the few numbers that `dvc metrics diff` shows, to reports/tables/<stage>/headline.json.

    Their names hold no parameter, so that a run with another ε or list length still has the same rows: letters and
    underscores, eight at most, or ValueError. What a run cannot give (None, NaN, infinite) is left out."""
    wrong = [name for name in values if not re.fullmatch("[a-z]+(_[a-z]+)*", name)]
    if wrong or len(values) > 8:
        raise ValueError(
            f"headline of {stage}: at most 8 names of letters and underscores; got {wrong or len(values)}"
        )
    given = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    paths.write(paths.reports() / "tables" / stage / "headline.json", _json(_metric(given, "")))


def answer(stage: str, question: str, answer: str) -> None:
    """Write the notebook's question and its answer (with a number) for the README's table, and show them."""
    content = {"question": question, "answer": answer}
    paths.write(paths.reports() / "tables" / stage / "answer.json", _json(content))
    text(f"**{question}** {answer}")


def text(text: str) -> None:
    """Show Markdown under the cell, for readings that interpolate the numbers above; names in it are `plain`."""
    from IPython.display import Markdown, display

    display(Markdown(text))


def number(value: float | None, spec: str) -> str:
    """`value` as `spec` (".1%") has it for a sentence, or "–" where a run cannot give it (None, NaN, infinite)."""
    return ABSENT if value is None or not math.isfinite(value) else format(value, spec)


def signed(share: float | None) -> str:
    """A change as a per cent with its sign and two digits: "+0.34 %", "-12 %"; "±0 %" where it rounds to nothing, "–"
    where a run cannot give it."""
    if share is None or not math.isfinite(share):
        return ABSENT
    per_cent = round_significant(100 * float(share), 2)
    return "±0 %" if abs(per_cent) < 0.001 else f"{per_cent:+g} %"


def count(n: int, thing: str) -> str:
    """ "1 seed", "3 seeds", "1,823 photos": a number with the thing it counts."""
    return f"{n:,} {thing}" + ("" if n == 1 else "s")


def round_significant(value: float, digits: int = DIGITS) -> float:
    """`value` to so many significant digits."""
    return float(f"{value:.{digits}g}")


def _check_name(name: str) -> None:
    if name.count("/") != 1 or not all(name.split("/")) or ".." in name:
        raise ValueError(f'name is "<stage>/<table>" such as "03_attacks/rank_shift"; got {name!r}')


def _plain_index(df: pd.DataFrame) -> bool:
    return df.index.nlevels == 1 and df.index.name is None and pd.api.types.is_integer_dtype(df.index)


def _rounded(value):
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return round_significant(float(value))
    return value


def _shown(value) -> str:
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ABSENT
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return one_line(value)


def _markdown(text: pd.DataFrame, aligned: list[str]) -> str:
    rows = [[plain(cell) for cell in row] for row in (list(text.columns), *text.to_numpy().tolist())]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], aligned, *rows[1:]))


def _metric(value, key: str):
    if isinstance(value, dict):
        return {str(k): _metric(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_metric(v, f"{key}[{n}]") for n, v in enumerate(value)]
    if hasattr(value, "item"):  # numpy and torch scalars
        value = value.item()
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return round_significant(float(value))
    raise ValueError(f"metric {key} is {value!r}: leave out what a run cannot give, write numbers otherwise")


def _json(content: dict) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
