"""Does a run on another machine say the same? Its headline numbers beside the committed ones and their intervals.

Sums are ordered by threads and processors, so that bytes differ between machines. What has to hold on each is that a
number falls inside the interval that was committed with it: `vars compare`, `make compare`.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vars_core import paths
from vars_core.errors import InputError

DIGITS = 4  # as `report.metrics` writes them
OUTSIDE, LARGEST = 20, 5  # numbers that are named: outside their interval, and of those without one
COMMITTED = "reports/metrics"

Metrics = dict[str, dict]  # notebook → its nested metrics


@dataclass(frozen=True)
class Number:
    """A headline number of a run beside the committed one; None where it is absent."""

    name: str  # "02_recommender: vbpr.hr@20"
    found: float | bool | None
    committed: float | bool | None
    interval: tuple[float, float] | None  # that was committed with it

    @property
    def verdict(self) -> str:
        """ "new" or "gone", "equal" to 4 digits, "inside" or "outside" the interval, "different" without one."""
        if self.committed is None:
            return "new"
        if self.found is None:
            return "gone"
        if type(self.found) is bool or type(self.committed) is bool:
            return "equal" if self.found is self.committed else "different"
        if f"{self.found:.{DIGITS}g}" == f"{self.committed:.{DIGITS}g}":
            return "equal"
        if self.interval is None:
            return "different"
        return "inside" if self.interval[0] <= self.found <= self.interval[1] else "outside"

    @property
    def change(self) -> float:
        """Relative to the committed number; infinite from 0, and for a yes that became a no."""
        if type(self.committed) is bool or not self.committed:
            return float("inf")
        return abs(self.found - self.committed) / abs(self.committed)

    def __str__(self) -> str:
        interval = f" [{self.interval[0]:g}, {self.interval[1]:g}]" if self.interval else ""
        percent = f" ({self.change:.2g} of it)" if not interval and self.change < float("inf") else ""
        return f"{self.name}: {_shown(self.found)}, committed {_shown(self.committed)}{interval}{percent}"


def compare(found: Metrics, committed: Metrics) -> list[Number]:
    """Every headline number of the two, by name. Raises InputError for a value that is no number, yes or no."""
    ours, theirs = dict(_leaves(found)), dict(_leaves(committed))
    names = sorted({name for name in {**ours, **theirs} if not name.endswith("_ci")})
    return [Number(n, _number(ours, n), _number(theirs, n), _interval(theirs, f"{n}_ci")) for n in names]


def report(options) -> int:
    """Print how many numbers are equal, inside, outside; 0 when every one that has an interval is inside, else 1."""
    root = paths.root()
    found = of_folder(options.folder or root / COMMITTED)
    committed = of_folder(options.against) if options.against else of_git(root)
    numbers = compare(found, committed)
    of = {
        v: [n for n in numbers if n.verdict == v] for v in ("equal", "inside", "outside", "different", "new", "gone")
    }
    lost = [n for n in of["gone"] if n.interval]
    largest = sorted(of["different"], key=lambda n: -n.change)[:LARGEST]
    print(f"{len(numbers):,} headline numbers, beside those of {options.against or 'git HEAD'}")
    for verdict, text, named in (
        ("equal", f"equal to {DIGITS} digits", []),
        ("inside", "differ, inside the interval", []),
        ("outside", "outside the interval", of["outside"][:OUTSIDE]),
        ("different", "differ, without an interval" + "; the largest differences:" * bool(largest), largest),
        ("new", "only in this run", []),
        ("gone", "not in this run", lost[:OUTSIDE]),
    ):
        print(f"{len(of[verdict]):7,} {text}")
        for number in named:
            print(f"          {number}")
    return 1 if of["outside"] or lost else 0


def of_folder(folder: Path) -> Metrics:
    """The metrics in `folder`, its metrics/ or its reports/metrics/. Raises InputError when there are none."""
    for place in (folder / "reports" / "metrics", folder / "metrics", folder):
        files = sorted(place.glob("[!.]*.json"))
        if files:
            return {path.stem: _parsed(path.read_bytes(), str(path)) for path in files}
    raise InputError(f"{folder}: no metrics here; a folder with 01_data.json and so on expected")


def of_git(root: Path) -> Metrics:
    """The metrics of the last commit. Raises InputError where git has none."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=True).stdout

    try:
        listed = git("ls-tree", "-z", "--name-only", "HEAD", f"{COMMITTED}/").decode().split("\0")
        found = {name: git("show", f"HEAD:./{name}") for name in listed if name.endswith(".json")}
    except (OSError, subprocess.CalledProcessError):
        found = {}
    if not found:
        raise InputError(f"git has no commit with {COMMITTED} here; name a folder to compare with: --against FOLDER")
    return {Path(name).stem: _parsed(content, f"HEAD:{name}") for name, content in found.items()}


def _parsed(content: bytes, name: str) -> dict:
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise InputError(f"{name}: named numbers expected, found {type(tree).__name__}")
    return tree


def _leaves(metrics: Metrics) -> Iterator[tuple[str, object]]:
    def below(tree: dict, path: str) -> Iterator[tuple[str, object]]:
        for key, value in tree.items():
            name = f"{path}.{key}" if path else key
            yield from below(value, name) if isinstance(value, dict) else [(name, value)]

    for notebook, tree in metrics.items():
        yield from ((f"{notebook}: {name}", value) for name, value in below(tree, ""))


def _is_number(value) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")  # which NaN isn't either


def _number(values: dict, name: str) -> float | bool | None:
    if name in values and not _is_number(values[name]):
        raise InputError(f"{name}: a number, true or false expected, found {values[name]!r:.40}")
    return values.get(name)


def _interval(values: dict, name: str) -> tuple[float, float] | None:
    if name not in values:
        return None
    match values[name]:
        case [low, high] if _is_number(low) and _is_number(high) and low <= high:
            return low, high
    raise InputError(f"{name}: [low, high] expected, found {values[name]!r:.40}")


def _shown(value: float | bool | None) -> str:
    return "absent" if value is None else str(value) if isinstance(value, bool) else f"{value:.{DIGITS}g}"
