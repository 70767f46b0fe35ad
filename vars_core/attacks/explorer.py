"""Attacked photos for readers to try out: by goal, budget and what the seller knows, with what each defence makes of
them. `collect` gives all of it as plain values, from which `widget` and the site's explorer are made."""

import base64
import html
import io
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from PIL import Image

from vars_core.recommender.shop import Shop

GAIN = 8  # of shown changes
PLACES = 8  # of a list that are shown


WORDS = {
    "none": "no defence",
    "filter": "filter and detector",
    "noise": "noise and filter",
    "hook": "look like a bestseller",
    "reach": "be in many lists",
    "insa": "be in many lists (insa)",
}


class Place(Protocol):
    """Where photos are seen and items ranked: a shop, or one behind a defence."""

    def ranks(self, items, photos: np.ndarray | None = None) -> np.ndarray:
        """Ranks (U, A) for the reporting users, each item alone with its photo replaced."""

    def lists(self, rows, length: int) -> np.ndarray:
        """The first items of the lists of reporting users number `rows`: (len(rows), length)."""


def collect(
    shop: Shop,
    items,
    made: Mapping[tuple[str, str, int], np.ndarray],
    behind: Mapping[str, Place] | None = None,
    detector: Callable[[np.ndarray], np.ndarray] | None = None,
    threshold: float | None = None,
    rate: str = "",
) -> dict:
    """All that is shown of `items` (A,) in `shop`, and in the same shop `behind` each of several defences: `made` are
    photos (A, H, W, 3) by goal, what the seller knows (a defence's name, "none": the extractor alone) and ε.

    What a seller who knows one defence made is shown behind that one; lists are those of one user an item, whom the
    strongest undefended attack wins. A `detector` scores uint8 photos and flags those above `threshold`, which it
    does to `rate` % of honest ones. Numbers are rounded to 4 digits."""
    places = {"none": shop, **(behind or {})}
    shares, ranks = {}, {}
    for (goal, knows, epsilon), photos in (dict(made) | {("none", "none", 0): shop.photos(items)}).items():
        for name in [*places] if knows == "none" else [knows]:
            found = places[name].ranks(items, photos)
            ranks[goal, knows, epsilon, name] = found
            shares[goal, knows, epsilon, name] = np.nanmean(np.where(np.isnan(found), np.nan, found <= shop.k), 0)
    strongest = max((key for key in ranks if key[3] == "none"), key=lambda key: np.nanmean(shares[key]))
    users = np.nanargmin(np.where(np.isnan(ranks[strongest]), np.inf, ranks[strongest]), axis=0)
    top = {name: place.lists(users, min(PLACES, shop.k)) for name, place in places.items()}
    scores = {key: _scores(detector, photos) for key, photos in made.items()}
    untouched = _scores(detector, shop.photos(items))
    known = sorted({int(item) for lists in top.values() for item in lists.flat} | set(map(int, items)))
    names = shop.catalogue.items
    return {
        "threshold": None if threshold is None else _short(threshold), "rate": rate, "k": shop.k, "words": WORDS,
        "simulated": bool(shop.catalogue.simulated), "defences": list(places), "gain": GAIN,
        "goals": list(dict.fromkeys(goal for goal, *_ in made)),
        "epsilons": sorted({epsilon for *_, epsilon in made}),
        "thumbnails": {str(item): _encoded(shop.photos([item])[0], "JPEG", quality=85) for item in known},
        "categories": {str(item): str(names["category"].iloc[item]) for item in known},
        "items": [
            {
                "item": int(item),
                "photo": _encoded(shop.photos([item])[0]),
                "score": untouched[a],
                "lists": {name: list(map(int, top[name][a])) for name in places},
                "cases": {
                    "|".join(map(str, key)): {
                        "change": _encoded((photos[a].astype(int) - shop.photos([item])[0] + 128).astype(np.uint8)),
                        "score": scores[key][a],
                    }
                    for key, photos in made.items()
                },
                "outcomes": {
                    "|".join(map(str, key)): [_short(shares[key][a]), int(np.nan_to_num(found[users[a], a]))]
                    for key, found in ranks.items()
                },
            }
            for a, item in enumerate(items)
        ],
    }  # fmt: skip


def _scores(detector, photos) -> list[float | None]:
    return [None] * len(photos) if detector is None else [_short(score) for score in detector(photos)]


