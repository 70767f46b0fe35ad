"""Which photos a folder holds: links, loops, odd folders, suffixes; and marks that change with a photo."""

import os

import numpy as np
import pytest

from vars_core.detection import listing
from vars_core.detection.listing import UNKNOWN, Listing, mark

OUT = "out"


def filled(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def listed(folder):
    return Listing.of(folder, without=folder / OUT)


def test_photos_by_suffix_and_the_others_counted(tmp_path):
    files = "a.jpg b.JPEG c.Png d.webp e.jfif f.GIF g.jpe sub/deeper/h.PNG .hidden.png"
    found = listed(filled(tmp_path, *files.split(), "x.txt", "y.TXT", "z.heic", "README", ".gitignore", "png"))
    assert found.names == sorted(files.split())
    assert found.others == {".txt": 2, ".heic": 1, "no suffix": 3} and not found.skipped
    assert len(found.marks) == len(found.names) and found.marks.all()


def test_the_output_folder_is_not_looked_into_under_any_name(tmp_path):
    folder = filled(tmp_path, "a.png", "out/flagged.png", "deep/b.png")
    (folder / "deep" / "link").symlink_to(folder / "out")
    assert listed(folder).names == ["a.png", "deep/b.png"]


def test_results_of_an_earlier_screening_are_named_and_not_screened(tmp_path):
    folder = filled(tmp_path, "a.png", "old/scores.csv", "old/flagged.png", "old/parts/0-of-1.jsonl", "b/parts/c.png")
    found = listed(folder)
    assert found.names == ["a.png", "b/parts/c.png"] and found.skipped == ["old (results of a screening)"]


def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    elsewhere = filled(tmp_path / "elsewhere", "x.png", "y/z.png")
    folder = filled(tmp_path / "photos", "real/a.png", "b.png")
    (folder / "0").symlink_to("real")  # sorts before what it points to
    (folder / "linked").symlink_to(elsewhere)
    (folder / "real" / "loop").symlink_to(folder)
    (elsewhere / "y" / "back").symlink_to(elsewhere)
    (folder / "dangling").symlink_to("nowhere")
    found = listed(folder)
    assert found.names == ["b.png", "linked/x.png", "linked/y/z.png", "real/a.png"]
    again = "a link to a folder that is listed already"
    assert sorted(found.skipped) == [f"0 ({again})", f"linked/y/back ({again})", f"real/loop ({again})"]
    assert found.others == {"no suffix": 1}  # the dangling link


def test_links_to_links_do_not_multiply(tmp_path):
    for level in range(20):  # 2^20 ways to the bottom
        folder = filled(tmp_path, f"{level}/{level}.png") / str(level)
        for name in ("left", "right"):
            (folder / name).symlink_to(tmp_path / str(level + 1))
    assert len(listed(tmp_path / "0").names) == 20


def test_linked_photos_are_photos_and_dangling_ones_have_no_mark(tmp_path):
    folder = filled(tmp_path / "photos", "a.png")
    (folder / "b.png").symlink_to("a.png")
    (folder / "c.png").symlink_to("nowhere")
    found = listed(folder)
    assert found.names == ["a.png", "b.png", "c.png"]
    assert found.marks[0] == found.marks[1] != UNKNOWN == found.marks[2]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    folder, genuine = filled(tmp_path, "a.png", "closed/b.png"), os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return genuine(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = listed(folder)
    assert found.names == ["a.png"] and found.skipped == ["closed (Permission denied)"]
    with pytest.raises(PermissionError):
        listed(folder / "closed")


def test_a_folder_named_like_a_photo_is_a_folder(tmp_path):
    assert listed(filled(tmp_path, "a.png/b.png")).names == ["a.png/b.png"]


def test_places_are_found(tmp_path):
    found = Listing(tmp_path, ["a", "b/c", "d"], np.zeros(3, np.uint64))
    assert [found.place_of(name) for name in ("a", "b/c", "d", "", "b", "z")] == [0, 1, 2, None, None, None]


def test_marks_change_with_size_dates_and_inode(tmp_path):
    file = filled(tmp_path, "a.png") / "a.png"
    marks = [mark(file)]
    assert mark(file) == marks[0] and 0 < marks[0] < 2**64
    file.write_text("longer")
    marks.append(mark(file))
    os.utime(file, (1, 1))
    marks.append(mark(file))
    filled(tmp_path, "b.png").joinpath("b.png").replace(file)
    marks.append(mark(file))
    assert len(set(marks)) == 4
    file.unlink()
    assert mark(file) == UNKNOWN


def test_suffixes_follow_the_formats_that_are_decoded(monkeypatch):
    assert {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif"} <= listing.readable_suffixes()
    assert not {".tif", ".bmp", ".svg", ".heic", ".txt", ".pdf"} & listing.readable_suffixes()
    monkeypatch.setattr(listing.photos, "FORMATS", ("BMP",))
    assert ".bmp" in listing.readable_suffixes() and ".png" not in listing.readable_suffixes()
