"""Models in pretrained/ that are older than the run they come from are noticed."""

import json

import pytest

from vars_core import pretrained, seal
from vars_core.errors import InputError
from vars_core.pipeline import kept

LOCK = """stages:
  reconstruction:
    outs:
    - path: models/filter
      md5: {md5}.dir
    - path: reports/metrics/04.json
      md5: 00000000000000000000000000000000
"""
MD5 = "0123456789abcdef0123456789abcdef"


def keep(root, name, made_of):
    folder = root / "pretrained" / name
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "net.safetensors").write_bytes(b"weights")
    seal.put(folder / "models")
    about = {"catalogue": name, "fingerprint": "f", "drawn": name == "drawn", "profile": "laptop", "commit": "c",
             "size": 64, "extractor": "small_cnn", "networks": ["a" * 64], "made_of": made_of}  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def root(project):
    (project.root / "dvc.lock").write_text(LOCK.format(md5=MD5))
    metrics = project.root / "reports/catalogues/shop/metrics"
    metrics.mkdir(parents=True)
    (metrics / "04.json").write_text("{}")
    (metrics.parent / "run.json").write_text('{"profile": "real"}')
    return project.root


def test_models_of_the_committed_runs_are_not_old(root):
    assert kept.old(root) == []
    assert kept.made_of(root, None) == {"models/filter": f"{MD5}.dir"}
    keep(root, "drawn", kept.made_of(root, None))
    keep(root, "shop", kept.made_of(root, "shop"))
    assert kept.old(root) == []
    assert kept.profile(root, "shop") == "real"


def test_a_run_made_anew_makes_its_models_old(root):
    keep(root, "drawn", kept.made_of(root, None))
    keep(root, "shop", kept.made_of(root, "shop"))
    (root / "dvc.lock").write_text(LOCK.format(md5=MD5[::-1]))
    (line,) = kept.old(root)
    assert line == "pretrained/drawn: models/filter made anew since; run `vars pretrained`"
    (root / "reports/catalogues/shop/metrics/04.json").write_text("{ }")
    assert "reports/catalogues/shop/metrics made anew since; run `vars pretrained NAME`" in kept.old(root)[1]


def test_changed_files_are_noticed_and_named(root):
    folder = keep(root, "drawn", kept.made_of(root, None))
    (folder / "models" / "net.safetensors").write_bytes(b"weightz")
    assert "net.safetensors is damaged" in kept.old(root)[0]
    (folder / "about.json").write_text('{"catalogue": 3}')
    (line,) = kept.old(root)
    assert line.startswith(str(folder / "about.json")) and "git checkout pretrained" in line and "\n" not in line
    with pytest.raises(pretrained.PretrainedError):
        pretrained.about(folder)


def test_a_study_that_was_not_published_has_no_profile(root):
    with pytest.raises(InputError, match=r"reports/catalogues/other has no run\.json: run the study with --publish"):
        kept.profile(root, "other")
