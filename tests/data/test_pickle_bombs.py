"""Pickles that are no code but a bomb: each is read or refused in time and memory by the bytes it has."""

import io
import pickle
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vars_core.data import dvbpr_file, unpickle
from vars_core.data.folder import CatalogueError
from vars_core.data.unpickle import UnpickleError, load

N = 50_000  # of whatever there is too much of
P4, P2 = b"\x80\x04", b"\x80\x02"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
DTYPE = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR"
SCALAR = b"cnumpy.core.multiarray\nscalar\n"


def array(shape: bytes, dtype=b"f8", data=b"S'" + b"a" * 64 + b"'\n"):
    return ARRAY + b"(I1\n" + shape + DTYPE % dtype + b"I00\n" + data + b"tb."


def doubling(opcode: bytes, times=200):
    """A thing that holds twice a thing that holds twice a thing …: 2^200 leaves in 600 bytes."""
    return P2 + b")" + b"".join(b"q\x01h\x01h\x01" + opcode for _ in range(times))


def one_hash(n: int) -> bytes:
    """A number on the pickle's stack; all of them have the same hash, so that a dict compares each with each."""
    value = (1 + n * (2**61 - 1)).to_bytes(16, "little")
    return b"\x8a\x10" + value


def line(opcode: bytes, content: bytes):
    return opcode + content + b"\n."


