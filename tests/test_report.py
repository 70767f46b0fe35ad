"""Tables, metrics, figures: the same bytes for the same numbers, and no silent NaN."""

import io
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import nbconvert
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from vars_core import plots, report

matplotlib.use("agg")
FRAME = pd.DataFrame({"attack": ["pgd|x", "fgsm"], "value": [0.123456, None], "n": [3, 4], "ok": [True, False]})


@pytest.fixture(autouse=True)
def _not_simulated():
    report.mark_simulated(False)  # a notebook run in this process, by another test, may have set it
    yield
    report.mark_simulated(False)


def files(workspace):
    return {
        p.relative_to(workspace / "reports").as_posix(): p.read_bytes() for p in workspace.rglob("*") if p.is_file()
    }


def test_a_table_is_csv_markdown_and_latex(workspace):
    shown = report.table(FRAME, "03_attacks/rank_shift", "50% of a_b")
    found = files(workspace)
    assert sorted(found) == [f"tables/03_attacks/rank_shift.{e}" for e in ("csv", "md", "tex")]
    csv = found["tables/03_attacks/rank_shift.csv"].decode()
    assert csv == "attack,value,n,ok\npgd|x,0.1235,3,True\nfgsm,,4,False\n"
    markdown = found["tables/03_attacks/rank_shift.md"].decode()
    assert "| pgd\\|x | 0.1235 | 3 | yes |" in markdown and "| hook (FGSM) | – | 4 | no |" in markdown
    latex = found["tables/03_attacks/rank_shift.tex"].decode()
    assert r"\caption{50\% of a\_b}" in latex and r"\label{tab:03_attacks:rank_shift}" in latex
    html = shown.to_html()
    assert html == report.table(FRAME, "03_attacks/rank_shift", "50% of a_b").to_html()
    assert files(workspace) == found


def test_a_named_index_becomes_columns(workspace):
    report.table(FRAME.groupby("attack").agg({"n": "sum"}), "03_attacks/t", "c")
    assert files(workspace)["tables/03_attacks/t.csv"] == b"attack,n\nfgsm,4\npgd|x,3\n"


def test_simulated_feedback_is_said_in_every_caption(workspace):
    report.mark_simulated(True)
    report.table(FRAME, "03_attacks/t", "A table.")
    assert "A table (simulated feedback)" in files(workspace)["tables/03_attacks/t.md"].decode()


@pytest.mark.parametrize("name", ["t", "a/b/c", "/t", "03_attacks/", "../t"])
def test_a_table_has_a_stage_and_a_name(workspace, name):
    with pytest.raises(ValueError, match="name is"):
        report.table(FRAME, name, "c")


def test_metrics_are_sorted_and_rounded(workspace):
    report.metrics(
        "03_attacks", {"b": {"z": np.float32(1 / 3), "a_ci": [0.123456, 2]}, "a": torch.tensor(7), "t": True}
    )
    text = files(workspace)["metrics/03_attacks.json"].decode()
    assert json.loads(text) == {"a": 7, "b": {"a_ci": [0.1235, 2], "z": 0.3333}, "t": True}
    assert text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize("bad", [float("nan"), np.float64("inf"), None, [1.0, float("nan")]])
def test_metrics_refuse_what_is_not_a_number_and_name_it(workspace, bad):
    with pytest.raises(ValueError, match=r"metric vbpr\.hr@20"):
        report.metrics("02_recommender", {"vbpr": {"hr@20": bad}})
    assert not files(workspace)


def test_answers_feed_the_readme(workspace):
    report.answer("03_attacks", "How far?", "From 812 to 41.")
    content = json.loads(files(workspace)["tables/03_attacks/answer.json"])
    assert content == {"question": "How far?", "answer": "From 812 to 41."}


def drawn():
    plots.theme()
    fig, axes = matplotlib.pyplot.subplots(1, 2)
    axes[0].plot([0, 1, 3], label="x", marker=plots.RECOMMENDERS["vbpr"].marker)
    axes[0].fill_between([0, 1, 2], [0, 1, 2], alpha=0.3, color=plots.DEFENCE_COLOURS["filter"])
    axes[0].legend()
    axes[1].imshow(np.arange(16).reshape(4, 4))
    return fig


