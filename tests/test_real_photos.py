"""Notebooks on real photos, where there are any: all eight with real feedback, two where it's simulated."""

import json
import shutil

import pytest
from conftest import ROOT, SHARED
from studies import NOTEBOOKS, leaves, metrics, study

from vars_core import param_file

WEIGHTS = SHARED / "weights" / "squeezenet1_0.safetensors"
SMALL = (
    "data.max_items=100", "attacks.epsilons=[8]", "attacks.steps=3", "attacks.items=6", "recommender.epochs=4",
    "reconstruction.steps=4", "detection.steps=4", "detection.joint_steps=2", "ablations.steps=2", "adaptive.items=2",
    "adaptive.steps=2", "adaptive.checked=2", "adaptive.queries=4", "attacks.few=3", "attacks.queries=34",
    "recommender.dvbpr_epochs=1", "reconstruction.adaptive_steps=2", "reconstruction.robust_steps=2",
    "detection.matrix_steps=2", "reconstruction.denoiser_steps=3", "certificate.items=3", "certificate.draws=20",
    "certificate.attacked=2", "certificate.steps=2", "certificate.queries=4", "adaptive.served=12",
    "adaptive.upload_draws=12",
)  # fmt: skip


def run(name, tmp_path, *options):
    """The root and the work folder of a study of a shared catalogue."""
    catalogue = SHARED / "data" / name
    if not (catalogue.is_dir() and WEIGHTS.is_file()):
        pytest.skip(f"no {catalogue} or no {WEIGHTS.name} here")
    root, work = tmp_path / "root", tmp_path / "work"
    for folder in ("notebooks", "profiles", "vars_core"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / file, root / file)
    shutil.copyfile(root / "profiles" / "smoke.yaml", root / "profiles" / "tiny.yaml")  # smoke is never published
    changes = [part for setting in SMALL for part in ("--set", setting)]
    study(
        name, "--data", catalogue, "--weights", WEIGHTS, "--work", work, *options, *changes, root=root, profile="tiny"
    )
    return root, work


def check(metrics, captions, simulated):
    assert {"hr@10", "auc"} <= set(metrics["02_recommender"]["vbpr"])
    assert captions and all(("(simulated feedback)" in caption.read_text()) == simulated for caption in captions)


ACCURACY, OUTCOMES = "reports/tables/02_recommender/accuracy.md", "reports/tables/03_attacks/outcomes.md"


def test_garments_with_simulated_feedback(tmp_path):
    _, work = run("clothing-small", tmp_path, "--only", "01", "02")
    check(metrics(work / "reports", ("01_data", "02_recommender")), [work / ACCURACY], simulated=True)
    assert param_file.load(work / "params.yaml")["recommender"]["extractor"] == "squeezenet1_0"


def test_posters_with_real_feedback(tmp_path):
    root, work = run("ml-small-posters", tmp_path, "--publish")
    published = root / "reports" / "catalogues" / "ml-small-posters"
    found = metrics(published)
    check(found, [work / ACCURACY, work / OUTCOMES], simulated=False)
    assert {"none", "pgd@8", "promote:pgd@8"} <= set(found["03_attacks"]["exposure@10"])
    for key, value in leaves(found["03_attacks"]["exposure@10"]):
        assert 0 <= value <= 1, key
    told = json.loads((published / "run.json").read_text())
    assert told["simulated"] is False and told["parameters"]["recommender"]["extractor"] == "squeezenet1_0"
    assert told["catalogue"] and set(told["minutes"]) == set(NOTEBOOKS)
    assert str(SHARED) not in (published / "run.json").read_text()  # names only, no paths of this machine

    # No photo leaves the work folder: only numbers are published.
    files = [p for p in (root / "reports").rglob("*") if p.is_file()]
    assert files and {p.suffix for p in files} <= {".json", ".csv"}
    assert not any("image/png" in p.read_text() or "base64" in p.read_text() for p in files)
