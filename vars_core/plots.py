"""One look for every figure: a colour per defence, a look per recommender, same bytes for same data."""

import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from vars_core import paths, report

_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _BROWN, _PINK, _GREY, _YELLOW, _SKY = sns.color_palette("colorblind").as_hex()

UNNAMED = "0.3"  # of a defence or an attack that has no colour of its own yet
DEFENCE_COLOURS = defaultdict(lambda: UNNAMED, {
    "none": _GREY, "jpeg50": _YELLOW, "jpeg75": _ORANGE, "jpeg90": _PINK, "bits3": _PINK, "bits4": _PINK,
    "bits5": _PINK, "median": _BROWN, "gaussian": _BROWN, "tv": _BROWN, "conv": _SKY, "windowed_vit": _PURPLE,
    "global_vit": _BLUE, "global_vit_adaptive": _RED, "filter": _BLUE, "filter_adaptive": _RED, "detector": _RED,
    "both": _GREEN, "both_adaptive": _PURPLE, "robust": _GREEN, "amr": _GREY, "aid": _PINK, "randomised": _SKY,
    "randomised_both": _SKY,
    # detectors, in notebook 5
    "contrastive": _GREEN, "bce": _ORANGE, "squeezing": _BROWN, "magnet": _PURPLE, "lid": _PINK, "mahalanobis": _SKY,
    "knn": _GREY, "jpeg": _YELLOW,
})  # fmt: skip
ATTACK_COLOURS = defaultdict(lambda: UNNAMED, {
    "none": _GREY, "noise": _BROWN, "fgsm": _ORANGE, "pgd": _RED, "mim": _PURPLE, "untargeted:pgd": _PINK,
    "promote:fgsm": _SKY, "promote:pgd": _BLUE, "insa:pgd": _YELLOW, "reach:pgd": _GREEN,
})  # fmt: skip
DEFENCE_LABELS = {
    "none": "no defence", "jpeg50": "JPEG-50", "jpeg75": "JPEG-75", "jpeg90": "JPEG-90", "bits3": "3 bits",
    "bits4": "4 bits", "bits5": "5 bits", "gaussian": "Gaussian blur", "tv": "total variation", "conv": "convolution",
    "blur1": "blur of 1 px", "blur2": "blur of 2 px", "blur3": "blur of 3 px", "blur4": "blur of 4 px",
    "halved": "half size and back", "robust": "robust extractor", "amr": "AMR", "both": "filter + detector",
    "bce": "BCE", "knn": "k-NN", "lid": "LID", "magnet": "MagNet", "mahalanobis": "Mahalanobis",
    "jpeg": "JPEG difference", "squeezing": "feature squeezing",
    "randomised": "behind noise", "randomised_both": "behind noise + detector",
}  # fmt: skip
LONGEST = 40  # characters of a label: a figure grows with its texts


class Look(NamedTuple):
    """How figures show a recommender."""

    label: str
    marker: str = "*"
    colour: str = "0.3"


RECOMMENDERS = {
    "poprank": Look("popularity", "x", _GREY),
    "bprmf": Look("BPR-MF", "s", _BLUE),
    "visualknn": Look("visual k-NN", "P", _GREEN),
    "dvbpr": Look("DVBPR", "^", _PURPLE),
    "amr": Look("AMR", "D", _ORANGE),
    "lightgcn": Look("LightGCN, visual", "v", _SKY),
    "vbpr": Look("VBPR", "o", _RED),
}


def theme() -> None:
    """Seaborn's whitegrid at notebook scale, colour-blind palette; text stays text in SVG."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font="DejaVu Sans")
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 4.2),
            "figure.dpi": 80,
            "figure.constrained_layout.use": True,
            "svg.fonttype": "none",
            "axes.titlesize": "medium",
        }
    )


def save(fig: Figure, name: str, caption: str) -> None:
    """Write reports/figures/<name>.svg, .png and .txt (the caption), show the figure, close it.

    No date, version or random id goes into the files: saving the same figure twice gives the same bytes.
    """
    caption = report.captioned(caption)
    base = paths.reports() / "figures" / name
    salt = hashlib.sha256(name.encode()).hexdigest()[:12]
    with plt.rc_context({"svg.hashsalt": salt}):
        svg = _drawn(fig, format="svg", metadata={"Date": None, "Creator": None})
    png = _drawn(fig, format="png", dpi=120, metadata={"Software": None})
    paths.write(base.with_name(base.name + ".svg"), _trimmed(svg))
    paths.write(base.with_name(base.name + ".png"), png)
    paths.write(base.with_name(base.name + ".txt"), caption + "\n")
    _show(png, caption)
    plt.close(fig)


def label(name: object) -> str:
    """A name from a catalogue as a figure's text: shown as it is written, never a formula; at most 40 characters."""
    text = report.one_line(name)
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return text.replace("$", r"\$")


def recommender(name: str) -> Look:
    """The look of a recommender of `victims`, also of one that has none of its own yet."""
    return RECOMMENDERS.get(name, Look(name))


