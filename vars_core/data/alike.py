"""Photos that are white, the same, or nearly the same: shops have them, and attacks and metrics mean less on them."""

import hashlib

import numpy as np
from scipy.spatial import cKDTree

from vars_core.runtime import progress

WHITE = 250  # grey level from which a pixel is white
NEAR = 2.0  # grey levels, root mean square over a 16 × 16 miniature: a second save as JPEG is below
SIDE = 16
COMPONENTS = 12  # of the miniatures, in which neighbours are looked for
BLOCK = 512  # photos at a time: bounds memory


def count(photos: np.ndarray) -> dict[str, int]:
    """How many of `photos` (uint8 (N, S, S, 3), S ≥ 16) are white, equal to another, or nearly so, by what they are.

    Of photos that are equal the first is looked at for near ones, which are sought among the nearest few in the
    principal components of miniatures, so in time that grows with N log N."""
    white, seen, small = 0, {}, []
    for start in progress(range(0, len(photos), BLOCK), "comparing photos"):
        block = np.asarray(photos[start : start + BLOCK])
        white += int((block >= WHITE).all((1, 2, 3)).sum())
        for row, photo in enumerate(block, start):
            seen.setdefault(hashlib.blake2b(photo.tobytes(), digest_size=16).digest(), []).append(row)
        small.append(_miniatures(block))
    first = np.array([rows[0] for rows in seen.values()])
    return {
        "are all white": white,
        "are the same as another": sum(len(rows) for rows in seen.values() if len(rows) > 1),
        "are nearly the same as another": _near(np.concatenate(small)[first]),
    }


def _miniatures(block):
    """(n, SIDE · SIDE · 3) means of the pixels of SIDE × SIDE tiles."""
    side = block.shape[1]
    edges = np.arange(SIDE) * side // SIDE
    sums = np.add.reduceat(np.add.reduceat(block.astype(np.float32), edges, axis=1), edges, axis=2)
    sizes = np.diff(np.append(edges, side)).astype(np.float32)
    return (sums / (sizes[:, None] * sizes)[None, :, :, None]).reshape(len(block), -1)


def _near(small):
    """How many rows have another within NEAR."""
    if len(small) < 2:
        return 0
    centred = small - small.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    low = centred @ axes[:, -COMPONENTS:]
    reach = NEAR * np.sqrt(small.shape[1])
    near = np.zeros(len(small), bool)
    _, others = cKDTree(low).query(low, k=min(5, len(small)), distance_upper_bound=reach)
    for column in others.T:
        rows = np.flatnonzero((column < len(small)) & (column != np.arange(len(small))))
        gap = np.linalg.norm(small[rows] - small[column[rows]], axis=1)
        near[rows[gap < reach]] = True
    return int(near.sum())
