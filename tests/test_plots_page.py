"""The page of `dvc plots`: its lines have names, and it is drawn without a network."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from vars_core import labels

LINES = [plot for plot in YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"] if isinstance(plot, dict)]


@pytest.mark.parametrize("plot", LINES, ids=lambda plot: next(iter(plot)))
def test_every_line_has_a_name_and_a_column(plot):
    (options,) = plot.values()
    template = json.loads((ROOT / ".dvc" / "plots" / f"{options['template']}.json").read_text(encoding="utf-8"))
    named = dict(re.findall(r"(\w+): '([^']+)'", template["encoding"]["color"]["legend"]["labelExpr"]))
    assert named == {column: labels.header(column) for column in named}  # as in the tables
    for table, columns in options["y"].items():
        header = (ROOT / table).read_text(encoding="utf-8").splitlines()[0].split(",")
        assert set(columns) <= set(named) & set(header)


def test_lines_and_figures_are_drawn_and_nothing_is_fetched(browser, tmp_path):
    command = [sys.executable, "-m", "dvc", "plots", "show", "-o", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page, wrong = browser.new_page(), []
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith(("file:", "data:", "blob:")) or wrong.append(asked.url))
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_selector(".vega-embed canvas, .vega-embed svg.marks")
    page.wait_for_timeout(500)
    drawn = page.evaluate("document.querySelectorAll('.vega-embed canvas, .vega-embed svg.marks').length")
    figures = page.evaluate("[...document.images].filter(i => i.naturalWidth).length")
    assert (drawn, wrong) == (len(LINES), [])
    assert figures >= 6 and page.evaluate("[...document.images].every(i => i.naturalWidth)")
    page.close()