LISTS, TUPLES, DICTS = P2 + b"]" * N + b"a" * (N - 1), P2 + b")" + b"\x85" * N, P2 + b"}K\x01" * N + b"}" + b"s" * N
READ = {  # harmless, as nothing walks through them: they are read
    "a list in itself": b"]q\x00h\x00a.",
    "a list twice in itself": b"]q\x00(h\x00h\x00e.",
    "a dict in itself": b"}q\x00K\x01h\x00s.",
    "an array in itself": P2 + ARRAY + b"q\x00h\x00a.",
    "lists in lists": LISTS + b".",
    "tuples in tuples": TUPLES + b".",
    "dicts in dicts": DICTS + b".",
    "arrays in arrays": P2 + ARRAY * 400 + b"a" * 399 + b".",
    "2^200 tuples": doubling(b"\x86") + b".",
    "2^200 lists": P2 + b"]" + b"".join(b"q\x01](h\x01h\x01e" for _ in range(200)) + b".",
    "one list many times": P2 + b"]q\x00(" + b"K\x01" * 1000 + b"e]q\x01(" + b"h\x00" * N + b"e.",
    "one thing many times by DUP": P2 + b"](" + b"]" + b"2" * N + b"e.",
    "a frame of 2^63": P4 + b"\x95" + b"\xff" * 7 + b"\x7f]\x94.",
    "frames in frames": P4 + (b"\x95" + b"\xff" * 8) * 1000 + b"].",
    "marks that are popped": b"](" + b"(1" * N + b"l0.",
    "an array of -5 rows": array(b"(I-5\nt"),
    "an array whose shape is itself": P2 + ARRAY + b"q\x00(I1\nh\x00" + DTYPE % b"f8" + b"I00\nS'aaaaaaaa'\ntb.",
    "an array of no numbers, of 10^12 rows": array(b"(I1000000000000\nI0\nt", data=b"S''\n"),
}
REFUSED = {
    "tuples in tuples as a key": P2 + b"}" + TUPLES[2:] + b"K\x01s.",
    "2^200 tuples as a key": P2 + b"}" + doubling(b"\x86")[2:] + b"K\x01s.",
    "2^200 tuples as a member": P4 + b"\x8f(" + doubling(b"\x86")[2:] + b"\x90.",
    "2^200 tuples, frozen": P4 + b"(" + doubling(b"\x86")[2:] + b"\x91.",
    "2^200 tuples as a key by DICT": b"(" + doubling(b"\x86")[2:] + b"I1\nd.",
    "2^200 tuples as a key by SETITEMS": b"}(" + doubling(b"\x86")[2:] + b"I1\nu.",
    "2^200 tuples in a set by name": P2 + b"c__builtin__\nset\n](" + doubling(b"\x86")[2:] + b"e\x85R.",
    "2^200 tuples in a frozenset by name": P2 + b"c__builtin__\nfrozenset\n](" + doubling(b"\x86")[2:] + b"e\x85R.",
    "2^200 tuples in a dict by name": P2 + b"c__builtin__\ndict\n](" + doubling(b"\x86")[2:] + b"K\x01\x86e\x85R.",
    "2^200 tuples in an OrderedDict": (
        P2 + b"ccollections\nOrderedDict\n](" + doubling(b"\x86")[2:] + b"K\x01\x86e\x85R."),
    "frozen sets in frozen sets": P4 + b"(" * 9000 + b"\x91" * 9000 + b".",
    "a frozen set as a key": P4 + b"}(\x91K\x01s.",
    "a frozen set as a member": P4 + b"\x8f((K\x01\x91\x90.",
    "keys of one hash": P2 + b"}(" + b"".join(one_hash(n) + b"K\x01" for n in range(N)) + b"u.",
    "keys of one hash by SETITEM": P2 + b"}" + b"".join(one_hash(n) + b"K\x01s" for n in range(N)) + b".",
    "members of one hash": P4 + b"\x8f(" + b"".join(one_hash(n) for n in range(N)) + b"\x90.",
    "members of one hash, frozen": P4 + b"(" + b"".join(one_hash(n) for n in range(N)) + b"\x91.",
    "a long text as a key": P2 + b"}X\x00\x04\x00\x00" + b"a" * 1024 + b"K\x01s.",
    "a long line as a key": b"}S'" + b"a" * 100_000 + b"'\nI1\ns.",
    "long bytes as a key": b"\x80\x03}B\x00\x04\x00\x00" + b"a" * 1024 + b"K\x01s.",
    "a Span as a member": P4 + b"\x8f(X\x00\x04\x00\x00" + b"a" * 1024 + b"\x90.",
    "marks in marks": b"(" * N + b".",
    "marks in marks that are closed": b"(" * N + b"l" * N + b".",
    "bytes of 2^60": P4 + b"\x8e" + struct.pack("<Q", 2**60),
    "text of 2^60": P4 + b"\x8d" + struct.pack("<Q", 2**60),
    "a bytearray of 2^63": b"\x80\x05\x96" + struct.pack("<Q", 2**63),
    "text of 2^32 - 1": P2 + b"X\xff\xff\xff\xff",
    "bytes of 2^32 - 1": b"\x80\x03B\xff\xff\xff\xff",
    "a string of -2^31": P2 + b"T\x00\x00\x00\x80",
    "a number of 2^31 bytes": P2 + b"\x8b\xff\xff\xff\x7f",
    "a number of -1 bytes": P2 + b"\x8b\xff\xff\xff\xff",
    "a number of 10^6 digits": line(b"I", b"9" * 10**6),
    "a long number of 10^6 digits": line(b"L", b"9" * 10**6 + b"L"),
    "a number of 10^6 hexadecimal digits": line(b"I", b"0x" + b"f" * 10**6),
    "a number of 10^6 underlined digits": line(b"I", b"9_" * 10**6),
    "a fraction of 10^6 digits": line(b"F", b"0." + b"9" * 10**6),
    "a place of 10^6 digits": line(b"]p", b"9" * 10**6),
    "a place of 10^6 digits to get": line(b"g", b"9" * 10**6),
    "a name of 10^6 letters": b"c" + b"a" * 10**6 + b"\nb\n.",
    "a line without an end": b"S'" + b"a" * (1 << 25),
    "a text line without an end": b"V" + b"a" * (1 << 25),
    "place 2^31": P2 + b"]r\x00\x00\x00\x80.",
    "place 2^32 - 1": P2 + b"]r\xff\xff\xff\xff.",
    "place 10^18": b"]p1000000000000000000\n.",
    "a list copied by list": (
        P2 + b"c__builtin__\nlist\nq\x00](" + b"K\x01" * 999 + b"e\x85q\x01(" + b"h\x00h\x01R" * 9999 + b"l."),
    "arguments copied": (
        P2 + b"cnumpy\ndtype\nq\x00(S'f8'\n" + b"K\x01" * 9999 + b"tq\x01(" + b"h\x00h\x01R" * 9999 + b"l."),
    "state copied": P2 + DTYPE % b"f8" + b"(" + b"K\x01" * 9999 + b"tq\x01b" + b"h\x01b" * 9999 + b".",
    "an array of 2^60 numbers": array(b"(I1152921504606846976\nt"),
    "an array of 2^40 x 2^40": array(b"(I1099511627776\nI1099511627776\nt"),
    "an array of 100 dimensions": array(b"(" + b"I1\n" * 100 + b"t"),
    "an array whose shape is a text": array(b"S'a'\n"),
    "a dtype of fields": array(b"(I1\nt", b"f8,f8"),
    "a dtype of many fields": array(b"(I1\nt", b"f8," * 100_000),
    "a dtype with a shape": array(b"(I1\nt", b"(9999,9999)f8"),
    "a dtype of bytes": array(b"(I1\nt", b"V8"),
    "a dtype of no bytes": array(b"(I1\nt", b"S0"),
    "a dtype of 2 GB": array(b"(I1\nt", b"S2147483647"),
    "a dtype of 10^12 letters": array(b"(I1\nt", b"U1000000000000"),
    "a dtype of a negative size": array(b"(I1\nt", b"S-1"),
    "a dtype of dates": array(b"(I1\nt", b"M8[ns]"),
    "a dtype of nothing": array(b"(I1\nt", b""),
    "a dtype that holds itself": P2 + DTYPE % b"f8" + b"q\x00(K\x01h\x00tb" + SCALAR + b"(h\x00S'aaaaaaaa'\ntR.",
    "objects in several dimensions": array(b"(I1\nI1\nt", b"O8", b"(lI1\na"),
    "an object in an object array's place": array(b"(I1\nt", b"O8", b"I7\n"),
    "objects from bytes": array(b"(I1\nt", b"O8"),
    "objects in fields": array(b"(I1\nt", b"O8,O8"),
    "a scalar of objects": SCALAR + b"(" + DTYPE % b"O8" + b"S'aaaaaaaa'\ntR.",
    "numbers from a number": array(b"(I1\nt", b"f8", b"I7\n"),
    "numbers from half a number": array(b"(I1\nt", b"f8", b"S'abc'\n"),
}  # fmt: skip


