"""Photos are decoded once; an interrupted run goes on; a changed photo is noticed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vars_core.data import decoded
from vars_core.data import photos as decoder


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for n in range(9):
        made.append(tmp_path / f"{n}.png")
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(made[-1])
    made[4].write_bytes(b"no photo")
    return made


@pytest.fixture
def counted(monkeypatch):
    """The files that were really decoded, in order."""
    seen, original = [], decoder.decode
    monkeypatch.setattr(decoder, "decode", lambda file, size: (seen.append(file), original(file, size))[1])
    return seen


def test_rows_are_the_decoded_photos(files, tmp_path):
    array, bad = decoded.decode_files(files, 8, tmp_path / "cache")
    assert array.shape == (9, 8, 8, 3) and array.dtype == np.uint8 and not array.flags.writeable
    assert [row for row, _ in bad] == [4] and "not a JPEG" in bad[0][1] and not array[4].any()
    for row in (0, 3, 8):
        assert (array[row] == decoder.decode(files[row], 8)).all()


def test_the_second_run_decodes_nothing(files, tmp_path, counted):
    first = decoded.decode_files(files, 8, tmp_path / "cache")
    assert len(counted) == 9
    again = decoded.decode_files(files, 8, tmp_path / "cache")
    assert len(counted) == 9 and (first[0] == again[0]).all() and first[1] == again[1]


@pytest.mark.parametrize("change", ["photo", "size", "files"])
def test_what_changed_is_decoded_anew(change, files, tmp_path, counted):
    decoded.decode_files(files, 8, tmp_path / "cache")
    if change == "photo":
        Image.new("RGB", (12, 12), "red").save(files[2])
    array, _ = decoded.decode_files(
        files[: 5 if change == "files" else 9], 6 if change == "size" else 8, tmp_path / "cache"
    )
    assert len(counted) > 9
    assert change != "photo" or (array[2] == (255, 0, 0)).all()
    assert array.shape[:2] == ((5, 8) if change == "files" else (9, 6) if change == "size" else (9, 8))


def test_rows_of_bad_photos_are_0_in_every_batch(files, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "BATCH", 2)
    array, bad = decoded.decode_files(files, 8, tmp_path / "cache")
    assert [row for row, _ in bad] == [4] and [row for row in range(9) if not array[row].any()] == [4]
    for row in (2, 5, 8):
        assert (array[row] == decoder.decode(files[row], 8)).all()


RUN = """
from pathlib import Path
import sys
from vars_core.data import decoded

def most():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

