"""`pretrained/`: models of earlier runs, small enough for git, in a folder for each catalogue, with a card.

pretrained/<catalogue>/models holds files as a run's `models` does, packed (`checkpoint.pack`), without what can be
computed from them; about.json says what they come from and which extractor they are for. What a run made itself wins.
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from vars_core import checkpoint, paths, seal
from vars_core.errors import InputError

FOLDER, ABOUT = "pretrained", "about.json"
Hash = Annotated[str, Field(pattern="^[0-9a-f]{32,64}(\\.dir)?$")]

_told: set[str] = set()  # artefacts of which this process has said where they come from


class PretrainedError(InputError, ValueError):
    """A folder of pretrained/ that can't be used; the message names it and says what is wrong."""


class About(BaseModel):
    """What about.json says of the run that the models come from."""

    model_config = ConfigDict(extra="forbid", strict=True)

    catalogue: str
    fingerprint: str  # of the catalogue
    drawn: bool  # by the study itself: no real photos
    profile: str
    commit: str
    size: Annotated[int, Field(ge=8, le=4096)]  # side of the photos, in pixels
    extractor: str
    networks: list[Hash]  # of the extractor, as it was trained or given and as it is kept
    made_of: dict[str, Hash]  # what is older than these models when its hash is another


def folders(root: Path | None = None) -> list[Path]:
    """Every folder of pretrained/ with an about.json, sorted."""
    return sorted(file.parent for file in ((root or paths.root()) / FOLDER).glob(f"*/{ABOUT}"))


def about(folder: Path) -> About:
    """What about.json says. Raises PretrainedError where it says nothing, or a model isn't as it was kept."""
    file = folder / ABOUT
    try:
        found = About.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        raise PretrainedError(
            f"{file}: {str(error).splitlines()[0]}; `git checkout {FOLDER}` brings it back"
        ) from None
    if fault := seal.fault(folder / "models"):
        raise PretrainedError(f"{folder / 'models'}: {fault}; `git checkout {FOLDER}` brings it back")
    return found


def network(name: str, tensors: dict) -> str:
    """A hash of an extractor's network: its name and weights, without the scaler, which is its catalogue's."""
    return checkpoint.fingerprint(name, *(tensors[key] for key in sorted(tensors)))


def to_start_from(extractor: nn.Module, catalogue) -> Path | None:
    """The folder whose models were trained for `extractor`'s network, and on none of the photos on which this study
    of `catalogue` judges models; None, and a line that says why, where there is none."""
    wanted = network(extractor.name, extractor.backbone.state_dict())
    folder = next((folder for folder in folders() if wanted in about(folder).networks), None)
    if folder is None:
        print(f"trained from scratch: nothing in {FOLDER}/ was trained for these features ({extractor.name})")
        return None
    known = about(folder)
    if known.catalogue == catalogue.name and known.fingerprint != catalogue.fingerprint:
        print(f"trained from scratch: {FOLDER}/{folder.name} learned from {catalogue.name} split otherwise")
        return None
    return folder


def defence_of_photos() -> Path:
    """The defence to screen photos with: the one that notebook 5 trained, else one that saw real photos, which it
    says in a line. Raises MissingArtefact where there is neither."""
    try:
        return paths.read_from("models/defence") / "contrastive"
    except paths.MissingArtefact:
        folder = next((folder for folder in folders() if not about(folder).drawn), None)
        if folder is None:
            raise
    print(f"with the defence of {folder.relative_to(paths.root()).as_posix()}, as none was trained here")
    return folder / "models" / "defence" / "contrastive"


def read_from(name: str) -> Path:
    """`paths.read_from(name)`; where no run made it, and a notebook is run by hand, what pretrained/ holds instead,
    which it says in a line. Only of the same catalogue, and for the extractor that is in use.

    Raises MissingArtefact where that isn't to be had, either."""
    try:
        return paths.read_from(name)
    except paths.MissingArtefact:
        folder = None if paths.workspace() else _fitting()
        if folder is None or not (folder / name).exists():
            raise
    if name not in _told:
        print(f"{name}: from {folder.relative_to(paths.root()).as_posix()}, as no run made it here")
        _told.add(name)
    return folder / name


def _fitting() -> Path | None:
    try:
        meta = json.loads((paths.read_from("data/prepared") / "meta.json").read_text(encoding="utf-8"))
    except paths.MissingArtefact:
        return None
    same = [folder for folder in folders() if about(folder).fingerprint == meta.get("fingerprint")]
    try:
        notes, tensors = checkpoint.read(paths.read_from("models/recommender") / "extractor.safetensors")
    except paths.MissingArtefact:
        return same[0] if same else None
    used = network(notes.get("extractor", ""), checkpoint.part("backbone.", tensors))
    return next((folder for folder in same if used in about(folder).networks), None)