def measured(content):
    """What `load` gives or raises; asserts that it takes memory by the content's length."""
    tracemalloc.start()
    try:
        return load(io.BytesIO(content))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5e6 + 300 * len(content) and peak < 400e6


@pytest.mark.parametrize("name", READ)
def test_a_bomb_that_nothing_sets_off_is_read(name):
    measured(READ[name])


@pytest.mark.parametrize("name", REFUSED)
def test_a_bomb_is_refused(name):
    with pytest.raises(UnpickleError) as caught:
        measured(REFUSED[name])
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "made", [b"]", b"}", b"\x8f", b"(l", b"(d", b"(t", b"(\x91", b")\x85", b"K\x01\x85", b"NN\x86"]
)
def test_things_that_take_more_memory_than_bytes_are_counted(made, monkeypatch):
    monkeypatch.setattr(unpickle, "_MOST", 1000)
    assert len(load(io.BytesIO(P4 + b"(" + made * 900 + b"l."))) in (900, 1800)
    with pytest.raises(UnpickleError, match="more than 1,000 lists, dicts, sets and tuples"):
        load(io.BytesIO(P4 + b"(" + made * 1001 + b"l."))


def test_places_cost_memory_by_the_bytes_of_the_file():
    tracemalloc.start()
    load(io.BytesIO(P2 + b"]r\x00\x00\x10\x00." + bytes(2**20)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


# -- Whoever walks through what was read: DVBPR's files. The photos of one item, the reviews of one user …


def npy(path: Path, content: bytes):
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (6,)}\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content)
    return path


def six(train=b"}", validation=b"}", test=b"}", items=b"}", users=b"K\x01", n=b"K\x01", before=b""):
    return P2 + before + b"](" + train + validation + test + items + users + n + b"e."


MANY = b"".join(b"M" + struct.pack("<H", n) + b"h\x00" for n in range(20_000))  # keys, and one thing for each
LONG = b"]q\x00(" + b"K\x01" * 20_000 + b"e0"
ITEM = b"}q\x00(X\x01\x00\x00\x00c](" + b"K\x01" * 20_000 + b"eu0"
PHOTO = b"}q\x00(X\x04\x00\x00\x00imgsX\x00\x00\x01\x00" + b"a" * 65536 + b"u0"
LINE = b"}q\x00(X\x04\x00\x00\x00imgsV" + b"a" * 65536 + b"\nu0"
WALKED = {
    "one list of reviews for every user": (six(b"}(" + MANY + b"u", before=LONG), "again and again"),
    "one list of reviews in a list": (six(b"](" + b"h\x00" * 20_000 + b"e", before=LONG), "again and again"),
    "one vector of categories for every item": (six(items=b"}(" + MANY + b"u", before=ITEM), "again and again"),
    "one photo for every item": (six(items=b"}(" + MANY + b"u", before=PHOTO), "again and again"),
    "one photo in a line for every item": (six(items=b"}(" + MANY + b"u", before=LINE), "again and again"),
    "a list in itself as train": (P2 + b"]q\x00(h\x00h\x00h\x00h\x00K\x01K\x01e.", "productid"),
    "itself for all six": (P2 + b"]q\x00(" + b"h\x00" * 6 + b"e.", "usernum and itemnum"),
    "reviews that are a number": (six(b"}K\x01K\x02s"), "user_train, user 1: reviews are a int"),
    "reviews that are None": (six(b"}K\x01Ns"), "reviews are a NoneType"),
    "reviews that are text": (six(b"}K\x01X\x01\x00\x00\x00as"), "reviews are a str"),
    "a review that is a list": (six(b"}K\x01](]es"), "productid"),
    "a product of 600 digits": (six(b"}K\x01](\x8a\xfa" + b"\x7f" * 250 + b"es"), "productid"),
    "a user of long text": (six(b"}](es"), "damaged|as a key"),
    "an item that isn't numbered": (six(items=b"}X\x06\x00\x00\x00../../}s"), "Item '../../' is not numbered"),
    "an item of -1": (six(items=b"}J\xff\xff\xff\xff}s"), "Item -1 is not numbered"),
    "a user that is half a number": (six(b"}G" + struct.pack(">d", 0.5) + b"](K\x01es"), "user 0.5"),
    "numbers for items": (six(items=b"K\x01"), "Item is a int"),
    "an item that is a list": (six(items=b"}K\x01]s"), "Item 1 is a list"),
    "lists in lists": (LISTS + b".", "six objects"),
    "a number of 600 digits of users": (six(users=b"\x8a\xfa" + b"\x7f" * 250), None),
}  # fmt: skip