def test_a_figure_saved_twice_has_the_same_bytes_and_no_date(workspace):
    plots.save(drawn(), "03_attacks/f", "A figure")
    first = files(workspace)
    assert sorted(first) == [f"figures/03_attacks/f.{e}" for e in ("png", "svg", "txt")]
    plots.save(drawn(), "03_attacks/f", "A figure")
    assert files(workspace) == first
    assert (
        b"dc:date" not in first["figures/03_attacks/f.svg"] and b"Software" not in first["figures/03_attacks/f.png"]
    )
    assert not matplotlib.pyplot.get_fignums()


def test_bars_stand_at_their_shares_under_readable_names():
    fig, axis = plt.subplots()
    found = [SimpleNamespace(value=0.2, ci_low=0.1, ci_high=0.4), SimpleNamespace(value=0.5, ci_low=0.5, ci_high=0.5)]
    plots.bars(axis, {"none": found, "filter_adaptive": found[::-1]}, ["T0", "T2"])
    assert [bar.get_height() for bar in axis.patches] == [20, 50, 50, 20]
    assert axis.get_legend_handles_labels()[1] == ["no defence", "filter, adaptive"]
    plt.close(fig)


def test_names_cover_neither_each_other_nor_a_point():
    fig, axis = plt.subplots(figsize=(6, 4))
    points = [(x / 50, 1 + y / 100, f"a long name, {x}{y}") for x in (0, 1, 48, 49) for y in (0, 1, 2)]
    axis.scatter(*zip(*[point[:2] for point in points], strict=True))
    plots.name_points(axis, points)
    renderer = fig.canvas.get_renderer()
    for text in axis.texts:
        text.update_positions(renderer)
    boxes = [Text.get_window_extent(text, renderer) for text in axis.texts]
    assert [text.get_text() for text in sorted(axis.texts, key=lambda text: text.xy)] == [name for *_, name in points]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    marks = axis.transData.transform([point[:2] for point in points])
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    inside = axis.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
    plots.name_points(axis, [(0.5, 1, "far too long to stand anywhere " * 9)])  # and is written all the same
    assert len(axis.texts) == len(points) + 1
    plt.close(fig)


def test_photo_grids_take_flat_lists_and_rows():
    photos = np.zeros((5, 4, 4, 3), np.uint8)
    assert len(plots.photo_grid(photos, list("abcde"), columns=2).axes) == 6
    assert len(plots.photo_grid([photos[:3], photos[:2]], row_titles=["x", "y"]).axes) == 6
    matplotlib.pyplot.close("all")
    with pytest.raises(TypeError, match="uint8"):
        plots.photo_grid(photos / 255)
    with pytest.raises(ValueError, match="at least one"):
        plots.photo_grid([])
    matplotlib.pyplot.close("all")


def test_captions_of_figures_say_simulated_too(workspace):
    report.mark_simulated(True)
    plots.save(drawn(), "03_attacks/f", "A figure")
    assert files(workspace)["figures/03_attacks/f.txt"] == b"A figure (simulated feedback)\n"


NASTY = [
    '<img src=x onerror="alert(1)">', "</table><script>alert(1)</script>", "a|b\n\n# c", "`rm`", "$x^2", "a_$b_$",
    "$$", "\\$x$", "[a](javascript:alert(1))", "![a](x)", "_x_ **y** ~~z~~", "&lt;b&gt;", "=1+1", "\\input{x}",
    "{~^#%",
    "ชา 茶 🍵", "\x1b[31m", "x" * 5000, "_hidden", "<!-- a", "<?php", "R & D < 5",
]  # fmt: skip


