"""Reading pickled data without running it: a small machine that knows containers, numbers and text.

A pickle is a program. Python's own unpickler imports what the file names and calls it; this one has no import
and no call. It builds plain containers, turns the few globals that numpy and Python 2 write into plain values, and
refuses every other one by name. Long byte strings (photos) are not kept: a `Span` says where they lie in the file, so
a file of any size is read with the memory of its small parts.
"""

import pickletools
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

LONG = 256  # bytes; longer strings become a Span
# opcodes whose argument is a string → bytes between the opcode and the string itself
_PREFIX = {"BINSTRING": 4, "SHORT_BINSTRING": 1, "BINBYTES": 4, "SHORT_BINBYTES": 1, "BINBYTES8": 8, "BINUNICODE": 4,
           "SHORT_BINUNICODE": 1, "BINUNICODE8": 8, "BYTEARRAY8": 8}  # fmt: skip
_VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "UNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PLAIN = "biufSU?"  # kinds of numpy arrays that hold no objects


class UnpickleError(ValueError):
    """The pickle is damaged, or wants more than data."""


@dataclass(frozen=True, slots=True)
class Span:
    """A long string of the file: `length` bytes from `start`."""

    start: int
    length: int

    def read(self, file: BinaryIO) -> bytes:
        file.seek(self.start)
        return file.read(self.length)


class _Array(list):
    """A numpy array in the making; its content comes with BUILD."""


@dataclass
class _Type:
    """A numpy dtype in the making."""

    code: str
    order: str = "="

    def plain(self) -> np.dtype:
        dtype = np.dtype(self.code)
        if dtype.kind not in _PLAIN:
            raise UnpickleError(f"an array of type {self.code!r}; plain numbers and text expected")
        return dtype.newbyteorder(self.order if self.order in "<>" else "=")


def _reconstruct(*_):
    return _Array()


def _scalar(dtype: _Type, data=b""):
    return np.frombuffer(_bytes(data), dtype.plain(), count=1)[0].item()


def _encode(text="", encoding="latin-1"):
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise UnpickleError(f"text in the encoding {encoding!r}; latin1, ascii or utf-8 expected")
    return text if isinstance(text, Span) else text.encode(encoding)


_ALLOWED: dict[str, Callable] = {
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    "numpy.ndarray": _reconstruct,
    "numpy.dtype": lambda code, *_: _Type(_text(code)),
    "_codecs.encode": _encode,
    "collections.defaultdict": lambda *_: {},
    "collections.OrderedDict": lambda pairs=(): dict(pairs),
    **{f"{module}.{kind}": make for module in ("__builtin__", "builtins")
       for kind, make in (("list", list), ("dict", dict), ("set", set), ("bytes", lambda *parts: b""))},
}  # fmt: skip


def load(file: BinaryIO, progress: Callable[[int], None] = lambda position: None):
    """The object that the pickle at `file`'s position holds, of dicts, lists, tuples, sets, numbers, text, bytes,
    `Span`s; an array becomes a list, a long array of plain numbers a list of one Span. `progress` is told the
    position now and then.

    Raises UnpickleError for a pickle that is damaged or that names anything but data (os.system, …)."""
    machine = _Machine()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(file)):
            if not count % 4096:
                progress(position)
            if opcode.name == "STOP":
                return machine.finish()
            machine.step(opcode.name, argument, position)
    except UnpickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError) as error:
        raise UnpickleError(f"damaged pickle ({type(error).__name__}: {error})") from None
    raise UnpickleError("damaged pickle (it stops in the middle)")


class _Memo:
    """What a pickle remembers, by number. They come in order, from 0 or (Python 2) 1: a list takes a tenth of a
    dict's memory, and Python 2 remembered every string of millions."""

    def __init__(self):
        self.row, self.elsewhere = [_Memo], {}  # 0: not given yet

    def put(self, number: int, value) -> None:
        if number == len(self.row):
            self.row.append(value)
        elif 0 <= number < len(self.row):
            self.row[number] = value
        else:  # out of order
            self.elsewhere[number] = value

    def get(self, number: int):
        value = self.row[number] if 0 <= number < len(self.row) else self.elsewhere[number]
        if value is _Memo:
            raise KeyError(number)
        return value

    def __len__(self):
        return len(self.row) - (self.row[0] is _Memo) + len(self.elsewhere)


