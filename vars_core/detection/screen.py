"""Screen a folder of photos with a fitted defence: `vars screen photos/ --out screened`.

Writes screened/scores.csv (file, score, flagged, reason) and screened/flagged.png, a contact sheet of the flagged
photos, worst first. Photos that can't be decoded are listed with the reason. Interrupted and called again it goes on;
under torchrun every process takes its share. The defence is notebook 5's unless --defence names another.
"""

import csv
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from safetensors import SafetensorError

from vars_core import paths, runtime
from vars_core.data import photos
from vars_core.detection.defence import Defence
from vars_core.errors import InputError
from vars_core.extractor import Extractor

COLUMNS = ["file", "score", "flagged", "reason"]
SHOWN = 60  # photos on the contact sheet
TILE, GAP = 128, 18


class ScreenError(InputError, ValueError):
    """Something the user gave can't be screened with; the message says what was expected."""


def list_photos(folder: Path) -> list[Path]:
    """The photos under `folder`, sorted, relative to it. Raises ScreenError where there are none."""
    if not folder.is_dir():
        raise ScreenError(f"{folder}: no such folder")
    files = sorted(f.relative_to(folder) for f in folder.rglob("*") if f.suffix.lower() in photos.SUFFIXES)
    if not files:
        raise ScreenError(f"{folder}: no photo in it; expected files named {', '.join(photos.SUFFIXES)}")
    return files


