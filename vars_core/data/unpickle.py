"""Reading pickled data without running it: Python's own unpickler, with all taken out that imports or runs.

A pickle is a program: an unpickler imports what the file names and calls it. The one here is the standard library's
in Python, `pickle._Unpickler`. Its `find_class` is replaced by one that imports nothing: a few names that numpy and
Python 2 write stand for functions of this module, every other is an error. In `dispatch`, its table of opcodes, those
are replaced or refused that call, set state or read strings. Long strings (photos) are skipped; a `Span` says where
they lie. The unpickler in C has no such table and holds them all: a process with it takes 2.3 GB of memory for a file
of 2 GB, and 0.34 GB with this one.
"""

import pickle
import struct
import sys
from collections.abc import Callable, Sized
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np

LONG = 256  # bytes; longer strings become a Span
_LINE = 1 << 24  # bytes; the longest string of protocol 0, whose strings are escaped and stay in memory
_DEEP = 100  # tuples in tuples


class UnpickleError(ValueError):
    """The pickle is damaged, or wants more than data."""


@dataclass(frozen=True, slots=True)
class Span:
    """A long string of the file: `length` bytes from `start`. `read` raises UnpickleError if `latin1` isn't so."""

    start: int
    length: int
    latin1: bool = False  # bytes that Python 3 wrote for Python 2: as text, which lies in UTF-8

    def read(self, file: BinaryIO) -> bytes:
        file.seek(self.start)
        content = file.read(self.length)
        try:
            return content.decode().encode("latin-1") if self.latin1 else content
        except UnicodeError:
            raise UnpickleError(f"damaged pickle (the string at byte {self.start} is not in UTF-8)") from None


def load(file: BinaryIO, progress: Callable[[int], None] = lambda position: None):
    """The object that the pickle at `file`'s position holds, of dicts, lists, tuples, sets, numbers, text, bytes,
    `Span`s; an array becomes a list, a long array of plain numbers a list of one Span. `progress` is given the
    position behind each long string.

    Raises UnpickleError for a pickle that is damaged or that names anything but data (os.system, …)."""
    try:
        return _Reader(file, progress).load()
    except (UnpickleError, OSError):
        raise
    except EOFError:
        raise UnpickleError("damaged pickle (it stops in the middle)") from None
    except Exception as error:  # opcodes in a wrong order can make anything fail
        raise UnpickleError(f"damaged pickle ({type(error).__name__}: {error!s:.200})") from None


class _Array(list):
    """A numpy array in the making; its content comes with BUILD."""

    def fill(self, _, shape: tuple, dtype: "_Type", fortran: bool, data) -> None:
        if dtype.code.startswith("O"):
            if len(shape) > 1 or not isinstance(data, list):
                raise UnpickleError("an object array of several dimensions; one expected")
            self[:] = data
        elif isinstance(data, Span):
            self[:] = [data]
        elif (array := dtype.numbers(data)).size:  # of the shape (1000000000, 0) numpy would make as many lists
            self[:] = np.atleast_1d(array.reshape(shape, order="F" if fortran else "C")).tolist()


@dataclass
class _Type:
    """A numpy dtype in the making; its byte order comes with BUILD."""

    code: str
    order: str = "="

    def fill(self, _, order: str, *__) -> None:
        self.order = order

    def numbers(self, data: str | bytes) -> np.ndarray:
        dtype = np.dtype("" + self.code).newbyteorder(self.order)  # "": an error for what is no text
        if dtype.kind not in "biufSU":
            raise UnpickleError(f"an array of type {dtype}; plain numbers and text expected")
        return np.frombuffer(data.encode("latin-1") if isinstance(data, str) else data, dtype)


def _encode(text: str | Span, encoding: str) -> bytes | Span:
    if encoding != "latin1":
        raise UnpickleError("bytes written as text in another encoding than Python's latin1")
    return replace(text, latin1=True) if isinstance(text, Span) else text.encode("latin-1")


_NAMES: dict[str, Callable] = {
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.core.multiarray.scalar": lambda dtype, data: dtype.numbers(data)[0].item(),
    "numpy.ndarray": lambda *_: _Array(),
    "numpy.dtype": lambda code, *_: _Type(code),
    "_codecs.encode": _encode,
    "collections.defaultdict": lambda *_: {},
    "collections.OrderedDict": dict,
    **{"builtins.list": list, "builtins.dict": dict, "builtins.set": set, "builtins.bytes": lambda: b""},
}


