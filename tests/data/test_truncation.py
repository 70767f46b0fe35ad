"""A photo that was cut off is set aside, whatever was put behind; one that only lacks its end marker is whole."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vars_core.data import photos, truncation

RNG = np.random.default_rng(0)
SMOOTH = Image.fromarray(RNG.integers(0, 256, (12, 16, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
NOISY = Image.fromarray((np.asarray(SMOOTH) * 0.9 + RNG.integers(0, 24, (120, 160, 3))).astype(np.uint8))
END = b"\xff\xd9"


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data, size=32):
    with pytest.raises(photos.PhotoError, match="truncated") as caught:
        photos.decode(data, size)
    return not caught.value.transient


JPEGS = {
    "baseline": (NOISY, {}),
    "optimised": (NOISY, {"optimize": True}),
    "not subsampled": (NOISY, {"subsampling": 0, "quality": 95}),
    "restarts": (NOISY, {"restart_marker_rows": 1}),
    "grey": (NOISY.convert("L"), {}),
    "CMYK": (NOISY.convert("CMYK"), {}),
    "progressive": (NOISY, {"progressive": True}),
    "progressive restarts": (NOISY, {"progressive": True, "restart_marker_rows": 1}),
    "progressive grey": (NOISY.convert("L"), {"progressive": True}),
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("behind", [END, b"", bytes(1000)], ids=["end marker", "nothing", "zeros"])
def test_a_jpeg_that_was_cut_off_is_refused(kind, behind):
    image, options = JPEGS[kind]
    data = encoded(image, "JPEG", **options)
    scan = data.index(b"\xff\xda") + 14
    cuts = [scan + round(share * (len(data) - 20 - scan)) for share in (0.01, 0.3, 0.5, 0.7, 0.9, 0.99, 1)]
    assert all(refused(data[:cut] + behind) for cut in cuts)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_without_its_end_marker_or_with_more_behind_it_is_the_same_photo(kind):
    image, options = JPEGS[kind]
    data = encoded(image, "JPEG", **options)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for same in (data, data[:-2], data[:-1], data + b"more", data + bytes(5000), data + data):
        whole = photos.decode(same, 120)
        assert (whole == np.asarray(Image.fromarray(wanted).resize((120, 120), Image.Resampling.BICUBIC))).all()


def test_a_jpeg_in_three_scans_that_do_not_refine_one_another():
    three = _in_three_scans()
    assert truncation.open_ended(three).scans
    assert photos.decode(three, 120).std() > 5
    assert refused(three[: -len(three) // 9] + END)


def _in_three_scans():
    """The pixels of three grey JPEGs as the scans of one: each is coded alike."""
    parts = [encoded(band, "JPEG", quality=75) for band in NOISY.split()]
    head = parts[0][: parts[0].index(b"\xff\xc0")]
    tables = parts[0][parts[0].index(b"\xff\xc4") : parts[0].index(b"\xff\xda")]
    frame = struct.pack(">BHHB", 8, 120, 160, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    scans = b""
    for number, part in enumerate(parts, 1):
        header = bytes([1, number, 0, 0, 63, 0])
        scans += b"\xff\xda" + struct.pack(">H", 2 + len(header)) + header + part[part.index(b"\xff\xda") + 10 : -2]
    return head + b"\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + tables + scans + END


def test_a_progressive_jpeg_that_ends_between_two_scans_lacks_the_finer_ones():
    data, at = encoded(NOISY, "JPEG", progressive=True), 0
    starts = []
    while (at := data.find(b"\xff\xda", at + 1)) > 0:
        starts.append(at)
    assert len(starts) == 10
    for start in starts[1:]:
        with pytest.raises(photos.PhotoError, match=r"lacks the scans that refine|truncated"):
            photos.decode(data[:start] + END, 32)


def test_a_jpeg_of_endless_segments_ends():
    with pytest.raises(photos.PhotoError, match="more than 20,000 segments"):
        photos.decode(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1_000_000, 32)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(image, pixels=lambda data: data, interlaced=0):
    """A PNG of `image` with its compressed pixels changed by `pixels`."""
    depth, colour = {"RGB": (8, 2), "RGBA": (8, 6), "L": (8, 0), "1": (1, 0)}[image.mode]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *image.size, depth, colour, 0, 0, interlaced))
    rows, array = b"", np.asarray(image)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for x, y, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        for row in array[y::down, x::across]:
            rows += b"\0" + (np.packbits(row) if image.mode == "1" else row).tobytes()
    return b"\x89PNG\r\n\x1a\n" + header + pixels(rows) + chunk(b"IEND", b"")


def idat(rows):
    return chunk(b"IDAT", zlib.compress(rows))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1"])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_is_whole_with_all_rows_and_refused_with_fewer(mode, interlaced):
    image = NOISY.convert(mode)
    wanted = photos.decode(encoded(image, "PNG"), 120)
    assert (photos.decode(png(image, idat, interlaced), 120) == wanted).all()
    for share in (0.1, 0.5, 0.95):
        assert refused(png(image, lambda rows, s=share: idat(rows[: int(s * len(rows))]), interlaced))
        short = png(image, lambda rows, s=share: chunk(b"IDAT", zlib.compress(rows)[: int(s * 99)]), interlaced)
        assert refused(short)


def test_a_png_with_a_black_last_row_is_whole():
    black = Image.new("RGB", (40, 40))
    assert not photos.decode(png(black, idat), 16).any()
    assert photos.decode(png(Image.new("RGBA", (40, 40)), idat), 16).all()  # transparent: white


def test_a_png_that_lacks_its_end_is_whole_and_one_filled_with_zeros_is_not():
    data = encoded(NOISY, "PNG")
    wanted = photos.decode(data, 32)
    for missing in (1, 4, 12, 14, 16):
        assert (photos.decode(data[:-missing], 32) == wanted).all()
    for share in (0.3, 0.9):
        place = int(share * len(data))
        with pytest.raises(photos.PhotoError, match=r"checksum|truncated"):
            photos.decode(data[:place] + bytes(len(data) - place), 32)


def cut_webp(data, share):
    """The first `share` of a WebP, with every length put right."""
    end = int(share * len(data)) & ~1
    cut, at = bytearray(data[:end]), 12
    while at + 8 <= end:
        (length,) = struct.unpack_from("<I", cut, at + 4)
        if at + 8 + length > end:
            struct.pack_into("<I", cut, at + 4, end - at - 8)
        at += 8 + length + length % 2
    struct.pack_into("<I", cut, 4, end - 8)
    return bytes(cut)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"quality": 100}, {"icc_profile": bytes(200)}], ids=str)
def test_a_webp_that_was_cut_off_is_refused(options):
    data = encoded(NOISY, "WEBP", **options)
    assert photos.decode(data, 32).std() > 5
    for share in (0.2, 0.5, 0.8):
        assert refused(cut_webp(data, share))
        assert refused(data[: int(share * len(data))])
        place = int(share * len(data)) - truncation.FILLED
        assert refused(data[:place] + bytes(len(data) - place))


def test_a_gif_that_was_cut_off_is_refused_and_one_without_its_last_byte_is_whole():
    data = encoded(NOISY.quantize(64), "GIF")
    assert (photos.decode(data[:-1], 32) == photos.decode(data, 32)).all()
    for share in (0.3, 0.6, 0.9):
        for behind in (b"", b"\0;", b";", bytes(2000)):
            assert refused(data[: int(share * len(data))] + behind)
