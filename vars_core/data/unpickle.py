"""Reading pickled data without running it: Python's own unpickler, with all taken out that imports or runs.

A pickle is a program: an unpickler imports what the file names and calls it. The one here is the standard library's
in Python, `pickle._Unpickler`. Its `find_class` is replaced by one that imports nothing: a few names that numpy and
Python 2 write stand for functions of this module, every other is an error. In `dispatch`, its table of opcodes, those
are replaced or refused that call, set state or read strings. Long strings (photos) are skipped; a `Span` says where
they lie. The unpickler in C has no such table and holds them all: a process with it takes 2.3 GB of memory for a file
of 2 GB, and 0.34 GB with this one.

A pickle can be a bomb without a call. Time and memory grow with the file's bytes at most, as nothing is copied,
compared or hashed more often than it lies there: keys and members of sets are short and plain. What is read can hold
itself, or one thing a million times; whoever walks through it counts the steps.
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
_SHORT = 1024  # bytes; the longest number or name of protocol 0. Python takes minutes for one of a million digits
_MOST = 20_000_000  # lists, dicts, sets and tuples, about 4 GB; DVBPR's files have 5 million
_NESTED = 10_000  # marks that are open at a time
_Python = pickle._Unpickler
_KEYS = {str, bytes, int, float, bool, type(None)}


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
        if dtype.code in ("O", "O4", "O8"):
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
        if not isinstance(self.code, str) or len(self.code) > 16:
            raise UnpickleError("an array whose type has no short name")
        dtype = np.dtype(self.code).newbyteorder(self.order)
        if dtype.kind not in "biufSU":
            raise UnpickleError(f"an array of type {dtype}; plain numbers and text expected")
        return np.frombuffer(data.encode("latin-1") if isinstance(data, str) else data, dtype)


def _keys(values):
    """`values`, which become keys or members of a set. Raises UnpickleError for what takes long to hash or compare:
    tuples of tuples, and numbers or tuples that are made to have one hash."""
    for value in values:
        kind = type(value)
        too_long = value.bit_length() > 63 if kind is int else kind in (str, bytes) and len(value) > LONG
        if kind not in _KEYS or too_long:
            what = "long string" if kind is Span else f"long {kind.__name__}" if too_long else kind.__name__
            raise UnpickleError(f"the pickle has a {what} as a key; short text or bytes and numbers expected")
    return values


def _dict(pairs=()) -> dict:
    pairs = [(key, value) for key, value in (pairs.items() if isinstance(pairs, dict) else pairs)]
    _keys(key for key, _ in pairs)
    return dict(pairs)


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
    "collections.OrderedDict": _dict,
    "builtins.dict": _dict,
    "builtins.list": list,
    "builtins.set": lambda members=(): set(_keys(list(members))),
    "builtins.frozenset": lambda members=(): frozenset(_keys(list(members))),
    "builtins.bytes": lambda: b"",
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


def _made(load: Callable):
    """What makes a container as `load` does, but not too many."""

    def make(self):
        self.containers += 1
        if self.containers > _MOST:
            raise UnpickleError(f"more than {_MOST:,} lists, dicts, sets and tuples")
        load(self)

    return make


def _keyed(load: Callable, every: int):
    """What makes a dict or set of the values behind the last mark, each or every other of which is a key."""

    def make(self):
        _keys(self.stack[::every])
        load(self)

    return make


def _short(load: Callable):
    """What reads a line of protocol 0 as `load` does, but none too long."""

    def read(self):
        line, self.most = self.most, _SHORT
        load(self)
        self.most = line

    return read


class _Reader(_Python):
    def __init__(self, file: BinaryIO, progress: Callable[[int], None]):
        super().__init__(SimpleNamespace(read=file.read, readline=self.line), encoding="latin-1")
        start, self.size = file.tell(), file.seek(0, 2)
        file.seek(start)
        self.file, self.progress, self.memo = file, progress, _Memo(min(self.size, 2**27))
        self.most, self.containers, self.copied = _LINE, 0, 0

    def line(self) -> bytes:
        line = self.file.readline(self.most)
        if len(line) == self.most:
            raise UnpickleError(f"damaged pickle (a line of more than {self.most:,} bytes)")
        return line

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
        self.copied += len(values) + sum(len(value) for value in values if isinstance(value, Sized))
        if self.copied > self.size:
            raise UnpickleError("the pickle copies more than it holds")
        return values

    def skip(self, length: int) -> Span:
        if not 0 <= length <= self.size or (end := self.file.seek(length, 1)) > self.size:
            raise UnpickleError("damaged pickle (it stops in the middle of a string)")
        self.progress(end)
        return Span(end - length, length)

    def load_mark(self):
        if len(self.metastack) > _NESTED:
            raise UnpickleError(f"more than {_NESTED:,} marks in one another")
        super().load_mark()

    def load_setitem(self):
        _keys(self.stack[-2:-1])
        super().load_setitem()

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
    load_setitems, load_dict = _keyed(_Python.load_setitems, 2), _made(_keyed(_Python.load_dict, 2))
    load_additems, load_frozenset = _keyed(_Python.load_additems, 1), _made(_keyed(_Python.load_frozenset, 1))
    load_empty_list, load_empty_dictionary = _made(_Python.load_empty_list), _made(_Python.load_empty_dictionary)
    load_empty_set, load_list = _made(_Python.load_empty_set), _made(_Python.load_list)
    load_reduce = _made(load_reduce)
    load_tuple, load_tuple1 = _made(_Python.load_tuple), _made(_Python.load_tuple1)
    load_tuple2, load_tuple3 = _made(_Python.load_tuple2), _made(_Python.load_tuple3)
    load_int, load_long, load_float = _short(_Python.load_int), _short(_Python.load_long), _short(_Python.load_float)
    load_get, load_put, load_global = _short(_Python.load_get), _short(_Python.load_put), _short(_Python.load_global)
    load_inst = _short(_Python.load_inst)


_Reader.dispatch = {opcode: getattr(_Reader, load.__name__) for opcode, load in _Python.dispatch.items()}
