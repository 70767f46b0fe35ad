"""Simulated users who see with a network: what they see, that they choose by it, and that it costs nothing unused."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from conftest import ROOT
from safetensors.torch import save_file
from test_catalogue import config, shop

from vars_core import params
from vars_core.data import catalogue, feedback, synthetic, taste_features
from vars_core.data.folder import CatalogueError
from vars_core.extractor import Extractor, extract

pytestmark = pytest.mark.usefixtures("on_cpu")

__all__ = ["shop"]  # a fixture


@pytest.fixture(scope="module")
def photos():
    return synthetic.draw(60, 32, np.random.default_rng(1))[0]


def seen(photos, seed=0, **changes):
    return taste_features.components(photos, params.Data(**{"taste_extractor": "small_cnn"} | changes), seed)


def test_components_by_hand():
    # two columns along one line and a constant: one component, at -1, 0 and 1 of its standard deviations
    one = taste_features.principal_components(np.array([[0, 5, 0], [1, 5, 2], [2, 5, 4.0]]))
    assert np.abs(one[:, 0]).round(6).tolist() == [1, 0, 1] and one.shape == (3, 1) and abs(one.sum()) < 1e-9


def test_components_are_few_uncorrelated_and_of_unit_variance():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(500, 3))
    three = taste_features.principal_components(
        hidden @ rng.normal(size=(3, 40)) * 10.0 ** rng.integers(-3, 4, 40) + 7
    )
    assert three.shape == (500, 3)
    np.testing.assert_allclose(np.cov(three.T), np.eye(3), atol=1e-6)
    assert np.linalg.lstsq(three, hidden - hidden.mean(0), rcond=None)[1].max() < 1e-6  # all that there was
    assert taste_features.principal_components(rng.normal(size=(500, 40))).shape == (500, 16)
    assert taste_features.principal_components(rng.normal(size=(9, 40))).shape[1] <= 8


N = 300


@pytest.fixture
def grey(monkeypatch):
    """Photos that are all alike but to a network, which sees four independent things in them; choices in them."""
    looks = np.random.default_rng(2).normal(size=(N, 4))
    monkeypatch.setattr(taste_features, "features", lambda photos, cfg, seed: looks)
    items = pd.DataFrame({"item_id": [str(n) for n in range(N)], "category": "tee"})

    def lean(seed=0, **changes):
        """How far a user's choices lie from the middle of what is seen: mean squared mean, 1 / choices by chance."""
        cfg = params.Data(users=200, interactions_per_user=20, taste_extractor="resnet18", **changes)
        frame = feedback.simulate(items, np.full((N, 8, 8, 3), 128, np.uint8), cfg, np.random.default_rng(seed))
        means = (
            pd.DataFrame(taste_features.principal_components(looks)[frame["item"]])
            .groupby(frame["user"].to_numpy())
            .mean()
        )
        counts = frame["user"].value_counts().sort_index()
        return float((means**2).to_numpy().mean() / ((1 - counts / N) / counts).mean())

    return lean


def test_choices_lean_along_the_features_as_strongly_as_asked(grey):
    none, weak, strong = (grey(taste_features=s) for s in (0.0, 0.8, 2.4))
    assert 0.8 < none < 1.2  # as by chance
    assert 2 < weak < strong / 2
    assert 0.8 < grey(taste_features=2.4, taste_strength=0.0) < 1.2


def test_the_strength_is_the_spread_of_the_log_odds(monkeypatch):
    """With 1 and with 16 components, a user's log-odds differ by as much between items."""
    for n in (1, 16):
        looks = np.random.default_rng(2).normal(size=(2000, n))
        monkeypatch.setattr(taste_features, "components", lambda photos, cfg, seed, looks=looks: looks)
        drawn = []

        class Known(np.random.Generator):
            def normal(self, *arguments, drawn=drawn):
                drawn.append(super().normal(*arguments))
                return drawn[-1]

        items = pd.DataFrame({"item_id": [str(n) for n in range(2000)], "category": "tee"})
        cfg = params.Data(users=400, taste_extractor="resnet18", taste_features=2.0)
        feedback.simulate(items, np.zeros((2000, 8, 8, 3), np.uint8), cfg, Known(np.random.PCG64(0)))
        spread = np.sqrt(((drawn[-1] @ looks.T) ** 2).mean())
        assert drawn[-1].shape == (400, n) and spread == pytest.approx(2.0, rel=0.1)


