"""The command that screens a folder: rows for every photo, resumable, sharded, clear about what it can't do."""

import csv
import io
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from toys import smooth_photos

from vars_core.__main__ import main
from vars_core.data import photos
from vars_core.detection import screen
from vars_core.detection.defence import Defence
from vars_core.detection.detectors import Detector
from vars_core.extractor import Extractor, extract
from vars_core.reconstruction.filters import GlobalViT

pytestmark = pytest.mark.usefixtures("on_cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A fitted defence on disk, and a folder with ten photos in two subfolders, a broken one and a text file."""
    folder = tmp_path_factory.mktemp("screen")
    torch.manual_seed(0)
    extractor, shots = Extractor("small_cnn"), smooth_photos(10)
    extractor.freeze_scaler(shots)
    extractor.eval().requires_grad_(False).save(folder / "extractor.safetensors")
    image_filter = GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2).eval().requires_grad_(False)
    defence = Defence(image_filter, Detector(extractor.dim).eval().requires_grad_(False), extractor)
    defence.calibrate(shots)  # at 10, 20 and 50 %: more than ten photos can't give
    # a photo's score depends in its last digits on the size of its batch: no photo here may lie at the threshold
    score = np.sort(defence.screen(shots, "50")[1])
    gap = 3 + np.diff(score[3:7]).argmax()
    defence.thresholds["50"] = float(score[gap : gap + 2].mean())
    (folder / "defence").mkdir()
    defence.save(folder / "defence")
    for number, shot in enumerate(shots):
        target = folder / "photos" / "ab"[number % 2] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shot).save(target)
    (folder / "photos" / "a" / "broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    (folder / "photos" / "a" / "notes.txt").write_text("not a photo")
    return folder, defence, shots


def called(place, out, *more):
    folder = place[0]
    files = ["--defence", str(folder / "defence"), "--extractor", str(folder / "extractor.safetensors")]
    return main(["screen", str(folder / "photos"), "--out", str(out), *files, "--rate", "50", "--batch", "3", *more])


def table(out):
    with (out / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same(one, other):
    """The same files, flags and reasons, and scores that differ by what another batch size explains at most."""
    for row, twin in zip(one, other, strict=True):
        assert {**row, "score": ""} == {**twin, "score": ""}
        assert row["score"] == twin["score"] or float(row["score"]) == pytest.approx(float(twin["score"]), rel=1e-3)


def with_threshold(place, folder, rate, value):
    """A copy of the defence in `folder` that flags by another threshold."""
    defence = place[1]
    Defence(
        defence.image_filter,
        defence.detector,
        defence.extractor,
        defence.thresholds | {rate: value},
        defence.size,
        10,
    ).save(folder)
    return folder


def test_every_photo_has_a_row_with_the_defences_own_verdict(place, tmp_path, capsys):
    assert called(place, tmp_path) == 0
    rows = {row["file"]: row for row in table(tmp_path)}
    _, score, flagged = place[1].screen(place[2], "50")
    assert len(rows) == 11 and list(rows) == sorted(rows)
    for number in range(10):
        row = rows[f"{'ab'[number % 2]}/{number}.png"]
        assert float(row["score"]) == pytest.approx(score[number], rel=1e-3, abs=1e-4)
        assert row["flagged"] == str(int(flagged[number])) and row["reason"] == ""
    assert rows["a/broken.jpg"]["reason"] and rows["a/broken.jpg"]["score"] == ""
    assert f"{flagged.sum()} of 10 photos flagged at 50 %" in capsys.readouterr().out


@pytest.mark.parametrize(("threshold", "hinted"), [(-1e9, True), (1e9, False)])
def test_a_defence_that_flags_nearly_all_asks_to_be_fitted_to_these_photos(
    place, tmp_path, capsys, threshold, hinted
):
    folder = with_threshold(place, tmp_path / "defence", "1", threshold)
    assert called(place, tmp_path / "out", "--defence", str(folder), "--rate", "1") == 0
    assert ("photos unlike" in capsys.readouterr().out) is hinted


def test_the_flagged_are_on_the_contact_sheet(place, tmp_path):
    called(place, tmp_path)
    flagged = sum(row["flagged"] == "1" for row in table(tmp_path))
    with Image.open(tmp_path / "flagged.png") as page:
        assert flagged and page.size == (flagged * (screen.TILE + 4), screen.TILE + screen.GAP)
        assert np.asarray(page)[: screen.TILE, : screen.TILE].std() > 1


def test_it_goes_on_where_it_was_interrupted(place, tmp_path, monkeypatch):
    called(place, tmp_path / "whole")
    calls, genuine = [], Defence.screen

    def failing(self, photos, rate, batch):
        calls.append(len(photos))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return genuine(self, photos, rate, batch)

    monkeypatch.setattr(Defence, "screen", failing)
    assert called(place, tmp_path / "cut") == 130
    part = tmp_path / "cut" / "parts" / "0-of-1.jsonl"
    part.write_text(part.read_text() + '["b/7.png", 12')  # half a line
    calls[:] = [0] * 3
    assert called(place, tmp_path / "cut") == 0
    assert len(calls[3:]) == 2  # batches of 3; two had been done
    assert_same(table(tmp_path / "cut"), table(tmp_path / "whole"))


def test_a_second_run_looks_at_new_photos_only(place, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    shutil.copytree(place[0] / "photos", folder)
    moved = (tmp_path, *place[1:])
    for name in ("defence", "extractor.safetensors"):
        (tmp_path / name).symlink_to(place[0] / name)
    called(moved, tmp_path / "out")
    before = {row["file"]: row for row in table(tmp_path / "out")}
    (folder / "a" / "0.png").unlink()
    Image.fromarray(255 - place[2][1]).save(folder / "b" / "1.png")
    os.utime(folder / "b" / "1.png", (2**31, 2**31))
    decoded = counted(monkeypatch)
    called(moved, tmp_path / "out")
    after = {row["file"]: row for row in table(tmp_path / "out")}
    assert decoded == ["b/1.png"] and set(before) - set(after) == {"a/0.png"}
    changed = {file for file in after if after[file] != before[file]}
    assert changed == {"b/1.png"}


def counted(monkeypatch):
    """The photos that are decoded for a score from here on, by the last two parts of their paths."""
    seen, genuine = [], photos.decode

    def decode(source, size):
        if size != screen.TILE:
            seen.append("/".join(source.parts[-2:]))
        return genuine(source, size)

    monkeypatch.setattr(photos, "decode", decode)
    return seen


@pytest.fixture
def moved(place, tmp_path):
    """The same, with photos of its own that a test may change."""
    shutil.copytree(place[0] / "photos", tmp_path / "photos")
    for name in ("defence", "extractor.safetensors"):
        (tmp_path / name).symlink_to(place[0] / name)
    return (tmp_path, *place[1:])


def rewritten(file, other):
    file.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    "change",
    [
        rewritten,
        lambda file, other: other.replace(file),
        lambda file, other: shutil.copy2(other, file),  # cp -p
        lambda file, other: (file.unlink(), os.link(other, file)),
        lambda file, other: (file.unlink(), file.symlink_to(other)),
    ],
    ids=["written over", "mv", "cp -p", "hard link", "link"],
)
def test_a_photo_that_changed_is_screened_again_whatever_size_and_date_say(moved, tmp_path, change):
    """Two photos of one size in bytes and one date take each other's place."""
    file, other = tmp_path / "photos" / "a" / "0.bmp.png", tmp_path / "other.png"
    for shot, path in ((moved[2][0], file), (moved[2][3], other)):
        stored = io.BytesIO()
        Image.fromarray(shot).save(stored, "PNG", compress_level=0)  # not compressed: equally long
        path.write_bytes(stored.getvalue())
        os.utime(path, (1e9, 1e9))
    assert file.stat().st_size == other.stat().st_size
    called(moved, tmp_path / "out")
    change(file, other)
    os.utime(file, (1e9, 1e9))
    called(moved, tmp_path / "out")
    called(moved, tmp_path / "fresh")
    assert_same(table(tmp_path / "out"), table(tmp_path / "fresh"))


def test_another_rate_needs_no_new_scores(place, tmp_path, monkeypatch):
    called(place, tmp_path)
    before, decoded = [row["flagged"] for row in table(tmp_path)], counted(monkeypatch)
    called(place, tmp_path, "--rate", "10.0")
    assert [row["flagged"] for row in table(tmp_path)] != before and not decoded
    called(place, tmp_path)
    assert [row["flagged"] for row in table(tmp_path)] == before


def test_another_defence_begins_anew(place, tmp_path, monkeypatch):
    called(place, tmp_path / "out")
    decoded, other = counted(monkeypatch), with_threshold(place, tmp_path / "other", "50", 1e9)
    called(place, tmp_path / "out", "--defence", str(other))
    assert len(decoded) == 11 and {row["flagged"] for row in table(tmp_path / "out")} == {"0", ""}


def sharded(monkeypatch, where, out, ranks, world):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    for rank in ranks:
        monkeypatch.setenv("RANK", str(rank))
        assert called(where, out) == 0
    monkeypatch.delenv("WORLD_SIZE"), monkeypatch.delenv("RANK")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_shards_are_the_whole(place, tmp_path, monkeypatch, capsys, order):
    called(place, tmp_path / "whole")
    capsys.readouterr()
    sharded(monkeypatch, place, tmp_path / "shards", order[:1], 2)
    assert "have no verdict yet" in capsys.readouterr().out
    assert not (tmp_path / "shards" / "scores.csv").is_file()
    sharded(monkeypatch, place, tmp_path / "shards", order[1:], 2)  # the last one merges
    assert_same(table(tmp_path / "shards"), table(tmp_path / "whole"))


@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1), (3, 2), (2, 3)])
def test_no_old_verdict_wins_when_photos_are_shared_in_another_way(moved, tmp_path, monkeypatch, first, then):
    sharded(monkeypatch, moved, tmp_path / "out", range(first), first)
    folder = tmp_path / "photos"
    for number in (1, 4, 5):  # these change, one goes, and one comes that sorts before all others
        Image.fromarray(255 - moved[2][number]).save(folder / "ab"[number % 2] / f"{number}.png")
    (folder / "b" / "9.png").unlink()
    Image.fromarray(moved[2][9]).save(folder / "0.png")
    decoded = counted(monkeypatch)
    sharded(monkeypatch, moved, tmp_path / "out", range(then), then)
    assert sorted(decoded) == ["a/4.png", "b/1.png", "b/5.png", "photos/0.png"]  # all others have their verdict
    called(moved, tmp_path / "fresh")
    assert_same(table(tmp_path / "out"), table(tmp_path / "fresh"))