files = sorted(Path(sys.argv[1]).iterdir())
before = most()
array, bad = decoded.decode_files(files, 128, Path(sys.argv[2]))
print(array.nbytes // 2**20, (most() - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_photos(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "one.png")
    for n in range(3000):
        (folder / f"{n}.png").hardlink_to(tmp_path / "one.png")
    command = [sys.executable, "-c", RUN, str(folder), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    decoded_mb, grown_mb = map(int, done.stdout.split())
    assert decoded_mb == 140 and grown_mb < 70  # a batch is 25


def test_an_interrupted_run_goes_on(files, tmp_path, monkeypatch, counted):
    monkeypatch.setattr(decoded, "BATCH", 2)
    complete, bad = decoded.decode_files(files, 8, tmp_path / "whole")
    counted.clear()
    real = decoder.decode

    def broken(file, size):
        if file == files[6]:
            raise KeyboardInterrupt
        return real(file, size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(decoder, "decode", broken)
        decoded.decode_files(files, 8, tmp_path / "cache")
    assert json.loads((tmp_path / "cache" / "index.json").read_text())["done"] == 6
    counted.clear()
    array, again = decoded.decode_files(files, 8, tmp_path / "cache")
    assert set(counted) == set(files[6:]) and (array == complete).all() and again == bad


def test_a_file_that_is_gone_is_a_bad_photo_and_a_data_file_that_is_gone_is_made_anew(files, tmp_path, counted):
    gone = [*files, tmp_path / "gone.png"]
    _, bad = decoded.decode_files(gone, 8, tmp_path / "cache")
    assert bad[-1] == (9, "no such file")
    (tmp_path / "cache" / "photos.npy").unlink()
    counted.clear()
    array, again = decoded.decode_files(gone, 8, tmp_path / "cache")
    assert len(counted) == 10 and again == bad and array[3].any()


def test_two_catalogues_of_one_name_do_not_share_a_place(tmp_path):
    places = {decoded.cache_folder(tmp_path / parent / "shop", tmp_path) for parent in "ab"}
    assert len(places) == 2


def test_a_photo_that_could_not_be_read_is_tried_again_and_one_that_is_bad_is_not(
    files, tmp_path, monkeypatch, counted
):
    real, closed = decoder.decode, {files[1], files[7]}

    def without_permission(file, size):
        if file in closed:
            raise decoder.PhotoError("cannot be read (Permission denied)", transient=True)
        return real(file, size)

    monkeypatch.setattr(decoded, "BATCH", 2)
    monkeypatch.setattr(decoder, "decode", without_permission)
    place = tmp_path / "cache"
    array, bad = decoded.decode_files(files, 8, place)
    assert [row for row, _ in bad] == [1, 4, 7] and "Permission" in bad[0][1] and not array[[1, 7]].any()
    counted.clear()
    closed.remove(files[7])
    array, bad = decoded.decode_files(files, 8, place)
    assert [row for row, _ in bad] == [1, 4] and counted == [files[7]]  # `closed` is not counted
    assert (array[7] == real(files[7], 8)).all()
    closed.clear()
    array, bad = decoded.decode_files(files, 8, place)
    assert [row for row, _ in bad] == [4] and (array[1] == real(files[1], 8)).all()
    counted.clear()
    assert decoded.decode_files(files, 8, place)[1] == bad and not counted


def test_an_interrupted_run_goes_on_and_tries_again_what_it_could_not_read(files, tmp_path, monkeypatch):
    real, state = decoder.decode, {"closed": files[1], "stop": files[6]}

    def troubled(file, size):
        if file == state["stop"]:
            raise KeyboardInterrupt
        if file == state["closed"]:
            raise decoder.PhotoError("cannot be read", transient=True)
        return real(file, size)

    monkeypatch.setattr(decoded, "BATCH", 2)
    monkeypatch.setattr(decoder, "decode", troubled)
    with pytest.raises(KeyboardInterrupt):
        decoded.decode_files(files, 8, tmp_path / "cache")
    state.clear()
    state.update(closed=None, stop=None)
    array, bad = decoded.decode_files(files, 8, tmp_path / "cache")
    assert [row for row, _ in bad] == [4] and all((array[n] == real(files[n], 8)).all() for n in (0, 1, 5, 6, 8))


def test_a_photo_replaced_by_one_of_the_same_length_and_date_is_noticed(files, tmp_path):
    decoded.decode_files(files, 8, tmp_path / "cache")
    before = files[2].stat()
    Image.fromarray(np.asarray(Image.open(files[2]))[::-1].copy()).save(tmp_path / "new.png")
    content = (tmp_path / "new.png").read_bytes()
    files[2].write_bytes(content + bytes(before.st_size - len(content)) if len(content) < before.st_size else content)
    os.utime(files[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    array, _ = decoded.decode_files(files, 8, tmp_path / "cache")
    assert (array[2] == decoder.decode(files[2], 8)).all()


DAMAGE = {
    "an index cut off": ("index.json", lambda content: content[:40]),
    "an index of zeros": ("index.json", lambda content: bytes(len(content))),
    "an index that is a list": ("index.json", lambda content: b"[1, 2]"),
    "an index nested deeply": ("index.json", lambda content: b"[" * 200_000),
    "an index of rows that aren't there": ("index.json", lambda content: content.replace(b"[4,", b"[400,")),
    "an index of no rows": ("index.json", lambda content: content.replace(b"[4,", b'["x",')),
    "photos cut off": ("photos.npy", lambda content: content[:-7]),
    "photos emptied": ("photos.npy", lambda content: b""),
    "photos with another header": ("photos.npy", lambda content: content.replace(b"|u1", b"<u2")),
    "photos that are text": ("photos.npy", lambda content: b"no array"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_cache_is_made_anew(name, files, tmp_path):
    wanted, bad = decoded.decode_files(files, 8, tmp_path / "cache")
    wanted = wanted.copy()
    file, spoil = DAMAGE[name]
    place = tmp_path / "cache" / file
    place.write_bytes(spoil(place.read_bytes()))
    array, again = decoded.decode_files(files, 8, tmp_path / "cache")
    assert (array == wanted).all() and again == bad


def test_no_photos_at_all(tmp_path):
    array, bad = decoded.decode_files([], 8, tmp_path / "cache")
    assert array.shape == (0, 8, 8, 3) and bad == []
