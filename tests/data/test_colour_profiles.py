"""Photos in the colours of a profile become sRGB; sRGB ones stay as they are, broken profiles are ignored."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from vars_core.data import colour_profiles, photos

# Columns: red, green and blue in XYZ under D50 (the profiles' own), and the curve's exponent.
SPACES = {
    "Display P3": ([(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)], None),
    "Adobe RGB": ([(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)], 563 / 256),
    "ProPhoto": ([(0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)], 1.8),
    "sRGB": ([(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)], None),
}
WHITE = (0.9642, 1.0, 0.82491)


def fixed(*values):
    return struct.pack(f">{len(values)}i", *(round(65536 * v) for v in values))


def curve(exponent):
    if exponent:
        return b"curv" + struct.pack(">IIHH", 0, 1, round(256 * exponent), 0)
    return b"para" + struct.pack(">IHH", 0, 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile(space, tags, version=4, connection=b"XYZ ", kind=b"mntr"):
    """An ICC profile of `tags`; what its readers need of the header."""
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(*WHITE), **tags}
    place, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12x4s", place + len(body), b"lcms", version << 24, kind, space, connection, b"acsp"
    )
    return head.ljust(68, b"\0") + fixed(*WHITE) + bytes(48) + table + body


def rgb_profile(name):
    columns, exponent = SPACES[name]
    tags = {b"%cXYZ" % c: b"XYZ \0\0\0\0" + fixed(*xyz) for c, xyz in zip(b"rgb", columns, strict=True)}
    return profile(b"RGB ", tags | {b"%cTRC" % c: curve(exponent) for c in b"rgb"})


def grey_profile(exponent):
    return profile(b"GRAY", {b"kTRC": curve(exponent)})


def cmyk_profile(ink=50):
    """Lightness 100 without ink and `ink` less for each, no colour at all: a look-up table of two points a side."""
    table = b"".join(
        bytes([max(0, 255 - round(2.55 * ink * (c + m + y + k))), 128, 128])
        for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)
    )  # fmt: skip
    ramp = bytes(range(256))
    lut = b"mft1" + struct.pack(">IBBBx", 0, 4, 3, 2) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * ramp + table + 3 * ramp
    return profile(b"CMYK", {b"A2B0": lut, b"A2B1": lut}, version=2, connection=b"Lab ", kind=b"prtr")


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_hand(colour, name):
    """The colour in sRGB: curve, matrix to XYZ, matrix back, sRGB's curve, cut off at 0 and 255."""
    columns, exponent = SPACES[name]
    value = np.asarray(colour) / 255
    linear = (
        value**exponent if exponent else np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    )
    srgb = np.linalg.solve(np.transpose(SPACES["sRGB"][0]), np.transpose(columns) @ linear).clip(0, 1)
    return 255 * np.where(srgb > 0.0031308, 1.055 * srgb ** (1 / 2.4) - 0.055, 12.92 * srgb)


COLOURS = [(200, 40, 40), (40, 180, 60), (30, 60, 220), (128, 128, 128), (250, 250, 250), (90, 140, 110)]


@pytest.mark.parametrize("name", ["Display P3", "Adobe RGB", "ProPhoto"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_colours_of_a_wide_gamut_are_those_worked_out_by_hand(name, kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    for colour in COLOURS:
        data = encoded(Image.new("RGB", (24, 24), colour), kind, icc_profile=rgb_profile(name), **options)
        assert np.abs(photos.decode(data, 16) - by_hand(colour, name)).max() < (4 if kind == "JPEG" else 2)


def test_a_red_of_display_p3_is_beyond_srgb():
    red = encoded(Image.new("RGB", (24, 24), (200, 40, 40)), icc_profile=rgb_profile("Display P3"))
    assert photos.decode(red, 16)[3, 3].tolist() == pytest.approx([218, 0, 26], abs=1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_photo_in_srgb_stays_bit_for_bit(kind):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    little_cms = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wanted = photos.decode(encoded(image, kind), 32)
    for same in (rgb_profile("sRGB"), little_cms):
        assert (photos.decode(encoded(image, kind, icc_profile=same), 32) == wanted).all()
        assert colour_profiles._transform(same, "RGB") is None


def test_grey_by_its_curve():
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    linear = photos.decode(encoded(ramp, icc_profile=grey_profile(1.0)), 32)[0, :, 0].astype(int)
    value = np.arange(0, 256, 8) / 255
    wanted = 255 * np.where(value > 0.0031308, 1.055 * value ** (1 / 2.4) - 0.055, 12.92 * value)
    assert np.abs(linear - wanted).max() < 3
    alike = photos.decode(encoded(ramp, icc_profile=grey_profile(None)), 32)
    assert (alike == photos.decode(encoded(ramp), 32)).all()


def test_sixteen_bit_grey_transparency_and_palettes_have_profiles_too():
    wanted = by_hand((200, 40, 40), "Display P3")
    with_alpha = Image.new("RGBA", (24, 24), (200, 40, 40, 255))
    with_alpha.paste((0, 0, 0, 0), (0, 0, 24, 12))
    photo = photos.decode(encoded(with_alpha, icc_profile=rgb_profile("Display P3")), 24)
    assert (photo[:10] >= 254).all() and np.abs(photo[14:] - wanted).max() < 2
    few = Image.new("RGB", (24, 24), (200, 40, 40)).quantize(4)
    assert np.abs(photos.decode(encoded(few, icc_profile=rgb_profile("Display P3")), 16) - wanted).max() < 3
    deep = Image.fromarray(np.full((24, 24), 128 * 257, np.uint16))
    assert np.abs(photos.decode(encoded(deep, icc_profile=grey_profile(1.0)), 16).astype(int) - 188).max() < 2


def test_cmyk_by_its_profile():
    half = Image.new("CMYK", (24, 24), (255, 0, 0, 0))  # one ink in full: 50 of 100 of lightness, a grey of 119
    photo = photos.decode(encoded(half, "JPEG", quality=100, icc_profile=cmyk_profile()), 16).astype(int)
    assert np.ptp(photo) < 4 and 110 < photo.mean() < 128
    plain = photos.decode(encoded(half, "JPEG", quality=100), 16)
    assert plain[3, 3].tolist() == pytest.approx([0, 255, 255], abs=3)


@pytest.mark.parametrize(
    "broken",
    [
        bytes(128), b"x" * 5000, rgb_profile("Display P3")[:200], grey_profile(2.2), cmyk_profile(),
        rgb_profile("Display P3").replace(b"para", b"nada"), rgb_profile("Display P3")[:128] + b"\xff" * 400,
        rgb_profile("Display P3") + bytes(colour_profiles.MAX_BYTES),
    ],
    ids=["zeros", "no profile", "cut off", "of grey", "of CMYK", "without curves", "wild numbers", "huge"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_profile_that_is_broken_or_of_other_pixels_is_ignored(broken, kind):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8))
    assert (
        photos.decode(encoded(image, kind, icc_profile=broken), 16) == photos.decode(encoded(image, kind), 16)
    ).all()


def test_a_profile_that_unpacks_to_50_megabytes_is_ignored():
    content = b"k\0\0" + zlib.compress(bytes(50_000_000))
    bomb = struct.pack(">I", len(content)) + b"iCCP" + content
    bomb += struct.pack(">I", zlib.crc32(bomb[4:]))
    data = encoded(Image.new("RGB", (24, 24), "red"))
    assert (photos.decode(data[:33] + bomb + data[33:], 16) == photos.decode(data, 16)).all()
