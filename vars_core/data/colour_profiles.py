"""Photos in other colours than sRGB (Display P3, Adobe RGB, CMYK for print), converted by their profile."""

import io
import threading
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_BYTES = 4 * 2**20  # of a profile; those for print have 3 MB
SAME = 3  # grey levels; a profile that moves no colour further is one of the many that call themselves sRGB
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of the profile: mode of the pixels

_building = threading.Lock()


def to_srgb(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """What converts the colours of the opened `image` to RGB in sRGB, given its pixels as RGB (as CMYK if it is one);
    None where they are sRGB, there is no profile, or it is damaged or of another space than the pixels."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= MAX_BYTES:
        return None
    space = "CMYK" if image.mode == "CMYK" else "GRAY" if image.mode[0] in "1LI" else "RGB"
    with _building:  # two threads would build it twice
        transform = _transform(profile, space)
    if transform is None:
        return None
    if space == "GRAY":
        return lambda rgb: transform.apply(rgb.getchannel(0))
    return transform.apply


@lru_cache(32)
def _transform(profile: bytes, space: str):
    if profile[16:20].strip() != space.encode():
        return None
    mode = _SPACES[space]
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except Exception:  # a broken profile does not make the pixels unusable
        return None
    if space == "CMYK":
        return transform
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(64, 64, 3) if space == "RGB" else levels[None]
    moved = np.asarray(transform.apply(Image.fromarray(colours)), int) - colours.reshape(*colours.shape[:2], -1)
    return transform if np.abs(moved).max() > SAME else None
