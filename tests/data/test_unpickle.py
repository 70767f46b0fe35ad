"""The restricted unpickler: equal to Python's own on data, deaf to everything else."""

import collections
import contextlib
import io
import os
import pickle
import pickletools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vars_core.data.unpickle import LONG, Span, UnpickleError, _Reader, load

long_text = st.text(min_size=1, max_size=9).map(lambda text: text * LONG)
members = st.integers(-(2**63) + 1, 2**63 - 1)  # of more bits: refused
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=9)
    | long_text | long_text.map(str.encode),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | members, inner, max_size=4)
    | st.tuples(inner, inner) | st.sets(members, max_size=4) | st.frozensets(st.text(max_size=5), max_size=4),
    max_leaves=12,
)  # fmt: skip


def whole(got, value, file):
    """`got` with the content of its Spans, which stand for the long text and bytes of `value`."""
    if isinstance(got, Span):
        content = got.read(file)
        return content.decode() if isinstance(value, str) else content
    if isinstance(got, list | tuple) and len(got) == len(value):
        return type(got)(whole(*pair, file) for pair in zip(got, value, strict=True))
    if isinstance(got, dict):
        return {key: whole(inner, value.get(key), file) for key, inner in got.items()}
    return got


@given(plain, st.integers(0, 5))
def test_plain_data_comes_back_as_python_itself_reads_it_and_long_text_and_bytes_as_spans(value, protocol):
    file = io.BytesIO(pickle.dumps(value, protocol))
    assert whole(load(file), value, file) == value


@pytest.mark.parametrize("protocol", range(1, 6))  # 0 escapes its strings, and they stay in memory
def test_text_and_bytes_become_a_span_above_256_bytes_in_frames_and_outside(protocol):
    value = ["a" * LONG, "a" * (LONG + 1), "ü" * LONG, bytes([255] * 300), "b" * 100_000, bytes([200] * 100_000), 7]
    file, told = io.BytesIO(b"in front" + pickle.dumps(value, protocol)), []
    file.seek(8)
    got = load(file, told.append)
    assert [isinstance(x, Span) for x in got] == [False, True, True, True, True, True, False]
    assert whole(got, value, file) == value
    assert told == [span.start + span.length for span in got[1:6]]


@pytest.mark.parametrize("protocol", range(5))  # numpy.save writes 2, 3 or 4
def test_numpy_values(protocol):
    value = {
        "vector": np.arange(6, dtype=">i2"),
        "matrix": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "number": np.float32(0.5),
        "objects": np.array([{"a": 1}, None], dtype=object),
        "dict": collections.defaultdict(list, {3: [1]}),
    }
    assert load(io.BytesIO(pickle.dumps(value, protocol))) == {
        "vector": [0, 1, 2, 3, 4, 5],
        "matrix": [[0, 1, 2], [3, 4, 5]],
        "number": 0.5,
        "objects": [{"a": 1}, None],
        "dict": {3: [1]},
    }


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("photo", [os.urandom(LONG + 1), bytes(100_000)], ids=["random", "zeros"])
def test_long_strings_stay_in_the_file(protocol, photo):
    if protocol < 3:  # Python 2's way: a string of bytes
        protocol, text = 2, b"T" + len(photo).to_bytes(4, "little") + photo
        content = b"\x80\x02]q\x00" + text + b"q\x01a."
    else:
        content = pickle.dumps([photo], protocol)
    file = io.BytesIO(b"in front" + content)
    file.seek(8)
    (span,) = load(file)
    assert isinstance(span, Span) and span.length == len(photo) and span.read(file) == photo


def test_long_bytes_of_protocol_2_that_are_damaged_are_said_to_be():
    content = bytearray(pickle.dumps(bytes([200]) * 300, 2))
    content[content.index(b"\xc3\x88") + 1] = 0xFF  # they lie in the file as text in UTF-8
    file = io.BytesIO(content)
    with pytest.raises(UnpickleError, match="damaged"):
        load(file).read(file)


def test_what_is_remembered_is_found_whatever_its_number():
    row = b"\x80\x02]q\x01(U\x01aq\x02U\x01bq\x07U\x01cq\x03h\x02h\x07h\x03U\x01dq\x07h\x07e."  # 7 out of order
    assert load(io.BytesIO(row)) == pickle.loads(row, encoding="latin-1") == list("abcabcdd")
    for never_put in (b"\x80\x02h\x00.", b"\x80\x02]q\x01h\x02.", b"g-1\n."):
        with pytest.raises(UnpickleError, match="damaged"):
            load(io.BytesIO(never_put))


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {place}",), "posix.system"),
        (eval, ("open({place!r}, 'w')",), "eval"),
        (os.mkdir, ("{place}",), "posix.mkdir"),
        (np.save, ("{place}", 1), "numpy.save"),
        (getattr, (dict, "fromkeys"), "getattr"),
    ],
)
def test_a_hostile_pickle_is_refused_by_name_and_nothing_runs(protocol, function, arguments, name, tmp_path):
    place = tmp_path / "ran"
    arguments = tuple(a.format(place=str(place)) if isinstance(a, str) else a for a in arguments)
    content = pickle.dumps([1, Hostile(function, *arguments)], protocol)
    with pytest.raises(UnpickleError, match=f"tries to import .*{name}; nothing"):
        load(io.BytesIO(content))
    assert not place.exists()


