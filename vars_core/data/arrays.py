"""Arrays in `.npy` files, read without pickles and with no more memory than the file has bytes."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from vars_core.errors import InputError


class ArrayFileError(InputError, ValueError):
    """A file that should hold an array and doesn't; the message names it and says what is wrong."""


_HEADER = 10_000  # bytes; numpy refuses longer ones too, but when it has read them


def check_header(file: BinaryIO) -> None:
    """Raises ValueError where the header of the `.npy` file, open at its start and left there, is huge."""
    head = file.read(12)
    file.seek(0)
    if head[:6] == b"\x93NUMPY" and head[6:7] != b"\1" and int.from_bytes(head[8:12], "little") > _HEADER:
        raise ValueError(f"a header of {int.from_bytes(head[8:12], 'little'):,} bytes")


def load(path: Path, *, mapped: bool = False) -> np.ndarray:
    """The array in the `.npy` file `path`; `mapped`: it stays on disk, read-only.

    Raises FileNotFoundError, and ArrayFileError for a file that is cut off, damaged or something else."""
    try:
        with path.open("rb") as file:
            check_header(file)
        # A map is as long as the header says, so that numpy compares it with the file before it takes any memory.
        with np.errstate(over="ignore"):  # of the bytes of a wild shape
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("several arrays in one file")
        return array if mapped else np.array(array)
    except FileNotFoundError:
        raise
    except Exception as error:  # a header is a Python literal, and numpy raises what comes of it
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise ArrayFileError(f"{path}: not a whole .npy file of plain numbers ({reason})") from None
