"""The seller who asks often: near-duplicate uploads of one seller, noticed by perceptual hashes.

An attacker without the model needs hundreds of uploads of nearly the same photo. A shop that remembers a hash of 64
bits of each upload can count them, whatever its networks say (stateful detection: Chen et al. 2019; Blacklight, Li et
al. 2022).
"""

from collections import defaultdict, deque

import imagehash
import numpy as np
from PIL import Image

BITS = 64
NEAR = 8  # bits that two uploads of nearly the same photo may differ by


def hashes(photos: np.ndarray) -> np.ndarray:
    """Perceptual hashes (N, 64) bool of uint8 photos (N, H, W, 3): the signs of low frequencies (pHash)."""
    return np.array([imagehash.phash(Image.fromarray(photo)).hash.ravel() for photo in photos]).reshape(-1, BITS)


class UploadMemory:
    """Remembers each seller's last `window` uploads, and says when too many are nearly the same.

    An upload is flagged when at least `limit` of the seller's remembered ones are within `distance` of its 64 bits.
    Raises ValueError for a distance outside 0 to 63 and for less than one upload."""

    def __init__(self, distance: int, limit: int, window: int = 1000):
        if not 0 <= distance < BITS or limit < 1 or window < limit:
            given = f"got distance {distance}, limit {limit}, window {window}"
            raise ValueError(f"a distance of 0 to {BITS - 1} bits and 1 ≤ limit ≤ window are expected; {given}")
        self.distance, self.limit = distance, limit
        self._seen: dict = defaultdict(lambda: deque(maxlen=window))

    def flags(self, seller, photos: np.ndarray) -> np.ndarray:
        """Whether each of `photos` (N, H, W, 3), uploaded by `seller` one after the other, is flagged: (N,)."""
        return np.array([self._add(seller, bits) for bits in hashes(photos)], bool)

    def _add(self, seller, bits) -> bool:
        seen = self._seen[seller]
        near = (np.array(seen).reshape(-1, BITS) != bits).sum(1) <= self.distance
        seen.append(bits)
        return int(near.sum()) >= self.limit


def honest_flags(photos: np.ndarray, sellers: np.ndarray, distance: int, limit: int) -> np.ndarray:
    """Which honest `photos` (N, H, W, 3), each uploaded once by its seller in `sellers` (N,), are flagged: (N,)."""
    memory = UploadMemory(distance, limit, max(limit, len(photos)))
    bits = hashes(photos)
    return np.array([memory._add(seller, own) for seller, own in zip(sellers, bits, strict=True)], bool)
