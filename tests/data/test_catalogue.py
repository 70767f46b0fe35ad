"""Bad catalogues give a clear error or a row in the rejected table; good ones are read as they are."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED
from PIL import Image

from vars_core import params
from vars_core.data import catalogue, split

N_USERS, N_ITEMS = 12, 24


def config(**changes):
    values = {"source": "folder", "image_size": 16, "items": 40, "users": 30, "interactions_per_user": 8}
    values |= {"k_core": 2, "max_rejected_share": 0.3}
    return params.Data(**values | changes)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A sound folder of 24 items and 12 users; tests then break one thing."""
    monkeypatch.delenv("VARS_DATA", raising=False)
    root = tmp_path / "shop"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(N_ITEMS):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(root / "images" / f"i{n}.png")
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(N_ITEMS)], "category": ["tee", "mug", "hat"] * 8})
    items.assign(title="NA").to_csv(root / "items.csv", index=False)
    users, bought = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.6)
    frame = pd.DataFrame({"user_id": [f"u{n}" for n in users], "item_id": [f"i{n}" for n in bought]})
    frame.assign(timestamp=rng.integers(1, 99, len(frame)), rating=3).to_csv(root / "interactions.csv", index=False)
    return root


def prepare(shop, out=None, seed=0, **changes):
    return catalogue.prepare(config(path=str(shop), **changes), seed, out or shop.parent / "prepared")


def edit(path, change):
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(frame).to_csv(path, index=False)


def test_a_sound_folder(shop):
    c = prepare(shop)
    assert c.photos.shape == (N_ITEMS, 16, 16, 3) and c.photos.dtype == np.uint8
    assert c.name == "shop" and not c.simulated and len(c.fingerprint) == 16 and c.rejected.empty
    assert c.items["title"].eq("NA").all()  # text stays text
    assert c.categories == ["hat", "mug", "tee"] and c.labels[:3].tolist() == [2, 1, 0]
    raw = pd.read_csv(shop / "interactions.csv")
    ids = {(c.user_ids[u], c.items["item_id"][i]) for u, i in c.interactions[["user", "item"]].to_numpy()}
    assert ids == set(zip(raw["user_id"], raw["item_id"], strict=True))
    assert sorted(c.interactions["user"].unique()) == list(range(N_USERS))
    s = split.load(shop.parent / "prepared" / "split.npz")
    assert s.train.shape == (N_USERS, N_ITEMS) and (s.test >= 0).all()


def test_fingerprint_follows_photos_feedback_and_split(shop):
    first, again = prepare(shop), prepare(shop)
    assert first.fingerprint == again.fingerprint
    assert prepare(shop, cold_share=0.2).fingerprint != first.fingerprint
    assert prepare(shop, seed=1).fingerprint != first.fingerprint
    edit(shop / "interactions.csv", lambda f: f.iloc[1:])
    changed = prepare(shop).fingerprint
    assert changed != first.fingerprint
    Image.new("RGB", (20, 20), "red").save(shop / "images" / "i0.png")
    assert prepare(shop).fingerprint not in (first.fingerprint, changed)


def test_vars_data_names_the_folder(shop, monkeypatch):
    monkeypatch.setenv("VARS_DATA", str(shop))
    assert catalogue.prepare(config(path="nowhere"), 0, shop.parent / "out").name == "shop"


@pytest.mark.parametrize("path", [None, "data/raw/none"])
def test_no_folder(path, monkeypatch, tmp_path):
    monkeypatch.delenv("VARS_DATA", raising=False)
    with pytest.raises(catalogue.CatalogueError, match=r"data\.path"):
        catalogue.prepare(config(path=path), 0, tmp_path / "out")


def test_no_interactions_means_simulated_feedback(shop):
    (shop / "interactions.csv").unlink()
    c = prepare(shop)
    assert c.simulated and "timestamp" not in c.interactions and len(c.interactions) > 50


def drop(name):
    return lambda f: f.drop(columns=name)


def put(row, column, value):
    def change(frame):
        frame.loc[row, column] = value
        return frame

    return change


