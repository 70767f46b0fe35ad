"""Photos are decoded once; an interrupted run goes on; a changed photo is noticed."""

import json
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