@pytest.mark.parametrize("name", WALKED)
def test_walking_through_a_bomb_ends_in_one_line(name, tmp_path):
    content, said = WALKED[name]
    path = npy(tmp_path / "bomb.npy", content)
    tracemalloc.start()
    try:
        if said is None:
            dvbpr_file.read(path)
            return
        with pytest.raises(CatalogueError, match=said) as caught:
            dvbpr_file.read(path)
    finally:
        assert tracemalloc.get_traced_memory()[1] < 100e6
        tracemalloc.stop()
    assert (
        str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    )


@pytest.mark.parametrize(
    "category", [b"]q\x09h\x09a", b"V" + b"a" * 10**5 + b"\n", b"](" + b"\x8a\xfa" + b"\x7f" * 250 + b"K\x01e"]
)
def test_categories_that_are_no_names_are_unknown_or_a_number(category, tmp_path):
    for key in (b"c", b"categories"):
        items = b"}K\x05}X" + struct.pack("<I", len(key)) + key + category + b"ss"
        got = dvbpr_file.read(npy(tmp_path / "x.npy", six(items=items))).category[5]
        assert got in ("unknown", "c0")


@pytest.mark.parametrize(
    "header", [b"\x02\x00\xff\xff\xff\xff{", b"\x01\x00\xff\xff{", b"\x09\x09", b"\x01\x00\x09\x00" + b"(" * 9]
)
def test_a_hostile_header_is_one_line(header, tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY" + header)
    tracemalloc.start()
    with pytest.raises(CatalogueError, match=r"x\.npy: not a \.npy file"):
        dvbpr_file.read(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


# -- At random

OPCODES = [bytes([code]) for code in unpickle._Reader.dispatch]
PIECES = [
    *OPCODES, *(bytes([code]) for code in b"(]}))N2aestdlRbu0"), b"K\x01", b"q\x00", b"h\x00", b"q\x01", b"h\x01",
    ARRAY, DTYPE % b"f8", DTYPE % b"O8", SCALAR, b"c__builtin__\nset\n", b"c__builtin__\ndict\n",
    b"c__builtin__\nlist\n", b"ccollections\nOrderedDict\n", b"c_codecs\nencode\n", b"S'latin1'\n", b"S'abcdefgh'\n",
    b"I5\n", b"X\x2c\x01\x00\x00" + b"x" * 300, b"F1e9\n", b"L5L\n", b"p7\n", b"g7\n", b"\x8a\x02\x01\x02",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40), st.sampled_from([b"", P2, P4]))
def test_opcodes_in_any_order_give_data_or_one_kind_of_error(pieces, head):
    try:
        measured(head + b"".join(pieces) + b".")
    except UnpickleError as error:
        assert "\n" not in str(error)


VALID = [
    pickle.dumps([{"a": 1, b"b": (2, "c" * 300)}, {1, 2}, np.arange(9.0), np.array([{}, "x"], object), 1.5], protocol)
    for protocol in range(5)
]


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_file_gives_data_or_one_kind_of_error(seed):
    rng = random.Random(seed)
    for _ in range(100):
        content = bytearray(rng.choice(VALID))
        for _ in range(rng.choice([1, 1, 2, 5, 20])):
            place = rng.randrange(len(content))
            if rng.random() < 0.3:
                content[place:place] = content[rng.randrange(len(content)) :][: rng.randrange(60)]
            else:
                content[place] = rng.choice([rng.randrange(256), ord(rng.choice(OPCODES))])
        try:
            measured(bytes(content))
        except UnpickleError as error:
            assert "\n" not in str(error)
