"""Seals of artefacts: the SHA-256 of every file that a stage wrote, compared before a notebook computes with them.

A seal is the file SHA256SUMS in the artefact's folder; `sha256sum -c SHA256SUMS` reads it too. What a notebook run by
hand writes has none and is not compared.
"""

import hashlib
from pathlib import Path

NAME = "SHA256SUMS"


def sums(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of every file below `folder` but the seal, by its path from there, sorted. Hidden files, which
    systems leave in folders that somebody opens, don't count."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    seen = sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))
    return {name: of_file(folder / name) for name in seen if name != NAME}


def of_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def put(folder: Path) -> None:
    """Seal `folder` as it is now; the same content gives the same bytes."""
    text = "".join(f"{digest}  {name}\n" for name, digest in sums(folder).items())
    (folder / NAME).write_text(text, encoding="utf-8")


def fault(folder: Path) -> str | None:
    """What isn't as the seal says, such as "photos.npy is missing"; None where all is, or where there is no seal."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return f"{NAME} is damaged"
    named = [line.partition("  ") for line in lines]
    if not named or any(len(digest) != 64 or not name for digest, _, name in named):
        return f"{NAME} is damaged"
    sealed, found = {name: digest for digest, _, name in named}, sums(folder)
    for name in sorted(sealed.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in sealed:
            return f"{name} was added"
        if found[name] != sealed[name]:
            return f"{name} is damaged: its content has changed"
    return None