class Tags(HTMLParser):
    """The names of all tags, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_names_in_tables_are_shown_as_they_are_and_do_nothing(workspace):
    frame = pd.DataFrame({name: [name, 1] for name in NASTY})
    page = Tags(report.table(frame, "01_data/t", NASTY[0]).to_html())
    assert page.tags == {"style", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert page.text.count(NASTY[0]) == 3  # caption, column, cell
    assert all(report.one_line(name) in page.text for name in NASTY)
    found = {name.split(".")[-1]: content.decode() for name, content in files(workspace).items()}
    rows = found["md"].split("\n\n")[0].split("\n")
    assert len(rows) == 4 and len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    read = pd.read_csv(io.StringIO(found["csv"]), dtype=str)
    assert read.iloc[0].tolist() == NASTY  # as they are
    cells = found["tex"].split("\\midrule")[1]
    assert "\\input" not in cells and "\\textbackslash" in cells and "\n\n" not in found["tex"]
    assert r"\caption{<img src=x onerror=" in found["tex"]


def test_captions_are_plain_text_in_latex_too(workspace):
    report.table(FRAME, "01_data/t", "50% {of} a_b~\\input{x}\n\n^")
    latex = files(workspace)["tables/01_data/t.tex"].decode()
    assert r"\caption{50\% \{of\} a\_b\textasciitilde{}\textbackslash{}input\{x\}  \^{}}" in latex


def page_of(markdown):
    """What nbconvert, as JupyterLab does, makes of a cell's Markdown output."""
    data = {"text/markdown": markdown}
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data=data)])
    exporter = nbconvert.HTMLExporter(template_name="basic", sanitize_html=False)
    return Tags(exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))[0])


def test_names_in_sentences_do_nothing_in_the_executed_page():
    usual = page_of("**Largest**: tee, has 3.").tags
    page = page_of("\n\n".join(f"**Largest**: {report.plain(name)}, has 3." for name in NASTY))
    assert page.tags == usual
    shown = page.text.replace("\\$", "$")  # MathJax, which runs later, takes the backslash
    for name in (
        '<img src=x onerror="alert(1)">',
        "[a](javascript:alert(1))",
        "_x_ **y** ~~z~~",
        "&lt;b&gt;",
        "R & D < 5",
    ):
        assert f"Largest: {name}, has 3." in shown, name


def test_plain_text_stays_as_it_is():
    for text in ("a_b", "T-shirt (men)", "R&D", "3 < 5", "0.2 [0.1, 0.3]", "~50 %", "C#", "1. tee"):
        assert report.plain(text) == text
    assert report.plain("a_b_") == r"a_b\_" and report.plain("a|b`c") == r"a\|b\`c"


def test_names_in_figures_are_shown_as_they_are(workspace, recwarn):
    fig = plots.photo_grid(np.zeros((len(NASTY), 4, 4, 3), np.uint8), NASTY, row_titles=["$x^2 $y"] * 3)
    fig.axes[0].legend([fig.axes[0].plot([0])[0]], [plots.label("$a^ $b")])
    plots.save(fig, "01_data/f", NASTY[0])  # a formula that isn't one would raise
    drawing = files(workspace)["figures/01_data/f.svg"].decode()
    shown = "".join(ElementTree.fromstring(drawing).itertext())
    assert "<img" in shown and "$x^2 $y" in shown and "a_$b_$" in shown and "$a^ $b" in shown
    assert "x" * 39 + "…" in shown and "x" * 40 not in shown


def test_bars_are_percent_with_their_intervals():
    def share(value):
        return SimpleNamespace(value=value, ci_low=value - 0.1, ci_high=value + 0.2)

    _, axis = plt.subplots()
    plots.bars(axis, {"none": [share(0.5), share(0.3)], "both": [share(0.2), share(0.1)]}, ["T0", "T2"])
    assert [round(bar.get_height()) for bar in axis.patches] == [50, 30, 20, 10]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["T0", "T2"]
    ends = [segment[:, 1].round().tolist() for lines in axis.collections for segment in lines.get_segments()]
    assert ends == [[40, 70], [20, 50], [10, 40], [0, 30]]
    plt.close()


def test_a_count_agrees_with_its_thing():
    assert [report.count(n, "seed") for n in (0, 1, 2, 1823)] == ["0 seeds", "1 seed", "2 seeds", "1,823 seeds"]


