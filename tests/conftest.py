"""Fixtures every test may use."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from hypothesis import settings

# Whoever runs them, tests are the same: one thread, as two workers with two each would wait for one another; git
# without the user's configuration, and without the repository of a hook that runs us.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
for name in {name for name in os.environ if name.startswith("VARS_")} - {"VARS_DEVICE", "VARS_SHARED"}:
    del os.environ[name]

# Properties are tried on the same examples each time; `make fuzz` tries them on others.
settings.register_profile("suite", derandomize=True, database=None, deadline=None)
# derandomize is said in words: where the variable CI is set, hypothesis takes True for whatever says nothing
settings.register_profile("fuzz", derandomize=False, database=None, deadline=None, max_examples=500, print_blob=True)
settings.load_profile("suite")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("VARS_SHARED", ROOT.parent / "shared"))  # real catalogues and weights, if any


def pytest_addoption(parser):
    parser.addoption(
        "--whole", action="store_true", help="with -m lesson: all notebooks, not those of the story alone"
    )


def pytest_collection_modifyitems(items):
    items.sort(
        key=lambda item: item.path.stem not in ("test_real_photos", "test_smoke", "test_check")
    )  # the long first


@pytest.fixture
def on_cpu(monkeypatch):
    """The processor, also where there is a GPU, and no progress bars."""
    monkeypatch.setenv("VARS_DEVICE", "cpu")
    monkeypatch.setenv("VARS_QUIET", "1")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium or Chrome, as playwright drives it; whoever asks is skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium or Chrome on this machine")
    if find_spec("playwright") is None:
        pytest.skip("playwright: `make site` installs what pages are tested with")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        yield started.chromium.launch(executable_path=found, args=arguments)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder that takes every artefact and report, as in a stage run."""
    monkeypatch.setenv("VARS_WORKSPACE", str(tmp_path))
    monkeypatch.delenv("VARS_REPORTS", raising=False)
    return tmp_path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A throwaway repository root with folders for notebooks; returns a function that adds a notebook."""
    monkeypatch.setenv("VARS_ROOT", str(tmp_path))
    for name in ("VARS_WORKSPACE", "VARS_REPORTS", "VARS_QUIET"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "notebooks").mkdir()

    def add(name: str, *cells: str | tuple[str, list[str]]) -> Path:
        made = []
        for number, cell in enumerate(cells):
            source, tags = cell if isinstance(cell, tuple) else (cell, [])
            made.append(nbformat.v4.new_code_cell(source, id=f"c{number}", metadata={"tags": tags}))
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=made), path)
        return path

    add.root = tmp_path
    return add
