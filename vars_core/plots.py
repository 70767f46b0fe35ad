"""One look for every figure: a colour per defence, a look per recommender, same bytes for same data."""

import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from vars_core import labels, paths, report

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
    "promote:pgd": _SKY, "insa:pgd": _BLUE, "reach:pgd": _GREEN,
})  # fmt: skip
LONGEST = 40  # characters of a label: a figure grows with its texts


class Look(NamedTuple):
    """How figures show a recommender."""

    label: str
    marker: str = "*"
    colour: str = "0.3"


RECOMMENDERS = {
    name: Look(labels.recommender(name), marker, colour)
    for name, marker, colour in (
        ("poprank", "x", _GREY),
        ("bprmf", "s", _BLUE),
        ("visualknn", "P", _GREEN),
        ("dvbpr", "^", _PURPLE),
        ("amr", "D", _ORANGE),
        ("lightgcn", "v", _SKY),
        ("vbpr", "o", _RED),
    )
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


def by_epsilon(axis: Axes, epsilons: Sequence) -> None:
    """The axis of a perturbation's size: `epsilons`, in 8-bit steps, on a logarithm."""
    axis.set(xscale="log", xlabel="largest change of a pixel, ε (of 255)")
    axis.set_xticks(epsilons, [f"{epsilon:g}" for epsilon in epsilons])
    axis.minorticks_off()


def name_lines(axis: Axes) -> None:
    """Write each line's label at its right end, in its colour, none over another: instead of a legend. To be called
    when everything else is drawn, limits included."""
    axis.figure.draw_without_rendering()  # only then is it known where things are
    lines = [line for line in axis.lines if not line.get_label().startswith("_")]
    ends = {line: line.get_transform().transform(line.get_xydata()[-1])[1] for line in lines}
    lines, height = sorted(lines, key=ends.get), 12.5 * axis.figure.dpi / 72
    places = np.array([ends[line] for line in lines])
    for _ in range(100):  # those that are too near move apart, each half the way
        missing = np.clip(height - np.diff(places), 0, None) / 2
        places[:-1] -= missing
        places[1:] += missing
    places -= max(0, places.max(initial=0) - axis.get_window_extent().y1)  # a title is above
    for line, place in zip(lines, places, strict=True):
        colour = 0.75 * np.array(matplotlib.colors.to_rgb(line.get_color()))  # darker: as text they must be read
        up = (place - ends[line]) * 72 / axis.figure.dpi
        axis.annotate(
            line.get_label(), line.get_xydata()[-1], (7, up), line.get_transform(), "offset points",
            color=colour, va="center", fontsize="small", annotation_clip=False,
        )  # fmt: skip


def bars(axis: Axes, groups: Mapping[str, Sequence], ticks: Sequence) -> None:
    """Bars in percent with intervals: for each defence of `groups` one bar at each of `ticks`, from things with
    `value`, `ci_low` and `ci_high` (shares)."""
    width = 0.8 / len(groups)
    for place, (name, found) in enumerate(groups.items()):
        x = np.arange(len(ticks)) + width * (place - (len(groups) - 1) / 2)
        value, low, high = 100 * np.array([[f.value, f.ci_low, f.ci_high] for f in found]).T
        axis.bar(x, value, 0.94 * width, color=DEFENCE_COLOURS[name], label=labels.defence(name))
        axis.errorbar(x, value, np.abs([value - low, high - value]), fmt="none", color="0.25", linewidth=1)
    axis.set(xticks=range(len(ticks)), xticklabels=ticks)


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


def frame(axis: Axes) -> None:
    """A thick frame around a photo of a sheet."""
    axis.patch.set_visible(False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=_RED, linewidth=4)


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
