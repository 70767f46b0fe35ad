"""The README's generated blocks."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from vars_core.pipeline import readme, timings


@pytest.fixture
def root(project):
    project("01_data", "1")
    folder = project.root / "reports"
    files = {
        "metrics/02_recommender.json": {"vbpr": {"hr@20": 0.12345, "cold_auc": 0.7, "cold_auc_ci": [0.65, 0.75123]}},
        "tables/01_data/answer.json": {"question": "How | many?", "answer": "1,999 users."},
        "catalogues/posters/run.json": {"simulated": False, "profile": "real"},
        "catalogues/posters/metrics/01_data.json": {"users": 12345},
        "catalogues/clothing/run.json": {"simulated": True},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    shutil.copytree(ROOT / "profiles", project.root / "profiles")
    shutil.copy(ROOT / "profiles/laptop.yaml", project.root / "params.yaml")
    return project.root


def test_blocks_are_filled_and_the_rest_is_left(root):
    (root / "notebooks/appendix").mkdir()
    shutil.copy(root / "notebooks/01_data.ipynb", root / "notebooks/appendix/A3_more.ipynb")
    text = "before\n<!-- begin:notebooks -->\nold\n<!-- end:notebooks -->\nafter\n"
    new = readme.regenerated(text, root)
    assert new.startswith("before\n") and new.endswith("after\n") and "old" not in new
    assert "| [1 · data](reports/notebooks/01_data.ipynb) | How \\| many? | 1,999 users. |" in new
    assert "\n\nAppendices: [A3 · more](reports/notebooks/A3_more.ipynb), *–*\n" in new
    assert readme.regenerated(new, root) == new


def test_an_unknown_block_is_named(root):
    with pytest.raises(ValueError, match="no block is called nots"):
        readme.regenerated("<!-- begin:nots -->\n<!-- end:nots -->", root)


def test_catalogues_stand_side_by_side(root):
    table = readme.BLOCKS["recommenders"](root, "")
    clothing, posters = "[clothing](reports/catalogues/clothing)", "[posters](reports/catalogues/posters)"
    assert table.startswith(f"|  | synthetic | {clothing}, simulated feedback | {posters} |")
    assert table.splitlines()[2] == "| profile | laptop | – | real |"
    assert "| users | – | – | 12,345 |" in table and "| HR@20, VBPR | 12.3 % | – | – |" in table
    assert "| cold AUC, VBPR | 0.700 [0.650, 0.751] | – | – |" in table


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.0262, 0.0148, 0.0385), "2.6 % [1.5, 3.9]"),
        ((0.552, 0.5, 0.6), "55.2 % [50, 60]"),
        ((0.000574,), "0.057 %"),
        ((-0.0325,), "-3.2 %"),
        ((0.0999,), "9.99 %"),
        ((1.0, 0.975, 1.0), "100 % [97.5, 100]"),
        ((0.0,), "0 %"),
    ],
)
def test_a_share_is_written_in_per_cent(numbers, text):
    assert readme._share(*numbers) == text


def test_the_first_table_has_no_intervals(root):
    (root / "reports/metrics/03_attacks.json").write_text(
        '{"exposure@20": {"none": 0.006, "none_ci": [0.004, 0.009]}}'
    )
    assert "| untouched photos | 0.6 % | – | – |" in readme.BLOCKS["lists"](root, "")
    assert "| untouched | 0.6 % [0.4, 0.9] | – | – |" in readme.BLOCKS["attacks"](root, "")


# a promise has the price of the very rule and noise that it holds for
def test_what_a_defence_costs_stands_in_brackets(root):
    calm, loud = {"mean_rule_ndcg_loss": 0.01, "clean_ndcg_loss": 0.02}, {"clean_ndcg_loss": -0.2}
    promised = {"certified_exposure": {"1": 0.03, "4": 0.05}, "certified_with_sigma": {"1": 0.25, "4": 1.0}}
    found = {
        "05_detection": {"system": {"ndcg_loss": 0.003}},
        "07_adaptive": {
            "T0": {"both": {"asr@1": {"reach:pgd@4": 0}}},
            "T2": {"randomised": {"exposure@20": {"reach:pgd@4": 0.026}}},
        },
        "08_certificate": promised | {"sigma@0.25": calm, "sigma@1": loud},
    }
    for name, metrics in found.items():
        (root / f"reports/metrics/{name}.json").write_text(json.dumps(metrics))
    lines = readme.BLOCKS["lists"](root, "").replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == [
        "–", "–", "0 % (0.3 %)", "–", "2.6 % (2 %)", "5 % (-20 %)",
    ]  # fmt: skip
    assert "ε = 1 (NDCG@20 lost) | 3 % (2\N{NO-BREAK SPACE}%) | – |" in readme.BLOCKS["noise"](root, "")


def test_what_honest_photos_pay(root):
    rows = "detector,edit,metric,value,ci_low,ci_high,n\nbce,jpeg75,fpr@1,0.9,0.8,1,9\n"
    rows += 'contrastive,jpeg75,fpr@1,0.17,0.1,0.25,90\ncontrastive,"noise, ε = 4",fpr@1,0.02,0.01,0.03,90\n'
    table = root / "reports/catalogues/posters/tables/05_detection/benign.csv"
    table.parent.mkdir(parents=True)
    table.write_text(rows, encoding="utf-8")
    made = readme.honest_table(root)
    assert "| JPEG-75 | – | – | 17 % [10, 25] |" in made and "| noise, ε = 4 | – | – | 2 % [1, 3] |" in made


def test_a_damaged_report_is_named(root):
    (root / "reports/metrics/02_recommender.json").write_text("{<<<<<<<")
    with pytest.raises(ValueError, match=r"02_recommender\.json: not JSON"):
        readme.BLOCKS["recommenders"](root, "")


def test_reports_are_read_alike_in_every_locale(root):
    (root / "reports/metrics/03_attacks.json").write_text('{"ε = 4": 0.5}', encoding="utf-8")
    (root / "README.md").write_text("<!-- begin:recommenders -->\n<!-- end:recommenders -->", encoding="utf-8")
    latin = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "vars_core.pipeline.readme"]
    done = subprocess.run(command, env=latin, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "| profile | laptop | – | real |" in (root / "README.md").read_text(encoding="utf-8")


def test_times_of_whole_runs_are_published_by_machine(root):
    noted, published = root / "scratch/timings.json", root / "reports/timings.json"
    timings.record(noted, "01_data", 90, "laptop")
    timings.record(noted, "01_data", 5, "own")
    timings.publish(root)
    (entry,) = timings.read(published)
    assert entry["profile"] == "laptop" and entry["seconds"] == {"01_data": 90}
    assert "| 01_data | 1.5 |" in readme.time_table(root)
    before = published.read_bytes()
    timings.publish(root)
    assert published.read_bytes() == before
    timings.record(noted, "01_data", 120, "laptop")
    timings.record(root / "scratch/studies/class/scratch/timings.json", "01_data", 30, "gpu")
    timings.publish(root)
    assert {e["profile"]: e["seconds"]["01_data"] for e in timings.read(published)} == {"laptop": 120, "gpu": 30}


def test_times_are_published_when_asked_for_only(root):
    timings.record(root / "scratch/timings.json", "01_data", 90, "laptop")
    (root / "README.md").write_text("<!-- begin:times -->\n<!-- end:times -->")
    assert readme.main([]) == 0
    assert not (root / "reports/timings.json").exists() and "No times yet" in (root / "README.md").read_text()
    assert readme.main(["--timings"]) == 0
    assert "1.5" in (root / "README.md").read_text()


def test_a_machine_without_a_gpu_is_told_without_torch():
    tell = "import json, sys\nfrom vars_core.pipeline.timings import machine\n"
    tell += "print(json.dumps([machine(), *sys.modules]))"
    environment = os.environ | {"VARS_DEVICE": "cpu"}
    done = subprocess.run([sys.executable, "-c", tell], env=environment, capture_output=True, text=True, check=True)
    machine, *imported = json.loads(done.stdout)
    assert machine["torch"] == torch.__version__.split("+")[0] and machine["cores"] >= 1 and "torch" not in imported
