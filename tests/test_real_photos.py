"""All seven notebooks on real photos, where there are any; this takes minutes."""

import json
import shutil

import pytest
from conftest import ROOT, SHARED
from studies import NOTEBOOKS, leaves, metrics, study

WEIGHTS = SHARED / "weights" / "squeezenet1_0.safetensors"
SMALL = (
    "data.max_items=150", "attacks.epsilons=[8]", "attacks.steps=3", "attacks.items=6", "recommender.epochs=4",
    "reconstruction.steps=4", "detection.steps=4", "detection.joint_steps=2", "ablations.steps=2", "adaptive.items=4",
    "adaptive.steps=2", "attacks.few=3", "attacks.queries=34", "recommender.dvbpr_epochs=1",
)  # fmt: skip


@pytest.mark.parametrize(("name", "simulated"), [("ml-small-posters", False), ("clothing-small", True)])
def test_smoke_on_real_photos(name, simulated, tmp_path):
    catalogue = SHARED / "data" / name
    if not (catalogue.is_dir() and WEIGHTS.is_file()):
        pytest.skip(f"no {catalogue} or no {WEIGHTS.name} here")
    root, work = tmp_path / "root", tmp_path / "work"
    for folder in ("notebooks", "profiles", "vars_core"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / file, root / file)
    changes = [part for setting in SMALL for part in ("--set", setting)]
    study(name, "--data", catalogue, "--weights", WEIGHTS, "--work", work, "--publish", *changes, root=root)

    published = root / "reports" / "catalogues" / name
    values = metrics(published)
    assert {"hr@10", "auc"} <= set(values["02_recommender"]["vbpr"])
    assert {"none", "pgd@8", "promote:pgd@8"} <= set(values["03_attacks"]["exposure@10"])
    for key, value in leaves(values["03_attacks"]["exposure@10"]):
        assert 0 <= value <= 1, key
    run = json.loads((published / "run.json").read_text())
    assert run["simulated"] is simulated and run["parameters"]["recommender"]["extractor"] == "squeezenet1_0"
    assert run["catalogue"] and set(run["minutes"]) == set(NOTEBOOKS)
    assert str(SHARED) not in (published / "run.json").read_text()  # names only, no paths of this machine
    caption = (work / "reports/tables/03_attacks/outcomes.md").read_text()
    assert ("(simulated feedback)" in caption) == simulated

    # No photo leaves the work folder: only numbers are published.
    files = [p for p in (root / "reports").rglob("*") if p.is_file()]
    assert files and {p.suffix for p in files} <= {".json", ".csv"}
    assert not any("image/png" in p.read_text() or "base64" in p.read_text() for p in files)