def test_seeded_and_torchs_own_generator_is_left_alone(photos):
    state = torch.get_rng_state()
    first, again, other = seen(photos), seen(photos), seen(photos, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first == again).all() and not np.allclose(first, other) and 1 < first.shape[1] <= 16


def test_off_is_as_before_and_needs_no_model(photos):
    items = pd.DataFrame({"item_id": [str(n) for n in range(60)], "category": ["tee", "mug"] * 30})
    cfg = params.Data(users=30)
    plain = feedback.simulate(items, photos, cfg, np.random.default_rng(0))
    off = cfg.model_copy(update={"taste_extractor": "no_such_model", "taste_features": 0.0})
    assert feedback.simulate(items, photos, off, np.random.default_rng(0)).equals(plain)
    on = cfg.model_copy(update={"taste_extractor": "small_cnn"})
    assert not feedback.simulate(items, photos, on, np.random.default_rng(0)).equals(plain)
    assert [feedback.label(c) for c in (cfg, off, on)] == [
        "simulated", "simulated", "simulated, with tastes for what small_cnn sees"
    ]  # fmt: skip


def test_weights_from_a_file(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("VARS_ROOT", str(tmp_path))
    torch.manual_seed(3)
    save_file(torchvision.models.get_model("squeezenet1_1", weights=None).state_dict(), tmp_path / "eye.safetensors")
    found = seen(photos[:20], taste_extractor="squeezenet1_1", taste_weights="eye.safetensors")
    eye = Extractor("squeezenet1_1", str(tmp_path / "eye.safetensors"))
    np.testing.assert_allclose(found, taste_features.principal_components(extract(eye, photos[:20])), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taste_extractor": "resnet1"}, "^data.taste_extractor: unknown model 'resnet1'"),
        ({"taste_weights": "none.safetensors"}, "^data.taste_weights: small_cnn has no weights file"),
        (
            {"taste_extractor": "resnet18", "taste_weights": "none.safetensors"},
            "^data.taste_weights: there is no weights file .*none.safetensors",
        ),
        (
            {"taste_extractor": "vit_tiny_patch16_224"},
            "^data.taste_extractor: vit_tiny_patch16_224 cannot take photos",
        ),
    ],
)
def test_what_cannot_be_had_is_named(photos, changes, message):
    with pytest.raises(CatalogueError, match=message):
        seen(photos, **changes)


def test_photos_without_a_difference_are_an_error():
    with pytest.raises(CatalogueError, match="small_cnn sees no difference between the photos"):
        seen(np.full((9, 16, 16, 3), 200, np.uint8))


def test_a_catalogue_of_photos_only(shop, tmp_path):
    (shop / "interactions.csv").unlink()
    made = {}
    for name in (None, "small_cnn"):
        cfg = config(path=str(shop), taste_extractor=name)
        made[name] = catalogue.prepare(cfg, 0, tmp_path / "prepared")
        assert made[name].simulated and len(made[name].interactions) > 100
    assert made[None].fingerprint != made["small_cnn"].fingerprint


RUN = """
import sys
from pathlib import Path
from vars_core import params
from vars_core import paths, plots, report, runtime
from vars_core.data import catalogue, feedback, split
from vars_core.data import folder as catalogue_folder
cfg = params.Data(items=40, users=40, image_size=16, interactions_per_user=8, k_core=1)
assert catalogue.prepare(cfg, 0, Path(sys.argv[1])).simulated
print(sorted({"torch", "torchvision", "timm", "sklearn"} & set(sys.modules)))
"""


def test_notebook_1_imports_no_torch_for_it(tmp_path):
    source = (ROOT / "notebooks" / "01_data.ipynb").read_text(encoding="utf-8")
    assert all(line in source for line in RUN.split("\n") if line.startswith("from vars_core"))
    command = [sys.executable, "-c", RUN, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.strip() == "[]", done.stdout + done.stderr