def test_a_headline_has_few_names_without_parameters(workspace):
    report.headline("03_x", {"lists_reached": 0.123456, "absent": None, "nothing": float("nan"), "n": 3})
    written = json.loads((workspace / "reports/tables/03_x/headline.json").read_text())
    assert written == {"lists_reached": 0.1235, "n": 3}
    for wrong in ({"pgd@8": 1.0}, {"hr20": 1.0}, {"Lists": 1.0}, {"a_": 1.0}):
        with pytest.raises(ValueError, match="letters and underscores; got"):
            report.headline("03_x", wrong)
    with pytest.raises(ValueError, match="at most 8 names of letters and underscores; got 9"):
        report.headline("03_x", dict.fromkeys("abcdefghi", 1.0))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.00341, "+0.34 %"), (-0.1234, "-12 %"), (0.0, "±0 %"), (-1e-7, "±0 %"), (2e-5, "+0.002 %"), (1.0, "+100 %"),
        (0.0999, "+10 %"), (None, "–"), (float("nan"), "–"), (np.float32(0.05), "+5 %"),
    ],
)  # fmt: skip
def test_a_change_has_a_sign_and_two_digits(share, text):
    assert report.signed(share) == text


def test_a_value_is_shown_with_the_bounds_behind_it(workspace):
    frame = pd.DataFrame(
        {"low": [0.5], "defence": ["conv"], "lost": [-0.01234], "ci_low": [-0.02], "ci_high": [0.0012345], "n": [7]}
    )
    shown = report.table(frame, "04_reconstruction/x", "cost")
    found = files(workspace)
    assert (
        found["tables/04_reconstruction/x.csv"]
        == b"low,defence,lost,ci_low,ci_high,n\n0.5,conv,-0.01234,-0.02,0.001234,7\n"
    )
    markdown = found["tables/04_reconstruction/x.md"].decode().splitlines()
    assert markdown[:3] == [
        "| low | defence | lost | n |",
        "| ---: | --- | ---: | ---: |",
        "| 0.5 | convolution | -0.0123 [-0.02, 0.00123] | 7 |",
    ]
    assert "-0.0123 [-0.02, 0.00123]" in shown.to_html()


def test_lines_are_named_at_their_ends_without_covering_each_other():
    fig, axis = plt.subplots()
    for place, name in enumerate(("first", "second", "third")):
        axis.plot([1, 2, 4], [0, 1, 1 + place / 1000], label=name)
    axis.plot([1, 2], [0, 0])  # without a name
    axis.axhline(0.5, label="level")
    plots.by_epsilon(axis, [1, 2, 4])
    plots.name_lines(axis)
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "2", "4"]
    fig.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in axis.texts}
    assert sorted(boxes) == ["first", "level", "second", "third"]
    assert not any(one.overlaps(other) for n, one in boxes.items() for m, other in boxes.items() if n < m)
    assert boxes["first"].y0 < boxes["second"].y0 < boxes["third"].y0 and boxes["level"].y0 < boxes["first"].y0
    ends = axis.transData.transform([(4, 1)])[0]
    assert abs(boxes["second"].get_points()[:, 1].mean() - ends[1]) < 6
    plt.close(fig)


def test_a_tidy_table_is_shown_with_intervals_side_by_side(workspace):
    rows = [
        {"attack": "pgd", "epsilon": 8, "value": 0.23601, "ci_low": 0.219, "ci_high": 0.254},
        {"attack": "pgd", "epsilon": 4, "value": 0.1, "ci_low": 0.05, "ci_high": 0.2},
        {"attack": "fgsm", "epsilon": 8, "value": 0.0, "ci_low": np.nan, "ci_high": np.nan},
    ]
    shown = report.intervals(pd.DataFrame(rows), "attack", "epsilon", "By attack")
    text = shown.to_html()
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", text)
    assert cells == [
        "attack",
        "8",
        "4",
        "hook (PGD)",
        "0.236 [0.219, 0.254]",
        "0.1 [0.05, 0.2]",
        "hook (FGSM)",
        "0",
        "–",
    ]
    assert "By attack" in text and not list(workspace.rglob("*.csv"))
    assert text == report.intervals(pd.DataFrame(rows), "attack", "epsilon", "By attack").to_html()
