"""Photos are decoded right whatever their mode, and refused with a reason when they cannot be."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from vars_core.data import photos


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(width=40, height=40):
    """Top left red, top right green, bottom left blue, bottom right white."""
    array = np.full((height, width, 3), 255, np.uint8)
    array[: height // 2, : width // 2] = (200, 0, 0)
    array[: height // 2, width // 2 :] = (0, 200, 0)
    array[height // 2 :, : width // 2] = (0, 0, 200)
    return Image.fromarray(array)


def corners(photo):
    s = photo.shape[0]
    a, b = s // 4, s - s // 4
    return [photo[y, x].astype(int) for y in (a, b) for x in (a, b)]


def close(value, wanted, tolerance=12):
    return np.abs(np.asarray(value, int) - wanted).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_formats_give_the_same_square(kind):
    photo = photos.decode(encoded(colours(), kind, quality=95), 16)
    assert photo.shape == (16, 16, 3) and photo.dtype == np.uint8
    wanted = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (255, 255, 255)]
    assert all(close(a, b, 25) for a, b in zip(corners(photo), wanted, strict=True))


def test_same_size_png_survives_bit_for_bit():
    array = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (photos.decode(encoded(Image.fromarray(array)), 32) == array).all()


def test_photos_are_warped_not_cropped_and_antialiased():
    stripes = np.zeros((64, 256, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the target's pixels: must become grey, not black or white
    photo = photos.decode(encoded(Image.fromarray(stripes)), 32)
    assert close(photo, 128, 40)


def test_cmyk_is_converted():
    photo = photos.decode(encoded(colours().convert("CMYK"), "JPEG", quality=95), 16)
    assert close(corners(photo)[0], (200, 0, 0), 30) and close(corners(photo)[3], (255, 255, 255))


def test_sixteen_bit_is_scaled_not_clipped():
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    photo = photos.decode(encoded(Image.fromarray(ramp)), 64)
    assert close(photo[:, :, 0], np.linspace(0, 255, 64), 2)


def test_palette_with_transparency_lies_on_white():
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 200, 30, 30] + [0] * 750)
    image.paste(1, (0, 0, 32, 16))
    photo = photos.decode(encoded(image, transparency=0), 32)
    assert close(photo[4, 16], (200, 30, 30)) and close(photo[28, 16], (255, 255, 255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode):
    image = Image.new(mode, (20, 20), (0,) * len(mode))
    assert close(photos.decode(encoded(image), 16), 255, 0)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_modes(mode):
    assert close(photos.decode(encoded(Image.new(mode, (20, 20), 1 if mode == "1" else 255)), 16), 255, 0)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "MPO"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert close(photos.decode(data, 16)[8, 8], (255, 0, 0), 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_undone(orientation, kind):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that a camera would have applied
    upright = colours(40, 60)
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind == "JPEG" else {}
    photo = photos.decode(encoded(stored, kind, exif=exif, **options), 16)
    wanted = photos.decode(encoded(upright), 16)
    assert np.abs(photo.astype(int) - wanted).mean() < 8


def test_reduced_decoding_of_large_jpegs_changes_little():
    rng = np.random.default_rng(0)
    array = np.asarray(Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).resize((800, 800)))
    data = encoded(Image.fromarray(array), "JPEG", quality=95)
    full = np.asarray(Image.open(io.BytesIO(data)).resize((32, 32), Image.Resampling.BICUBIC), int)
    assert np.abs(photos.decode(data, 32) - full).mean() < 3


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


BAD = {
    "empty": (b"", "empty file"),
    "text": (b"<html>404 not found</html>", "not a JPEG"),
    "truncated jpeg": (encoded(colours(200, 200), "JPEG")[:-600], "truncated"),
    "truncated png": (encoded(colours(200, 200))[:-60], "truncated"),
    "header only": (encoded(colours(), "JPEG")[:30], ""),
    "tiff": (encoded(colours(), "TIFF"), "not a JPEG"),
    "large": (bomb(8000), "decompression bomb"),
    "huge": (bomb(100_000), "decompression bomb"),
    "tiny": (encoded(Image.new("RGB", (3, 40))), "3 × 40"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_photos_are_refused_with_a_reason(name):
    data, reason = BAD[name]
    with pytest.raises(photos.PhotoError) as error:
        photos.decode(data, 16)
    assert reason in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_bytes_never_raise_anything_else(seed):
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(colours(120, 90), ["JPEG", "PNG", "WEBP"][seed % 3]))
    for place in rng.integers(0, len(data), 25):
        data[place] = rng.integers(256)
    with contextlib.suppress(photos.PhotoError):
        assert photos.decode(bytes(data), 16).shape == (16, 16, 3)


def test_missing_file(tmp_path):
    with pytest.raises(photos.PhotoError, match="no such file"):
        photos.decode(tmp_path / "none.jpg", 16)


def test_a_global_switch_does_not_let_truncated_photos_pass(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(photos.PhotoError):
        photos.decode(BAD["truncated jpeg"][0], 16)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