ERRORS = {
    "no category column": ("items.csv", drop("category"), r"items\.csv, row 1: no column category"),
    "no item_id in interactions": (
        "interactions.csv",
        drop("item_id"),
        r"interactions\.csv, row 1: no column",
    ),
    "empty column": ("items.csv", lambda f: f.assign(category=""), "column 'category' is empty"),
    "no rows": ("items.csv", lambda f: f.iloc[:0], "no row below the header"),
    "duplicate id": ("items.csv", put(5, "item_id", "i2"), r"row 7: item_id 'i2' already stands in row 4"),
    "empty id": ("items.csv", put(3, "item_id", ""), r"row 5: item_id is empty"),
    "path traversal": ("items.csv", put(3, "item_id", "../../etc/x"), r"row 5: item_id '\.\./\.\./etc/x'"),
    "hidden file": ("items.csv", put(3, "item_id", ".i3"), r"row 5"),
    "empty user": ("interactions.csv", put(4, "user_id", " "), r"interactions\.csv, row 6: user_id is empty"),
    "bad time": ("interactions.csv", put(4, "timestamp", "soon"), r"row 6: timestamp 'soon'"),
    "infinite time": ("interactions.csv", put(4, "timestamp", "inf"), r"row 6: timestamp 'inf'"),
    "no time": ("interactions.csv", put(4, "timestamp", ""), r"row 6: timestamp ''"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_tables_are_errors_that_name_file_and_row(shop, name):
    file, change, message = ERRORS[name]
    edit(shop / file, change)
    with pytest.raises(catalogue.CatalogueError, match=message):
        prepare(shop)
    assert not (shop.parent / "prepared").exists() and not list(shop.parent.glob("*.partial"))


RAW = {
    "duplicate column": (b"item_id,category,category\ni0,a,b\n", "'category' appears more than once"),
    "empty file": (b"", "no column item_id, category"),
    "not utf-8": ("item_id,category\ni0,é\n".encode("latin-1"), "UTF-8"),
    "a quote left open": (b'item_id,category\ni0,"a\ni1,b\n', r"items\.csv, row 2: not CSV .*is a quote left open"),
}


@pytest.mark.parametrize("name", RAW)
def test_bad_bytes(shop, name):
    data, message = RAW[name]
    (shop / "items.csv").write_bytes(data)
    with pytest.raises(catalogue.CatalogueError, match=message):
        prepare(shop)


def test_missing_parts(shop):
    (shop / "images").rename(shop / "pictures")
    with pytest.raises(catalogue.CatalogueError, match="images: no such folder"):
        prepare(shop)
    (shop / "items.csv").unlink()
    with pytest.raises(catalogue.CatalogueError, match=r"items\.csv: no such file"):
        prepare(shop)


def bad_photos(shop):
    images = shop / "images"
    (images / "i0.png").unlink()
    (images / "i1.png").write_bytes((images / "i1.png").read_bytes()[:-80])
    (images / "i2.png").write_text("<html>")
    Image.new("RGB", (9, 9)).save(images / "i3.jpg")


def test_bad_photos_are_set_aside_with_reasons(shop):
    bad_photos(shop)
    edit(shop / "items.csv", put(4, "category", ""))
    c = prepare(shop)
    assert len(c.items) == N_ITEMS - 5 and c.photos.shape[0] == N_ITEMS - 5
    reasons = c.rejected.set_index("item_id")["reason"]
    assert set(reasons.index) == {"i0", "i1", "i2", "i3", "i4"}
    for item, text in {
        "i0": "no image",
        "i1": "truncated",
        "i2": "not a JPEG",
        "i3": "several",
        "i4": "empty",
    }.items():
        assert text in reasons[item]
    wanted = pd.read_csv(shop / "interactions.csv")["item_id"].isin(reasons.index).sum()
    assert c.notes["interactions_with_rejected_items"] == wanted
    whole = np.asarray(Image.open(shop / "images" / "i5.png").resize((16, 16), Image.Resampling.BICUBIC))
    assert (c.photos[c.items["item_id"].tolist().index("i5")] == whole).all()


def test_too_many_rejected_is_an_error(shop):
    bad_photos(shop)
    with pytest.raises(catalogue.CatalogueError, match=r"of 24 items rejected.*max_rejected_share"):
        prepare(shop, max_rejected_share=0.05)


def test_every_photo_rejected(shop):
    for path in (shop / "images").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(catalogue.CatalogueError, match="every one of 24 photos was rejected"):
        prepare(shop, max_rejected_share=1.0)
    for path in (shop / "images").iterdir():
        path.unlink()
    with pytest.raises(catalogue.CatalogueError, match="no usable item"):
        prepare(shop, max_rejected_share=1.0)


def test_unknown_items_and_repeats_in_interactions(shop):
    def change(frame):
        extra = frame.iloc[[0, 0]].assign(item_id="ghost")
        return pd.concat([frame, extra, frame.iloc[[3]].assign(timestamp="999")])

    n = len(pd.read_csv(shop / "interactions.csv"))
    edit(shop / "interactions.csv", change)
    c = prepare(shop)
    assert len(c.interactions) == n and c.notes["repeated_interactions"] == 1
    assert c.rejected["item_id"].tolist() == ["ghost"] and f"row {n + 2}" in c.rejected["reason"][0]


def test_a_column_called_row_is_a_column_like_any(shop):
    edit(shop / "items.csv", lambda f: f.assign(row=[f"shelf {n}" for n in range(len(f))]))
    c = prepare(shop)
    assert c.items["row"].tolist() == [f"shelf {name[1:]}" for name in c.items["item_id"]]
    edit(shop / "items.csv", put(3, "item_id", ""))
    with pytest.raises(catalogue.CatalogueError, match=r"items\.csv, row 5: item_id is empty"):
        prepare(shop)


def test_iso_dates_and_blank_lines_and_bom(shop):
    path = shop / "interactions.csv"
    edit(path, lambda f: f.assign(timestamp=[f"2024-01-{1 + n % 28:02d}T10:00:00" for n in range(len(f))]))
    path.write_text("\ufeff" + path.read_text() + "\n\n", encoding="utf-8")
    c = prepare(shop)
    assert c.interactions["timestamp"].min() == pd.Timestamp("2024-01-01T10:00:00Z").timestamp()


def test_users_with_one_interaction_are_kept_without_a_core(shop):
    edit(shop / "interactions.csv", lambda f: pd.concat([f, f.iloc[[0]].assign(user_id="once")]))
    c = prepare(shop, k_core=1)
    s = split.load(shop.parent / "prepared" / "split.npz")
    once = c.user_ids.index("once")
    assert s.test[once] == -1 and s.validation[once] == -1
    assert "once" not in prepare(shop, k_core=2).user_ids


def test_empty_core(shop):
    with pytest.raises(catalogue.CatalogueError, match="25-core of shop is empty"):
        prepare(shop, k_core=25)


def test_one_category(shop):
    edit(shop / "items.csv", lambda f: f.assign(category="tee"))
    (shop / "interactions.csv").unlink()
    c = prepare(shop)
    assert c.categories == ["tee"] and (c.labels == 0).all()


def test_max_items_keeps_the_most_bought(shop):
    bought = pd.read_csv(shop / "interactions.csv")["item_id"].value_counts()
    c = prepare(shop, max_items=20)
    assert len(c.items) == 20
    assert bought[c.items["item_id"]].min() >= bought.drop(c.items["item_id"]).max()
    (shop / "interactions.csv").unlink()
    assert len(prepare(shop, max_items=20).items) <= 20


def test_a_failed_run_leaves_the_old_folder(shop):
    before = prepare(shop)
    (shop / "items.csv").write_text("nonsense")
    with pytest.raises(catalogue.CatalogueError):
        prepare(shop)
    assert catalogue.load(shop.parent / "prepared").fingerprint == before.fingerprint


def test_load_refuses_pickles_and_foreign_folders(shop):
    with pytest.raises(catalogue.CatalogueError, match="not a prepared catalogue"):
        catalogue.load(shop)
    prepare(shop)
    np.save(shop.parent / "prepared" / "photos.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(catalogue.CatalogueError, match="run 01_data again"):
        catalogue.load(shop.parent / "prepared")


@pytest.mark.parametrize(
    "name", ["meta.json", "photos.npy", "items.csv", "interactions.csv", "users.csv", "rejected.csv"]
)
def test_a_prepared_catalogue_that_is_damaged_is_one_line(name, shop):
    prepare(shop)
    file = shop.parent / "prepared" / name
    for content in (b"", b"\xff\xfe\0" * 9):
        file.write_bytes(content)
        with pytest.raises(catalogue.CatalogueError, match=r"prepared is damaged: .*run 01_data again"):
            catalogue.load(shop.parent / "prepared")


def test_synthetic_catalogue(tmp_path):
    cfg = config(source="synthetic")
    c = catalogue.prepare(cfg, 0, tmp_path / "a")
    assert c.name == "synthetic" and c.simulated and {"colour", "pattern", "style"} <= set(c.items)
    again = catalogue.prepare(cfg, 0, tmp_path / "b")
    for name in ("photos.npy", "items.csv", "interactions.csv", "split.npz", "meta.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert again.fingerprint == json.loads((tmp_path / "a" / "meta.json").read_text())["fingerprint"]


@pytest.mark.parametrize("name", ["ml-small-posters", "clothing-small"])
def test_real_catalogues(name, tmp_path, monkeypatch):
    if not (SHARED / "data" / name).is_dir():
        pytest.skip(f"no catalogue {name} under VARS_SHARED ({SHARED.name})")
    monkeypatch.setenv("VARS_DATA", str(SHARED / "data" / name))
    c = catalogue.prepare(config(max_items=120, users=60, interactions_per_user=12), 0, tmp_path / "out")
    assert c.name == name and c.simulated == (name == "clothing-small")
    assert 60 <= len(c.items) <= 120 and c.photos.std() > 20 and c.rejected.empty
    s = split.load(tmp_path / "out" / "split.npz")
    assert (s.test >= 0).mean() > 0.9
