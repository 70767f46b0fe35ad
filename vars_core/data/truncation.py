"""Is a photo's file whole? Decoders fill with grey or black what is missing, silently if an end marker follows.

JPEG: libjpeg is not shown the end marker but a few bytes that stand for a file that goes on. What is whole does not
need them, and what is cut off asks for more. So a photo that only lacks its end marker is whole too.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from PIL import Image

GOES_ON = b"\xfe" * 16  # at most a few symbols of a scan: short codes begin with zeros
FILLED = 512  # zeros at the end: a place on a disk that a copy was to fill. No coder writes as many
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not 0 and RST, which belong to a scan
_SEGMENTS = 20_000  # more is no photo, and takes seconds


@dataclass(frozen=True)
class Jpeg:
    """`data` without end marker and what follows it; `scans`: more than one, or scans that refine one another."""

    data: bytes
    scans: bool


def open_ended(data: bytes) -> Jpeg:
    """The JPEG in `data` to its last scan and GOES_ON. Raises ValueError for one that visibly lacks something.

    A JPEG of another kind (arithmetic codes, lossless) comes back as it is."""
    at, kind, components, several, precision = 2, 0, 0, False, {}
    for _ in range(_SEGMENTS):
        found = _MARKER.search(data, at)
        if not found or (marker := data[found.start() + 1]) in (0xD8, 0xD9) or found.end() + 2 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, found.end())
        segment, at = data[found.end() + 2 : found.end() + length], found.end() + max(length, 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(segment) > 5:
            kind, components = marker, segment[5]
        elif marker == 0xDA and segment and len(segment) >= 4 + 2 * segment[0]:
            several |= kind == 0xC2 or segment[0] < components
            first, last, bits = segment[2 * segment[0] + 1 :][:3]
            for component in segment[1 : 2 * segment[0] : 2]:
                precision |= dict.fromkeys(((component, k) for k in range(first, min(last, 63) + 1)), bits & 15)
    else:
        raise ValueError(f"more than {_SEGMENTS:,} segments")
    if kind not in (0xC0, 0xC1, 0xC2) or not precision:
        return Jpeg(data, False)
    if kind == 0xC2 and any(precision.values()):
        raise ValueError("image file is truncated: it lacks the scans that refine the first ones")
    end = found.start() if found else len(data)
    if not found and data.endswith(bytes(FILLED)):
        raise ValueError("image file is truncated: it ends in zeros")
    return Jpeg(data[:end].rstrip(b"\xff") + GOES_ON, several)


def load_scans(image: Image.Image, data: bytes) -> None:
    """Decode `image`, a JPEG of several scans opened from `data`, which is open-ended. ValueError if it is cut off.

    Pictures come out when all scans are in, so the decoder is stopped before: behind a whole scan it looks for a
    marker and passes over anything else, within a scan it keeps what it can't decode yet."""
    image.load_prepare()
    tile = image.tile[0]
    decoder = Image._getdecoder(image.mode, tile.codec_name, tile.args, image.decoderconfig)
    decoder.setimage(image.im, tile.extents)
    rest, status, error = data, 0, 0
    restarts = [b"\xff" + bytes([0xD0 + n]) + GOES_ON for n in range(8)]  # one of them, if the scan waits for one
    goes_on = [GOES_ON[:1]] * len(GOES_ON)
    for more in [b"", *goes_on, *restarts, *goes_on, b"\xff\xd9"]:
        rest += more
        used, error = decoder.decode(rest)
        if (status := used) < 0:
            break
        rest = rest[used:]
        if rest:
            raise ValueError("image file is truncated: its last scan is not whole")
    if status >= 0 or error < 0:
        raise ValueError("broken data stream")
    image.tile = []


def check_png(data: bytes, image: Image.Image) -> None:
    """Raises ValueError if a pixel chunk of the PNG `data` is damaged, or the loaded `image` lacks rows."""
    at, pixels = 8, []
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            content = data[at + 8 : at + 8 + length]
            check = data[at + 8 + length : at + 12 + length]
            if len(check) == 4 and zlib.crc32(content, zlib.crc32(name)) != int.from_bytes(check):
                raise ValueError("a pixel chunk has another checksum than it says")
            pixels.append(content)
        elif pixels:
            break
        at += 12 + length
    interlaced, width, height = data[28], *image.size
    # Rows that aren't there are left 0; only then is the length worth a second decompression.
    if not (interlaced or image.crop((0, height - 1, width, height)).getbbox(alpha_only=False) is None):
        return
    unpack, long = zlib.decompressobj(), 0
    for piece in pixels:
        while piece:
            long += len(unpack.decompress(piece, 1 << 20))
            piece = unpack.unconsumed_tail
    if long < _png_length(data):
        raise ValueError("image file is truncated: rows are missing")


def _png_length(data: bytes) -> int:
    """Bytes of the pixels, before compression, by the header."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    whole = [(0, 0, 1, 1)]
    adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    long = 0
    for x, y, across, down in adam7 if interlaced else whole:
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            long += rows * (1 + -(-columns * bits // 8))
    return long


def without_text(data: bytes) -> bytes:
    """The PNG `data` without texts and colour profile, which may be small here and huge when decompressed."""
    at, kept = 8, [data[:8]]
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)


def check_webp(data: bytes) -> None:
    """Raises ValueError if the last pixels of the WebP `data` are a place that was never filled."""
    at, name = 12, b""
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        at += 8 + length + length % 2
    if name in (b"VP8 ", b"VP8L", b"ANMF") and data.endswith(bytes(FILLED)):
        raise ValueError("image file is truncated: it ends in zeros")
