"""Photos, decoded once and defensively: any file becomes a small RGB square or a stated reason why not."""

import io
import stat
import threading
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from vars_core.data import colour_profiles, truncation

VERSION = 2  # of what `decode` makes of a file: photos that were decoded by another one are decoded again
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # JPEG takes in MPO, which many phones write under the name .jpg
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 8
LARGE = 16_000_000  # pixels; of larger ones a process holds two at a time, however many threads decode
STRIP = 4_000_000  # pixels; transparency and 16-bit values are worked on in strips of so many

_large = threading.BoundedSemaphore(2)

# `decode` refuses such photos itself, with a reason; the warning would only repeat it on stderr.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # on EXIF and the like, beside the pixels


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
    on white, 16-bit values are scaled, an animation gives its first frame, colours are converted to sRGB where the
    file's profile says that they are others. Raises PhotoError with the reason; the file must be whole.
    """
    data = _read(source)
    try:
        try:
            return _decode(data, size)
        except ValueError as error:
            if not (data.startswith(b"\x89PNG") and "MAX_TEXT" in str(error)):
                raise
            return _decode(truncation.without_text(data), size)  # a long text beside the pixels is no fault of theirs
    except PhotoError:
        raise
    except Image.UnidentifiedImageError:
        raise PhotoError("not a JPEG, PNG or WebP image") from None
    except Image.DecompressionBombError:
        raise PhotoError(f"more than {MAX_PIXELS:,} pixels (a decompression bomb?)") from None
    except MemoryError:
        raise PhotoError("out of memory", transient=True) from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise PhotoError(f"damaged or truncated image ({_first_line(error)})") from error


def _decode(data, size):
    jpeg = truncation.open_ended(data) if data.startswith(b"\xff\xd8") else None
    with Image.open(io.BytesIO(jpeg.data if jpeg else data), formats=FORMATS) as image:
        _check_size(image)
        pixels = image.width * image.height
        if jpeg and image.mode in ("RGB", "CMYK") and min(image.size) >= 4 * size:
            image.draft(image.mode, (2 * size, 2 * size))  # decode at a reduced scale: several times faster
            pixels = pixels if jpeg.scans else image.width * image.height
        with _large if pixels > LARGE else nullcontext():
            image.seek(0)
            if jpeg and jpeg.scans:
                truncation.load_scans(image, jpeg.data)
            else:
                _load_whole(image)
            if image.format == "PNG":
                truncation.check_png(data, image)
                _scale_transparent(image, *data[24:26])
            elif image.format == "WEBP":
                truncation.check_webp(data)
            to_srgb = colour_profiles.to_srgb(image)
            upright = _upright(image)
            if to_srgb and image.mode == "CMYK":
                small = upright.resize((size, size), Image.Resampling.BICUBIC)
            else:
                small = to_rgb(upright).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(to_srgb(small) if to_srgb else small)


def to_rgb(image):
    """An RGB copy of a PIL image of any mode; transparency on white, 16-bit values scaled and not clipped."""
    rows = max(1, STRIP // image.width)
    if rows >= image.height:
        return _to_rgb(image)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        strip.info = image.info
        whole.paste(_to_rgb(strip), (0, top))
    return whole


def _to_rgb(image):
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # I;16, I;16B, or I holding 16-bit values
        values = np.asarray(image).astype(np.int64)
        grey = np.clip((values + 128) // 257, 0, 255).astype(np.uint8)
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or transparent is not None:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _scale_transparent(image, depth, colour):
    """The transparent grey or colour of a PNG as its pixels have it, which Pillow made 8 bits deep."""
    value = image.info.get("transparency")
    if colour == 0 and depth in (2, 4) and isinstance(value, int):
        image.info["transparency"] = value * 255 // (2**depth - 1)
    elif colour == 2 and depth == 16 and isinstance(value, tuple):
        image.info["transparency"] = tuple(part >> 8 for part in value)


def _read(source):
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    else:
        path = Path(source)
        try:
            about = path.stat()
            if stat.S_ISDIR(about.st_mode):
                raise PhotoError("a folder, not a file")
            if not stat.S_ISREG(about.st_mode):  # reading a pipe would wait for a writer
                raise PhotoError("not a regular file")
            if about.st_size > MAX_BYTES:
                raise PhotoError(f"file larger than {MAX_BYTES // 2**20} MiB")
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise PhotoError("no such file", transient=True) from None
        except OSError as error:
            raise PhotoError(f"cannot be read ({error.strerror or error})", transient=True) from error
        except MemoryError:
            raise PhotoError("out of memory", transient=True) from None
        except ValueError as error:
            if isinstance(error, PhotoError):
                raise
            raise PhotoError(f"cannot be read ({error})") from None  # a name with a zero byte
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


_TRANSPOSED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF orientation: what undoes it, an Image.Transpose


def _upright(image):
    try:
        orientation = image.getexif().get(0x0112)
        turn = _TRANSPOSED.get(orientation)
    except Exception:  # a broken EXIF block does not make the pixels unusable
        turn = None
    if turn is None:
        return image
    turned = image.transpose(Image.Transpose(turn))
    turned.info = image.info
    return turned


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