def load_defence(folder: Path, extractor: Path, rate: str) -> tuple[Defence, str]:
    """The defence of `folder`, and a hash of all that a score depends on beside the photo."""
    for file in (folder / "defence.json", extractor):
        if not file.is_file():
            raise ScreenError(f"{file} is missing: run notebooks 1 to 5 or `dvc repro detection`, or name another")
    try:
        defence = Defence.load(folder, Extractor.load(extractor))
    except (RuntimeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        # not the pair that was saved together, networks of another layout, or files that are something else
        way = "name its own with --extractor, or make both again (`dvc repro detection`; remove scratch/models)"
        raise ScreenError(f"{folder} can't be used with {extractor}: {way}\n{error}") from error
    if rate not in defence.thresholds:
        known = ", ".join(defence.thresholds)
        raise ScreenError(f"--rate {rate}: this defence has thresholds for {known} per cent")
    mark = hashlib.sha256(rate.encode())
    for file in (*sorted(folder.iterdir()), extractor):
        mark.update(file.read_bytes())
    return defence, mark.hexdigest()[:16]


def rows_of(defence: Defence, folder: Path, files: list[Path], rate: str, pool) -> Iterator[tuple]:
    """A row of COLUMNS for each of `files`, which are screened as one batch."""

    def decoded(file):
        try:
            return photos.decode(folder / file, defence.size), ""
        except photos.PhotoError as error:
            return None, str(error)

    results = list(pool.map(decoded, files))
    good = [photo for photo, _ in results if photo is not None]
    verdicts = iter(())
    if good:
        _, score, flagged = defence.screen(np.stack(good), rate)
        verdicts = iter(zip(score, flagged, strict=True))
    for file, (photo, reason) in zip(files, results, strict=True):
        score, flagged = next(verdicts) if photo is not None else ("", "")
        yield file.as_posix(), score if reason else f"{score:.6g}", flagged if reason else int(flagged), reason


def screen(defence: Defence, folder: Path, files: list[Path], part: Path, mark: str, rate: str, batch: int) -> None:
    """Screen `files` into the CSV `part`, going on where it stops if it was begun with the same `mark`. Photos that
    are newer than the part are looked at again; of two rows the later one counts."""
    noted = part.stat().st_mtime if part.is_file() else 0.0
    done = _done(part, mark)
    left = [f for f in files if f.as_posix() not in done or (folder / f).stat().st_mtime > noted]
    with part.open("a", newline="", encoding="utf-8") as out, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        writer = csv.writer(out)
        for start in runtime.progress(range(0, len(left), batch), "screening"):
            writer.writerows(rows_of(defence, folder, left[start : start + batch], rate, pool))
            out.flush()
    paths.write(part.with_suffix(".done"), mark)


def _done(part: Path, mark: str) -> set[str]:
    """The files that `part` holds whole rows of; a part of another defence, folder or rate is begun anew."""
    head = f"# {mark}\n"
    if part.is_file():
        text = part.read_text(encoding="utf-8")
        if text.startswith(head):
            whole = text[: text.rfind("\n") + 1]  # the last line may have been cut off
            if whole != text:
                paths.write(part, whole)
            return {row[0] for row in csv.reader(whole.splitlines()[1:])}
    part.with_suffix(".done").unlink(missing_ok=True)
    paths.write(part, head)
    return set()


def merge_parts(parts: list[Path], files: list[Path], out: Path) -> pd.DataFrame:
    """All parts as one table of the present `files`, sorted, written to scores.csv."""
    table = pd.concat([pd.read_csv(p, names=COLUMNS, skiprows=1, keep_default_na=False) for p in parts])
    table = table[table.file.isin({file.as_posix() for file in files})].drop_duplicates("file", keep="last")
    table = table.sort_values("file", ignore_index=True)
    paths.write(out / "scores.csv", table.to_csv(index=False))
    return table


def contact_sheet(folder: Path, flagged: pd.DataFrame, file: Path) -> None:
    """The flagged photos with their scores, worst first, at most SHOWN of them, as one PNG."""
    worst = flagged.assign(score=flagged.score.astype(float)).nlargest(SHOWN, "score")
    across = min(10, len(worst))
    down = -(-len(worst) // across)
    page = Image.new("RGB", (across * (TILE + 4), down * (TILE + GAP)), "white")
    draw = ImageDraw.Draw(page)
    for place, row in enumerate(worst.itertuples()):
        x, y = place % across * (TILE + 4), place // across * (TILE + GAP)
        page.paste(Image.fromarray(photos.decode(folder / row.file, TILE)), (x, y))
        draw.text((x + 2, y + TILE + 2), f"{row.score:.2f} {Path(row.file).name[:12]}", fill="black")
    beside = file.with_suffix(".part.png")
    page.save(beside)
    beside.replace(file)


def run(options) -> int:
    """Screen as the command's `options` say; 0, or 1 when no photo can be decoded.

    Raises ScreenError, MissingArtefact."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if torch.cuda.is_available() and world > 1:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    folder, out = options.folder, options.out
    files = list_photos(folder)
    base = options.defence or paths.read_from("models/defence") / "contrastive"
    extractor = options.extractor or base.resolve().parents[1] / "recommender" / "extractor.safetensors"
    if not (options.extractor or options.defence or extractor.is_file()):
        # notebook 5 was run by hand after the pipeline's 2: the defence is in scratch, the extractor isn't
        extractor = paths.read_from("models/recommender") / "extractor.safetensors"
    defence, mark = load_defence(base, extractor, options.rate)
    mark = hashlib.sha256(f"{mark} {folder.resolve()} {rank} {world}".encode()).hexdigest()[:16]
    (out / "parts").mkdir(parents=True, exist_ok=True)
    parts = [out / "parts" / f"{n}-of-{world}.csv" for n in range(world)]
    screen(defence, folder, files[rank::world], parts[rank], mark, options.rate, options.batch)
    if not all(p.with_suffix(".done").is_file() for p in parts):
        return 0  # another process is still at work, and the last one merges
    table = merge_parts(parts, files, out)
    flagged = table[table.flagged.astype(str) == "1"]
    bad = int((table.reason != "").sum())
    (out / "flagged.png").unlink(missing_ok=True)  # of another run, whose photos or defence were others
    if len(flagged):
        contact_sheet(folder, flagged, out / "flagged.png")
    share = f"{len(flagged):,} of {len(table) - bad:,} photos flagged at {options.rate} % false alarms"
    print(f"{share}, {bad:,} not decodable; see {out / 'scores.csv'}" + (" and flagged.png" if len(flagged) else ""))
    # realised rates differ from the nominal one by a factor of about two in the study; five is beyond that
    if len(flagged) > 5 + 5 * float(options.rate) / 100 * (len(table) - bad):
        print("More than false alarms explain: attacks, or photos unlike those the defence learned from (see README)")
    return 0 if bad < len(table) else 1
