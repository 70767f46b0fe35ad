"""Photos are decoded right whatever their mode, and refused with a reason when they cannot be."""

import errno
import io
import os
import random
import struct
import zlib
from pathlib import Path

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


def png(depth, colour, rows, extra=b""):
    """A PNG of `rows`, 16 pixels wide and packed as the format has them, with the chunks `extra`."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, len(rows), depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_lies_on_white_at_every_depth(depth):
    clear, most = {1: 0, 2: 1, 4: 7, 8: 100, 16: 25_612}[depth], 2**depth - 1
    pixels = 16 * depth // 8
    row = int("".join(16 * [f"{clear:0{depth}b}"]), 2).to_bytes(pixels, "big")
    photo = photos.decode(
        png(depth, 0, [row] * 8 + [bytes(pixels)] * 8, chunk(b"tRNS", struct.pack(">H", clear))), 16
    )
    assert photo[2, 2].tolist() == [255] * 3 and photo[13, 2].tolist() == [255 if clear == 0 else 0] * 3
    opaque = photos.decode(png(depth, 0, [row] * 16), 16)
    assert close(opaque, 255 * clear / most, 1)


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_of_a_png_lies_on_white(depth):
    kind, clear, other = (">3B", (200, 9, 8), (0, 90, 0)) if depth == 8 else (">3H", (51218, 7, 8), (0, 23040, 0))
    rows = [struct.pack(kind, *clear) * 16] * 8 + [struct.pack(kind, *other) * 16] * 8
    photo = photos.decode(png(depth, 2, rows, chunk(b"tRNS", struct.pack(">3H", *clear))), 16)
    assert photo[2, 2].tolist() == [255] * 3 and photo[13, 2].tolist() == [0, 90, 0]


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [4, 6])
def test_alpha_at_8_and_16_bits(colour, depth):
    one = (lambda v: bytes([v])) if depth == 8 else (lambda v: bytes([v, v]))
    bands = 1 if colour == 4 else 3
    rows = [(one(50) * bands + one(0)) * 16] * 8 + [(one(50) * bands + one(255)) * 16] * 8
    photo = photos.decode(png(depth, colour, rows), 16)
    assert photo[2, 2].tolist() == [255] * 3 and photo[13, 2].tolist() == [50] * 3


def test_strips_of_a_large_photo_are_the_whole_photo(monkeypatch):
    rng = np.random.default_rng(0)
    for array in (rng.integers(0, 256, (50, 40, 4), np.uint8), rng.integers(0, 2**16, (50, 40)).astype(np.uint16)):
        data = encoded(Image.fromarray(array))
        whole = photos.decode(data, 32)
        with monkeypatch.context() as patch:
            patch.setattr(photos, "STRIP", 300)
            assert (photos.decode(data, 32) == whole).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_forty_megapixels_are_a_photo(kind):
    left, right = (200, 60, 20), (20, 60, 200)
    large = Image.new("RGB", (8000, 5000), left)
    large.paste(right, (4000, 0, 8000, 5000))
    photo = photos.decode(encoded(large, kind), 16).astype(int)
    assert np.abs(photo[:, :7] - left).max() <= 3 and np.abs(photo[:, 9:] - right).max() <= 3


LONG = zlib.compress(bytes(50_000_000))
BESIDE = {
    "compressed text of 50 MB": chunk(b"zTXt", b"k\0\0" + LONG),
    "international text of 50 MB": chunk(b"iTXt", b"k\0\1\0\0\0" + LONG),
    "plain text of 5 MB": chunk(b"tEXt", b"k\0" + b"a" * 5_000_000),
    "many texts": b"".join(chunk(b"zTXt", b"k%d\0\0" % n + zlib.compress(bytes(900_000))) for n in range(100)),
    "an unknown chunk": chunk(b"prVt", bytes(1_000_000)),
    "broken EXIF": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "broken text": chunk(b"iTXt", b"k\0\0\0\0\0\xff\xfe"),
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("place", [33, -12], ids=["in front", "behind"])
def test_what_lies_beside_the_pixels_of_a_png_does_not_spoil_it(name, place):
    data = encoded(colours())
    assert (photos.decode(data[:place] + BESIDE[name] + data[place:], 16) == photos.decode(data, 16)).all()


def test_what_lies_beside_the_pixels_of_a_jpeg_does_not_spoil_it():
    data = encoded(colours(), "JPEG")
    comment = b"\xff\xfe\xff\xff" + bytes(65533)
    broken = b"\xff\xe1\x00\x10Exif\0\0" + b"\xff" * 8
    for beside in (comment * 100, broken, b"\xff\xe2\x00\x20ICC_PROFILE\0\1\1" + b"\xff" * 16):
        assert (photos.decode(data[:2] + beside + data[2:], 16) == photos.decode(data, 16)).all()


def test_exif_that_cannot_be_written_again_still_turns_the_photo():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif += struct.pack(">HHII", 0x8769, 4, 1, 2**32 - 9) + bytes(4)  # the place of more EXIF is outside the file
    photo = photos.decode(encoded(colours(), exif=exif), 16)
    assert close(corners(photo)[0], (0, 0, 200)) and close(corners(photo)[1], (200, 0, 0))


BAD = {
    "empty": (b"", "empty file"),
    "text": (b"<html>404 not found</html>", "not a JPEG"),
    "truncated jpeg": (encoded(colours(200, 200), "JPEG")[:-600], "truncated"),
    "truncated png": (encoded(colours(200, 200))[:-60], "truncated"),
    "header only": (encoded(colours(), "JPEG")[:30], ""),
    "one row": (encoded(Image.new("RGB", (65500, 1))), "65500 × 1"),
    "one pixel": (encoded(Image.new("RGB", (1, 1))), "1 × 1"),
    "Lab": (encoded(Image.new("LAB", (40, 40)), "TIFF"), "not a JPEG"),
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


def valid_files():
    turned = Image.Exif()
    turned[0x0112] = 6
    image, frames = colours(60, 40), [colours(60, 40), colours(60, 40).transpose(0)]
    more = {"save_all": True, "append_images": frames[1:]}
    return [
        encoded(image, "JPEG", exif=turned), encoded(image, "JPEG", progressive=True, restart_marker_rows=1),
        encoded(image.convert("CMYK"), "JPEG"), encoded(image, "MPO", **more), encoded(image, exif=turned),
        encoded(image.convert("RGBA").quantize(9), transparency=3), encoded(image, "PNG", **more),
        encoded(image, "WEBP"), encoded(image, "WEBP", lossless=True), encoded(image, "WEBP", **more),
        encoded(image, "GIF", **more),
    ]  # fmt: skip


def damaged(data, rng):
    """`data` with one to thirty bytes set, holes, repetitions or wild lengths."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3, 8, 30])):
        place = rng.randrange(min(len(data), rng.choice([40, 700, len(data)])))
        what = rng.randrange(4)
        if what == 0:
            data[place : place + 4] = rng.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
        elif what == 1 and len(data) > 300:
            del data[place : place + rng.randrange(200)]
        elif what == 2:
            data[place:place] = data[rng.randrange(len(data)) :][: rng.randrange(300)]
        else:
            data[place] = rng.randrange(256)
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", range(11))
def test_damaged_bytes_give_a_photo_or_a_photo_error(file):
    rng, data = random.Random(file), valid_files()[file]
    for _ in range(100):
        try:
            photo = photos.decode(damaged(data, rng), 16)
        except photos.PhotoError as error:
            assert not error.transient and "\n" not in str(error) and len(str(error)) < 200
        else:
            assert photo.shape == (16, 16, 3) and photo.dtype == np.uint8