def test_a_share_is_decided_by_the_name_alone():
    names = [f"{n}.png" for n in range(3000)] + ["\udcff.png", "日本.png"]
    one = screen.shares(names, 3)
    assert np.array_equal(screen.shares(names[::2], 3), one[::2]) and set(screen.shares(names, 1)) == {0}
    assert np.bincount(one).min() > 900


def test_two_runs_at_once_are_refused(place, tmp_path, capsys):
    (tmp_path / "parts").mkdir()
    with screen.Journal(tmp_path / "parts" / "0-of-1.jsonl", "# another\n"):
        assert called(place, tmp_path) == 1
    assert capsys.readouterr().err == f"{tmp_path}: another run is writing there; wait for it, or use --out\n"
    assert called(place, tmp_path) == 0


def test_a_run_killed_at_any_moment_is_taken_up_to_the_same_end(place, tmp_path):
    """What kill −9 leaves is the beginning of a journal, of any length."""
    called(place, tmp_path / "whole")
    journal = (tmp_path / "whole" / "parts" / "0-of-1.jsonl").read_bytes()
    for length in (0, 1, 19, 25, len(journal) // 2, len(journal) // 2 + 1, len(journal) - 1):
        out = tmp_path / str(length)
        (out / "parts").mkdir(parents=True)
        (out / "parts" / "0-of-1.jsonl").write_bytes(journal[:length])
        assert called(place, out) == 0
        assert_same(table(out), table(tmp_path / "whole"))


def test_flags_do_not_depend_on_batch_or_threads(place, tmp_path):
    called(place, tmp_path / "3")
    for batch in ("1", "7", "20"):
        called(place, tmp_path / batch, "--batch", batch)
        assert_same(table(tmp_path / batch), table(tmp_path / "3"))
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    try:
        called(place, tmp_path / "threads")
    finally:
        torch.set_num_threads(threads)
    assert_same(table(tmp_path / "threads"), table(tmp_path / "3"))


@pytest.mark.parametrize(
    "damage",
    ["", "\n", "{", "[]", "null", '["a/0.png", 1, "x", "", 2]', "[" * 9999, "\x00" * 40, "é", '[1, 2, NaN, "", 2]'],
)
def test_a_damaged_line_of_a_journal_says_nothing(place, tmp_path, damage):
    called(place, tmp_path)
    before, part = table(tmp_path), tmp_path / "parts" / "0-of-1.jsonl"
    lines = part.read_text().splitlines()
    lines[3] = damage
    part.write_text("\n".join(lines))
    assert called(place, tmp_path) == 0
    assert_same(table(tmp_path), before)


# errors that pass


def test_a_photo_that_cannot_be_read_now_is_tried_again(moved, tmp_path, monkeypatch, capsys):
    genuine, errors = photos.decode, {
        "0.png": PermissionError(13, "Permission denied"),
        "1.png": photos.PhotoError("cannot be read (Input/output error)", transient=True),
    }  # fmt: skip

    def failing(source, size):
        if source.name in errors:
            raise errors[source.name]
        return genuine(source, size)

    monkeypatch.setattr(photos, "decode", failing)
    assert called(moved, tmp_path / "out") == 0
    assert "3 not decodable (2 to be tried again)" in capsys.readouterr().out
    rows = {row["file"]: row for row in table(tmp_path / "out")}
    assert rows["a/0.png"]["reason"] == "cannot be read (Permission denied)"
    assert rows["b/1.png"]["reason"] == "cannot be read (Input/output error)"
    monkeypatch.undo()
    monkeypatch.setenv("VARS_DEVICE", "cpu"), monkeypatch.setenv("VARS_QUIET", "1")
    decoded = counted(monkeypatch)
    assert called(moved, tmp_path / "out") == 0
    assert sorted(decoded) == ["a/0.png", "b/1.png"]
    called(moved, tmp_path / "fresh")
    assert_same(table(tmp_path / "out"), table(tmp_path / "fresh"))


def test_a_photo_that_goes_while_it_is_flagged_is_grey_on_the_sheet(moved, tmp_path, monkeypatch):
    genuine = screen.write_scores
    monkeypatch.setattr(screen, "write_scores", lambda *a: genuine(*a) or shutil.rmtree(tmp_path / "photos"))
    assert called(moved, tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / "flagged.png") as page:
        assert (np.asarray(page)[: screen.TILE, : screen.TILE] == 128).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["{photos}", "--extractor", "{photos}/a/notes.txt"],
            "{photos}/a/notes.txt is no extractor of the study, or damaged",
        ),
        (["{photos}", "--extractor", "{other}"], "was fitted with another extractor"),
        (["nowhere"], "nowhere: no such folder"),
        (["{photos}/empty"], "no photo in it, 1 other files; expected .apng, .gif, .jfif, .jpe,"),
        (["{photos}", "--defence", "nowhere"], "nowhere/defence.json is missing: run notebooks 1 to 5"),
        (
            ["{photos}", "--rate", "1"],
            "--rate 1: this defence has no threshold for 1 % false alarms: that needs at least 99 calibration "
            "photos, and it had 10; it has them for 10, 20, 50 %",
        ),
        (["{photos}", "--rate", "30"], "no threshold for 30 % false alarms: it was calibrated for others"),
        (["{photos}", "--rate", "abc"], "--rate abc: expected a number"),
        (["{photos}", "--rate", "nan"], "--rate nan: a rate in percent is a number above 0"),
        (["{photos}", "--rate", "-1"], "--rate -1: a rate in percent is a number above 0"),
        (["{photos}", "--out", "{photos}"], "is the folder with the photos"),
        (["{photos}", "--out", "{photos}/a/notes.txt"], "{photos}/a/notes.txt: a folder is expected, this is a file"),
        (["{photos}", "--out", "{photos}/a/notes.txt/x"], "{photos}/a/notes.txt/x/parts: Not a directory"),
        (["{photos}", "--out", "/proc/nothing"], "/proc/nothing: "),
        (["{photos}", "--defence", "{photos}"], "{photos}/defence.json is missing"),
        (["{photos}", "--defence", "{photos}/a/notes.txt"], "is a file; expected the folder of a saved defence"),
        (["{photos}", "--extractor", "{photos}"], "{photos} is missing"),
        (["{photos}/a/notes.txt"], "no such folder, it is a file"),
    ],
)
def test_what_it_cannot_do_is_said(place, tmp_path, capsys, arguments, said):
    (place[0] / "photos" / "empty").mkdir(exist_ok=True)
    (place[0] / "photos" / "empty" / "x.txt").touch()
    files = ["--defence", str(place[0] / "defence"), "--extractor", str(place[0] / "extractor.safetensors")]
    other = tmp_path / "other.safetensors"
    if "{other}" in arguments:
        torch.manual_seed(1)
        Extractor("small_cnn").save(other)  # of as many features: nothing but its weights gives it away
    given = [a.format(photos=place[0] / "photos", other=other) for a in arguments]
    assert main(["screen", given[0], "--out", str(tmp_path / "out"), "--rate", "50", *files, *given[1:]]) == 1
    told = capsys.readouterr().err
    assert said.format(photos=place[0] / "photos") in told and told.count("\n") == 1
    assert not (tmp_path / "out" / "scores.csv").exists()


