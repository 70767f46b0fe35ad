"""The recipes of data/README.md are run as they stand, on a small catalogue, with folders and a server of our own."""

import functools
import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from test_catalogue import config, edit, shop
from test_convert import dvbpr_content, npy

__all__ = ["shop"]  # a fixture

CARD = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
SECTION = CARD.split("## Version your own catalogue")[1].split("\n## ")[0]
KEPT, TAKEN, IMPORTED = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def clones(tmp_path, monkeypatch):
    """Two clones of a repository with this one's settings of git, DVC and the study, and what runs a recipe."""
    binaries = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for person in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{person}_NAME", "A")
        monkeypatch.setenv(f"GIT_{person}_EMAIL", "a@example.org")
    first, second = tmp_path / "first", tmp_path / "second"
    for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "dvc.yaml", "dvc.lock", "params.yaml"):
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, first / name)
    _small(first / "params.yaml")

    def run(recipe: str, place: Path, **changed: object) -> str:
        """Run the lines of `recipe` in the clone `place`, with words of the recipe `changed` to ours."""
        for word, ours in changed.items():
            assert word in recipe
            recipe = recipe.replace(word, str(ours))
        environment = os.environ | {"VARS_ROOT": str(place)}
        command = ["bash", "-euo", "pipefail", "-c", recipe]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("git init -q && git add -A && git commit -qm Start", first)
    run(f"git clone -q {first} {second}", tmp_path)
    return first, second, run


def _small(file: Path) -> None:
    """The parameters of `test_catalogue.config`, in the file's `data` section."""
    text = file.read_text()
    for name, value in config().model_dump().items():
        if name in ("image_size", "k_core", "max_rejected_share"):
            text, count = re.subn(rf"(?m)^  {name}: \S+", f"  {name}: {value}", text)
            assert count == 1
    file.write_text(text)


def test_a_catalogue_goes_from_clone_to_clone(clones, shop, tmp_path):
    first, second, run = clones
    shutil.copytree(shop, first / "data" / "raw" / "shop")
    run(KEPT, first, **{"/mnt/store/dvc": tmp_path / "store"})
    assert run("git status --short", first) == ""
    assert run("git ls-files data", first).split() == ["data/raw/shop.dvc"]
    said = run(TAKEN, second)
    assert "24 in 3 categories" in said and "(real feedback)" in said
    pulled = second / "data" / "raw" / "shop"
    for file in ("items.csv", "interactions.csv", "images/i0.png", "images/i23.png"):
        assert (pulled / file).read_bytes() == (shop / file).read_bytes()


class WithTags(http.server.SimpleHTTPRequestHandler):
    """Sends an ETag, as web servers do and Python's own does not."""

    def end_headers(self):
        file = Path(self.translate_path(self.path))
        if file.is_file():
            self.send_header("ETag", f'"{hashlib.md5(file.read_bytes()).hexdigest()}"')
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which a server shows it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(WithTags, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_catalogues_that_lie_elsewhere(clones, shop, served, tmp_path):
    first, _, run = clones
    (first / "data" / "raw").mkdir(parents=True)
    folder, address = served
    npy(folder / "men.npy", dvbpr_content())
    before, update, after = IMPORTED.partition("dvc update data/raw/outlet.dvc")
    run(before, first, **{"/mnt/photos/outlet": shop})
    outlet = first / "data" / "raw" / "outlet"
    assert len(pd.read_csv(outlet / "items.csv")) == 24
    edit(shop / "items.csv", lambda table: table.iloc[:20])
    run(update + after, first, **{"https://example.org": address})
    assert len(pd.read_csv(outlet / "items.csv")) == 20
    assert (first / "data" / "raw" / "men.npy").read_bytes() == (folder / "men.npy").read_bytes()
    assert len(pd.read_csv(first / "data" / "raw" / "men" / "items.csv")) == 8
    changed = run("git status --short --untracked-files=all", first).split("\n")
    assert sorted(filter(None, changed)) == [
        " M data/raw/outlet.dvc", "?? data/raw/men.dvc", "?? data/raw/men.npy.dvc"
    ]  # fmt: skip