def test_a_file_that_cannot_be_read_now_may_be_later(tmp_path, monkeypatch):
    with pytest.raises(photos.PhotoError, match="no such file") as caught:
        photos.decode(tmp_path / "none.jpg", 16)
    assert caught.value.transient
    file = tmp_path / "a.png"
    file.write_bytes(encoded(colours()))
    for number in (errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOMEM):

        def fails(*_, number=number, **__):
            raise OSError(number, os.strerror(number))

        for method in ("open", "stat"):
            with monkeypatch.context() as patch:
                patch.setattr(Path, method, fails)
                with pytest.raises(photos.PhotoError, match=f"cannot be read .{os.strerror(number)}") as caught:
                    photos.decode(file, 16)
            assert caught.value.transient
    assert photos.decode(file, 16).shape == (16, 16, 3)


def test_what_is_no_file_will_not_become_one(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would wait for ever
    for name, reason in {"folder.jpg": "a folder", "pipe.jpg": "not a regular file", "a\0.jpg": "null byte"}.items():
        with pytest.raises(photos.PhotoError, match=reason) as caught:
            photos.decode(tmp_path / name, 16)
        assert not caught.value.transient


def test_content_that_is_bad_is_bad_for_good_and_a_full_memory_is_not(monkeypatch):
    for data, _ in BAD.values():
        with pytest.raises(photos.PhotoError) as caught:
            photos.decode(data, 16)
        assert not caught.value.transient

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(photos.PhotoError, match="out of memory") as caught:
        photos.decode(encoded(colours()), 16)
    assert caught.value.transient


def test_a_global_switch_does_not_let_truncated_photos_pass(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(photos.PhotoError):
        photos.decode(BAD["truncated jpeg"][0], 16)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
