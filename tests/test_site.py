"""The site: what is laid out for Sphinx, its links, and the pages in a real browser where there is one."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from vars_core.attacks import explorer
from vars_core.pipeline import notebooks, site

EVIL = "<img src=x onerror=document.title='owned'>"


def encoded(value):
    return explorer._encoded(np.full((8, 8, 3), value, np.uint8))


@pytest.fixture(scope="module")
def data():
    """What `explorer.collect` gives, of two items and a list of three, by hand: the second's category is hostile."""
    cases = {
        "reach|none|4": {"change": encoded(132), "score": 3.0},
        "reach|filter|4": {"change": encoded(124), "score": 0.5},
    }
    outcomes = {"none|none|0|none": [0.01, 50], "none|none|0|filter": [0.02, 40], "reach|none|4|none": [0.5, 2]}
    outcomes |= {"reach|none|4|filter": [0.03, 30], "reach|filter|4|filter": [0.25, 1]}
    item = {"photo": encoded(100), "score": -1.0, "lists": {"none": [5, 6, 7], "filter": [6, 5, 7]}, "cases": cases}
    return {
        "threshold": 1.0, "rate": "1", "words": explorer.WORDS,
        "k": 20, "simulated": True, "defences": ["none", "filter"], "gain": 8,
        "goals": ["reach"], "epsilons": [4], "thumbnails": {str(n): encoded(n) for n in (1, 2, 5, 6, 7)},
        "categories": {"1": "tee", "2": EVIL, "5": "mug", "6": "bag", "7": "hat"},
        "items": [{"item": 1, "outcomes": outcomes} | item, {"item": 2, "outcomes": outcomes} | item],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "item", "rank", "expected"),
    [
        ([5, 6, 7], 1, 1, [1, 5, 6]),
        ([5, 6, 7], 1, 3, [5, 6, 1]),
        ([5, 6, 7], 1, 4, [5, 6, 7]),
        ([5, 1, 7], 1, 3, [5, 7, 1]),
        ([5, 1, 7], 1, 50, [5, 7]),
        ([5, 6, 7], 1, 0, [5, 6, 7]),
    ],
)
def test_an_item_stands_at_its_place_of_a_list(listed, item, rank, expected):
    assert explorer.placed(listed, item, rank) == expected


def test_the_widget_says_what_happens_and_names_stay_text(data):
    text = explorer.shown(data, 0, "reach", 4, "none", knows=False)
    assert "in <b>50.00%</b> of the lists (untouched 1.00%)" in text and "3.00: flagged" in text
    known = explorer.shown(data, 0, "reach", 4, "filter", knows=True)
    assert "25.00%" in known and "0.50: not flagged" in known
    assert "3.00%" in explorer.shown(data, 0, "reach", 4, "filter", knows=False)
    assert "in <b>2.00%</b>" in explorer.shown(data, 0, "reach", 0, "filter", knows=True)
    assert EVIL not in explorer.shown(data, 1, "reach", 4, "none", knows=False)
    box = explorer.widget(data)
    place, goal, epsilon, defence, knows, view = box.children
    assert "untouched" in view.value and (goal.value, epsilon.value, defence.value) == ("reach", 0, "none")
    place.value, epsilon.value, defence.value, knows.value = 1, 4, "filter", True
    assert "25.00%" in view.value


def test_links_on_the_site_hold(tmp_path):
    site.lay_out(ROOT, tmp_path / "source")
    pages = [*(tmp_path / "source").rglob("*.md"), *(tmp_path / "source").rglob("*.ipynb")]
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            text = "\n".join(c.source for c in notebooks.read(page).cells if c.cell_type == "markdown")
        text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        for _, _, link in site.LINK.findall(text):
            if not re.match(r"[a-z]+:|#", link):
                assert (page.parent / link.split("#")[0]).exists(), f"{page.relative_to(tmp_path)}: {link}"


def test_a_link_to_what_the_site_lacks_becomes_text(tmp_path):
    for name in ("README.md", "docs/a.md", "code.py", "table.csv", "notebooks/01_x.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    text = "[r](../README.md#top) [c](../code.py) [t](../table.csv) [d](../notebooks) [n](../notebooks/01_x.ipynb)"
    found = site._linked(text + " [gone](b.md) [w](https://x.org)", site.Path("docs"), tmp_path, tmp_path / "target")
    assert found == (
        "[r](../index.md#top) c [t](../table.csv) d [n](../reports/notebooks/01_x.ipynb) gone [w](https://x.org)"
    )
    assert (tmp_path / "target" / "table.csv").is_file()


@pytest.fixture(scope="module")
def built(tmp_path_factory, data):
    missing = [name for name in ("sphinx", "myst_nb", "furo") if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: `make site` installs what the site is built with")
    folder = tmp_path_factory.mktemp("site")
    site.lay_out(ROOT, folder / "source")
    (folder / "source" / "static" / "explorer-data.js").write_text(f"const EXPLORER = {json.dumps(data)};\n")
    for path in (folder / "source" / "api").glob("*.md"):  # importing every module takes longer than the rest
        path.write_text(f"# {path.stem}\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(folder / "source"), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "html"


@pytest.mark.parametrize("width", [1280, 400])
def test_pages_load_in_a_browser(built, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    wrong = []
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or wrong.append(asked.url))
    pages = [p for p in sorted(built.rglob("*.html")) if p.name not in ("genindex.html", "search.html")]
    for path in pages:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.evaluate("[...document.images].filter(i => !i.alt || !i.naturalWidth).length") == 0, path
        links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)")
        gone = {a for a in links if a.startswith("file:") and not site.Path(a[7:].split("#")[0]).exists()}
        assert not gone, (path, gone)
    assert not wrong and len(pages) > 20
    page.close()


def test_the_explorer_reacts(built, browser):
    page = browser.new_page()
    page.goto((built / "explorer.html").as_uri())
    page.wait_for_selector("#explorer canvas")
    text = lambda: page.inner_text("#explorer")  # noqa: E731
    assert (
        "In 50.00 % of the lists; untouched in 1.00 %" in text()
        and "A detector would flag it: its score is 3.00" in text()
    )
    listed = "[...document.querySelectorAll('#explorer ol')].map(l => [...l.children].map(c => c.className || '-'))"
    assert page.evaluate(listed) == [["-", "-", "-"], ["-", "ours", "-"]]
    page.select_option("select[name='what the shop does']", "filter")
    page.wait_for_function("document.querySelector('#explorer').innerText.includes('3.00 %')")
    page.check("input[name=knows]")
    page.wait_for_function("document.querySelector('#explorer').innerText.includes('25.00 %')")
    assert "Not flagged" in text() and page.get_attribute("#explorer", "data-shown") == "reach|filter|4"
    page.focus("input[name=epsilon]")
    page.keyboard.press("ArrowLeft")  # the keyboard alone is enough
    page.wait_for_function("document.querySelector('#explorer').innerText.includes('In 2.00 % of the lists')")
    page.select_option("select[name=product]", "1")
    page.wait_for_timeout(200)
    assert EVIL in page.inner_text("select[name=product]") and page.title() != "owned"
    page.close()


def test_the_explorers_pictures_are_exact():
    photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(explorer._decoded(explorer._encoded(photo)), photo)
    assert Image.MIME["WEBP"] == "image/webp"
