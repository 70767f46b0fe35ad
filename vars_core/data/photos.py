"""Photos, decoded once and defensively: any file becomes a small RGB square or a stated reason why not."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # JPEG takes in MPO, which many phones write under the name .jpg
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 8

# `decode` refuses such photos itself, with a reason; the warning would only repeat it on stderr.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PhotoError(ValueError):
    """A photo that cannot be used; the message is the reason, in words for the catalogue's owner.

    `transient`: the file could not be read now (permission, a disk or network that fails, too many open files), which
    says nothing about the photo; another time it may be."""

    def __init__(self, reason: str, *, transient: bool = False):
        super().__init__(reason)
        self.transient = transient


def decode(source, size):
    """Decode `source` (a path or the file's bytes) to uint8 RGB (size, size, 3).

    The photo is turned upright (EXIF), warped to a square with an antialiasing filter, transparency is laid
    on white, 16-bit values are scaled, an animation gives its first frame. Raises PhotoError with the reason.
    """
    data = _read(source)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image)
            if image.format == "JPEG" and image.mode == "RGB" and min(image.size) >= 4 * size:
                image.draft("RGB", (2 * size, 2 * size))  # decode at a reduced scale: several times faster
            image.seek(0)
            _load_whole(image)
            upright = to_rgb(_upright(image))
    except PhotoError:
        raise
    except Image.UnidentifiedImageError:
        raise PhotoError("not a JPEG, PNG or WebP image") from None
    except Image.DecompressionBombError:
        raise PhotoError(f"more than {MAX_PIXELS:,} pixels (a decompression bomb?)") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise PhotoError(f"damaged or truncated image ({_first_line(error)})") from error
    return np.asarray(upright.resize((size, size), Image.Resampling.BICUBIC))


def to_rgb(image):
    """An RGB copy of a PIL image of any mode; transparency on white, 16-bit values scaled and not clipped."""
    if image.mode.startswith("I"):  # I;16, I;16B, or I holding 16-bit values
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(np.clip((values + 128) // 257, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _read(source):
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    else:
        path = Path(source)
        if not path.is_file():
            raise PhotoError("no such file")
        if path.stat().st_size > MAX_BYTES:
            raise PhotoError(f"file larger than {MAX_BYTES // 2**20} MiB")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PhotoError(f"cannot be read ({error.strerror})", transient=True) from error
    if not data:
        raise PhotoError("empty file")
    if len(data) > MAX_BYTES:
        raise PhotoError(f"file larger than {MAX_BYTES // 2**20} MiB")
    return data


def _check_size(image):
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PhotoError(f"{width} × {height} pixels, more than {MAX_PIXELS:,} (a decompression bomb?)")
    if min(width, height) < MIN_SIDE:
        raise PhotoError(f"{width} × {height} pixels; at least {MIN_SIDE} × {MIN_SIDE} expected")


def _upright(image):
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block does not make the pixels unusable
        return image


def _load_whole(image):
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    if before:  # another library may have switched this on; a half-grey photo must not pass
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image.load()
    finally:
        if before:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:100]
