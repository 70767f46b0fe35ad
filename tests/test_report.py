"""Tables, metrics, figures: the same bytes for the same numbers, and no silent NaN."""

import json
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from vars_core import plots, report

matplotlib.use("agg")
FRAME = pd.DataFrame({"attack": ["pgd|x", "fgsm"], "value": [0.123456, None], "n": [3, 4], "ok": [True, False]})


@pytest.fixture(autouse=True)
def _not_simulated():
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
    assert "| pgd\\|x | 0.1235 | 3 | yes |" in markdown and "| fgsm | – | 4 | no |" in markdown
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
    assert axis.get_legend_handles_labels()[1] == ["none", "filter, adaptive"]
    assert plots.defence_label("global_vit_adaptive") == "global ViT, adaptive"
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
