"""Where things are read and written: the pipeline's folders, or `scratch/` when a notebook is run by hand.

The stage runner sets VARS_WORKSPACE, where artefacts are read, and VARS_ARTEFACTS and VARS_REPORTS, where a stage
writes until it has succeeded. In JupyterLab they are unset: writes go to `<root>/scratch`, reads prefer
`<root>/scratch` and fall back to what the pipeline made, so "Run all" never touches the committed reports.
"""

import os
import shutil
import tempfile
from pathlib import Path

from vars_core import seal
from vars_core.errors import InputError

ARTEFACTS = {
    "data/prepared": "01_data",
    "models/recommender": "02_recommender",  # VBPR and what it sees: what later notebooks attack
    "models/victims": "02_recommender",  # the others
    "data/attacked": "03_attacks",
    "models/other": "03_attacks",  # what an attacker without the shop's extractor has
    "data/unseen": "03_attacks",  # kept for testing: no defence trains on these
    "models/filter": "04_reconstruction",
    "models/defence": "05_detection",
    "data/served": "07_adaptive",  # the catalogue's scores behind noise, which take a while
}


_compared: set[tuple[Path, str]] = set()  # artefacts that this process compared with their seals, by root and name


class MissingArtefact(InputError, FileNotFoundError):
    """An artefact of an earlier notebook is not there; the message says what to run."""


class DamagedArtefact(InputError, OSError):
    """An artefact isn't what its stage wrote; the message names the file and says how to make it again."""


def root() -> Path:
    """The repository: VARS_ROOT, else the folder that holds `vars_core`. Raises InputError where there is none."""
    named = os.environ.get("VARS_ROOT")
    if named and not Path(named).is_dir():
        raise InputError(f"VARS_ROOT={named}: no such folder; unset it, or name the repository")
    return Path(named or Path(__file__).parents[1]).resolve()


def scratch() -> Path:
    """Folder for everything that is neither an artefact nor a report; git ignores it."""
    return _made(root() / "scratch")


def workspace() -> Path | None:
    """The folder a stage runs in, or None when a notebook is run by hand."""
    name = os.environ.get("VARS_WORKSPACE")
    return Path(name).resolve() if name else None


def reports() -> Path:
    """Folder for figures, tables and metrics. VARS_REPORTS is the runner's staging folder."""
    staged = os.environ.get("VARS_REPORTS")
    return _made(Path(staged) if staged else (workspace() or scratch()) / "reports")


def write_to(name: str) -> Path:
    """Folder to write an artefact such as "models/filter" to; made if need be. A seal that lies there goes."""
    place = Path(os.environ.get("VARS_ARTEFACTS") or workspace() or scratch())
    artefact = _artefact(name)
    if artefact:
        (place / artefact / seal.NAME).unlink(missing_ok=True)  # it was another run's
    return _made(place / name)


def checkpoint(name: str) -> Path:
    """File for the state of long work such as a training, under way or done: a notebook that is interrupted, and run
    again with the same parameters, takes it up. The stage runner removes those of a notebook that has succeeded."""
    return checkpoints(workspace() or root(), os.environ.get("VARS_STAGE", "by hand")) / f"{name}.safetensors"


def checkpoints(place: Path, notebook: str) -> Path:
    """The folder of `checkpoint`'s files, of `notebook` in the workspace `place`."""
    return place / "scratch" / "checkpoints" / notebook


def cache(name: str) -> Path:
    """Folder for what outlives runs and can be made again, such as "data/decoded"; made if need be."""
    return _made((workspace() or scratch()) / name)


def read_from(name: str) -> Path:
    """An existing artefact such as "data/prepared", or something in one.

    Raises MissingArtefact, naming the notebook to run; DamagedArtefact when a file of the artefact isn't what the
    seal says, compared once per process.
    """
    places = [workspace()] if workspace() else [root() / "scratch", root()]
    artefact = _artefact(name)
    for place in places:
        if artefact and (place, artefact) not in _compared:
            fault = seal.fault(place / artefact)
            if fault:
                raise DamagedArtefact(f"{artefact}/{fault}; {_made_again(artefact)}")
            _compared.add((place, artefact))
        found = place / name
        if found.is_file() or (found.is_dir() and any(found.iterdir())):
            return found
    way = _made_first(artefact) if artefact else "no notebook makes it"
    raise MissingArtefact(f"{name} is missing: {way} (looked in {' and '.join(p.name or str(p) for p in places)})")


def _artefact(name: str) -> str | None:
    return next((a for a in ARTEFACTS if name == a or name.startswith(a + "/")), None)


def _of_a_study() -> bool:
    return workspace() not in (None, root())


def _made_again(artefact: str) -> str:
    writer = ARTEFACTS[artefact]
    if _of_a_study():
        return f"the same study, run again with {writer}, makes it anew"
    return f"`dvc repro --force --single-item {writer.split('_', 1)[1]}` makes it anew"


def _made_first(artefact: str) -> str:
    writer = ARTEFACTS[artefact]
    if _of_a_study():
        return f"run the study with {writer} first"
    return f"run notebooks/{writer}.ipynb first, or `dvc repro {writer.split('_', 1)[1]}`"


def write(path: Path, content: str | bytes) -> Path:
    """Write beside `path`, then move over it: readers see the old file or the new one, never half of one.

    Raises OSError with the name of `path`, also where the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            error.filename = str(path)
        raise
    return path


def replace_folder(new: Path, old: Path) -> None:
    """Put folder `new` in the place of folder `old`, dropping files that only `old` had."""
    replace_all([(new, old)])


def replace_all(pairs: list[tuple[Path | None, Path]]) -> None:
    """Put each new file or folder in the place of the old one, or nothing (None): all of them, or none.

    First everything new is brought beside its place, across disks if need be; then names change. When one of the
    steps fails, what had been done is undone. Raises OSError.
    """
    undo: list[tuple[Path, Path]] = []  # (where it is, where it was), in order
    try:
        for new, old in pairs:
            _removed(_beside(old, "new"))
            if new is not None:
                old.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(new, _beside(old, "new"))
        for new, old in pairs:
            aside = _beside(old, "old")
            if os.path.lexists(old):
                _removed(aside)
                old.rename(aside)
                undo.append((aside, old))
            if new is not None:
                _beside(old, "new").rename(old)
                undo.append((old, _beside(old, "new")))
    except BaseException:
        for now, before in reversed(undo):
            now.rename(before)
        for _, old in pairs:
            _removed(_beside(old, "new"))
        raise
    for _, old in pairs:
        _removed(_beside(old, "old"))


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}")


def _removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