class _Memo(list):
    """What a pickle remembers, by number. They come in order, from 0 or (Python 2) 1: a list takes a tenth of a
    dict's memory, and Python 2 remembered every string of millions. No number exceeds `most`, the file's bytes."""

    def __init__(self, most: int):
        self.most = most

    def __setitem__(self, number: int, value) -> None:
        if number > self.most:
            raise UnpickleError(f"damaged pickle (it remembers something as number {number})")
        self.extend([_Memo] * (number + 1 - len(self)))  # _Memo: not given yet
        super().__setitem__(number, value)

    def __getitem__(self, number: int):
        if number < 0 or (value := super().__getitem__(number)) is _Memo:
            raise KeyError(number)
        return value


def _string(prefix: str, encoding: str = ""):
    """What reads a string behind its length, which is packed as `prefix`; without an encoding it stays bytes."""
    unpack, size = struct.Struct(prefix).unpack, struct.calcsize(prefix)

    def read(self):
        (length,) = unpack(self.read(size))
        if not 0 <= length <= LONG:
            self.append(self.skip(length))
        elif encoding:
            self.append(sys.intern(self.read(length).decode(encoding, "surrogatepass")))
        else:
            self.append(self.read(length))

    return read


def _shallow(load: Callable):
    """What makes a tuple as `load` does, but none too deep: Python crashes when it takes the hash of one."""

    def make(self):
        load(self)
        made = self.stack[-1]
        depth = 1 + max((self.depth.get(id(x), 1) for x in made if type(x) is tuple), default=0)
        if depth > _DEEP:
            raise UnpickleError(f"more than {_DEEP} tuples in one another")
        if depth > 1 or id(made) in self.depth:  # or: the number of one that is gone
            self.depth[id(made)] = depth

    return make


class _Reader(pickle._Unpickler):
    def __init__(self, file: BinaryIO, progress: Callable[[int], None]):
        super().__init__(SimpleNamespace(read=file.read, readline=lambda: file.readline(_LINE)), encoding="latin-1")
        start, self.size = file.tell(), file.seek(0, 2)
        file.seek(start)
        self.file, self.progress, self.memo, self.depth, self.copied = file, progress, _Memo(self.size), {}, 0

    def find_class(self, module: str, name: str) -> Callable:
        known = f"{module}.{name}".replace("__builtin__", "builtins").replace("_core", "core")
        if known not in _NAMES:
            raise UnpickleError(f"the pickle tries to import {f'{module}.{name}':.99}; nothing of it was run")
        return _NAMES[known]

    def load_reduce(self):
        arguments, function = self.stack.pop(), self.stack.pop()
        if function not in _NAMES.values():
            raise UnpickleError("the pickle calls something that is not a function of numpy's or Python's containers")
        self.append(function(*self.counted(arguments)))

    def load_build(self):
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, _Array | _Type):
            raise UnpickleError(f"the pickle sets the state of a {type(made).__name__}, which data does not need")
        made.fill(*self.counted(state))

    def counted(self, values):
        """`values`, which are about to be copied. Raises UnpickleError for a list that is copied again and again."""
        self.copied += sum(len(value) for value in values if isinstance(value, Sized))
        if self.copied > self.size:
            raise UnpickleError("the pickle copies more than it holds")
        return values

    def skip(self, length: int) -> Span:
        if not 0 <= length <= self.size or (end := self.file.seek(length, 1)) > self.size:
            raise UnpickleError("damaged pickle (it stops in the middle of a string)")
        self.progress(end)
        return Span(end - length, length)

    def load_frame(self):
        self.read(8)  # its length; read on as if there were no frames, positions are the file's

    def refuse(self, *_):
        raise UnpickleError(f"the pickle uses, before byte {self.file.tell()}, an opcode that data does not need")

    load_long4 = load_obj = load_newobj = load_newobj_ex = load_ext1 = load_ext2 = load_ext4 = refuse
    load_persid = load_binpersid = load_next_buffer = load_readonly_buffer = refuse
    _instantiate = refuse  # of load_inst, behind find_class
    load_binstring, load_short_binstring = _string("<i", "latin-1"), _string("B", "latin-1")
    load_binunicode, load_short_binunicode = _string("<I", "utf-8"), _string("B", "utf-8")
    load_binunicode8, load_binbytes8, load_bytearray8 = _string("<Q", "utf-8"), _string("<Q"), _string("<Q")
    load_binbytes = _string("<I")
    load_tuple, load_tuple1 = _shallow(pickle._Unpickler.load_tuple), _shallow(pickle._Unpickler.load_tuple1)
    load_tuple2, load_tuple3 = _shallow(pickle._Unpickler.load_tuple2), _shallow(pickle._Unpickler.load_tuple3)


_Reader.dispatch = {opcode: getattr(_Reader, load.__name__) for opcode, load in pickle._Unpickler.dispatch.items()}
