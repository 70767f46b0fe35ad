"""Pickles as Python 2's cPickle wrote them (protocol 2), piece by piece, so that a file may exceed the memory.

Every container and string gets a number in the memo, as it did there; names of fields are written once and then
recalled by it.
"""

import struct
from collections.abc import Iterable
from itertools import islice

BATCH = 1000  # pairs or members between two marks, as in cPickle


class Opcodes:
    """Writes to `file`; nothing that was written is kept but the names of fields."""

    def __init__(self, file):
        self._put, self._count, self._names = file.write, 1, {}  # cPickle counted from 1

    def write(self, value: int | float | bytes | dict | list) -> None:
        kind = type(value)
        if kind is bytes:
            short = len(value) < 256
            self._put(b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value)))
            self._put(value)
            self.remember()
        elif kind is int:
            small = 0 <= value < 256
            self._put(b"K" + bytes([value]) if small else b"J" + struct.pack("<i", value))
        elif kind is float:
            self._put(b"G" + struct.pack(">d", value))
        elif kind is dict:
            self.mapping(value.items())
        elif kind is list:
            self.sequence(value)
        else:
            raise TypeError(f"{kind.__name__}: int, float, bytes, dict or list expected")

    def mapping(self, pairs: Iterable[tuple]) -> None:
        """A dict of `pairs`, which may be a generator of any length."""
        self._put(b"}")
        self.remember()
        pairs = iter(pairs)
        while batch := list(islice(pairs, BATCH)):
            self._put(b"(")
            for key, value in batch:
                self._name(key) if type(key) is bytes else self.write(key)
                self.write(value)
            self._put(b"u")

    def sequence(self, values: Iterable) -> None:
        self._put(b"]")
        self.remember()
        values = iter(values)
        while batch := list(islice(values, BATCH)):
            self._put(b"(")
            for value in batch:
                self.write(value)
            self._put(b"e")

    def remember(self) -> None:
        n = self._count
        self._put(b"q" + bytes([n]) if n < 256 else b"r" + struct.pack("<I", n))
        self._count += 1

    def code(self, *parts: bytes) -> None:
        """Opcodes as they are; None among them: remember the thing on top."""
        for part in parts:
            self.remember() if part is None else self._put(part)

    def _name(self, name: bytes) -> None:
        if name in self._names:
            n = self._names[name]
            self._put(b"h" + bytes([n]) if n < 256 else b"j" + struct.pack("<I", n))
        else:
            self._names[name] = self._count
            self.write(name)
