"""Where things go: the workspace in a stage, scratch/ otherwise."""

import pytest

from vars_core import paths


def artefact(folder, name):
    (folder / name).mkdir(parents=True)
    (folder / name / "file").write_text("")


def test_in_a_stage_everything_is_under_the_workspace(workspace):
    assert paths.reports() == workspace / "reports"
    assert paths.write_to("models/filter") == workspace / "models/filter" and (workspace / "models/filter").is_dir()
    artefact(workspace, "data/prepared")
    assert paths.read_from("data/prepared") == workspace / "data/prepared"


def test_by_hand_scratch_is_written_and_read_first(project):
    root = project.root
    assert paths.reports() == root / "scratch/reports"
    assert paths.write_to("data/prepared") == root / "scratch/data/prepared"
    artefact(root, "models/recommender")
    assert paths.read_from("models/recommender") == root / "models/recommender"
    artefact(root, "scratch/models/recommender")
    assert paths.read_from("models/recommender") == root / "scratch/models/recommender"


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("data/prepared", "01_data"),
        ("data/prepared/meta.json", "01_data"),
        ("models/filter", "04_reconstruction"),
    ],
)
def test_a_missing_artefact_names_the_notebook(project, name, way):
    with pytest.raises(paths.MissingArtefact, match=f"run notebooks/{way}.ipynb first") as caught:
        paths.read_from(name)
    assert "dvc repro" in str(caught.value)


def test_an_empty_folder_counts_as_missing(workspace):
    paths.write_to("data/prepared")
    with pytest.raises(paths.MissingArtefact):
        paths.read_from("data/prepared")


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = paths.write(tmp_path / "a" / "t.csv", "old")
    monkeypatch.setattr(paths.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        paths.write(path, "new")
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["t.csv"]


def test_replacing_a_folder_drops_stale_files(tmp_path):
    for name, file in (("new", "b"), ("old", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(name)
    paths.replace_folder(tmp_path / "new", tmp_path / "old")
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert [p.name for p in (tmp_path / "old").iterdir()] == ["b"]
