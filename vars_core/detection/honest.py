"""Photos as honest sellers upload them: as they are, edited, and noisy. Thresholds are set on all three.

A threshold that is set on photos as they are alone promises nothing to a seller with a noisy camera: whatever opens
the filter's gate a little looks like a faint attack, and scores of attacks lie far above."""

from collections.abc import Iterator

import numpy as np

from vars_core.attacks.engine import noise
from vars_core.extractor import batches, to_photos
from vars_core.reconstruction.online_attacks import BENIGN
from vars_core.runtime import generator

NOISE = 4  # grey levels; more can be seen


def honest_versions(photos: np.ndarray) -> Iterator[np.ndarray]:
    """uint8 `photos` (N, H, W, 3) three times: as they are; each with one of the edits `BENIGN`, in turn; and with
    uniform noise of ±`NOISE`. The same photos give the same versions."""
    yield photos
    edited = np.empty_like(photos)
    for place, edit in enumerate(BENIGN.values()):
        rows = slice(place, None, len(BENIGN))
        edited[rows] = _each(edit, photos[rows])
    yield edited
    draw = generator(0, "honest noise")
    yield _each(lambda images: noise(images, NOISE, generator=draw), photos)


def _each(change, photos: np.ndarray) -> np.ndarray:
    changed = [to_photos(change(images)) for images in batches(photos)]
    return np.concatenate(changed) if changed else photos
