"""A catalogue: photos, categories and who bought what, checked row by row and prepared once for all.

The folder a user brings holds `items.csv` (item_id, category, anything else), the photos
`images/<item_id>.<jpg|jpeg|png|webp>` and, where there is real feedback, `interactions.csv` (user_id,
item_id, optional timestamp and rating).
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from vars_core import paths, runtime
from vars_core.data import arrays, decoded, feedback, folder, split, synthetic
from vars_core.data.folder import CatalogueError

__all__ = ["Catalogue", "CatalogueError", "load", "prepare"]


@dataclass(frozen=True)
class Catalogue:
    """Items and feedback with contiguous codes: row i of `items` and `photos` is item i.

    `items` has item_id and category (str) and what else was known; `interactions` has user and item (codes)
    and, for real feedback with them, timestamp and part (a split that came with it); `photos` uint8 (N, S, S, 3);
    `simulated`: invented feedback.
    """

    items: pd.DataFrame
    interactions: pd.DataFrame
    photos: np.ndarray
    simulated: bool
    name: str
    user_ids: list
    fingerprint: str = ""
    rejected: pd.DataFrame = field(default_factory=lambda: folder.rejected_table([]))
    notes: dict = field(default_factory=dict)  # counts of what preparing left out

    @property
    def categories(self):
        """Sorted names of the categories."""
        return sorted(self.items["category"].unique())

    @property
    def labels(self):
        """(N,) category code of each item, an index into `categories`."""
        return np.searchsorted(self.categories, self.items["category"].to_numpy(str))


def prepare(cfg, seed, out, source=None, cache=None):
    """Make or read the catalogue that `cfg` (params.Data) describes, write it to the folder `out`, return it.

    Bad rows are set aside (`.rejected`), the k-core taken and the split drawn. Photos are decoded once for all runs,
    into the folder `cache` (beside `out`: decoded/). `source` is a folder to read instead of the one that `cfg` and
    VARS_DATA name. `out` is replaced only when everything has been written. Raises CatalogueError for input that
    cannot be used.
    """
    out = Path(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if cfg.source == "synthetic":
            raw = _draw(cfg, seed)
        else:
            raw = _read(cfg, seed, source or source_folder(cfg), cache or out.parent / "decoded")
        _write(_finish(raw, cfg, seed, partial), cfg, seed, partial)
        paths.replace_folder(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load(out)


def load(folder_path):
    """Read a catalogue written by `prepare`; photos stay on disk (memory map)."""
    root = Path(folder_path)
    missing = [name for name in ("meta.json", "photos.npy", "items.csv") if not (root / name).is_file()]
    if missing:
        raise CatalogueError(f"{root} has no {', '.join(missing)}: it is not a prepared catalogue; run 01_data")
    try:
        meta = json.loads((root / "meta.json").read_text())
        text = {"dtype": str, "keep_default_na": False}
        return Catalogue(
            items=pd.read_csv(root / "items.csv", **text),
            interactions=pd.read_csv(root / "interactions.csv"),
            photos=arrays.load(root / "photos.npy", mapped=True),
            simulated=meta["simulated"],
            name=meta["name"],
            user_ids=pd.read_csv(root / "users.csv", **text)["user_id"].tolist(),
            fingerprint=meta["fingerprint"],
            rejected=pd.read_csv(root / "rejected.csv", **text),
            notes=meta["notes"],
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # ValueError: pandas, json, arrays
        raise CatalogueError(
            f"{root} is damaged: {error!s:.200}; run 01_data again ({type(error).__name__})"
        ) from None


def _draw(cfg, seed):
    photos, items = synthetic.draw(cfg.items, cfg.image_size, runtime.rng(seed, "photos"))
    frame, user_ids = _simulated(items, photos, cfg, seed)
    return Catalogue(
        items=items, interactions=frame, photos=photos, simulated=True, name="synthetic", user_ids=user_ids
    )


def _simulated(items, photos, cfg, seed):
    """Interactions of simulated users, and the users' ids."""
    frame = feedback.simulate(items, photos, cfg, runtime.rng(seed, "feedback"))
    return frame, [f"u{user:05d}" for user in range(frame["user"].max() + 1)]


