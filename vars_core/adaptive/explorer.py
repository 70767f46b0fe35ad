"""Attacked photos for readers to try out: by goal, budget and what the seller knows, with what each defence makes of
them. `collect` gives all of it as plain values, from which `widget` and the site's explorer are made."""

import base64
import html
import io

import numpy as np
from PIL import Image

from vars_core.adaptive.randomised import RandomisedShop
from vars_core.detection.defence import Defence
from vars_core.detection.detectors import score_photos
from vars_core.recommender import ranking
from vars_core.recommender.shop import Shop

GAIN = 8  # of shown changes
PLACES = 8  # of a list that are shown


def collect(
    places: dict[str, Shop | RandomisedShop], defence: Defence, items, made: dict[tuple[str, str, int], np.ndarray]
) -> dict:
    """All that is shown of `items` (A,): `places` are the shops by defence, the undefended one as "none"; `made` are
    photos (A, H, W, 3) by goal, what the seller knows (a defence's name, "none": the extractor alone) and ε.

    What a seller who knows one defence made is shown behind that one; lists are those of one user an item, whom the
    strongest undefended attack wins. Numbers are rounded to 4 digits."""
    shop = places["none"]
    shares, ranks = {}, {}
    for (goal, knows, epsilon), photos in (made | {("none", "none", 0): shop.photos(items)}).items():
        for name in [*places] if knows == "none" else [knows]:
            found = _ranks(places[name], items, photos)
            ranks[goal, knows, epsilon, name] = found
            shares[goal, knows, epsilon, name] = np.nanmean(np.where(np.isnan(found), np.nan, found <= shop.k), 0)
    strongest = max((key for key in ranks if key[3] == "none"), key=lambda key: np.nanmean(shares[key]))
    users = np.nanargmin(np.where(np.isnan(ranks[strongest]), np.inf, ranks[strongest]), axis=0)
    top = {name: _lists(place, users) for name, place in places.items()}
    scores = {key: score_photos(defence.score, photos) for key, photos in made.items()}
    known = sorted({int(item) for lists in top.values() for item in lists.flat} | set(map(int, items)))
    names = shop.catalogue.items
    return {
        "threshold": _short(defence.threshold(defence.operating_rate)), "rate": defence.operating_rate, "k": shop.k,
        "simulated": bool(shop.catalogue.simulated), "defences": list(places), "gain": GAIN,
        "goals": list(dict.fromkeys(goal for goal, *_ in made)),
        "epsilons": sorted({epsilon for *_, epsilon in made}),
        "thumbnails": {str(item): _encoded(shop.photos([item])[0], "JPEG", quality=85) for item in known},
        "categories": {str(item): str(names["category"].iloc[item]) for item in known},
        "items": [
            {
                "item": int(item),
                "photo": _encoded(shop.photos([item])[0]),
                "score": _short(score_photos(defence.score, shop.photos([item]))[0]),
                "lists": {name: list(map(int, top[name][a])) for name in places},
                "cases": {
                    "|".join(map(str, key)): {
                        "change": _encoded((photos[a].astype(int) - shop.photos([item])[0] + 128).astype(np.uint8)),
                        "score": _short(scores[key][a]),
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


def _ranks(place: Shop | RandomisedShop, items, photos) -> np.ndarray:
    if not isinstance(place, RandomisedShop):
        return place.ranks(items, photos)
    users = place.shop.reporting_users
    lookup = ranking.RankLookup(place.clean_scores[users], place.shop.split.train[users])
    return lookup.ranks(items, place.served_scores(users, items, photos, "upload"))


def _lists(place: Shop | RandomisedShop, users) -> np.ndarray:
    """The first items of the lists of `users`, rows among the reporting users: (A, PLACES)."""
    shop = place.shop if isinstance(place, RandomisedShop) else place
    chosen = shop.reporting_users[users]
    scores = place.clean_scores[chosen] if isinstance(place, RandomisedShop) else place.clean_scores[users]
    return ranking.top_k(scores, shop.split.train[chosen], min(PLACES, shop.k))


def _encoded(photo: np.ndarray, kind: str = "PNG", **options) -> str:
    """A photo (H, W, 3), uint8, as a data URI."""
    file = io.BytesIO()
    Image.fromarray(photo).save(file, kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB"))


def _short(value) -> float:
    return float(f"{float(value):.4g}")


WORDS = {
    "none": "no defence",
    "filter": "filter and detector",
    "noise": "noise and filter",
    "hook": "look like a bestseller",
    "reach": "be in many lists",
}


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
    flagged = "flagged" if case["score"] > data["threshold"] else "not flagged"
    return (
        f"<p>{category}: in <b>{share:.2%}</b> of the lists (untouched {before[0]:.2%}). The detector's score is "
        f"{case['score']:.2f}: {flagged}, as the threshold is {data['threshold']:.2f}.</p>{pictures}"
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

    names = [f"{n + 1} · {data['categories'][str(item['item'])]}" for n, item in enumerate(data["items"])]
    choices = {
        "place": widgets.Dropdown(options=list(zip(names, range(len(names)), strict=True)), description="item"),
        "goal": widgets.Dropdown(options=[(WORDS.get(g, g), g) for g in data["goals"]], description="goal"),
        "epsilon": widgets.SelectionSlider(options=[0, *data["epsilons"]], description="ε"),
        "defence": widgets.Dropdown(options=[(WORDS.get(d, d), d) for d in data["defences"]], description="defence"),
        "knows": widgets.Checkbox(description="the seller knows the defence"),
    }
    view = widgets.HTML()

    def update(_=None):
        view.value = shown(data, **{name: choice.value for name, choice in choices.items()})

    for choice in choices.values():
        choice.observe(update, "value")
    update()
    return widgets.VBox([*choices.values(), view])