def _encoded(photo: np.ndarray, kind: str = "WEBP", **options) -> str:
    """A photo (H, W, 3), uint8, as a data URI: to the last bit, unless a kind is named that isn't."""
    file = io.BytesIO()
    exact = {"lossless": True, "quality": 100, "method": 6}  # two thirds of a PNG's size
    Image.fromarray(photo).save(file, kind, **(exact if kind == "WEBP" else options))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB"))


def _short(value) -> float:
    return float(f"{float(value):.4g}")


def shown(data: dict, place: int, goal: str, epsilon: int, defence: str, knows: bool) -> str:
    """HTML of item number `place` of what `collect` gave, attacked so, with ε = 0 for its own photo."""
    item = data["items"][place]
    knower = defence if knows and f"{goal}|{defence}|{epsilon}" in item["cases"] else "none"
    key = f"{goal}|{knower}|{epsilon}"
    case = item["cases"].get(key, {"change": None, "score": item["score"]})
    before = item["outcomes"][f"none|none|0|{defence}"]
    share, rank = item["outcomes"].get(f"{key}|{defence}", before)
    photo = _decoded(item["photo"]).astype(int)
    change = np.zeros_like(photo) if case["change"] is None else _decoded(case["change"]).astype(int) - 128
    sheet = {"its own photo": photo, f"change × {GAIN}": 128 + GAIN * change, "as uploaded": photo + change}
    pictures = "".join(
        f'<figure style="display:inline-block;margin:4px"><img width="128" style="image-rendering:pixelated" '
        f'alt="{name}" src="{_encoded(picture.clip(0, 255).astype(np.uint8))}">'
        f"<figcaption>{name}</figcaption></figure>"
        for name, picture in sheet.items()
    )
    category, listed = html.escape(data["categories"][str(item["item"])]), item["lists"][defence]
    told = ""
    if case["score"] is not None:
        flagged = "flagged" if case["score"] > data["threshold"] else "not flagged"
        told = (
            f" The detector's score is {case['score']:.2f}: {flagged}, as the threshold is {data['threshold']:.2f}."
        )
    return (
        f"<p>{category}: in <b>{share:.2%}</b> of the lists (untouched {before[0]:.2%}).{told}</p>{pictures}"
        + _row(data, "before", placed(listed, item["item"], before[1]), item["item"], before[1])
        + _row(data, "after", placed(listed, item["item"], rank), item["item"], rank)
    )


def placed(listed: list[int], item: int, rank: int) -> list[int]:
    """The first items of a list, `listed`, when `item` is at place `rank` of it."""
    others = [other for other in listed if other != item]
    return [*others[: rank - 1], item, *others[rank - 1 :]][: len(listed)] if 0 < rank <= len(listed) else others


def _row(data: dict, name: str, listed: list[int], item: int, rank: int) -> str:
    cells = "".join(
        f'<img width="56" alt="{html.escape(data["categories"][str(other)])}" src="{data["thumbnails"][str(other)]}" '
        f'style="margin:2px;{"outline:3px solid #d55e00" * (other == item)}">'
        for other in listed
    )
    return f"<div><small>one user's list {name}; this item's place there: {rank:,}</small><br>{cells}</div>"


def widget(data: dict):
    """Choices and a view of what `collect` gave, for JupyterLab."""
    import ipywidgets as widgets  # here: only a notebook shows it

    words = data["words"]
    names = [f"{n + 1} · {data['categories'][str(item['item'])]}" for n, item in enumerate(data["items"])]
    choices = {
        "place": widgets.Dropdown(options=list(zip(names, range(len(names)), strict=True)), description="item"),
        "goal": widgets.Dropdown(options=[(words.get(g, g), g) for g in data["goals"]], description="goal"),
        "epsilon": widgets.SelectionSlider(options=[0, *data["epsilons"]], description="ε"),
        "defence": widgets.Dropdown(options=[(words.get(d, d), d) for d in data["defences"]], description="defence"),
        "knows": widgets.Checkbox(description="the seller knows the defence"),
    }
    asked = [c for name, c in choices.items() if len(data["defences"]) > 1 or name not in ("defence", "knows")]
    view = widgets.HTML()

    def update(_=None):
        view.value = shown(data, **{name: choice.value for name, choice in choices.items()})

    for choice in choices.values():
        choice.observe(update, "value")
    update()
    return widgets.VBox([*asked, view])
