"""What a run says, in a line, when the disk, the system or a kernel fails."""

import contextlib
import errno
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vars_core.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT)
# libraries that write files say it in words of their own; numpy counts what it could write
_FULL = re.compile(r"No space left on device|Disk quota exceeded|\d+ requested and \d+ written")
SIGNALS = {signal.SIGKILL: "usually because memory ran out", signal.SIGBUS: "usually because the disk is full"}


class RunError(InputError, RuntimeError):
    """The disk or the system refused something; the message names it."""


@contextlib.contextmanager
def in_a_line(what: str, folder: Path) -> Iterator[None]:
    """An OSError inside becomes a RunError: `what`, the file, the reason; `folder` is where the run works."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise RunError(f"{what}: {_line(error, folder)}") from None


def full(text: str) -> bool:
    """Whether an error's text says that a disk is full."""
    return bool(_FULL.search(text))


def space(folder: Path) -> str:
    """How much is free on the disk of `folder`, such as "12 MB free on the disk of /data"."""
    return f"{shutil.disk_usage(folder).free >> 20:,} MB free on the disk of {folder}"


def death(status: int | None) -> str:
    """Why a kernel ended with `status`, a signal's number below 0."""
    if status is None or status >= 0:
        return "" if status is None else f" (exit status {status})"
    name = signal.Signals(-status).name if -status in list(signal.Signals) else ""
    why = f": {SIGNALS[-status]}" if -status in SIGNALS else ""
    return f" (killed by signal {-status}{', ' + name if name else ''}{why})"


def check_writable(folder: Path) -> None:
    """Raises OSError, naming the folder, when nothing can be written in `folder` or where it would be made."""
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        error.filename = str(folder)
        raise


def shown(path: Path) -> str:
    """`path` as it can be opened from the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _line(error: OSError, folder: Path) -> str:
    place = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error)
    if error.errno in FULL or full(str(error)):
        return f"{place}no space left ({space(folder)}); make room, then run the same command again"
    return f"{place}{reason}"
