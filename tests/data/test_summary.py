"""`vars check FOLDER` names every problem with its row, and what a sound catalogue will look like."""

import pandas as pd
import pytest
from conftest import ROOT
from ruamel.yaml import YAML
from test_catalogue import config, edit, shop

from vars_core import params
from vars_core.__main__ import main

__all__ = ["shop"]  # a fixture


@pytest.fixture
def check(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VARS_ROOT", str(tmp_path))
    values = params.read(ROOT / "profiles" / "smoke.yaml")
    values["data"] |= config().model_dump() | {"path": None}
    with (tmp_path / "params.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(values, file)

    def run():
        code = main(["check", str(shop)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_a_sound_catalogue(check):
    code, text = check()
    assert code == 0
    for expected in ("24 in 3 categories", "(real feedback)", "by time", "cold items", "outside the 2-core"):
        assert expected in text


def test_every_problem_is_told_with_its_row(check, shop):
    edit(shop / "items.csv", lambda f: f.assign(item_id=["", "a/b", "i2", "i2", *f["item_id"][4:]]))
    edit(shop / "interactions.csv", lambda f: f.assign(timestamp=["soon", "later", *f["timestamp"][2:]]))
    code, text = check()
    assert code == 1 and text.count("error: ") == 5 and "5 errors" in text
    for expected in (
        "items.csv, row 2: item_id is empty",
        "items.csv, row 3: item_id 'a/b' cannot be a file name",
        "items.csv, row 5: item_id 'i2' already stands in row 4",
        "interactions.csv, row 2: timestamp 'soon'",
        "interactions.csv, row 3: timestamp 'later'",
    ):
        assert expected in text


def test_rows_set_aside_are_listed_and_do_not_fail(check, shop):
    (shop / "images" / "i3.png").write_bytes(b"no photo")
    (shop / "images" / "i4.png").unlink()
    code, text = check()
    assert code == 0 and "set aside: i3 (i3.png): not a JPEG" in text
    assert "set aside: i4 (images/): items.csv, row 6: no image" in text


def test_too_many_rejected_fails(check, shop):
    for n in range(12):
        (shop / "images" / f"i{n}.png").write_bytes(b"no photo")
    code, text = check()
    assert code == 1 and "max_rejected_share" in text


def test_a_missing_table_and_folder_are_told_together(check, shop):
    (shop / "items.csv").unlink()
    for photo in (shop / "images").iterdir():
        photo.unlink()
    (shop / "images").rmdir()
    code, text = check()
    assert code == 1 and "items.csv: no such file" in text and "images: no such folder" in text


def test_no_folder(check, shop, capsys):
    assert main(["check", str(shop / "nowhere")]) == 1
    assert f"{shop / 'nowhere'}: no such folder; a catalogue is a folder with items.csv" in capsys.readouterr().out
    assert main(["check", str(shop / "items.csv")]) == 1
    assert "items.csv: a file, not a folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "items.csv, row 1: no column item_id, category; the header is []"),
        ("item_id,category\n", "items.csv: no row below the header"),
        ("item_id,category\n,\n\n", "items.csv: no row below the header"),
        ("item_id;category\ni0;tee\n", "no column item_id, category; the header is ['item_id;category']"),
    ],
)
def test_an_empty_table(content, message, check, shop):
    (shop / "items.csv").write_text(content)
    code, text = check()
    assert code == 1 and message in text and "1 error;" in text


def test_without_feedback_it_is_simulated(check, shop):
    (shop / "interactions.csv").unlink()
    code, text = check()
    assert code == 0 and "(simulated feedback)" in text and "seeded" in text


def test_columns_of_the_users_own(check, shop):
    edit(shop / "items.csv", lambda f: f.assign(row="shelf 3", part="test", timestamp="never", user="x"))
    edit(shop / "interactions.csv", lambda f: f.assign(row="", user="y"))
    code, text = check()
    assert code == 0 and "24 in 3 categories" in text and "by time" in text and "0 rows" in text


def test_a_split_that_comes_with_the_data(check, shop):
    def parts(frame):
        last = ~frame["user_id"].duplicated(keep="last")
        return frame.assign(part=last.map({True: "test", False: "train"}))

    edit(shop / "interactions.csv", parts)
    code, text = check()
    assert code == 0 and "the catalogue's own" in text
    edit(shop / "interactions.csv", lambda f: f.assign(part=["final", *f["part"][1:]]))
    code, text = check()
    assert code == 1 and "interactions.csv, row 2: part 'final'; train, validation, test expected" in text
    frame = pd.read_csv(shop / "interactions.csv", dtype=str).assign(part="test")
    frame.to_csv(shop / "interactions.csv", index=False)
    assert "a second test item of user" in check()[1]