class _Machine:
    def __init__(self):
        self.stack, self.marks, self.memo = [], [], _Memo()

    def finish(self):
        return self.stack.pop()

    def _to_mark(self) -> list:
        at = self.marks.pop()
        taken, self.stack[at:] = self.stack[at:], []
        return taken

    def step(self, name: str, argument, position: int) -> None:
        stack = self.stack
        if name in _PREFIX:
            length = len(argument if isinstance(argument, bytes | bytearray) else _utf8(argument, name))
            if length > LONG:
                stack.append(Span(position + 1 + _PREFIX[name], length))
            else:
                stack.append(sys.intern(argument) if isinstance(argument, str) else bytes(argument))
        elif name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            n = _TUPLES[name]
            stack[len(stack) - n :] = [tuple(stack[len(stack) - n :])]
        elif name in ("PROTO", "FRAME"):
            pass
        elif handler := getattr(self, f"_{name.lower()}", None):
            handler(argument)
        else:
            raise UnpickleError(f"the pickle uses {name} at byte {position}, which data does not need")

    def _mark(self, _):
        self.marks.append(len(self.stack))

    def _pop(self, _):
        self.stack.pop()

    def _pop_mark(self, _):
        self._to_mark()

    def _dup(self, _):
        self.stack.append(self.stack[-1])

    def _empty_dict(self, _):
        self.stack.append({})

    def _empty_list(self, _):
        self.stack.append([])

    def _empty_set(self, _):
        self.stack.append(set())

    def _tuple(self, _):
        self.stack.append(tuple(self._to_mark()))

    def _list(self, _):
        self.stack.append(self._to_mark())

    def _dict(self, _):
        taken = self._to_mark()
        self.stack.append(dict(zip(taken[::2], taken[1::2], strict=True)))

    def _setitem(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][key] = value

    def _setitems(self, _):
        taken = self._to_mark()
        self.stack[-1].update(zip(taken[::2], taken[1::2], strict=True))

    def _append(self, _):
        value = self.stack.pop()
        self.stack[-1].append(value)

    def _appends(self, _):
        taken = self._to_mark()
        self.stack[-1].extend(taken)

    def _additems(self, _):
        taken = self._to_mark()
        self.stack[-1].update(taken)

    def _put(self, argument):
        self.memo.put(int(argument), self.stack[-1])

    _binput = _long_binput = _put

    def _memoize(self, _):
        self.memo.put(len(self.memo), self.stack[-1])

    def _get(self, argument):
        self.stack.append(self.memo.get(int(argument)))

    _binget = _long_binget = _get

    def _global(self, argument):
        self.stack.append(_named(argument.replace(" ", ".", 1)))

    def _stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_named(f"{module}.{name}"))

    def _reduce(self, _):
        arguments, function = self.stack.pop(), self.stack.pop()
        if not any(function is allowed for allowed in _ALLOWED.values()):
            raise UnpickleError("the pickle calls something that is not a function of numpy's or Python's containers")
        self.stack.append(function(*arguments))

    def _build(self, _):
        state, value = self.stack.pop(), self.stack[-1]
        if isinstance(value, _Type):
            value.order = _text(state[1])
        elif isinstance(value, _Array):
            _, shape, dtype, fortran, data = state
            value[:] = _content(shape, dtype, fortran, data)
        else:
            raise UnpickleError(f"the pickle sets the state of a {type(value).__name__}, which data does not need")


def _content(shape, dtype: _Type, fortran: bool, data) -> list:
    if dtype.code.startswith("O"):
        if len(shape) > 1 or not isinstance(data, list):
            raise UnpickleError(f"an object array of shape {shape}; one dimension expected")
        return data
    if isinstance(data, Span):
        return [data]
    array = np.frombuffer(_bytes(data), dtype.plain()).reshape(shape, order="F" if fortran else "C")
    return np.atleast_1d(array).tolist()


def _named(name: str) -> Callable:
    if name not in _ALLOWED:
        raise UnpickleError(f"the pickle tries to import {name}; nothing of it was run")
    return _ALLOWED[name]


def _utf8(text: str, name: str) -> bytes:
    return text.encode("latin-1") if name.endswith("STRING") else text.encode("utf-8", "surrogatepass")


def _text(value) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _bytes(value) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)
