"""The notebooks' computations on catalogues as shops have them: white ground, copies, few items, silent users."""

import contextlib
import copy
import io
import re
import tempfile
from pathlib import Path

import numpy as np
import odd_catalogues as odd
import pytest
import torch
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import run

from benchmarks import large_catalogue
from vars_core import param_file
from vars_core.__main__ import main
from vars_core.extractor import Extractor

pytestmark = pytest.mark.usefixtures("on_cpu", "workspace")

TINY = {
    "recommender": {"epochs": 4, "extractor_epochs": 2, "dvbpr_epochs": 1},
    "attacks": {"steps": 2, "epsilons": [8], "items": 6, "few": 3, "queries": 34},
    "reconstruction": {"steps": 4, "adaptive_steps": 2, "robust_steps": 2, "denoiser_steps": 4},
    "detection": {"steps": 4, "joint_steps": 2, "matrix_steps": 2, "magnet_steps": 4},
    "ablations": {"steps": 2},
    "adaptive": {"steps": 2, "items": 2, "checked": 2, "queries": 4},
    "certificate": {"items": 4, "draws": 30, "attacked": 2, "steps": 2, "queries": 4},
}


def values(folder, **data):
    """The smoke profile, with fewer steps, for the catalogue in `folder`."""
    found = copy.deepcopy(param_file.load(ROOT / "profiles" / "smoke.yaml"))
    for section, changes in TINY.items():
        found[section] |= changes
    found["data"] |= {"source": "folder", "path": str(folder)} | data
    return found


def written(kind, n, folder, seed=0):
    return odd.write(folder, *odd.KINDS[kind](np.random.default_rng(seed), n))


def sentences(workspace):
    """What tables say, as text; a value that a run cannot give is a dash or absent."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((workspace / "reports").rglob("*.md")))


@pytest.mark.parametrize("kind", ["white", "near duplicates", "own split", "skewed", "users with everything"])
def test_the_first_three_notebooks(kind, tmp_path, workspace, capsys):
    run(values(written(kind, 24, tmp_path / "shop")), ["01", "02", "03"])
    assert not re.search(r"\b(nan|inf)\b", sentences(workspace) + capsys.readouterr().out)
    assert (workspace / "reports" / "metrics" / "03_attacks.json").is_file()


def test_all_on_products_on_white_ground_with_outfits_as_users(tmp_path, workspace, monkeypatch):
    """Where a photo's features differ from look to look, too, by a thousandth at random, as on a GPU that rounds
    products to ten bits: no assertion of a notebook minds, and all has a number."""
    see = Extractor.forward

    def roughly(self, images):
        features = see(self, images)
        return features * (1 + 1e-3 * torch.randn(features.shape, device=features.device))

    monkeypatch.setattr(Extractor, "forward", roughly)
    run(values(written("outfits", 40, tmp_path / "shop")))
    assert len(list((workspace / "reports" / "metrics").glob("*.json"))) == 11
    assert not re.search(r"\b(nan|inf)\b", sentences(workspace))


def test_films_with_long_and_short_histories(tmp_path, workspace):
    shop = large_catalogue.write(tmp_path / "films", films=120, users=200, mean=30)
    ended = run(values(shop), ["01", "02"])
    lengths = np.diff(ended["01_data"]["parts"].train.indptr)
    assert len(ended["01_data"]["shop"].user_ids) == 200 and lengths.max() > 2 * np.median(lengths)
    assert set(ended["02_recommender"]["sight"].recommender) == set(ended["02_recommender"]["NAMES"])


# Two catalogues, which take ten seconds each: in the suite the same every time, in `make fuzz` others.
@settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(kind=st.sampled_from(sorted(odd.KINDS)), items=st.integers(12, 60), seed=st.integers(0, 2**16))
def test_what_check_passes_runs_and_what_it_refuses_is_a_line(kind, items, seed):
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patched:
        folder, work = Path(place) / "shop", Path(place) / "work"
        patched.setenv("VARS_WORKSPACE", str(work))
        wanted = values(written(kind, items, folder, seed))
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            passed = main(["check", str(folder), "--profile", "smoke"]) == 0
            if passed:
                run(wanted, ["01", "02", "03"])
        if passed:
            assert not re.search(r"\b(nan|inf)\b", sentences(work)), (kind, items, seed)
        else:
            last = said.getvalue().strip().splitlines()[-1]
            assert last.startswith("error: ") and "Traceback" not in said.getvalue()
