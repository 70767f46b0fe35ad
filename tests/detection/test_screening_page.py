"""The example of docs/screening.md for engines that spread work, as it stands there; the benchmark's bookkeeping."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from toys import smooth_photos

from benchmarks import screening
from vars_core.detection.defence import Defence
from vars_core.detection.detectors import Detector
from vars_core.extractor import Extractor
from vars_core.reconstruction.filters import GlobalViT

pytestmark = pytest.mark.usefixtures("on_cpu")


def test_the_example_gives_the_defences_verdicts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    shots, extractor = smooth_photos(120), Extractor("small_cnn")
    extractor.freeze_scaler(shots)
    extractor.eval().requires_grad_(False)
    (tmp_path / "models" / "recommender").mkdir(parents=True)
    extractor.save(Path("models/recommender/extractor.safetensors"))
    image_filter = GlobalViT(channels=4, patch=8, width=8, depth=1, heads=2).eval().requires_grad_(False)
    defence = Defence(image_filter, Detector(extractor.dim).eval().requires_grad_(False), extractor)
    defence.calibrate(shots)
    defence.save(Path("models/defence/contrastive"))
    for number, shot in enumerate(shots[:5]):
        Image.fromarray(shot).save(f"{number}.png")
    Path("bad.png").write_bytes(b"no photo")

    example = {}
    page = (ROOT / "docs" / "screening.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], example)
    batch = {"path": np.array([*(f"{n}.png" for n in range(5)), "bad.png"])}
    rows = example["screen_batch"](batch)
    _, score, flagged = defence.screen(shots[:5])
    np.testing.assert_allclose(rows["score"][:5], score, atol=1e-4)
    assert rows["flagged"].tolist() == [*flagged.tolist(), False] and np.isnan(rows["score"][5])
    assert list(rows["reason"][:5]) == [""] * 5 and rows["reason"][5]
    assert os.fspath(rows["path"][5]) == "bad.png"


def test_the_benchmarks_million_photos_are_listed_noted_and_taken_up_again(tmp_path):
    found = screening.bookkeeping(str(tmp_path), 130)  # it compares verdicts and counts rows itself
    assert {"list", "note", "take up again", "write scores.csv"} <= set(found)
    assert sum(1 for _ in (tmp_path / "out" / "scores.csv").open()) == 131
