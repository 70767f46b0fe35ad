"""The command that screens a folder: rows for every photo, resumable, sharded, clear about what it can't do."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from toys import smooth_photos

from vars_core.__main__ import main
from vars_core.detection import screen
from vars_core.detection.defence import Defence
from vars_core.detection.detectors import Detector
from vars_core.extractor import Extractor
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
    defence.calibrate(shots, rates=(0.01, 0.5))
    # a photo's score depends in its last digits on the batch it comes in: no photo here may lie at the threshold
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
    """The same files, flags and reasons, and scores that differ by what another batch explains at most."""
    for row, twin in zip(one, other, strict=True):
        assert {**row, "score": ""} == {**twin, "score": ""}
        assert row["score"] == twin["score"] or float(row["score"]) == pytest.approx(float(twin["score"]), rel=1e-3)


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
    folder = place[0]
    shutil.copytree(folder / "defence", tmp_path / "defence")
    about = json.loads((tmp_path / "defence" / "defence.json").read_text())
    about["thresholds"]["1"] = threshold
    (tmp_path / "defence" / "defence.json").write_text(json.dumps(about))
    assert called(place, tmp_path / "out", "--defence", str(tmp_path / "defence"), "--rate", "1") == 0
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

    def failing(self, photos, rate):
        calls.append(len(photos))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return genuine(self, photos, rate)

    monkeypatch.setattr(Defence, "screen", failing)
    with pytest.raises(KeyboardInterrupt):
        called(place, tmp_path / "cut")
    part = tmp_path / "cut" / "parts" / "0-of-1.csv"
    part.write_text(part.read_text() + "b/7.png,0.1")  # half a line
    calls[:] = [0] * 3
    assert called(place, tmp_path / "cut") == 0
    assert sum(calls[3:]) < 10
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
    seen, genuine = [], Defence.screen
    monkeypatch.setattr(Defence, "screen", lambda self, p, rate: seen.append(len(p)) or genuine(self, p, rate))
    called(moved, tmp_path / "out")
    after = {row["file"]: row for row in table(tmp_path / "out")}
    assert sum(seen) == 1 and set(before) - set(after) == {"a/0.png"}
    changed = {file for file in after if after[file] != before[file]}
    assert changed == {"b/1.png"}


def test_another_rate_begins_anew(place, tmp_path):
    called(place, tmp_path)
    before = [row["flagged"] for row in table(tmp_path)]
    called(place, tmp_path, "--rate", "1")
    assert [row["flagged"] for row in table(tmp_path)] != before


def test_shards_are_the_whole(place, tmp_path, monkeypatch):
    called(place, tmp_path / "whole")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert called(place, tmp_path / "shards") == 0
        assert (tmp_path / "shards" / "scores.csv").is_file() == (rank == "1")  # the last one merges
    assert_same(table(tmp_path / "shards"), table(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["{photos}", "--extractor", "{photos}/a/notes.txt"],
            "can't be used with {photos}/a/notes.txt: name its own",
        ),
        (["{photos}", "--extractor", "{other}"], "was fitted with another extractor"),
        (["nowhere"], "nowhere: no such folder"),
        (["{photos}/empty"], "no photo in it; expected files named .jpg"),
        (["{photos}", "--defence", "nowhere"], "nowhere/defence.json is missing: run notebooks 1 to 5"),
        (["{photos}", "--rate", "7"], "--rate 7: this defence has thresholds for 1, 50 per cent"),
    ],
)
def test_what_it_cannot_do_is_said(place, tmp_path, capsys, arguments, said):
    (place[0] / "photos" / "empty").mkdir(exist_ok=True)
    files = ["--defence", str(place[0] / "defence"), "--extractor", str(place[0] / "extractor.safetensors")]
    other = tmp_path / "other.safetensors"
    if "{other}" in arguments:
        torch.manual_seed(1)
        Extractor("small_cnn").save(other)  # of as many features: nothing but its weights gives it away
    given = [a.format(photos=place[0] / "photos", other=other) for a in arguments]
    given = [given[0], *files, *given[1:]]
    assert main(["screen", *given, "--out", str(tmp_path / "out")]) == 1
    assert said.format(photos=place[0] / "photos") in capsys.readouterr().err
    assert not (tmp_path / "out" / "scores.csv").exists()


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
    shutil.copytree(place[0] / "defence", tmp_path / "lenient")
    about = json.loads((tmp_path / "lenient" / "defence.json").read_text())
    about["thresholds"]["50"] = 1e9
    (tmp_path / "lenient" / "defence.json").write_text(json.dumps(about))
    called(place, out, "--defence", str(tmp_path / "lenient"))
    assert not (out / "flagged.png").exists()


def test_a_defence_remembers_the_side_of_its_photos(place):
    meta = json.loads((place[0] / "defence" / "defence.json").read_text())
    assert meta["size"] == place[2].shape[1] == Defence.load(place[0] / "defence", place[1].extractor).size
