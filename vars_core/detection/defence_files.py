"""A defence on disk: filter.safetensors, detector.safetensors and defence.json, which describes and seals them; with
denoiser.safetensors, where it also serves behind noise.

defence.json holds thresholds, that noise's standard deviation, the side of the photos, a fingerprint of the
extractor, a hash of each file and one of its own content. A flipped bit, a value that is not finite or a file of
another save is an error here: a damaged defence flags nothing or everything, and its scores look like scores.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from vars_core import paths
from vars_core.errors import InputError

FILTER, DETECTOR, ABOUT = "filter.safetensors", "detector.safetensors", "defence.json"
DENOISER = "denoiser.safetensors"
MAX_BYTES = 2**20  # of defence.json, which has about a thousand
AGAIN = "fit it again (notebook 5, `dvc repro detection` or `Defence.fit` and `save`)"

Percent = Annotated[str, Field(pattern=r"^(0|[1-9]\d?)(\.\d+)?$", max_length=20)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class DefenceError(InputError, ValueError):
    """A saved defence that can't be used; the message names the file and what is wrong with it."""


class About(BaseModel):
    """What defence.json says. More keys are notes of whoever saved it, as text."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, str]

    thresholds: dict[Percent, Finite]
    calibration_photos: Annotated[int, Field(ge=0)]
    features: Annotated[int, Field(ge=1, le=1_000_000)]
    size: Annotated[int, Field(ge=8, le=4096)]
    extractor: str
    sigma: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    files: dict[str, Hash]

    @property
    def expected(self) -> set[str]:
        """The files that belong to it."""
        return {FILTER, DETECTOR} | ({DENOISER} if self.sigma is not None else set())

    sha256: Hash


def seal(folder: Path, content: dict) -> None:
    """Write `content` as `folder`'s defence.json, with the hashes of the files that lie there; of the denoiser's,
    too, where `content` has its `sigma`."""
    names = (FILTER, DETECTOR, DENOISER) if content.get("sigma") is not None else (FILTER, DETECTOR)
    content = content | {"files": {name: _hash((folder / name).read_bytes()) for name in names}}
    content["sha256"] = _own_hash(content)
    paths.write(folder / ABOUT, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def opened(folder: Path) -> About:
    """What `seal` wrote to `folder`, after all hashes were compared. Raises DefenceError."""
    file = folder / ABOUT
    if folder.exists() and not folder.is_dir():
        raise DefenceError(f"{folder} is a file; expected the folder of a saved defence")
    text = _read(file, MAX_BYTES)
    try:
        about = About.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:80]
        if first["type"] == "missing":
            raise DefenceError(f"{file} has no {where}, as of an earlier version of the study: {AGAIN}") from None
        raise DefenceError(f"{file}: {where}{': ' if where else ''}{first['msg'][:200]}; {AGAIN}") from None
    if about.sha256 != _own_hash(json.loads(text)):
        raise DefenceError(f"{file} is not as it was saved, its own hash differs: {AGAIN}")
    if set(about.files) != about.expected:
        wanted, found = ", ".join(sorted(about.expected)), ", ".join(about.files)[:80]
        raise DefenceError(f"{file}: files: expected {wanted}, found {found}")
    for name, known in about.files.items():
        if _hash(_read(folder / name)) != known:
            raise DefenceError(f"{folder / name} is not the file that was saved, its hash differs: {AGAIN}")
    return about


def check_finite(model: nn.Module, what: str) -> None:
    """Raises DefenceError where a weight of `model` is NaN or infinite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DefenceError(f"{what}: {name} holds values that are not finite; {AGAIN}")


def _read(file: Path, most: int | None = None) -> bytes:
    try:
        if most is not None and file.stat().st_size > most:
            raise DefenceError(f"{file} has {file.stat().st_size:,} bytes; at most {most:,} expected")
        return file.read_bytes()
    except FileNotFoundError:
        raise DefenceError(
            f"{file} is missing: run notebooks 1 to 5 or `dvc repro detection`, or name another"
        ) from None
    except OSError as error:
        raise DefenceError(f"{file} can't be read ({error.strerror})") from None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _own_hash(content: dict) -> str:
    """Of everything in `content` but itself."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return _hash(json.dumps(rest, sort_keys=True).encode())