def defence_label(name: str) -> str:
    """A defence's name as figures and shown tables have it: "filter, adaptive" for filter_adaptive, "global ViT" for
    global_vit, "noise + convolution" for "noise + conv"."""
    if " + " in name:
        return " + ".join(defence_label(part) for part in name.split(" + "))
    if name in DEFENCE_LABELS:
        return DEFENCE_LABELS[name]
    if name.endswith("_adaptive"):
        return f"{defence_label(name.removesuffix('_adaptive'))}, adaptive"
    name = name.replace("aid", "AiD") if name.startswith("aid") else name
    return name.replace("_vit", " ViT").replace("_", " ")


def name_points(axis: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each of `points` (x, y, name) on `axis`: beside its point where there is room, else as near as no other
    name or point is covered, with a line to it. To be called when everything else is drawn, limits included."""
    axis.figure.draw_without_rendering()  # only then is it known where things are
    inside, scale, renderer = axis.get_window_extent(), axis.figure.dpi / 72, axis.figure.canvas.get_renderer()
    marks = [axis.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale) for x, y in marks]
    steps = sorted((abs(up) + 6 * (side < 0), side, up) for side in (1, -1) for up in range(-120, 121, 4))
    for x, y, name in sorted(points, key=lambda point: -axis.transData.transform(point[:2])[1]):
        line = {"arrowstyle": "-", "color": "0.7", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        look = dict(va="center", fontsize="x-small", textcoords="offset points", arrowprops=line)
        for _, side, up in steps:
            text = axis.annotate(name, (x, y), xytext=(9 * side, up), ha="left" if side > 0 else "right", **look)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer).padded(scale)  # without its line
            if not any(box.overlaps(other) for other in taken) and box.x0 >= inside.x0 and box.x1 <= inside.x1:
                break
            text.remove()
        else:  # no room anywhere: better over others than not at all
            axis.annotate(name, (x, y), xytext=(9, 0), ha="left", **look)
        taken.append(box)


def bars(axis: Axes, groups: Mapping[str, Sequence], labels: Sequence) -> None:
    """Bars in percent with intervals: for each defence of `groups` one bar at each of `labels`, from things with
    `value`, `ci_low` and `ci_high` (shares)."""
    width = 0.8 / len(groups)
    for place, (name, found) in enumerate(groups.items()):
        x = np.arange(len(labels)) + width * (place - (len(groups) - 1) / 2)
        value, low, high = 100 * np.array([[f.value, f.ci_low, f.ci_high] for f in found]).T
        axis.bar(x, value, 0.94 * width, color=DEFENCE_COLOURS[name], label=defence_label(name))
        axis.errorbar(x, value, np.abs([value - low, high - value]), fmt="none", color="0.25", linewidth=1)
    axis.set(xticks=range(len(labels)), xticklabels=labels)


def photo_grid(
    images: Sequence,
    titles: Sequence | None = None,
    *,
    columns: int = 8,
    row_titles: Sequence[str] | None = None,
    size: float = 1.3,
) -> Figure:
    """A sheet of photos: uint8 (N, H, W, 3), laid out `columns` to a row, or a list of rows of such photos.

    `titles` go above the photos (nested like the rows when rows are given), `row_titles` at the left, as plain text;
    `size` is inches per photo. Float images are refused: they hide a scale.
    """
    flat = len(images) == 0 or np.asarray(images[0]).ndim == 3
    rows = [images[n : n + columns] for n in range(0, len(images), columns)] if flat else list(images)
    if not rows:
        raise ValueError("photo_grid needs at least one photo")
    named = titles
    if titles is not None and flat:
        named = [titles[n : n + columns] for n in range(0, len(titles), columns)]
    wide = max(len(r) for r in rows)
    tall = size * (1.25 if named is not None else 1.05)
    fig, axes = plt.subplots(len(rows), wide, figsize=(size * wide, tall * len(rows)), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        sns.despine(ax=axis, left=True, bottom=True)
    for r, row in enumerate(rows):
        for c, photo in enumerate(row):
            photo = np.asarray(photo)
            if photo.dtype != np.uint8:
                raise TypeError(f"photos are uint8; photo {c} of row {r} is {photo.dtype}")
            axes[r, c].imshow(photo, interpolation="nearest")
            if named is not None and r < len(named) and c < len(named[r]):
                axes[r, c].set_title(label(named[r][c]), fontsize="x-small", pad=2)
        if row_titles is not None:
            axes[r, 0].set_ylabel(label(row_titles[r]), fontsize="small")
    return fig


def _drawn(fig: Figure, **options) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, bbox_inches="tight", **options)
    return buffer.getvalue()


def _trimmed(svg: bytes) -> bytes:
    # Matplotlib leaves blanks at line ends, which git's whitespace checks complain of.
    return b"\n".join(line.rstrip() for line in svg.split(b"\n"))


def _show(png: bytes, caption: str) -> None:
    from IPython import get_ipython
    from IPython.display import Image, Markdown, display

    if get_ipython() is not None:
        display(Image(png, alt=caption), Markdown(f"*{report.plain(caption)}*"))
