"""The `.npy` files of DVBPR (Kang et al., ICDM 2017): Amazon Fashion, Men, Women and Tradesy with their photos.

An object array [user_train, user_validation, user_test, Item, usernum, itemnum], pickled by Python 2. The first
three map a user to reviews, dicts with `productid`; Item maps a number to a dict with the JPEG's bytes (`imgs`),
`asin` and, in AmazonFashion6, `c`, a one-hot vector of six categories. Keys are bytes or str, depending on who wrote
the file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vars_core.data import arrays
from vars_core.data.folder import CatalogueError
from vars_core.data.unpickle import LONG, Span, UnpickleError, load

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class DvbprFile:
    """`photos`: item → its bytes or a Span; `category`: item → text; `interactions`: (user, item, part) rows."""

    photos: dict
    category: dict
    interactions: list


def read(path: Path, progress: Callable[[int], None] = lambda position: None) -> DvbprFile:
    """Read `path` with memory for everything but the photos, which stay in the file.

    Raises CatalogueError naming the file and what was expected."""
    try:
        with path.open("rb") as file:
            _skip_header(file, path)
            content = load(file, progress)
    except UnpickleError as error:
        raise CatalogueError(f"{path}: {error}") from None
    if not isinstance(content, list) or len(content) < 6:
        raise CatalogueError(f"{path}: six objects expected, user_train … itemnum")
    *parts, items, n_users, n_items = content[:6]
    if not isinstance(n_users, int) or not isinstance(n_items, int):
        kinds = " and ".join(type(n).__name__ for n in (n_users, n_items))
        raise CatalogueError(f"{path}: usernum and itemnum must be numbers, got {kinds}")
    steps = _Steps(path)
    rows = []
    for part, content in zip(PARTS, parts, strict=True):
        for user, reviews in _pairs(content, f"user_{part}", path):
            if not isinstance(user, int | str | bytes):
                raise CatalogueError(f"{path}: user_{part}: user {user!r:.40}; a number or text expected")
            if not isinstance(reviews, list | tuple):
                kind = type(reviews).__name__
                raise CatalogueError(f"{path}: user_{part}, user {user!r:.40}: reviews are a {kind}, not a list")
            steps.count(1 + len(reviews))
            rows += [(user, _product(review, path), part) for review in reviews]
    photos, category, photo_bytes = {}, {}, _Steps(path, 2)  # two items may have one photo
    for number, fields in _pairs(items, "Item", path):
        if not isinstance(number, int) or not 0 <= number < 2**63:
            raise CatalogueError(f"{path}: Item {number!r:.40} is not numbered; 0, 1, 2 … expected")
        if not isinstance(fields, dict):
            raise CatalogueError(f"{path}: Item {number} is a {type(fields).__name__}, not a dict")
        steps.count(1 + len(fields))
        fields = {_name(key): value for key, value in fields.items()}
        photo = fields.get("imgs")
        if isinstance(photo, Span | bytes | str) and photo not in (b"Not Found", "Not Found", b"", ""):
            photo_bytes.count(photo.length if isinstance(photo, Span) else len(photo))
            photos[number] = _bytes(photo, path) if isinstance(photo, str) else photo
        category[number] = _category(fields, steps)
    unknown = {item for _, item, _ in rows} - category.keys()
    if unknown:
        raise CatalogueError(f"{path}: a review names product {min(unknown)}, which is not among the {n_items} items")
    return DvbprFile(photos, category, rows)


class _Steps:
    """Counts the steps through what a file holds: more than `times` the file's bytes, and one thing is walked through
    again and again, which takes a file of a megabyte years."""

    def __init__(self, path: Path, times: int = 1):
        self.path, self.left = path, times * path.stat().st_size

    def count(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise CatalogueError(f"{self.path}: the file holds one list, dict or photo again and again")


def _skip_header(file, path: Path) -> None:
    """To where the pickle begins; the shape is not needed."""
    try:
        arrays.check_header(file)
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = reader(file)
    except Exception as error:  # a header is a Python literal, and numpy raises what comes of it
        raise CatalogueError(f"{path}: not a .npy file ({' '.join(str(error).split()):.150})") from None
    if not dtype.hasobject:
        raise CatalogueError(f"{path}: an array of {dtype}, not of objects; is it a file of image features?")


def _pairs(container, name: str, path: Path):
    if isinstance(container, dict):
        return container.items()
    if isinstance(container, list | tuple):
        return enumerate(container)
    raise CatalogueError(f"{path}: {name} is a {type(container).__name__}; a dict or list expected")


def _product(review, path: Path) -> int:
    if isinstance(review, dict):
        review = next((review[key] for key in ("productid", b"productid") if key in review), None)
    if not isinstance(review, int) or not 0 <= review < 2**63:
        raise CatalogueError(f"{path}: a review without a product number (productid)")
    return review


def _category(fields: dict, steps: _Steps) -> str:
    """AmazonFashion6's one-hot vector, else the last name of the taxonomy, else unknown."""
    vector = fields.get("c")
    if isinstance(vector, list | tuple) and len(vector) > 1:
        steps.count(len(vector))
        if all(isinstance(v, int | float) for v in vector):
            return f"c{vector.index(max(vector))}"
    names = fields.get("categories")
    for _ in range(8):  # lists in lists, as deep as theirs and some more; one that holds itself has no end
        if not (isinstance(names, list | tuple) and names):
            break
        names = names[-1]
    short = isinstance(names, str | bytes) and 0 < len(names) <= LONG
    return _name(names).strip() if short else "unknown"


def _bytes(photo: str, path: Path) -> bytes:
    try:
        return photo.encode("latin-1")
    except UnicodeError:
        raise CatalogueError(f"{path}: a photo that is text and not bytes") from None


def _name(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value
