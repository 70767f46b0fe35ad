"""Diagrams of the study's parts, drawn by code: what goes in, what comes out, and who knows what."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from vars_core.plots import DEFENCE_COLOURS

PHOTO, NETWORK, SCORE, PLAIN = "#fde9c9", "#d6e6f5", "#d9f0e0", "#f0f0f0"


def draw(boxes: dict[str, tuple[float, float, str, str]], arrows: list[tuple[str, str, str]], size) -> Figure:
    """Boxes by name, (column, row, text, colour), and arrows between them, (from, to, text). `size` in inches; rows
    count downwards. Raises KeyError for an arrow from or to a box that isn't there."""
    fig, axis = plt.subplots(figsize=size)
    columns, rows = ([box[n] for box in boxes.values()] for n in (0, 1))
    axis.set(xlim=(min(columns) - 0.6, max(columns) + 0.6), ylim=(max(rows) + 0.6, min(rows) - 0.6))
    axis.axis("off")
    look = dict(ha="center", va="center", fontsize="small", zorder=3)
    drawn = {}
    for name, (column, row, text, colour) in boxes.items():
        edge = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "0.5"}
        drawn[name] = axis.text(column, row, text, bbox=edge, **look)
    fig.draw_without_rendering()  # only then do boxes have edges, at which arrows end
    for start, end, text in arrows:
        ends = [drawn[name].get_position() for name in (start, end)]
        patches = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        line = {"arrowstyle": "->", "color": "0.3", "shrinkA": 2, "shrinkB": 2} | patches
        axis.annotate("", ends[1], ends[0], arrowprops=line)
        if text:
            middle = [(a + b) / 2 for a, b in zip(*ends, strict=True)]
            axis.text(*middle, text, fontsize="x-small", ha="center", va="bottom", color="0.3", zorder=4)
    return fig


def recommender() -> Figure:
    """How a photo becomes a place in a list (notebook 2)."""
    boxes = {
        "photo": (0, 0, "photo $x_i$", PHOTO),
        "f": (1.2, 0, "extractor $f$\n(frozen)", NETWORK),
        "features": (2.4, 0, "features\n$f(x_i)$", PLAIN),
        "taste": (2.4, 1, "taste of the user for\nfeatures, $w_u$", PLAIN),
        "history": (0.6, 1, "who bought what", PHOTO),
        "base": (2.4, 2, "without the photo,\n$b_{ui}$", PLAIN),
        "score": (3.7, 1, "score $s(u, i)$ =\n$b_{ui} + w_u \\cdot f(x_i)$", SCORE),
        "list": (4.9, 1, "list of user $u$:\nthe $k$ best", SCORE),
    }
    arrows = [("photo", "f", ""), ("f", "features", ""), ("features", "score", ""), ("taste", "score", "")]
    arrows += [("history", "taste", "learned"), ("history", "base", ""), ("base", "score", ""), ("score", "list", "")]
    return draw(boxes, arrows, (10, 3.2))


def image_filter() -> Figure:
    """R(x) = x + g(x) r(x), and what differs between the three architectures (notebook 4)."""
    boxes = {
        "photo": (0, 1, "photo $x$", PHOTO),
        "stem": (1.1, 1, "3×3 stem,\nfull resolution", NETWORK),
        "patches": (2.2, 0, "patches →\ntokens + places", NETWORK),
        "mix": (
            3.4,
            0,
            "global attention\n(rivals: windows,\nconvolutions)",
            DEFENCE_COLOURS["global_vit"] + "55",
        ),
        "back": (4.6, 0, "tokens →\npixels", NETWORK),
        "out": (4.6, 1, "3×3 convolutions\n(start at zero): $r(x)$", NETWORK),
        "gate": (3.4, 2, "gate $g(x)$, 0 to 1:\nis it attacked at all?", SCORE),
        "sum": (5.9, 1, "$R(x) = x + g(x)\\,r(x)$", PHOTO),
    }
    arrows = [("photo", "stem", ""), ("stem", "patches", ""), ("patches", "mix", ""), ("mix", "back", "")]
    arrows += [
        ("back", "out", ""),
        ("stem", "out", ""),
        ("stem", "gate", ""),
        ("gate", "sum", ""),
        ("out", "sum", ""),
    ]
    return draw(boxes, arrows, (11, 3.4))


def detector() -> Figure:
    """What the detector looks at (notebook 5)."""
    boxes = {
        "photo": (0, 1, "photo $x$", PHOTO),
        "filter": (1.1, 1, "filter $R$", NETWORK),
        "residual": (2.4, 0, "residual $x - R(x)$\nand its size", PLAIN),
        "features": (2.4, 1.7, "$f(x)$, $f(R(x))$\nand their difference", PLAIN),
        "net": (3.8, 0.85, "small network", NETWORK),
        "embedding": (5.0, 0, "embedding:\ncontrastive loss", SCORE),
        "score": (5.0, 1.7, "score $d(x)$: flagged\nabove the threshold $\\tau$", SCORE),
    }
    arrows = [("photo", "filter", ""), ("filter", "residual", ""), ("filter", "features", "")]
    arrows += [("residual", "net", ""), ("features", "net", ""), ("net", "embedding", ""), ("net", "score", "")]
    return draw(boxes, arrows, (10, 3))


def tiers() -> Figure:
    """What the attackers of notebook 7 know of a photo's way (notebook 7)."""
    boxes = {
        "photo": (0, 0, "attacked\nphoto", PHOTO),
        "detector": (1.2, 0, "detector $d$:\nrefuse it?", NETWORK),
        "filter": (2.4, 0, "filter $R$", NETWORK),
        "f": (3.6, 0, "extractor $f$", NETWORK),
        "lists": (4.8, 0, "lists", SCORE),
        "T1": (1.8, -1.1, "T1 trains copies of these", PLAIN),
        "T3": (1.2, 1.1, "T3 knows this, too", PLAIN),
        "T2": (2.4, 1.1, "T2 knows this, too", PLAIN),
        "T0": (3.6, 1.1, "T0 knows this", PLAIN),
        "T4": (4.8, 1.1, "T4 sees these only", PLAIN),
    }
    arrows = [("photo", "detector", ""), ("detector", "filter", ""), ("filter", "f", ""), ("f", "lists", "")]
    arrows += [("T1", "detector", ""), ("T1", "filter", ""), ("T3", "detector", ""), ("T2", "filter", "")]
    return draw(boxes, [*arrows, ("T0", "f", ""), ("T4", "lists", "")], (10, 3))


def randomised() -> Figure:
    """A shop that adds noise (notebooks 7 and 8)."""
    boxes = {
        "photo": (0, 0, "uploaded\nphoto $x$", PHOTO),
        "noise": (0, 1.2, "secret draw\n$\\eta \\sim N(0, \\sigma^2 I)$", DEFENCE_COLOURS["randomised"] + "55"),
        "sum": (1.1, 0, "$x + \\eta$", PHOTO),
        "filter": (2.2, 0, "filter $R$, trained to\nremove such noise", NETWORK),
        "f": (3.5, 0, "extractor $f$,\nrecommender", NETWORK),
        "scores": (4.7, 0, "a score for\neach draw", PLAIN),
        "rule": (5.9, 0, "median, and a vote\nof $n$ draws: cached", SCORE),
    }
    arrows = [("photo", "sum", ""), ("noise", "sum", ""), ("sum", "filter", ""), ("filter", "f", "")]
    return draw(boxes, [*arrows, ("f", "scores", ""), ("scores", "rule", "")], (11, 2.2))
