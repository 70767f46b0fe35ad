"""A defence on disk: whatever is damaged, missing or hostile is one line that names the file."""

import json

import pytest
import torch
from toys import extractor, smooth_photos

from vars_core.detection import defence_files
from vars_core.detection.defence import Defence
from vars_core.detection.defence_files import ABOUT, DETECTOR, FILTER, DefenceError
from vars_core.detection.detectors import Detector
from vars_core.reconstruction.filters import GlobalViT

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["extractor"]  # a fixture


@pytest.fixture
def saved(extractor, tmp_path):
    torch.manual_seed(0)
    image_filter = GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2).eval().requires_grad_(False)
    detector = Detector(extractor(torch.zeros(1, 3, 16, 16)).shape[1]).eval().requires_grad_(False)
    defence = Defence(image_filter, detector, extractor)
    defence.calibrate(smooth_photos(30, seed=3))
    defence.save(tmp_path, fingerprint="abc")
    return tmp_path


def refused(folder, extractor) -> str:
    with pytest.raises(DefenceError) as caught:
        Defence.load(folder, extractor)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [FILTER, DETECTOR, ABOUT])
def test_a_flipped_bit_is_noticed_wherever_it_is(saved, extractor, name):
    file = saved / name
    whole, thresholds = file.read_bytes(), Defence.load(saved, extractor).thresholds
    places = range(len(whole)) if name == ABOUT else [0, 7, 8, 100, len(whole) // 2, len(whole) - 1]
    for place in places:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            again = Defence.load(saved, extractor)
        except DefenceError as error:
            assert str(saved) in str(error) and "\n" not in str(error)
        else:  # the space between two values, or the 17th digit of one, which makes the same number
            assert name == ABOUT and again.thresholds == thresholds
    file.write_bytes(whole)
    assert Defence.load(saved, extractor).thresholds == thresholds


@pytest.mark.parametrize("name", [FILTER, DETECTOR, ABOUT])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut off", "folder", "of another defence"])
def test_a_file_that_is_not_the_one_saved_is_named(saved, extractor, name, damage):
    file = saved / name
    whole = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "of another defence":
        other = saved / "other"
        Defence(GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2), Detector(2), extractor, {"1": 0.0}).save(
            other
        )
        file.write_bytes((other / name).read_bytes())
    elif damage != "missing":
        file.write_bytes(b"" if damage == "empty" else whole[:-9])
    said = refused(saved, extractor)
    if name != ABOUT or damage != "of another defence":  # that one is whole, and speaks of other files
        assert str(file) in said
    assert damage != "missing" or "is missing: run notebooks 1 to 5" in said


def resealed(folder, **changes):
    """defence.json with other values, as somebody writes who can compute hashes."""
    content = json.loads((folder / ABOUT).read_text()) | changes
    content = {key: value for key, value in content.items() if value is not ...}
    content["sha256"] = defence_files._own_hash(content)
    (folder / ABOUT).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thresholds": {"1": float("nan")}}, "thresholds.1: Input should be a finite number"),
        ({"thresholds": {"1": float("inf")}}, "thresholds.1: Input should be a finite number"),
        ({"thresholds": {"1": -float("inf")}}, "thresholds.1: Input should be a finite number"),
        ({"thresholds": {"1": "0.5"}}, "thresholds.1: Input should be a valid number"),
        ({"thresholds": {"1": None}}, "thresholds.1: Input should be a valid number"),
        ({"thresholds": {"1": True}}, "thresholds.1: Input should be a valid number"),
        ({"thresholds": [0.5]}, "thresholds: Input should be an object"),
        ({"thresholds": {"": 1.0}}, "thresholds"),
        ({"thresholds": {"100": 1.0}}, "thresholds.100"),
        ({"thresholds": {"-1": 1.0}}, "thresholds.-1"),
        ({"size": 0}, "size: Input should be greater than or equal to 8"),
        ({"size": 10**9}, "size: Input should be less than or equal to 4096"),
        ({"size": 16.5}, "size: Input should be a valid integer"),
        ({"size": "16"}, "size: Input should be a valid integer"),
        ({"size": True}, "size: Input should be a valid integer"),
        ({"features": 10**12}, "features: Input should be less than or equal to"),
        ({"features": 3}, "networks of another kind"),
        ({"calibration_photos": -1}, "calibration_photos: Input should be greater than or equal to 0"),
        ({"extractor": 5}, "extractor: Input should be a valid string"),
        ({"extractor": "0" * 16}, "was fitted with another extractor"),
        ({"files": {}}, "files: expected detector.safetensors, filter.safetensors"),
        ({"files": {"../../x": "0" * 64}}, "files: expected detector.safetensors, filter.safetensors"),
        ({"files": {FILTER: "0" * 64, DETECTOR: "0" * 64}}, "is not the file that was saved, its hash differs"),
        ({"files": {FILTER: "0", DETECTOR: "0"}}, "files.filter.safetensors: String should match pattern"),
        ({"note": {"nested": 1}}, "note: Input should be a valid string"),
        ({"files": ...}, "has no files, as of an earlier version of the study: fit it again"),
        ({"thresholds": ...}, "has no thresholds"),
    ],
)  # fmt: skip
def test_values_have_types_and_bounds(saved, extractor, changes, said):
    resealed(saved, **changes)
    assert said in refused(saved, extractor)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "5", '"text"', "NaN", "[" * 100_000, '{"a":' * 100_000, '{"size": 1e999}', "\x00",
        '{"thresholds": {"1": NaN}}', "\ufeff{}", '{"size": ' + "9" * 5000 + "}", '{"a": "\\ud800"}',
        "x" * (2**20 + 1),
    ],
)  # fmt: skip
def test_hostile_json_is_one_line(saved, extractor, text):
    (saved / ABOUT).write_text(text)
    assert str(saved / ABOUT) in refused(saved, extractor)


def test_bytes_that_are_no_text_are_one_line(saved, extractor):
    (saved / ABOUT).write_bytes(b"\xff\xfe\x00{")
    assert str(saved / ABOUT) in refused(saved, extractor)


def test_an_old_defence_is_to_be_fitted_again(saved, extractor):
    (saved / ABOUT).write_text(json.dumps({"thresholds": {"1": 0.1}, "features": 48, "size": 16, "extractor": "0"}))
    said = refused(saved, extractor)
    assert "as of an earlier version of the study: fit it again" in said and "dvc repro detection" in said


@pytest.mark.parametrize("part", ["filter", "detector"])  # an extractor's hash is the one of finite weights
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_though_all_hashes_fit(saved, extractor, monkeypatch, part, value):
    monkeypatch.setattr(defence_files, "check_finite", lambda *_: None)
    defence = Defence.load(saved, extractor)
    model = {"filter": defence.image_filter, "detector": defence.detector}[part]
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = value
    defence.save(saved)
    monkeypatch.undo()
    assert f"{part}.safetensors: tensor" in refused(saved, extractor)
    assert "not finite" in refused(saved, extractor)


def test_a_save_that_was_interrupted_is_noticed(saved, extractor, monkeypatch):
    defence = Defence.load(saved, extractor)
    with torch.no_grad():
        defence.detector.head.bias.add_(1)
    monkeypatch.setattr(defence_files, "seal", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        defence.save(saved)
    assert f"{saved / DETECTOR} is not the file that was saved" in refused(saved, extractor)


def test_a_folder_that_is_none_is_named(saved, extractor):
    assert "nowhere" in refused(saved / "nowhere", extractor)
    assert "is a file; expected the folder" in refused(saved / ABOUT, extractor)
