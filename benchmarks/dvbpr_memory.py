"""How much memory and time it takes to convert a DVBPR file of several gigabytes.

python -m benchmarks.dvbpr_memory                  # 6 GB, as large as the largest of DVBPR's files
python -m benchmarks.dvbpr_memory --gigabytes 1

The file is invented, in the form of the original: an object array pickled by Python 2, with as many users and
reviews per item as DVBPR's paper counts for Amazon Women (98,000 users, 348,000 items, 828,000 reviews), texts of 50
to 800 letters, and photos that are small drawings padded with random bytes in a comment segment, which JPEG allows.
"""

import io
import tempfile
import time
from pathlib import Path

from benchmarks import apart, results

PHOTO = 17_000  # bytes
USERS, REVIEWS = 0.281, 2.38  # per item
LETTERS = 50, 800  # of a review
LIMIT = 2000  # MB
DRAWINGS = 64


def write(path: str, gigabytes: float) -> dict:
    """An invented file of about this length; what is in it."""
    import numpy as np

    from benchmarks.python2_pickle import Opcodes

    rng = np.random.default_rng(0)
    filler = rng.bytes(1 << 24)
    words = bytes(rng.choice(np.frombuffer(b"etaoinshrdlu    ", np.uint8), 1 << 20))
    drawings = _drawings()
    n_items = round(gigabytes * 1e9 / (PHOTO + REVIEWS * (sum(LETTERS) / 2 + 110)))
    n_users = round(USERS * n_items)

    def photo(item: int) -> bytes:
        drawing = drawings[item % DRAWINGS]
        length = PHOTO - len(drawing) - 4
        start = int(rng.integers(len(filler) - length))
        return drawing[:2] + b"\xff\xfe" + (length + 2).to_bytes(2) + filler[start : start + length] + drawing[2:]

    def goods():
        for item in range(n_items):
            kind = [b"Clothing, Shoes & Jewelry", b"Women", b"Kind %d" % (item % 50)]
            yield item, {b"asin": b"B%09d" % item, b"categories": [kind], b"imgs": photo(item)}

    def review(user: int, item: int) -> dict:
        start, length = int(rng.integers(len(words) - LETTERS[1])), int(rng.integers(*LETTERS))
        return {
            b"productid": item,
            b"asin": b"B%09d" % item,
            b"reviewerID": b"A%013d" % user,
            b"overall": float(1 + item % 5),
            b"unixReviewTime": 1_300_000_000 + item,
            b"reviewText": words[start : start + length],
        }

    def reviews(per_user: np.ndarray):
        for user in range(n_users):
            yield user, [review(user, int(item)) for item in rng.integers(n_items, size=int(per_user[user]))]

    one = np.ones(n_users, int)
    many = rng.multinomial(max(0, round(REVIEWS * n_items) - 3 * n_users), one / n_users) + 1
    with Path(path).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (6,)})
        pickle = Opcodes(file)
        _open_array(pickle)
        for per_user in (many, one, one):
            pickle.mapping(reviews(per_user))
        pickle.mapping(goods())
        pickle.write(n_users)
        pickle.write(n_items)
        pickle.code(b"etb.")
    return {"items": n_items, "users": n_users, "reviews": int(many.sum() + 2 * n_users)}


def _open_array(pickle) -> None:
    """What numpy wrote before the six members of the array, up to the list of them."""
    pickle.code(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n", None, b"cnumpy\nndarray\n", None)
    pickle.code(b"K\x00\x85", None, b"U\x01b", None, b"\x87", None, b"R", None)
    pickle.code(b"(K\x01K\x06\x85", None, b"cnumpy\ndtype\n", None, b"U\x02O8", None, b"K\x00K\x01\x87", None)
    pickle.code(b"R", None, b"(K\x03U\x01|", None, b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t", None, b"b\x89]", None)
    pickle.code(b"(")


def _drawings() -> list[bytes]:
    import numpy as np
    from PIL import Image

    from vars_core.data import synthetic

    made = []
    for photo in synthetic.draw(DRAWINGS, 64, np.random.default_rng(1))[0]:
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "JPEG")
        made.append(buffer.getvalue())
    return made


def convert(path: str, out: str) -> dict:
    """Convert the file; counts, seconds and peak memory."""
    from vars_core.data import convert

    before, start = apart.peak(), time.perf_counter()
    counts = convert.dvbpr(Path(path), Path(out))
    return counts | {"seconds": time.perf_counter() - start, "before": before, "peak": apart.peak()}


def check(out: str, items: int) -> dict:
    """Do some of the photos that came out decode? Raises photos.PhotoError."""
    from vars_core.data import photos

    for item in {0, items // 2, items - 1}:
        photos.decode(Path(out) / "images" / f"{item}.jpg", 64)
    return {}


def row(gigabytes: float, folder: Path) -> dict:
    file, out = folder / "AmazonInventedWithImgPartitioned.npy", folder / "catalogue"
    wrote = apart.call(write, file, gigabytes)
    got = apart.call(convert, file, out)
    if (got["items"], got["interactions"], got["without a photo"]) != (wrote["items"], wrote["reviews"], 0):
        raise RuntimeError(f"written: {wrote}; converted: {got}")
    apart.call(check, out, wrote["items"])
    return {
        "gigabytes": round(file.stat().st_size / 1e9, 2),
        **wrote,
        "seconds": round(got["seconds"], 1),
        "items_per_second": round(wrote["items"] / got["seconds"]),
        "megabytes_per_second": round(file.stat().st_size / 1e6 / got["seconds"]),
        "peak_mb": round(got["peak"]),
        "peak_mb_before": round(got["before"]),
        "within_2_gb": "yes" if got["peak"] <= LIMIT else "no",
    }


def main() -> None:
    parser = results.parser("dvbpr_memory", __doc__)
    parser.add_argument("--gigabytes", type=float, default=6.0, help="10^9 bytes; the disk needs twice as much")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = row(options.gigabytes, Path(folder))
    import pandas  # after the measurement: a process starts with its parent's peak memory

    caption = (
        f"Converting an invented DVBPR file ({PHOTO / 1000:g} kB per photo, Python 2's pickle) to a catalogue "
        "folder, in a process of its own; its peak memory is ru_maxrss, before (Python, libraries) and after; "
        f"the limit is {LIMIT:,} MB."
    )
    about = {"goal": f"peak_mb at most {LIMIT}"}
    results.write("dvbpr_memory", pandas.DataFrame([found]), about, options.out, caption)


if __name__ == "__main__":
    main()
