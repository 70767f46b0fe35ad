"""Where things are read and written: the pipeline's folders, or `scratch/` when a notebook is run by hand.

The stage runner sets VARS_WORKSPACE; everything then lives under it. In JupyterLab the variable is unset:
writes go to `<root>/scratch`, reads prefer `<root>/scratch` and fall back to what the pipeline made, so
"Run all" never touches the committed reports.
"""

import os
import shutil
import tempfile
from pathlib import Path

from vars_core.errors import InputError

ARTEFACTS = {
    "data/prepared": "01_data",
    "models/recommender": "02_recommender",  # VBPR and what it sees: what later notebooks attack
    "models/victims": "02_recommender",  # the others
    "data/attacked": "03_attacks",
    "data/unseen": "03_attacks",  # kept for testing: no defence trains on these
    "models/filter": "04_reconstruction",
    "models/defence": "05_detection",
}


class MissingArtefact(InputError, FileNotFoundError):
    """An artefact of an earlier notebook is not there; the message says what to run."""


def root() -> Path:
    """The repository: VARS_ROOT, else the folder that holds `vars_core`."""
    return Path(os.environ.get("VARS_ROOT") or Path(__file__).parents[1]).resolve()


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
    """Folder to write an artefact such as "models/filter" to; made if need be."""
    return _made((workspace() or scratch()) / name)


def read_from(name: str) -> Path:
    """An existing artefact such as "data/prepared". Raises MissingArtefact, naming the notebook to run."""
    places = [workspace()] if workspace() else [root() / "scratch", root()]
    for place in places:
        found = place / name
        if found.is_file() or (found.is_dir() and any(found.iterdir())):
            return found
    writer = next((w for a, w in ARTEFACTS.items() if name == a or name.startswith(a + "/")), None)
    stage = writer.split("_", 1)[1] if writer else None
    way = f"run notebooks/{writer}.ipynb first, or `dvc repro {stage}`" if writer else "no notebook makes it"
    raise MissingArtefact(f"{name} is missing: {way} (looked in {' and '.join(p.name or str(p) for p in places)})")


def write(path: Path, content: str | bytes) -> Path:
    """Write beside `path`, then move over it: readers see the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return path


def replace_folder(new: Path, old: Path) -> None:
    """Put folder `new` in the place of folder `old`, dropping files that only `old` had."""
    aside = old.with_name(f".{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        old.rename(aside)
    shutil.move(new, old)
    shutil.rmtree(aside, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
