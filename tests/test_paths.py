"""Where things go: the workspace in a stage, scratch/ otherwise."""

import errno

import pytest

from vars_core import paths, seal
from vars_core.errors import InputError


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


def damaged(folder, name):
    artefact(folder, name)
    seal.put(folder / name)
    (folder / name / "file").write_text("x")


def test_a_damaged_artefact_is_named_with_the_way_back(project, monkeypatch):
    damaged(project.root, "models/filter")
    for asked in ("models/filter", "models/filter/file"):
        with pytest.raises(
            paths.DamagedArtefact, match=r"^models/filter/file is damaged: .*dvc repro --force"
        ) as found:
            paths.read_from(asked)
        assert "\n" not in str(found.value) and "--single-item reconstruction" in str(found.value)
    monkeypatch.setenv("VARS_WORKSPACE", str(project.root / "work"))  # as in a study, which DVC doesn't know
    damaged(project.root / "work", "data/prepared")
    with pytest.raises(paths.DamagedArtefact, match="the same study, run again with 01_data"):
        paths.read_from("data/prepared")
    with pytest.raises(paths.MissingArtefact, match="run the study with 04_reconstruction first"):
        paths.read_from("models/filter")


def test_an_emptied_artefact_is_damaged_not_read(workspace):
    damaged(workspace, "models/filter")
    (workspace / "models/filter/file").unlink()
    with pytest.raises(paths.DamagedArtefact, match="models/filter/file is missing"):
        paths.read_from("models/filter")


def test_what_is_written_by_hand_is_no_longer_under_the_old_seal(project):
    damaged(project.root / "scratch", "models/defence")
    paths.write_to("models/defence/contrastive")
    assert paths.read_from("models/defence/file").read_text() == "x"


def test_a_stage_writes_its_artefacts_where_the_runner_says(workspace, monkeypatch):
    artefact(workspace, "models/filter")
    monkeypatch.setenv("VARS_ARTEFACTS", str(workspace / "staging"))
    assert paths.write_to("models/filter") == workspace / "staging/models/filter"
    assert paths.read_from("models/filter") == workspace / "models/filter"  # the old one, until the stage succeeded
    assert paths.cache("data/decoded") == workspace / "data/decoded"


def test_a_root_that_is_not_there_is_a_line(monkeypatch):
    monkeypatch.setenv("VARS_ROOT", "/nowhere/at/all")
    with pytest.raises(InputError, match=r"^VARS_ROOT=/nowhere/at/all: no such folder; unset it"):
        paths.root()


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


def test_a_write_that_finds_no_space_names_the_file(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(paths.os, "fdopen", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match=r"No space left on device: '.*t\.csv'"):
        paths.write(tmp_path / "t.csv", "new")
    assert not list(tmp_path.iterdir())


def test_all_is_replaced_or_nothing(tmp_path, monkeypatch):
    def lay(new):
        for name, content in {"a": "old", "b": "old", "gone": "old"}.items():
            (tmp_path / name).write_text(content)
        for name in ("new-a", "new-b"):
            (tmp_path / name).write_text("new")
        places = [("new-a", "a"), (None, "gone"), ("new-b", new)]
        return [(tmp_path / source if source else None, tmp_path / place) for source, place in places]

    def content():
        return {p.relative_to(tmp_path).as_posix(): p.read_text() for p in tmp_path.rglob("*") if p.is_file()}

    real = paths.Path.rename

    def rename(path, target):
        if path.name == ".b.new":
            raise OSError(errno.EROFS, "Read-only file system", str(target))
        return real(path, target)

    pairs = lay("b")
    monkeypatch.setattr(paths.Path, "rename", rename)
    with pytest.raises(OSError, match="Read-only"):
        paths.replace_all(pairs)
    assert content() == {"a": "old", "b": "old", "gone": "old"}
    monkeypatch.undo()
    with pytest.raises(OSError, match=r"exists|directory"):
        paths.replace_all(lay("a/b"))  # a file stands where a folder is needed
    (tmp_path / "new-b").unlink()  # what hadn't been moved yet
    assert content() == {"a": "old", "b": "old", "gone": "old"}
    paths.replace_all(lay("b"))
    assert content() == {"a": "new", "b": "new"}
