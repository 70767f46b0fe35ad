"""One run at a time in a folder: a lock of the operating system, which goes with the process, however that ends."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from vars_core.errors import InputError


class LockedError(InputError, RuntimeError):
    """Another run works in the folder; the message names its process."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold `folder`'s lock, the file scratch/run.lock in it. Raises LockedError when another run holds it.

    A disk without locks is said, and the run goes on.
    """
    path = folder / "scratch" / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "its process isn't known"
            raise LockedError(f"{folder}: another run ({holder}) works here; wait for it, or end it") from None
        except OSError as error:
            print(f"{folder}: no locks on this disk ({error.strerror}); start no second run here", file=sys.stderr)
        with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()}")
            file.flush()
        yield
