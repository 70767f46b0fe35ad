"""`vars check FOLDER` names every problem with its row, and what a sound catalogue will look like."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from ruamel.yaml import YAML
from scipy import sparse
from test_catalogue import config, edit, shop

from vars_core import param_file, params
from vars_core.__main__ import main
from vars_core.data import alike, summary

__all__ = ["shop"]  # a fixture


@pytest.fixture
def check(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VARS_ROOT", str(tmp_path))
    values = param_file.read(ROOT / "profiles" / "smoke.yaml")
    values["data"] |= config().model_dump() | {"path": None}
    with (tmp_path / "params.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(values, file)

    def run(*options):
        code = main(["check", str(shop), *options])
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


def test_a_profile_instead_of_parameters(check, shop, tmp_path, capsys):
    code, text = check("--profile", "toy")
    assert code == 1 and "no profile is called toy; known: " in text
    (tmp_path / "profiles").mkdir()
    (tmp_path / "params.yaml").rename(tmp_path / "profiles" / "toy.yaml")
    assert check("--profile", "toy")[0] == 0
    assert "no profile is called ../params; known: toy" in check("--profile", "../params")[1]
    with pytest.raises(SystemExit):
        main(["check", str(shop), "--profile", "toy", "--params", "p.yaml"])


def changed(tmp_path, section, **changes):
    """The parameters that `check` reads, with changes."""
    path = tmp_path / "params.yaml"
    values = param_file.read(path)
    values[section] |= changes
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(values, file)


def test_more_than_half_outside_the_core_is_a_warning(check, shop, tmp_path):
    def rare(frame):
        once = frame.iloc[[0] * 40].assign(user_id=[f"once{n}" for n in range(40)])
        return pd.concat([frame, once])

    assert "warning: " not in check()[1]
    edit(shop / "interactions.csv", rare)
    code, text = check()
    assert code == 0 and "warning: 12 of 52 users stay in the 2-core; change data.k_core (2) to keep more" in text
    assert text.count("warning: ") == 1


def test_simulated_feedback_that_loses_most_items_says_how_many_stay():
    notes = {"items_outside_core": 5694, "users_outside_core": 3, "interactions_outside_core": 12}
    made = SimpleNamespace(
        simulated=True, notes=notes, items=range(305), user_ids=range(1997), interactions=range(9000), categories="ab"
    )
    parts = SimpleNamespace(train=sparse.csr_array(np.ones((1997, 305), bool)))
    cfg = params.Data(users=2000, interactions_per_user=12, k_core=5)
    assert summary.warnings(made, parts, cfg) == [
        "305 of 5,999 items stay in the 5-core; change data.users or data.interactions_per_user or data.k_core "
        "(2000, 12, 5) to keep more"
    ]


def test_users_without_history_are_counted(check, shop):
    def held_out(frame):
        part = pd.Series("train", frame.index)
        part[~frame["user_id"].duplicated()] = "test"
        part[(frame["user_id"] == "u3") & frame["user_id"].duplicated()] = ""
        return frame.assign(part=part)[part != ""]

    edit(
        shop / "interactions.csv", lambda f: pd.concat([held_out(f), f.iloc[[0]].assign(user_id="new", part="test")])
    )
    code, text = check()
    assert code == 0 and "users have no training interaction" not in text  # the 2-core took them out
    edit(
        shop / "interactions.csv",
        lambda f: pd.concat([f, f.iloc[[0, 1]].assign(user_id="v", part=["test", "validation"])]),
    )
    code, text = check()
    assert code == 0 and "warning: 1 of 12 users have no training interaction" in text


def test_one_category_needs_weights(check, shop, tmp_path):
    edit(shop / "items.csv", lambda f: f.assign(category="tee"))
    code, text = check()
    assert code == 1
    assert "error: the items with training interactions are all of one category, and recommender.extractor" in text
    changed(tmp_path, "recommender", pretrained=True, extractor="resnet18")
    code, text = check()
    assert code == 0 and "warning: one category only (tee)" in text


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (
            "recommender",
            {"k": 25},
            "a list of recommender.k=25 items from 24 items; lower recommender.k or data.k_core",
        ),
        ("attacks", {"attacker_users": 0.01}, "attacker_users=0.01 of 12 users leaves one side empty"),
        ("data", {"cold_share": 0.99}, "cold_share=0.99 leaves no warm item among 24"),
        ("data", {"k_core": 30}, "the 30-core of shop is empty"),
    ],
)
def test_what_the_study_could_not_run_with_is_refused(section, change, message, check, tmp_path):
    changed(tmp_path, section, **change)
    code, text = check()
    assert code == 1 and f"error: {message}" in text.replace("shop: ", "")


def test_leavings_and_unknown_items_are_said(check, shop):
    (shop / "images" / ".DS_Store").touch()
    (shop / "images" / "gone.png").symlink_to("nowhere")
    (shop / "images" / "more.png").write_bytes((shop / "images" / "i0.png").read_bytes())
    edit(shop / "interactions.csv", lambda f: pd.concat([f, f.iloc[[0, 1]].assign(item_id="ghost")]))
    code, text = check()
    assert code == 0
    for line in (
        "note: images/: 1 hidden files skipped",
        "note: images/: 1 links to nothing skipped",
        "note: images/: 1 photos of items that items.csv doesn't have: not used",
        "interactions are of items that items.csv doesn't have: left out",
        "set aside: ghost (interactions.csv): interactions.csv, row",
    ):
        assert line in text


def test_problems_are_shown_up_to_a_number(check, shop):
    edit(shop / "interactions.csv", lambda f: f.assign(timestamp=[f"{n} May" for n in range(len(f))]))
    code, text = check()
    assert code == 1 and text.count("error: ") == 21 and "more" in text.splitlines()[-2]


def test_photos_alike_are_counted():
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 200, (40, 32, 32, 3), dtype=np.uint8)
    assert not any(alike.count(photos).values())
    photos[1] = photos[2] = photos[0]  # equal
    photos[4] = photos[3] + 1  # nearly
    photos[5:8] = 255
    photos[7, 0, 0] = 250  # nearly, and white
    photos[8] = 255
    photos[8, 10:20, 10:20] = 40  # a product on white ground
    assert alike.count(photos) == {
        "are all white": 3, "are the same as another": 5, "are nearly the same as another": 4
    }  # fmt: skip
    assert alike.count(photos[:1]) == dict.fromkeys(alike.count(photos), 0)


@pytest.mark.parametrize("side", [16, 17, 40, 64])
def test_miniatures_are_means(side):
    photos = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    small = alike._miniatures(photos).reshape(3, 16, 16, 3)
    edges = [n * side // 16 for n in range(17)]
    expected = photos[2, edges[3] : edges[4], edges[15] : edges[16]].mean((0, 1))
    np.testing.assert_allclose(small[2, 3, 15], expected, rtol=1e-5)
