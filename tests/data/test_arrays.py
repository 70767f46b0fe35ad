"""A hostile or damaged `.npy` file is one line that names it, and takes no memory that the file hasn't."""

import io
import pickle
import tracemalloc

import numpy as np
import pytest

from vars_core.data import arrays
from vars_core.errors import InputError


def npy(header: bytes | str, content=b"", version=1):
    header = header.encode() if isinstance(header, str) else header
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + len(header).to_bytes(2 if version == 1 else 4, "little")
        + header
        + content
    )


def saved(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()


def shaped(shape, kind="'<f4'"):
    return npy(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n", bytes(64))


GOOD = saved(np.arange(12.0).reshape(3, 4))
HOSTILE = {
    "empty": b"",
    "text": b"no array",
    "magic only": GOOD[:6],
    "header cut off": GOOD[:40],
    "content cut off": GOOD[:-1],
    "a header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
    "an unknown version": b"\x93NUMPY\x09\x00" + GOOD[8:],
    "a shape of 2^62": shaped("(4611686018427387904,)"),
    "a shape whose product overflows": shaped("(4294967296, 4294967296, 4294967296)"),
    "a shape of 10^400": shaped(f"(1{'0' * 400},)"),
    "a negative shape": shaped("(-1, 4)"),
    "a shape of booleans": shaped("(True, 'a')"),
    "no tuple": shaped("[4]"),
    "200 dimensions": shaped("(" + "1," * 200 + ")"),
    "objects": shaped("(1,)", "'|O'"),
    "objects in fields": shaped("(1,)", "[('a', '|O'), ('b', '<f4')]"),
    "no type": shaped("(1,)", "'nothing'"),
    "a type of 2 GB": shaped("(1,)", "'|V2147483647'"),
    "nested brackets": npy("(" * 9000),
    "a large header": npy("{" + " " * 60_000 + "}"),
    "code": npy("__import__('os').system('touch ran')"),
    "no dictionary": npy("7\n"),
    "a dictionary without keys": npy("{}\n"),
    "bytes that are no text": npy(b"\xff\xfe\x00" * 9),
    "a pickle": pickle.dumps([1, 2]),
    "a pickled array": saved(np.array([{}, 1], object), allow_pickle=True),
    "an archive": zipped(),
    "an archive cut off": zipped()[:-30],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line_that_names_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.npy"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        for mapped in (False, True):
            with pytest.raises(arrays.ArrayFileError, match=r"hostile.npy: not a whole .npy file") as caught:
                arrays.load(path, mapped=mapped)
            assert "\n" not in str(caught.value) and isinstance(caught.value, InputError)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "array", [np.arange(12.0).reshape(3, 4), np.zeros((0, 8), np.uint8), np.array(7), np.eye(3, order="F")]
)
def test_whole_arrays_come_back(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    got = arrays.load(tmp_path / "a.npy")
    assert (got == array).all() and got.dtype == array.dtype and got.shape == array.shape and got.flags.writeable
    mapped = arrays.load(tmp_path / "a.npy", mapped=True)
    assert (mapped == array).all() and not mapped.flags.writeable


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        arrays.load(tmp_path / "none.npy")
    with pytest.raises(arrays.ArrayFileError, match="directory"):
        arrays.load(tmp_path)