def _read(cfg, seed, source, cache):
    read = folder.read(source, seed=seed, max_items=cfg.max_items)
    photos, bad = decoded.decode_files(read.files, cfg.image_size, decoded.cache_folder(source, cache))
    spoilt = [(read.items["item_id"][row], read.files[row].name, why) for row, why in bad]
    folder.check_shares(read, cfg.max_rejected_share)
    folder.check_share(spoilt, len(read.items), cfg.max_rejected_share, "photos")
    kept = np.setdiff1d(np.arange(len(read.items)), [row for row, _ in bad])
    items = read.items.iloc[kept].reset_index(drop=True)
    good = _Rows(photos, kept)
    notes = dict(read.notes)
    if read.interactions is None:
        interactions, user_ids = _simulated(items, good, cfg, seed)
    else:
        frame = read.interactions[read.interactions["item_id"].isin(items["item_id"])]
        notes["interactions_with_rejected_items"] += len(read.interactions) - len(frame)
        users = pd.Categorical(frame["user_id"])
        interactions = pd.DataFrame(
            {"user": users.codes, "item": pd.Index(items["item_id"]).get_indexer(frame["item_id"])}
        )
        for name in ("timestamp", "part"):
            if name in frame:
                interactions[name] = frame[name].to_numpy()
        user_ids = users.categories.tolist()
    return Catalogue(
        items=items,
        interactions=interactions.reset_index(drop=True),
        photos=good,
        simulated=read.interactions is None,
        name=source.name,
        user_ids=user_ids,
        rejected=folder.rejected_table(read.rejected + read.unknown + spoilt),
        notes=notes,
    )


def source_folder(cfg):
    """The catalogue folder: VARS_DATA where set, else cfg.path (relative to the repository's root)."""
    asked = os.environ.get("VARS_DATA") or cfg.path
    if not asked:
        raise CatalogueError("data.source is 'folder' but neither data.path nor VARS_DATA names one")
    source = (paths.root() / Path(asked).expanduser()).resolve()
    if not source.is_dir():
        raise CatalogueError(f"{source} is not a folder; data.path or VARS_DATA should name a catalogue")
    return source


def _finish(raw, cfg, seed, partial):
    """Take the k-core, renumber users and items, and put the remaining photos into photos.npy."""
    frame = raw.interactions
    keep = split.k_core(frame["user"].to_numpy(), frame["item"].to_numpy(), cfg.k_core)
    if not keep.any():
        raise CatalogueError(
            f"the {cfg.k_core}-core of {raw.name} is empty: no users and items have {cfg.k_core} pairs "
            f"with each other among {len(frame):,}; lower data.k_core, or raise data.max_items if it is set"
        )
    frame = frame[keep].reset_index(drop=True)
    kept_users, user = np.unique(frame["user"], return_inverse=True)
    kept_items, item = np.unique(frame["item"], return_inverse=True)
    shape = (len(kept_items), cfg.image_size, cfg.image_size, 3)
    # written, not mapped: a full disk is an error, and not the end of the process
    with (partial / "photos.npy").open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(kept_items), 4096):
            file.write(np.ascontiguousarray(raw.photos[kept_items[start : start + 4096]]))
    photos = arrays.load(partial / "photos.npy", mapped=True)
    if (photos[:1] == photos).all():
        raise CatalogueError(f"{raw.name}: all {len(photos):,} photos are the same; different looks are expected")
    return Catalogue(
        items=raw.items.iloc[kept_items].reset_index(drop=True),
        interactions=frame.assign(user=user, item=item),
        photos=photos,
        simulated=raw.simulated,
        name=raw.name,
        user_ids=[raw.user_ids[code] for code in kept_users],
        rejected=raw.rejected,
        notes=raw.notes
        | {
            "items_outside_core": len(raw.items) - len(kept_items),
            "users_outside_core": len(raw.user_ids) - len(kept_users),
            "interactions_outside_core": int((~keep).sum()),
        },
    )


def _write(catalogue, cfg, seed, partial):
    try:
        split.save(split.make(catalogue, cfg, seed), partial / "split.npz")
    except split.SplitError as error:
        raise CatalogueError(f"{catalogue.name}: {error}") from error
    catalogue.items.to_csv(partial / "items.csv", index=False)
    catalogue.interactions.to_csv(partial / "interactions.csv", index=False)
    catalogue.rejected.to_csv(partial / "rejected.csv", index=False)
    pd.DataFrame({"user_id": catalogue.user_ids}).to_csv(partial / "users.csv", index=False)
    meta = {
        "name": catalogue.name,
        "simulated": catalogue.simulated,
        "image_size": cfg.image_size,
        "fingerprint": _fingerprint(catalogue, cfg, seed),
        "notes": catalogue.notes,
    }
    (partial / "meta.json").write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")


def _fingerprint(catalogue, cfg, seed):
    """16 hex digits that change when photos, categories, interactions or the split change."""
    digest = hashlib.sha256(json.dumps([int(seed), cfg.k_core, cfg.cold_share, catalogue.photos.shape]).encode())
    for start in range(0, len(catalogue.photos), 1024):
        digest.update(np.ascontiguousarray(catalogue.photos[start : start + 1024]))
    digest.update("\n".join(catalogue.items["item_id"] + "\t" + catalogue.items["category"]).encode())
    digest.update(catalogue.interactions.to_csv(index=False).encode())
    return digest.hexdigest()[:16]


class _Rows:
    """Chosen rows of a memory map, read when indexed, so that dropping a bad photo does not copy the rest."""

    def __init__(self, array, rows):
        self._array, self._rows = array, rows
        self.shape = (len(rows), *array.shape[1:])

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        return self._array[self._rows[index]]
