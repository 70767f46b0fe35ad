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

from vars_core.data.folder import CatalogueError
from vars_core.data.unpickle import Span, UnpickleError, load

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
    rows = [
        (user, _product(review, path), part)
        for part, content in zip(PARTS, parts, strict=True)
        for user, reviews in _pairs(content, f"user_{part}", path)
        for review in reviews
    ]
    photos, category = {}, {}
    for number, fields in _pairs(items, "Item", path):
        if not isinstance(fields, dict):
            raise CatalogueError(f"{path}: Item {number} is a {type(fields).__name__}, not a dict")
        fields = {_name(key): value for key, value in fields.items()}
        photo = fields.get("imgs")
        if isinstance(photo, Span | bytes | str) and photo not in (b"Not Found", "Not Found", b"", ""):
            photos[number] = photo.encode("latin-1") if isinstance(photo, str) else photo
        category[number] = _category(fields)
    unknown = {item for _, item, _ in rows} - category.keys()
    if unknown:
        raise CatalogueError(f"{path}: a review names product {min(unknown)}, which is not among the {n_items} items")
    return DvbprFile(photos, category, rows)


def _skip_header(file, path: Path) -> None:
    """To where the pickle begins; the shape is not needed."""
    try:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = reader(file)
    except ValueError as error:
        raise CatalogueError(f"{path}: not a .npy file ({error})") from None
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
    if not isinstance(review, int):
        raise CatalogueError(f"{path}: a review without a product number (productid)")
    return review


def _category(fields: dict) -> str:
    """AmazonFashion6's one-hot vector, else the last name of the taxonomy, else unknown."""
    vector = fields.get("c")
    if isinstance(vector, list | tuple) and len(vector) > 1 and all(isinstance(v, int | float) for v in vector):
        return f"c{int(np.argmax(vector))}"
    names = fields.get("categories")
    for _ in range(8):  # lists in lists, as deep as theirs and some more; one that holds itself has no end
        if not (isinstance(names, list | tuple) and names):
            break
        names = names[-1]
    return _name(names).strip() if isinstance(names, str | bytes) and names else "unknown"


def _name(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value
