"""Tables that somebody else made: CSV in UTF-8, read as text; encoding, header and every row's shape are checked.

Rows are counted as spreadsheets do: the header is row 1, blank lines count.
"""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from vars_core.errors import InputError

ROW = " row"  # number of a row in its file; columns' names are stripped, so none of the file's is called that
ROWS = 500_000  # held at once by `pieces`
OTHERS = {  # first bytes of what is no CSV in UTF-8
    b"\xff\xfe": "UTF-16 or UTF-32",
    b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "a spreadsheet or zip file",
    b"\x1f\x8b": "packed with gzip",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"PAR1": "a Parquet file",
    b"version https://git-lfs": "a pointer of Git LFS",
}

csv.field_size_limit(2**24)  # descriptions may be longer than the 131,072 characters that are csv's default


class CatalogueError(InputError, ValueError):
    """A catalogue that cannot be used: names the file, the row (the header is row 1), what was expected."""


def read(path: Path, required: tuple, optional: tuple = ()) -> pd.DataFrame:
    """The whole table `path`: a column of stripped text for each named column, and ROW.

    Raises CatalogueError naming the file, the row, what was found and what was expected: `required` columns must be
    there and not empty, a column that is nearly called like a required or `optional` one has to be renamed, and each
    row has as many fields as the header. Blank rows and columns without a name are left out."""
    frame = pd.concat(list(pieces(path, required, optional)), ignore_index=True)
    for name in required:
        if (frame[name] == "").all():
            raise CatalogueError(f"{path}: column {name!r} is empty in every row")
    return frame


def pieces(path: Path, required: tuple, optional: tuple = (), rows: int | None = None) -> Iterator[pd.DataFrame]:
    """The table in pieces of `rows` (ROWS) rows: memory doesn't grow with its length. Errors as `read`'s."""
    if not path.is_file():
        raise CatalogueError(f"{path}: no such file; expected a table with the columns {', '.join(required)}")
    try:
        with path.open("rb") as file:
            _check_kind(file.read(4096), path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _pieces(file, path, required, optional, rows or ROWS)
    except UnicodeDecodeError:
        raise CatalogueError(
            f"{path}, line {_undecodable(path)}: not UTF-8, perhaps Latin-1; save the table as UTF-8"
        ) from None
    except OSError as error:
        raise CatalogueError(f"{path}: cannot be read ({error.strerror})") from error


def _pieces(file, path, required, optional, rows):
    header = [name.strip() for name in next(csv.reader(_lines(file, path)), [])]
    _check_header(header, path, required, optional)
    file.seek(0)
    read, empty = _regular if _is_regular(path, len(header)) else _any, True
    for number, values in read(file, path, header, rows):
        values = values.fillna("").apply(lambda column: column.str.strip())
        filled = (values != "").any(axis=1)
        frame = values.set_axis(header, axis=1)[[name for name in header if name]].assign(**{ROW: number})[filled]
        if len(frame):
            empty = False
            yield frame
    if empty:
        raise CatalogueError(f"{path}: no row below the header")


def _regular(file, path, header, rows):
    """Row numbers and values of a table that `_is_regular`, by pandas's parser, which is several times faster."""
    options = {"dtype": str, "keep_default_na": False, "index_col": False, "skip_blank_lines": False}
    names = list(range(len(header)))
    first = 2
    for values in pd.read_csv(file, header=0, names=names, chunksize=rows, quoting=csv.QUOTE_NONE, **options):
        yield np.arange(first, first + len(values)), values
        first += len(values)


def _any(file, path, header, rows):
    """Row numbers and values of any table, or the row that is wrong."""
    begun = 0  # the last row that was read whole: a quote that is never closed stands in the next

    def numbered():
        nonlocal begun
        for number, fields in enumerate(csv.reader(_lines(file, path), strict=True), 1):
            begun = number
            yield number, fields

    table = numbered()
    try:
        next(table)
        while batch := list(islice(table, rows)):
            batch = [(row, fields) for row, fields in batch if any(field.strip() for field in fields)]
            for row, fields in batch:
                if len(fields) != len(header):
                    reason = "; a field that holds a comma needs quotes around it" * (len(fields) > len(header))
                    raise CatalogueError(
                        f"{path}, row {row}: {len(fields)} fields, but the header has {len(header)} "
                        f"({', '.join(header)}){reason}"
                    )
            if batch:
                numbers = np.array([row for row, _ in batch])
                yield numbers, pd.DataFrame([fields for _, fields in batch], dtype=str)
    except csv.Error as error:
        reason = f"not CSV ({error}); is a quote left open or not doubled?"
        raise CatalogueError(f"{path}, row {begun + 1}: {reason}") from None


def _is_regular(path, width):
    """Has every line of the file `width` fields or nothing, without quotes?"""
    rest = b""
    with path.open("rb") as file:
        while block := file.read(2**20):
            block = (rest + block).replace(b"\r\n", b"\n")
            block, end, rest = block.rpartition(b"\n")
            if not _has_width(block + end, width) or len(rest) > 2**24:
                return False
    return _has_width(rest + b"\n", width)


def _has_width(block, width):
    if b'"' in block or b"\0" in block or b"\r" in block:
        return False
    signs = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(signs == ord("\n"))
    commas = np.diff(np.searchsorted(np.flatnonzero(signs == ord(",")), ends), prepend=0)
    return bool(((commas == width - 1) | (np.diff(ends, prepend=-1) == 1)).all())


def _check_header(header, path, required, optional):
    named = [name for name in header if name]
    missing = [name for name in required if name not in named]
    absent = [name for name in (*required, *optional) if name not in named]
    like = {name: alike for name in absent for alike in named if _alike(name, alike)}
    hint = "".join(f"; rename {alike!r} to {name}" for name, alike in like.items())
    if missing:
        hint += next(
            (
                f"; the header looks separated by {mark!r}, and commas are expected"
                for mark in (";", "\t", "|")
                if set(required) <= {name.strip() for name in ",".join(header).split(mark)}
            ),
            "",
        )
        raise CatalogueError(f"{path}, row 1: no column {', '.join(missing)}; the header is {header}{hint}")
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise CatalogueError(f"{path}, row 1: column {', '.join(map(repr, twice))} appears more than once")
    if like:
        raise CatalogueError(f"{path}, row 1: a column with a name unlike the expected{hint}")


def _alike(name, other):
    return re.sub(r"[\s_-]", "", name).casefold() == re.sub(r"[\s_-]", "", other).casefold()


def _lines(file, path):
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise CatalogueError(f"{path}, line {number}: holds a NUL character; a table of text in UTF-8 expected")
        yield line


def _check_kind(start, path):
    for mark, what in OTHERS.items():
        if start.startswith(mark):
            raise CatalogueError(f"{path}: {what}, not CSV in UTF-8; save the table as CSV in UTF-8")
    if start.count(b"\0") * 3 > len(start):
        raise CatalogueError(f"{path}: UTF-16 or UTF-32, not CSV in UTF-8; save the table as CSV in UTF-8")


def _undecodable(path):
    """Number of the first line of `path` that is not UTF-8."""
    number = 0
    with path.open("rb") as file:
        for line in file:
            for part in line.rstrip(b"\r\n").split(b"\r"):
                number += 1
                try:
                    part.decode()
                except UnicodeDecodeError:
                    return number
    return number
