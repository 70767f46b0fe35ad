"""The README's generated blocks."""

import json
import os
import subprocess
import sys

import pytest
import torch

from vars_core.pipeline import readme, timings


@pytest.fixture
def root(project):
    project("01_data", "1")
    folder = project.root / "reports"
    files = {
        "metrics/02_recommender.json": {"vbpr": {"hr@20": 0.12345, "cold_auc": 0.7}},
        "tables/01_data/answer.json": {"question": "How | many?", "answer": "1,999 users."},
        "catalogues/posters/run.json": {"simulated": False},
        "catalogues/posters/metrics/01_data.json": {"users": 12345},
        "catalogues/clothing/run.json": {"simulated": True},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return project.root


def test_blocks_are_filled_and_the_rest_is_left(root):
    text = "before\n<!-- begin:notebooks -->\nold\n<!-- end:notebooks -->\nafter\n"
    new = readme.regenerated(text, root)
    assert new.startswith("before\n") and new.endswith("after\n") and "old" not in new
    assert "| [1 · data](notebooks/01_data.ipynb) | How \\| many? | 1,999 users. |" in new
    assert "| [executed](reports/notebooks/01_data.ipynb) |" in new
    assert readme.regenerated(new, root) == new


def test_an_unknown_block_is_named(root):
    with pytest.raises(ValueError, match="no block is called nots"):
        readme.regenerated("<!-- begin:nots -->\n<!-- end:nots -->", root)


def test_catalogues_stand_side_by_side(root):
    table = readme.catalogue_table(root)
    clothing, posters = "[clothing](reports/catalogues/clothing)", "[posters](reports/catalogues/posters)"
    assert table.startswith(f"|  | synthetic | {clothing}, simulated feedback | {posters} |")
    assert "| users | – | – | 12,345 |" in table and "| VBPR, HR@20 | 0.123 | – | – |" in table


def test_times_of_whole_runs_are_published_by_machine(root):
    noted, published = root / "scratch/timings.json", root / "reports/timings.json"
    timings.record(noted, "01_data", 90, "laptop")
    timings.record(noted, "01_data", 5, "own")
    timings.publish(noted, published)
    (entry,) = timings.read(published)
    assert entry["profile"] == "laptop" and entry["seconds"] == {"01_data": 90}
    assert "| 01_data | 1.5 |" in readme.time_table(root)
    before = published.read_bytes()
    timings.publish(noted, published)
    assert published.read_bytes() == before
    timings.record(noted, "01_data", 120, "laptop")
    timings.publish(noted, published)
    assert [e["seconds"]["01_data"] for e in timings.read(published)] == [120]


def test_a_machine_without_a_gpu_is_told_without_torch():
    tell = "import json, sys\nfrom vars_core.pipeline.timings import machine\n"
    tell += "print(json.dumps([machine(), *sys.modules]))"
    environment = os.environ | {"VARS_DEVICE": "cpu"}
    done = subprocess.run([sys.executable, "-c", tell], env=environment, capture_output=True, text=True, check=True)
    machine, *imported = json.loads(done.stdout)
    assert machine["torch"] == torch.__version__.split("+")[0] and machine["cores"] >= 1 and "torch" not in imported
