"""Screen a folder of photos with a fitted defence: `vars screen photos/ --out screened`. See docs/screening.md.

Writes screened/scores.csv (file, score, flagged, reason) and screened/flagged.png, a contact sheet of the flagged
photos, worst first. Photos that can't be decoded are listed with the reason. Interrupted and called again it goes on;
under torchrun every process takes its share. The defence is notebook 5's unless --defence names another.

With --serve RULE the features of every photo that isn't flagged go to screened/features/<file>.npy, as a shop serves
them that adds noise to photos: see `Defence.serve`.
"""

import csv
import hashlib
import heapq
import io
import os
import re
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors import SafetensorError

from vars_core import paths, pretrained, runtime
from vars_core.data import photos
from vars_core.detection import defence_files
from vars_core.detection.calibration import CalibrationError
from vars_core.detection.defence import Defence
from vars_core.detection.journal import AGAIN, FINAL, NONE, Journal, Verdicts
from vars_core.detection.listing import UNKNOWN, Listing, readable_suffixes
from vars_core.errors import InputError
from vars_core.extractor import Extractor

COLUMNS = ["file", "score", "flagged", "reason"]
FORMAT = 2  # of journals; and whenever a photo is decoded in another way, as its score then changes
ROWS = 1000  # photos without a score that are noted at once
SHOWN = 60  # photos on the contact sheet
TILE, GAP = 128, 18
NAMED = 5  # folders named in the summary
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class ScreenError(InputError, ValueError):
    """Something the user gave can't be screened with; the message says what was expected."""