def test_the_name_of_the_import_is_told():
    with pytest.raises(UnpickleError, match=r"tries to import posix\.system; nothing of it was run"):
        load(io.BytesIO(pickle.dumps(Hostile(os.system, "true"), 2)))


def test_state_is_set_on_arrays_only():
    content = b"}(S'a'\nI1\nub."  # an attempt to BUILD a dict
    with pytest.raises(UnpickleError):
        load(io.BytesIO(content))


os_system = b"cposix\nsystem\n"  # as GLOBAL
allowed = b"cnumpy\ndtype\n"
REFUSED = {
    "INST": b"(S'touch x'\niposix\nsystem\n.",
    "INST of a name that is known": b"(S'f8'\ninumpy\ndtype\n.",
    "OBJ": b"(" + os_system + b"S'touch x'\no.",
    "OBJ of a name that is known": b"(" + allowed + b"S'f8'\no.",
    "NEWOBJ": b"\x80\x02c__builtin__\nobject\n)\x81.",
    "NEWOBJ of a name that is known": b"\x80\x02" + allowed + b")\x81.",
    "NEWOBJ_EX of a name that is known": b"\x80\x04" + allowed + b")}\x92.",
    "EXT1": b"\x80\x02\x82\xf0.",
    "EXT2": b"\x80\x02\x83\xf0\x00.",
    "EXT4": b"\x80\x02\x84\xf0\x00\x00\x00.",
    "PERSID": b"Psomewhere\n.",
    "BINPERSID": b"\x80\x02K\x01Q.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05C\x01a\x98.",
    "LONG4": b"\x80\x02\x8b\x01\x00\x00\x00\x07.",
    "BUILD of a function": b"\x80\x02" + allowed + b"}U\x08__code__K\x01sb.",
    "BUILD of a function's slots": b"\x80\x02" + allowed + b"N}U\x0c__defaults__K\x01s\x86b.",
    "BUILD of a list": b"\x80\x02]}U\x01aK\x01sb.",
    "REDUCE of a list": b"\x80\x02])R.",
    "REDUCE of a number": b"\x80\x02K\x07)R.",
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_whatever_calls_or_makes_more_than_data_is_refused(content, monkeypatch):
    monkeypatch.setitem(pickle._extension_cache, 0xF0, os.system)  # another library may have filled it
    with pytest.raises(UnpickleError, match=r"data does not need|tries to import|calls something that is not"):
        load(io.BytesIO(content))


@pytest.mark.parametrize("content", [REFUSED["INST"], REFUSED["OBJ"], os_system + b"(S'touch x'\ntR."])
def test_the_name_is_told_whatever_the_opcode(content):
    with pytest.raises(UnpickleError, match=r"tries to import posix\.system; nothing of it was run"):
        load(io.BytesIO(content))


@pytest.mark.parametrize(
    "name", ["numpy ndarray", "numpy dtype", "__builtin__ list", "__builtin__ dict", "__builtin__ set"]
)
@pytest.mark.parametrize(
    "attempt",
    [b"}U\x01aK\x01sb", b"U\x01aK\x01s", b"(U\x01aK\x01u", b"K\x01a", b"(K\x01e", b"(]e", b"(K\x01\x90"],
    ids=["BUILD", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "APPENDS of a list", "ADDITEMS"],
)
def test_what_stands_for_a_name_cannot_be_altered(name, attempt):
    with pytest.raises(UnpickleError, match=r"damaged|sets the state"):
        load(io.BytesIO(b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + attempt + b"."))


INHERITED = """
    STOP POP POP_MARK DUP PROTO NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT STRING UNICODE
    SHORT_BINBYTES EMPTY_TUPLE APPEND APPENDS BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE
    STACK_GLOBAL
"""  # the last one ends in find_class


def test_the_opcodes_taken_over_from_python_are_those_that_were_looked_at():
    inherited = {op.name for op in pickletools.opcodes if _Reader.dispatch[ord(op.code)].__module__ == "pickle"}
    assert inherited == set(INHERITED.split())


MANY = 100_000
ARRAY, SCALAR = b"cnumpy.core.multiarray\n_reconstruct\n(tR", b"cnumpy.core.multiarray\nscalar\n"
FLOAT = b"cnumpy\ndtype\n(S'f8'\ntR"
DAMAGED = {
    "nothing": (b"", "stops in the middle"),
    "no STOP": (b"\x80\x02]", "stops in the middle"),
    "STOP of nothing": (b".", "IndexError"),
    "STOP behind a mark": (b"](.", "IndexError"),
    "nothing to append to": (b"K\x01a.", "IndexError"),
    "no mark": (b"]e.", "IndexError"),
    "an odd number of members": (b"}(K\x01u.", "IndexError"),
    "an unhashable key": (b"}]K\x01s.", "a list as a key"),
    "a key that is an array's type": (b"}" + FLOAT + b"K\x01s.", "a _Type as a key"),
    "a key of many tuples": (b"})" + b"\x85" * MANY + b"K\x01s.", "a tuple as a key"),
    "an unknown opcode": (b"\xff.", "KeyError"),
    "an unknown protocol": (b"\x80\x63.", "unsupported pickle protocol"),
    "bytes of 2^62": (b"\x80\x04\x8e" + bytes(7) + b"\x40abc.", "in the middle of a string"),
    "text of 2^64 - 1 bytes": (b"\x80\x04\x8d" + b"\xff" * 8 + b"abc.", "in the middle of a string"),
    "a bytearray of 2^40": (b"\x80\x05\x96" + bytes(5) + b"\x01\x00\x00abc.", "in the middle of a string"),
    "bytes of 2^31": (b"\x80\x03B\x00\x00\x00\x80abc.", "in the middle of a string"),
    "a string of -1": (b"\x80\x02T\xff\xff\xff\xffabc.", "in the middle of a string"),
    "a string one byte too long": (b"\x80\x02T\x2c\x01\x00\x00" + b"a" * 299, "in the middle of a string"),
    "a number of 2^31 - 1 bytes": (b"\x80\x02\x8b\xff\xff\xff\x7f\x01.", "data does not need"),
    "a number of 4,000,000 digits": (b"I" + b"7" * 4_000_000 + b"\n.", "a line of more than 1,024"),
    "no number, at length": (b"F" + b"x" * 1000 + b"\n.", "ValueError.{,250}$"),
    "a frame of 2^60": (b"\x80\x04\x95" + bytes(7) + b"\x10]", "stops in the middle"),
    "a line without an end": (b"S'" + b"a" * (1 << 25), "a line of more than 16,777,216"),
    "remembered as 2^32 - 1": (b"\x80\x02]r\xff\xff\xff\xff.", "remembers something as number 4294967295"),
    "remembered as 10^30": (b"]p1" + b"0" * 30 + b"\n.", "remembers something as number 10+"),
    "remembered as -1": (b"]p-1\n.", "negative"),
    "an array's content is a number": (
        ARRAY + b"(I1\n(I1000000000\ntcnumpy\ndtype\n(S'i1'\ntRI00\nI1000000000\ntb.", "bytes-like"),
    "a type's name is a list": (SCALAR + b"(cnumpy\ndtype\n(](S'a'\nS'f8'\ntatRS'12345678'\ntR.", "no short name"),
    "a list is copied again and again": (
        b"c__builtin__\nset\nq\x00](" + b"K\x01" * 9999 + b"e\x85q\x01(" + b"h\x00h\x01R" * 9999 + b"l.",
        "copies more"),
    "a text is copied again and again": (
        SCALAR + b"q\x00(" + FLOAT + b"S'" + b"a" * 8000 + b"'\ntq\x01(" + b"h\x00h\x01R" * 9999 + b"l.",
        "copies more"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_one_kind_of_error_and_takes_little_memory(content, message):
    tracemalloc.start()
    try:
        with pytest.raises(UnpickleError, match=message):
            load(io.BytesIO(content))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_an_array_of_no_numbers_is_an_empty_list_whatever_its_shape():
    empty = np.zeros((10**12, 0))  # numpy's own list of it would have 10^12 members
    assert load(io.BytesIO(pickle.dumps([empty], 4))) == [[]]


@given(st.binary(max_size=60))
def test_rubbish_gives_one_kind_of_error(content):
    with contextlib.suppress(UnpickleError):
        load(io.BytesIO(content))


@pytest.mark.parametrize("cut", [1, 10, 50])
def test_a_pickle_that_stops_in_the_middle_is_said_to(cut):
    content = pickle.dumps({"imgs": b"x" * 400, "more": [1, 2, 3]}, 2)
    with pytest.raises(UnpickleError, match="damaged"):
        load(io.BytesIO(content[:-cut]))