@pytest.mark.parametrize("name", ["/x", "/", "x", "..", "{photos}/a/notes.txt"])
def test_a_defence_that_is_none_is_a_line_wherever_it_lies(place, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    photos = place[0] / "photos"
    assert main(["screen", str(photos), "--out", str(tmp_path / "out"), "--defence", name.format(photos=photos)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and ("defence.json is missing" in told or "is a file; expected the folder" in told)


@pytest.mark.parametrize(
    ("rank", "world"), [("x", "2"), ("2", "2"), ("-1", "2"), ("0", "0"), ("", "1"), ("0", "1.5")]
)
def test_a_process_has_a_number_below_that_of_all(place, tmp_path, capsys, monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert main(["screen", str(place[0] / "photos"), "--out", str(tmp_path / "out")]) == 1
    assert f"got RANK={rank}, WORLD_SIZE={world}" in capsys.readouterr().err


@pytest.mark.parametrize("batch", ["0", "-1", "x", "1.5", "", "٣", "99999999999"])
def test_a_batch_is_a_number_of_photos(batch, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["screen", "photos", f"--batch={batch}"])
    assert f"argument --batch: a number of photos from 1 to 4096 expected, got {batch}" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_old_scores_stay(place, tmp_path, monkeypatch, capsys):
    called(place, tmp_path)
    before = (tmp_path / "scores.csv").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(screen.csv, "writer", full)
    assert called(place, tmp_path) == 1
    assert capsys.readouterr().err.endswith(f"\n{tmp_path}: No space left on device\n")
    assert (tmp_path / "scores.csv").read_bytes() == before
    assert not list(tmp_path.glob(".scores*"))


def test_the_extractor_is_the_one_beside_the_defence(place, tmp_path, capsys):
    models = tmp_path / "models"
    shutil.copytree(place[0] / "defence", models / "defence" / "contrastive")
    given = [str(place[0] / "photos"), "--rate", "50", "--defence", str(models / "defence" / "contrastive")]
    assert main(["screen", *given, "--out", str(tmp_path / "out")]) == 1
    assert f"{models / 'recommender' / 'extractor.safetensors'} is missing" in capsys.readouterr().err
    (models / "recommender").mkdir()
    shutil.copy(place[0] / "extractor.safetensors", models / "recommender")
    assert main(["screen", *given, "--out", str(tmp_path / "out"), "--batch", "3"]) == 0
    called(place, tmp_path / "named")
    assert_same(table(tmp_path / "out"), table(tmp_path / "named"))


def test_no_contact_sheet_of_an_earlier_run_is_left(place, tmp_path):
    out = tmp_path / "out"
    called(place, out)
    assert (out / "flagged.png").is_file()
    called(place, out, "--defence", str(with_threshold(place, tmp_path / "lenient", "50", 1e9)))
    assert not (out / "flagged.png").exists()


def test_a_defence_remembers_the_side_of_its_photos(place):
    assert Defence.load(place[0] / "defence", place[1].extractor).size == place[2].shape[1]


# names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain.png", "plain.png"),
        ('with, comma and "quotes".png', 'with, comma and "quotes".png'),
        ("=1+1.png", "./=1+1.png"),
        ("+1.png", "./+1.png"),
        ("-rf.png", "./-rf.png"),
        ("@SUM(A1).png", "./@SUM(A1).png"),
        ("\tx.png", "./\\tx.png"),
        ("two\nlines\r.png", "two\\nlines\\r.png"),
        ("<b>&amp;.png", "<b>&amp;.png"),
        ("日本 é.png", "日本 é.png"),
        (os.fsdecode(b"\xff.png"), "\\udcff.png"),
        ("sub/=x.png", "sub/=x.png"),
    ],
)
def test_names_are_one_line_and_no_formula(name, expected):
    assert screen.written(name) == expected


def test_odd_names_get_one_row_each(moved, tmp_path):
    names = [
        "=1+1.PNG",
        "a,b.png",
        'q"q.Jpeg',
        "two\nlines.png",
        "\r.png",
        "<script>.gif",
        "日本.jfif",
        " .png",
        "x .jpe",
    ]
    names += [os.fsdecode(b"\xff\xfe.webp"), "..png", "-rf.png", ".png.png", "{0}%s$HOME`x`.png"]
    folder = tmp_path / "photos" / "odd"
    folder.mkdir()
    for name in names:
        suffix = (
            name.rsplit(".", 1)[-1].lower().replace("jfif", "jpeg").replace("jpe", "jpeg").replace("jpegg", "jpeg")
        )
        with (folder / name).open("wb") as file:
            Image.fromarray(moved[2][0]).save(file, suffix)
    assert called(moved, tmp_path / "out") == 0
    raw = (tmp_path / "out" / "scores.csv").read_bytes().decode("utf-8")
    rows = [row for row in table(tmp_path / "out") if row["file"].startswith("odd/")]
    assert len(raw.splitlines()) == 1 + 11 + len(names)
    assert len(rows) == len(names) and all(row["score"] and not row["reason"] for row in rows)
    first = (tmp_path / "out" / "scores.csv").read_bytes()
    assert called(moved, tmp_path / "out") == 0
    assert (tmp_path / "out" / "scores.csv").read_bytes() == first


def randomised(place, folder, sigma=0.1):
    """A copy of the defence that serves behind noise."""
    given = place[1]
    denoiser = GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2, gated=False).eval().requires_grad_(False)
    made = Defence(
        given.image_filter, given.detector, given.extractor, given.thresholds, given.size, 10, denoiser, sigma
    )
    folder.mkdir()
    made.save(folder)
    return made


@pytest.mark.parametrize(("rule", "shape"), [("one", ()), ("mean", ()), ("median", (3,))])
def test_features_of_what_is_not_flagged_are_written_as_they_are_served(place, tmp_path, rule, shape):
    randomised(place, tmp_path / "d", sigma=1e-6)
    options = ["--defence", str(tmp_path / "d"), "--serve", rule, "--draws", "3"]
    assert called(place, tmp_path / "out", *options) == 0
    rows = [row for row in table(tmp_path / "out") if not row["reason"]]
    written = {str(f.relative_to(tmp_path / "out" / "features")) for f in (tmp_path / "out/features").rglob("*.npy")}
    assert written == {f"{row['file']}.npy" for row in rows if row["flagged"] == "0"} and 0 < len(written) < len(rows)
    for name in written:
        found = np.load(tmp_path / "out" / "features" / name, allow_pickle=False)
        photo = place[2][int(name.split("/")[1].split(".")[0])]
        clean = extract(place[1].extractor, photo[None])[0]  # almost no noise, and an untrained denoiser does nothing
        assert found.shape == (*shape, len(clean))
        np.testing.assert_allclose(found, np.broadcast_to(clean, found.shape), atol=1e-2)


def test_another_rule_or_a_flag_replaces_what_was_served(place, tmp_path, capsys):
    out, own = tmp_path / "out", str(tmp_path / "d")
    made = randomised(place, tmp_path / "d")
    assert called(place, out, "--defence", own, "--serve", "mean", "--draws", "2") == 0
    before = {f: f.read_bytes() for f in (out / "features").rglob("*.npy")}
    assert called(place, out, "--defence", own, "--serve", "mean", "--draws", "2") == 0  # nothing is left to do
    assert {f: f.read_bytes() for f in (out / "features").rglob("*.npy")} == before
    assert called(place, out, "--defence", own, "--serve", "median", "--draws", "2") == 0
    assert all(np.load(f).ndim == 2 for f in before)
    made.thresholds["50"] = -1e9
    made.save(tmp_path / "d")
    assert called(place, out, "--defence", own, "--serve", "median", "--draws", "2") == 0  # all are flagged
    assert not list((out / "features").rglob("*.npy"))
    capsys.readouterr()
    assert called(place, tmp_path / "other", "--serve", "mean") == 1
    assert "--serve mean" in (said := capsys.readouterr().err) and "no denoiser.safetensors" in said