def load_defence(folder: Path, extractor: Path, rate: str, rule: str | None, draws: int) -> tuple[Defence, str, str]:
    """The defence of `folder`; `rate` as its thresholds are named; the first line of journals of its verdicts, which
    names the rule of serving, too, if any."""
    defence_files.opened(folder)  # first, as it says more clearly what is wrong than an extractor that doesn't fit
    if not extractor.is_file():
        raise ScreenError(f"{extractor} is missing: run notebooks 1 to 5 or `dvc repro detection`, or name another")
    try:
        network = Extractor.load(extractor)
    except (RuntimeError, KeyError, TypeError, ValueError, RecursionError, OSError, SafetensorError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScreenError(f"{extractor} is no extractor of the study, or damaged ({said}); see --extractor") from None
    try:
        defence = Defence.load(folder, network)
    except defence_files.DefenceError as error:
        raise ScreenError(
            f"{folder} can't be used with {extractor}: {error}; see --defence and --extractor"
        ) from None
    try:
        rate = f"{float(rate):g}"
        defence.threshold(rate)
    except CalibrationError as error:
        raise ScreenError(f"--rate {rate}: {error}") from None
    except ValueError:
        raise ScreenError(f"--rate {rate}: expected a number, false alarms in per cent, such as 1") from None
    if rule is not None and defence.denoiser is None:
        raise ScreenError(f"--serve {rule}: {folder} has no {defence_files.DENOISER}; {defence_files.AGAIN}")
    about = (folder / defence_files.ABOUT).read_bytes()  # it holds the hashes of all that a score depends on
    served = "" if rule is None else f" {rule} {draws}"
    return defence, rate, f"# {FORMAT} {hashlib.sha256(about).hexdigest()[:16]}{served}\n"


def decoded(listing: Listing, places, size: int, ahead: int) -> Iterator[tuple]:
    """(place, photo or None, reason, state) of the photos at `places`, in order; `ahead` of them wait at most."""

    def one(place):
        try:
            return place, photos.decode(listing.folder / listing.names[place], size), "", FINAL
        except photos.PhotoError as error:
            return place, None, str(error) or "unreadable", AGAIN if error.transient else FINAL
        except OSError as error:  # a folder may be closed to us
            return place, None, f"cannot be read ({error.strerror})", AGAIN

    with ThreadPoolExecutor(max(1, min(8, torch.get_num_threads()))) as pool:
        waiting = deque()
        for place in places:
            waiting.append(pool.submit(one, place))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def verdict_rows(
    defence: Defence, listing: Listing, places: np.ndarray, rate: str, batch: int, serve=None
) -> Iterator[list]:
    """Rows of a journal for the photos at `places`, some at a time. `serve(name, photo)` is called for each that
    isn't flagged, `serve(name, None)` for each that is, before its row is there.

    Every pass through the networks is of `batch` photos, filled up with black ones: a score depends in its last
    digits on the size of the batch, and so doesn't on where a run was interrupted."""

    def scored():
        full = np.zeros((batch, defence.size, defence.size, 3), np.uint8)
        full[: len(good)] = [photo for _, photo in good]
        _, scores, flagged = defence.screen(full, rate, batch)
        if serve is not None:
            for (place, photo), stopped in zip(good, flagged, strict=False):
                serve(listing.names[place], None if stopped else photo)
        return [row(place, float(score), "", FINAL) for (place, _), score in zip(good, scores, strict=False)]

    def row(place, score, reason, state):
        mark = int(listing.marks[place])
        return listing.names[place], mark, score, reason, state if mark != UNKNOWN else AGAIN

    good, bad = [], []
    found = decoded(listing, places, defence.size, 2 * batch)
    for place, photo, reason, state in runtime.progress(found, "screening", len(places)):
        if photo is None:
            bad.append(row(place, None, reason, state))
        else:
            good.append((place, photo))
        if len(good) == batch:
            yield scored()
            good = []
        if len(bad) == ROWS:
            yield bad
            bad = []
    yield bad + (scored() if good else [])


def server(defence: Defence, folder: Path, rule: str, draws: int):
    """What writes a photo's features to `folder`/<name>.npy, and takes away those of a photo that is flagged now."""

    def serve(name: str, photo: np.ndarray | None) -> None:
        file = folder / f"{name}.npy"
        if photo is None:
            file.unlink(missing_ok=True)
            return
        content = io.BytesIO()
        np.save(content, defence.serve(photo[None], rule, draws)[0], allow_pickle=False)
        paths.write(file, content.getvalue())

    return serve


def shares(names: list[str], world: int) -> np.ndarray:
    """Which of `world` processes takes each photo (N,): by its name alone, so that all processes agree, also where a
    photo comes or goes while they start."""
    return np.fromiter((zlib.crc32(n.encode("utf-8", "surrogateescape")) % world for n in names), int, len(names))


def write_scores(file: Path, listing: Listing, verdicts: Verdicts, limit: float) -> None:
    """All verdicts, sorted by name, row by row, put in the place of `file` when they are whole."""
    handle, beside = tempfile.mkstemp(dir=file.parent, prefix=".scores.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(COLUMNS)
            for place, name in enumerate(listing.names):
                reason, score = verdicts.reasons.get(place, ""), verdicts.scores[place]
                told = ("", "") if reason else (f"{score:.6g}", int(score > limit))
                writer.writerow((written(name), *told, plain(reason)))
        Path(beside).chmod(0o644)
        Path(beside).replace(file)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def plain(text: str) -> str:
    """`text` on one line of UTF-8: what isn't printable is escaped as Python does it, such as `\\n` or `\\udcff`."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def written(name: str) -> str:
    """`name` as scores.csv has it: one line, and never what a spreadsheet takes for a formula. `./=1+1.jpg` is still
    a path of the file `=1+1.jpg`."""
    return ("./" if name[0] in "=+-@\t\r" else "") + plain(name)


def contact_sheet(listing: Listing, worst: list[tuple[float, str]], file: Path) -> None:
    """Photos with their scores, (score, name), as one PNG; grey where one can't be decoded any more."""
    across = min(10, len(worst))
    down = -(-len(worst) // across)
    page = Image.new("RGB", (across * (TILE + 4), down * (TILE + GAP)), "white")
    draw = ImageDraw.Draw(page)
    for place, (score, name) in enumerate(worst):
        x, y = place % across * (TILE + 4), place // across * (TILE + GAP)
        try:
            tile = Image.fromarray(photos.decode(listing.folder / name, TILE))
        except (photos.PhotoError, OSError):
            tile = Image.new("RGB", (TILE, TILE), "grey")
        page.paste(tile, (x, y))
        short = name.rsplit("/", 1)[-1][:12].encode("ascii", "replace").decode()
        draw.text((x + 2, y + TILE + 2), f"{score:.2f} {plain(short)}", fill="black")
    beside = file.with_suffix(".part.png")
    page.save(beside)
    beside.replace(file)


def summary(listing: Listing, verdicts: Verdicts, flagged: int, rate: str, out: Path) -> str:
    """What is printed at the end; nothing that wasn't screened goes unsaid."""
    again = int((verdicts.state == AGAIN).sum())
    whole = len(listing.names) - len(verdicts.reasons)
    lines = [f"{flagged:,} of {whole:,} photos flagged at {rate} % false alarms"]
    lines[0] += f", {len(verdicts.reasons):,} not decodable" + (f" ({again:,} to be tried again)" if again else "")
    lines[0] += f"; see {out / 'scores.csv'}" + (" and flagged.png" if flagged else "")
    if listing.others:
        kinds = ", ".join(f"{plain(suffix)[:20]} {count:,}" for suffix, count in listing.others.most_common(10))
        more = len(listing.others) - 10
        lines.append(f"Files that are no photos: {kinds}" + (f" and {more} other kinds" if more > 0 else ""))
    if listing.skipped:
        named = ", ".join(map(plain, listing.skipped[:NAMED]))
        more = len(listing.skipped) - NAMED
        lines.append(f"Folders not looked into: {named}" + (f" and {more} more" if more > 0 else ""))
    # realised rates differ from the nominal one by a factor of about two in the study; five is beyond that
    if flagged > 5 + 5 * float(rate) / 100 * whole:
        lines.append(
            "More than false alarms explain: attacks, or photos unlike those the defence learned from (see README)"
        )
    return "\n".join(lines)


def run(options) -> int:
    """Screen as the command's `options` say; 0, or 1 when no photo can be decoded.

    Raises an InputError for whatever can't be read, written or used."""
    try:
        return _run(options.folder, options.out, options)
    except InputError:
        raise
    except OSError as error:
        raise ScreenError(f"{error.filename or options.out}: {error.strerror or error}") from None


def process() -> tuple[int, int]:
    """The number of this process and how many there are, from RANK and WORLD_SIZE, which torchrun or a user sets."""
    given = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not all(number.isascii() and number.isdecimal() for number in given) or not 0 <= int(given[0]) < int(given[1]):
        raise ScreenError(f"RANK is a number from 0 to WORLD_SIZE - 1; got RANK={given[0]}, WORLD_SIZE={given[1]}")
    return int(given[0]), int(given[1])


def _run(folder: Path, out: Path, options) -> int:
    rank, world = process()
    if torch.cuda.is_available() and world > 1:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not folder.is_dir():
        raise ScreenError(f"{folder}: no such folder" + (", it is a file" if folder.is_file() else ""))
    base = options.defence or pretrained.defence_of_photos()
    extractor = options.extractor or base.resolve().parent.parent / "recommender" / "extractor.safetensors"
    if not (options.extractor or options.defence or extractor.is_file()):
        # notebook 5 was run by hand after the pipeline's 2: the defence is in scratch, the extractor isn't
        extractor = paths.read_from("models/recommender") / "extractor.safetensors"
    defence, rate, head = load_defence(base, extractor, options.rate, options.serve, options.draws)
    serve = server(defence, out / "features", options.serve, options.draws) if options.serve else None
    batch = options.batch or runtime.images_at_once()
    if out.exists() and not out.is_dir():
        raise ScreenError(f"--out {out}: a folder is expected, this is a file")
    if out.is_dir() and out.samefile(folder):
        raise ScreenError(f"--out {out} is the folder with the photos; results need one of their own")
    (out / "parts").mkdir(parents=True, exist_ok=True)
    listing = Listing.of(folder, without=out)
    if not listing.names:
        suffixes = ", ".join(sorted(readable_suffixes()))
        raise ScreenError(f"{folder}: no photo in it, {listing.others.total()} other files; expected {suffixes}")
    with Journal(out / "parts" / f"{rank}-of-{world}.jsonl", head) as journal:
        known = Verdicts.read((out / "parts").glob("*.jsonl"), head, listing)
        left = np.flatnonzero((known.state != FINAL) & (shares(listing.names, world) == rank))
        for rows in verdict_rows(defence, listing, left, rate, batch, serve):
            journal.add(rows)
    verdicts = Verdicts.read((out / "parts").glob("*.jsonl"), head, listing)
    missing = int((verdicts.state == NONE).sum())
    if missing:
        print(f"{missing:,} photos have no verdict yet: other processes are at work. If none is, call it again")
        return 0  # the last process to end finds all of them
    limit = defence.threshold(rate)
    write_scores(out / "scores.csv", listing, verdicts, limit)
    flagged = np.flatnonzero(np.nan_to_num(verdicts.scores, nan=-np.inf) > limit)
    (out / "flagged.png").unlink(missing_ok=True)  # of another run, whose photos or defence were others
    if len(flagged):
        worst = heapq.nlargest(SHOWN, flagged, key=lambda place: verdicts.scores[place])
        contact_sheet(listing, [(verdicts.scores[p], listing.names[p]) for p in worst], out / "flagged.png")
    print(summary(listing, verdicts, len(flagged), rate, out))
    if serve is not None:
        shown = "one draw" if options.serve == "one" else f"{options.serve} of {options.draws} draws"
        print(f"Features of the others, as they are served by {shown}: {out / 'features'}")
    return 0 if len(verdicts.reasons) < len(listing.names) else 1
