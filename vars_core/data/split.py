"""The split of the protocol: held-out items per user, cold items, and who may see what in the defence."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from vars_core import runtime
from vars_core.errors import InputError

DEFENCE_SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}  # of the warm items


@dataclass(frozen=True)
class Split:
    """Who bought what, cut into parts that never meet. U users, I items; items are catalogue codes.

    `train` csr bool (U, I); `validation`, `test` (U,) the held-out item or -1; `cold` sorted items without
    any training interaction; `cold_positives` csr bool (U, I) the removed interactions; `defence`
    items to fit, calibrate and test filter and detector with (cold items are all in test).
    """

    train: sp.csr_matrix
    validation: np.ndarray
    test: np.ndarray
    cold: np.ndarray
    cold_positives: sp.csr_matrix
    defence: dict


class SplitError(InputError, ValueError):
    """The feedback cannot be split as asked, or the file of a split is damaged; the message says what to change."""


def k_core(users, items, k):
    """Mask (n,) of the interactions in the k-core: every user and item left has at least `k` of them.

    Rows must be distinct (user, item) pairs. Peels until nothing changes.
    """
    keep = np.ones(len(users), bool)
    while True:
        degree_u = np.bincount(users[keep], minlength=users.max(initial=-1) + 1)
        degree_i = np.bincount(items[keep], minlength=items.max(initial=-1) + 1)
        smaller = keep & (degree_u[users] >= k) & (degree_i[items] >= k)
        if smaller.sum() == keep.sum():
            return keep
        keep = smaller


def make(catalogue, cfg, seed):
    """Split `catalogue` as `cfg` (cold_share) says. Same seed, same split.

    Per user the last interaction with a warm item is the test item and the one before it the validation item:
    by time where timestamps exist (ties broken at random), else in a seeded random order. Users with fewer
    than three warm interactions only train. Feedback with a column `part` brings its own split, which is kept: cold
    items are then drawn among those that nobody holds out, as far as there are enough.
    """
    frame = catalogue.interactions
    users, items = frame["user"].to_numpy(), frame["item"].to_numpy()
    shape = (len(catalogue.user_ids), len(catalogue.items))
    rng = runtime.rng(seed, "split")
    given = frame["part"].to_numpy(str) if "part" in frame else None
    cold = _cold(shape[1], cfg.cold_share, rng, spared=items[given != "train"] if given is not None else ())
    is_cold = np.zeros(shape[1], bool)
    is_cold[cold] = True

    lot = rng.random(len(frame))
    when = frame["timestamp"].to_numpy() if "timestamp" in frame else np.zeros(len(frame))
    warm = ~is_cold[items]
    order = np.lexsort((lot, when, users))
    order = order[warm[order]]
    if given is None:
        from_end = _position_from_end(users[order], shape[0])
        enough = np.bincount(users[order], minlength=shape[0])[users[order]] >= 3
        held = {"test": (from_end == 0) & enough, "validation": (from_end == 1) & enough}
    else:
        held = {name: given[order] == name for name in ("test", "validation")}
    out = {}
    for name, mask in held.items():
        out[name] = np.full(shape[0], -1, np.int64)
        out[name][users[order][mask]] = items[order][mask]
    rest = order[~(held["test"] | held["validation"])]
    if len(rest) == 0:
        raise SplitError("no training interaction is left; use fewer cold items or a larger catalogue")
    return Split(
        train=_matrix(users[rest], items[rest], shape),
        validation=out["validation"],
        test=out["test"],
        cold=cold,
        cold_positives=_matrix(users[~warm], items[~warm], shape),
        defence=_defence(np.flatnonzero(~is_cold), cold, rng),
    )


def check_study(split, labels, values):
    """Raise SplitError, saying what to change, when the study cannot run to its end on what was prepared.

    `labels` (I,) category codes of the items; `values` all parameters, as a dict of sections. The limits are those of
    the later notebooks: lists, users whom the attacker knows, categories that an extractor is trained on."""
    n_users, n_items = split.train.shape
    k, recommender = values["recommender"]["k"], values["recommender"]
    if k > n_items:
        raise SplitError(
            f"a list of recommender.k={k} items from {n_items} items; lower recommender.k or data.k_core"
        )
    attacker_users(n_users, values["attacks"]["attacker_users"], seed=0)
    trained = np.unique(labels[np.unique(split.train.indices)])
    if not recommender["pretrained"] and len(trained) < 2:
        raise SplitError(
            f"the items with training interactions are all of one category, and recommender.extractor="
            f"{recommender['extractor']} is trained to tell categories apart; give weights with "
            f"recommender.pretrained, or categories in items.csv"
        )
    if not (split.test >= 0).any():
        raise SplitError("nothing is held out to test with: no user has three interactions with warm items")


def save(split, path):
    """Write `split` as an .npz of plain arrays (no pickles)."""
    arrays = {"shape": np.array(split.train.shape)}
    for name in ("train", "cold_positives"):
        matrix = getattr(split, name)
        arrays[f"{name}_indices"], arrays[f"{name}_indptr"] = matrix.indices, matrix.indptr
    arrays |= {name: getattr(split, name) for name in ("validation", "test", "cold")}
    arrays |= {f"defence_{name}": rows for name, rows in split.defence.items()}
    np.savez_compressed(Path(path), **arrays)


def load(path):
    """Read a split written by `save`. Raises FileNotFoundError, and SplitError for a file that is damaged."""
    try:
        with np.load(Path(path), allow_pickle=False) as arrays:
            shape = tuple(arrays["shape"].tolist())
            matrices = {}
            for name in ("train", "cold_positives"):
                indices, indptr = arrays[f"{name}_indices"], arrays[f"{name}_indptr"]
                matrices[name] = sp.csr_matrix((np.ones(len(indices), bool), indices, indptr), shape=shape)
                matrices[name].check_format()
            vectors = {name: arrays[name] for name in ("validation", "test", "cold")}
            defence = {name: arrays[f"defence_{name}"] for name in DEFENCE_SHARES}
    except FileNotFoundError:
        raise
    except Exception as error:  # of zip, of numpy and of scipy
        raise SplitError(f"{path} is not a whole split ({error!s:.150}); run 01_data again") from None
    return Split(**matrices, **vectors, defence=defence)


def attacked_items(split, n, seed):
    """At most `n` cold items, drawn with `seed`, sorted; all of them where there are fewer than `n`."""
    rng = runtime.rng(seed, "attacked items")
    return np.sort(rng.permutation(split.cold)[:n])


def attacker_users(n_users, share, seed):
    """Disjoint, sorted (known, reporting): users an attacker optimises on, users that results are reported for."""
    n_known = round(share * n_users)
    if not 0 < n_known < n_users:
        raise SplitError(f"attacker_users={share} of {n_users} users leaves one side empty; use a share like 0.5")
    order = runtime.rng(seed, "attacker users").permutation(n_users)
    return np.sort(order[:n_known]), np.sort(order[n_known:])


def _cold(n_items, share, rng, spared=()):
    """Sorted items; those in `spared` only where the others do not suffice."""
    n = max(2, round(share * n_items)) if share > 0 else 0  # one alone has no other to be compared with
    if n >= n_items:
        raise SplitError(f"cold_share={share} leaves no warm item among {n_items}")
    if len(spared) == 0:
        return np.sort(rng.choice(n_items, n, replace=False))
    order = rng.permutation(n_items)
    return np.sort(order[np.argsort(np.isin(order, spared), kind="stable")][:n])


def _position_from_end(sorted_users, n_users):
    ends = np.cumsum(np.bincount(sorted_users, minlength=n_users))
    return ends[sorted_users] - 1 - np.arange(len(sorted_users))


def _defence(warm, cold, rng):
    order = rng.permutation(warm)
    cuts = np.round(np.cumsum(list(DEFENCE_SHARES.values()))[:-1] * len(order)).astype(int)
    parts = dict(zip(DEFENCE_SHARES, np.split(order, cuts), strict=True))
    parts["test"] = np.concatenate([parts["test"], cold])
    return {name: np.sort(rows) for name, rows in parts.items()}


def _matrix(users, items, shape):
    matrix = sp.csr_matrix((np.ones(len(users), bool), (users, items)), shape=shape)
    matrix.sort_indices()
    return matrix
