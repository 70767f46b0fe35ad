"""Converters: small files in exactly the formats people have, and what becomes of them."""

import io
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vars_core import params
from vars_core.__main__ import main
from vars_core.data import catalogue, convert, folder, tables, writer
from vars_core.data.folder import CatalogueError


def jpeg(shade, kind="JPEG", side=24):
    colours = np.random.default_rng(shade).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, kind)
    return file.getvalue()


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2.7's numpy.save wrote: protocol 2, strings as byte strings, numpy's old module names."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def __init__(self, file):
        super().__init__(file, protocol=2)

    def save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin-1")
        short = len(data) < 256
        self.write(b"U" + bytes([len(data)]) + data if short else b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, value, name=None):
        if getattr(value, "__module__", "").startswith("numpy._core"):
            self.write(f"cnumpy.core.multiarray\n{value.__name__}\n".encode())
            return self.memoize(value)
        return super().save_global(value, name)

    dispatch[type(np.load)] = save_global


def npy(path, content, pickler=Python2Pickler):
    """An object array of `content`, as numpy.save writes it."""
    array = np.empty(len(content), dtype=object)
    array[:] = content
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": array.shape})
        pickler(file).dump(array)
    return path


def dvbpr_content(n_users=6, n_items=8):
    def review(user, item):
        return {"productid": item, "reviewerID": f"A{user}", "helpful": [0, 1], "overall": 5.0, "text": "x" * 700}

    def parts(offset):
        return {user: [review(user, (user + offset) % n_items)] for user in range(n_users)}

    train = {user: [review(user, (user + step) % n_items) for step in (0, 1, 2)] for user in range(n_users)}
    items = {item: {"asin": f"B{item:04d}", "imgs": jpeg(item), "c": np.eye(6)[item % 6]} for item in range(n_items)}
    return [train, parts(3), parts(4), items, n_users, n_items]


@pytest.fixture
def dvbpr_file(tmp_path):
    return npy(tmp_path / "AmazonFashion6ImgPartitioned.npy", dvbpr_content())


def interactions(out):
    return pd.read_csv(out / "interactions.csv", dtype=str)


@pytest.mark.parametrize("keys", ["python2", "python3"])
def test_dvbpr(tmp_path, keys):
    pickler = Python2Pickler if keys == "python2" else lambda file: pickle.Pickler(file, 4)
    file = npy(tmp_path / "men.npy", dvbpr_content(), pickler)
    out = tmp_path / "men"
    assert convert.dvbpr(file, out) == {"items": 8, "without a photo": 0, "interactions": 30}
    items = pd.read_csv(out / "items.csv", dtype=str)
    assert items["item_id"].tolist() == list("01234567")
    assert items["category"].tolist() == [f"c{item % 6}" for item in range(8)]
    for item in range(8):
        assert (out / "images" / f"{item}.jpg").read_bytes() == jpeg(item)
    frame = interactions(out)
    assert frame["part"].value_counts().to_dict() == {"train": 18, "validation": 6, "test": 6}
    assert frame[(frame["user_id"] == "5") & (frame["part"] == "test")]["item_id"].tolist() == ["1"]
    assert not out.with_name("men.partial").exists()


def test_the_split_of_the_file_is_kept(dvbpr_file, tmp_path):
    convert.dvbpr(dvbpr_file, tmp_path / "raw")
    cfg = params.Data(source="folder", path=str(tmp_path / "raw"), image_size=16, k_core=1, cold_share=0.125)
    goods = catalogue.prepare(cfg, 0, tmp_path / "prepared")
    parts = catalogue.split.load(tmp_path / "prepared" / "split.npz")
    item = goods.items["item_id"].astype(int).to_numpy()
    for user, name in enumerate(goods.user_ids):
        for held, offset in ((parts.validation, 3), (parts.test, 4)):
            expected = (int(name) + offset) % 8
            assert held[user] == -1 if expected in item[parts.cold] else item[held[user]] == expected
    held = (parts.test >= 0).sum() + (parts.validation >= 0).sum()
    assert parts.train.sum() + parts.cold_positives.sum() + held == 30


def test_items_without_a_photo_are_left_out_with_their_reviews(tmp_path):
    content = dvbpr_content()
    content[3][2]["imgs"] = "Not Found"
    content[3][3]["imgs"] = b"<html>no such picture</html>"
    content[3][4]["imgs"] = jpeg(4, "PNG")
    out = tmp_path / "out"
    counts = convert.dvbpr(npy(tmp_path / "x.npy", content), out)
    assert counts["items"] == 6 and counts["without a photo"] == 2
    assert counts["interactions"] == len(interactions(out)) < 30
    assert not {"2", "3"} & set(interactions(out)["item_id"]) and (out / "images" / "4.png").is_file()


def test_an_interrupted_conversion_goes_on(dvbpr_file, tmp_path, monkeypatch):
    out, written = tmp_path / "men", []
    original = writer._suffix

    def broken(photo):
        written.append(photo)
        if len(written) == 4:
            raise KeyboardInterrupt
        return original(photo)

    monkeypatch.setattr(writer, "_suffix", broken)
    with pytest.raises(KeyboardInterrupt):
        convert.dvbpr(dvbpr_file, out)
    partial = tmp_path / "men.partial" / "images"
    assert not out.exists() and len(list(partial.iterdir())) == 3
    before = {file.name: file.stat().st_mtime_ns for file in partial.iterdir()}
    assert convert.dvbpr(dvbpr_file, out)["items"] == 8
    assert {name: (out / "images" / name).stat().st_mtime_ns for name in before} == before


def test_a_partial_folder_of_another_source_is_not_taken_over(dvbpr_file, tmp_path):
    partial = tmp_path / "men.partial" / "images"
    partial.mkdir(parents=True)
    (partial / "0.jpg").write_bytes(b"someone else's")
    convert.dvbpr(dvbpr_file, tmp_path / "men")
    assert (tmp_path / "men" / "images" / "0.jpg").read_bytes() == jpeg(0)


class Hostile:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


# Trap: pickled .npy files run code on load.
def test_a_hostile_npy_is_refused_with_the_name_of_its_import(tmp_path):
    content = dvbpr_content()
    content[3][0]["imgs"] = Hostile(tmp_path / "ran")
    file = npy(tmp_path / "evil.npy", content, lambda file: pickle.Pickler(file, 2))
    with pytest.raises(
        CatalogueError, match=r"evil\.npy: the pickle tries to import posix\.mkdir; nothing of it was"
    ):
        convert.dvbpr(file, tmp_path / "out")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{}, {}, {}], "six objects expected"),
        ([{}, {}, {}, {0: 3}, 1, 1], "Item 0 is a int, not a dict"),
        ([{0: [{"asin": "x"}]}, {}, {}, {0: {"imgs": jpeg(0)}}, 1, 1], "without a product number"),
        ([{0: [{"productid": 7}]}, {}, {}, {0: {"imgs": jpeg(0)}}, 1, 1], "names product 7"),
        ([{}, {}, {}, {0: {"imgs": "Not Found"}}, 1, 1], "no item has a photo"),
        ([{}, {}, {}, {}, "many", 1], "usernum and itemnum must be numbers"),
    ],
)
def test_other_contents_are_refused(content, message, tmp_path):
    with pytest.raises(CatalogueError, match=message):
        convert.dvbpr(npy(tmp_path / "x.npy", content), tmp_path / "out")


def test_lists_that_hold_themselves_or_one_another_have_an_end(tmp_path):
    endless, wide = [], [1.0]
    endless.append(endless)
    for _ in range(40):  # 2^40 numbers, were it written out
        wide = [wide, wide]
    train, validation, test, items, *counts = dvbpr_content()
    items[0] = {"imgs": jpeg(0), "categories": endless}
    items[1] = {"imgs": jpeg(1), "c": wide}
    file = npy(tmp_path / "x.npy", [train, validation, test, items, *counts], pickle._Pickler)
    convert.dvbpr(file, tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "items.csv")["category"][:2].tolist() == ["unknown", "unknown"]


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(CatalogueError, match=r"not a \.npy file"):
        convert.dvbpr(tmp_path / "text.npy", tmp_path / "out")
    np.save(tmp_path / "features.npy", np.zeros((3, 4)))
    with pytest.raises(CatalogueError, match="array of float64, not of objects; is it a file of image features"):
        convert.dvbpr(tmp_path / "features.npy", tmp_path / "out")
    with pytest.raises(CatalogueError, match="no such file; DVBPR"):
        convert.dvbpr(tmp_path / "none.npy", tmp_path / "out")


@pytest.fixture
def posters(tmp_path):
    place = tmp_path / "posters"
    place.mkdir()
    for film in (1, 2, 3, 4):
        (place / f"{film}.jpg").write_bytes(jpeg(film))
    return place


LATEST = {
    "movies.csv": 'movieId,title,genres\n1,Toy Story (1995),Adventure|Animation\n2,"American President, The (1995)",Comedy\n3,Heat (1995),Action\n5,No Poster,(no genres listed)\n',  # noqa: E501
    "ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,4.0,964981247\n2,2,3.5,1445714835\n2,5,1.0,1445714836\n",  # noqa: E501
}
ML1M = {
    "movies.dat": "1::Toy Story (1995)::Adventure|Animation\n2::American President, The (1995)::Comedy\n3::Misérables, Les (1995)::Drama\n5::No Poster::Drama\n",  # noqa: E501
    "ratings.dat": "1::1::4::964982703\n1::3::4::964981247\n2::2::3::1445714835\n2::5::1::1445714836\n",
}


@pytest.mark.parametrize("files", [LATEST, ML1M])
def test_movielens(files, posters, tmp_path):
    source, out = tmp_path / "ml", tmp_path / "out"
    source.mkdir()
    for name, text in files.items():
        (source / name).write_text(text, encoding="latin-1" if name.endswith("dat") else "utf-8")
    assert convert.movielens(source, posters, out) == {"items": 3, "without a photo": 1, "interactions": 3}
    items = pd.read_csv(out / "items.csv", dtype=str).set_index("item_id")
    assert items.loc["1", "category"] == "Adventure" and items.loc["2", "title"] == "American President, The (1995)"
    assert files is LATEST or items.loc["3", "title"] == "Misérables, Les (1995)"
    frame = interactions(out)
    assert frame[["user_id", "item_id", "timestamp"]].to_numpy().tolist() == [
        ["1", "1", "964982703"], ["1", "3", "964981247"], ["2", "2", "1445714835"]
    ]  # fmt: skip
    assert (out / "images" / "2.jpg").read_bytes() == jpeg(2)
    assert not folder.problems(out)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("movies.csv", "movieId,title\n1,x\n", r"movies\.csv, row 1: no column genres"),
        ("ratings.csv", None, r"ratings\.csv: no such file; MovieLens expected"),
    ],
)
def test_movielens_with_something_missing(name, text, message, posters, tmp_path):
    source = tmp_path / "ml"
    source.mkdir()
    for file, content in (LATEST | {name: text}).items():
        if content is not None:
            (source / file).write_text(content)
    with pytest.raises(CatalogueError, match=message):
        convert.movielens(source, posters, tmp_path / "out")


def test_a_broken_row_of_ml_1m_is_named(posters, tmp_path):
    source = tmp_path / "ml"
    source.mkdir()
    (source / "movies.dat").write_text(ML1M["movies.dat"], encoding="latin-1")
    (source / "ratings.dat").write_text("1::1::4::964982703\n1::3::4\n")
    with pytest.raises(CatalogueError, match=r"ratings\.dat, row 2: 3 fields; userId::movieId::rating::timestamp"):
        convert.movielens(source, posters, tmp_path / "out")


@pytest.fixture
def hm(tmp_path):
    source = tmp_path / "hm"
    for article in ("0108775015", "0110065001"):
        place = source / "images" / article[:3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{article}.jpg").write_bytes(jpeg(int(article) % 1000))
    (source / "articles.csv").write_text(
        "article_id,product_code,prod_name,product_type_no,product_type_name\n"
        "0108775015,0108775,Strap top,253,Vest top\n0110065001,0110065,OP T-shirt,306,Bra\n"
        "0111111111,1,No photo,1,Sock\n"
    )
    customers = [f"{user:064x}" for user in range(40)]
    rows = [f"2018-09-{1 + n % 28:02d},{c},{a},0.05,2" for n, c in enumerate(customers) for a in ("0108775015", "0111111111")]  # noqa: E501 # fmt: skip
    (source / "transactions_train.csv").write_text(
        "t_dat,customer_id,article_id,price,sales_channel_id\n" + "\n".join(rows) + "\n"
    )
    return source


def test_hm(hm, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 7)  # several pieces
    out = tmp_path / "out"
    assert convert.hm(hm, out) == {"items": 2, "without a photo": 1, "interactions": 40}
    items = pd.read_csv(out / "items.csv", dtype=str)
    assert items.to_numpy().tolist() == [["0108775015", "Vest top"], ["0110065001", "Bra"]]  # leading zeros stay
    frame = interactions(out)
    assert list(frame.columns) == ["user_id", "item_id", "timestamp"] and len(frame) == 40
    assert frame.iloc[0].tolist() == [f"{0:064x}", "0108775015", "2018-09-01"]
    assert not folder.problems(out)


def test_a_share_of_the_users_is_whole_users_and_always_the_same(hm, tmp_path):
    convert.hm(hm, tmp_path / "a", share=0.3)
    convert.hm(hm, tmp_path / "b", share=0.6)
    small, large = (set(interactions(tmp_path / name)["user_id"]) for name in "ab")
    assert small < large and 4 <= len(small) <= 20


def test_class_folders(tmp_path):
    source = tmp_path / "source"
    for name, count in (("shoe", 3), ("hat", 2), (".hidden", 1)):
        (source / name / "more").mkdir(parents=True)
        for n in range(count):
            (source / name / f"{n}.jpg").write_bytes(jpeg(n))
    (source / "shoe" / "more" / "0.png").write_bytes(jpeg(7, "PNG"))
    (source / "shoe" / "0.png").write_bytes(jpeg(8, "PNG"))
    (source / "shoe" / "notes.txt").write_text("not a photo")
    out = tmp_path / "out"
    skipped = {"files of other types skipped": 1, "hidden files skipped": 1}
    assert convert.classes(source, out) == {"items": 7, "classes": 2} | skipped
    items = pd.read_csv(out / "items.csv")
    assert items["item_id"].is_unique and items["category"].value_counts().to_dict() == {"shoe": 5, "hat": 2}
    assert len(list((out / "images").iterdir())) == 7 and not (out / "interactions.csv").exists()
    assert not folder.problems(out)
    with pytest.raises(CatalogueError, match="no class folder"):
        convert.classes(out / "images", tmp_path / "other")


def test_an_existing_catalogue_is_not_written_over(dvbpr_file, tmp_path):
    (tmp_path / "men").mkdir()
    with pytest.raises(CatalogueError, match="men exists already"):
        convert.dvbpr(dvbpr_file, tmp_path / "men")


def test_the_command_line(dvbpr_file, tmp_path, capsys):
    out = tmp_path / "men"
    assert main(["convert", "dvbpr", str(dvbpr_file), str(out)]) == 0
    assert "8 items, 0 without a photo, 30 interactions" in capsys.readouterr().out
    assert main(["convert", "dvbpr", str(dvbpr_file), str(out)]) == 1
    assert "exists already" in capsys.readouterr().err
    for arguments in (["convert", "hm", "a", "b", "--share", "2"], ["convert", "zip", "a", "b"], []):
        with pytest.raises(SystemExit):
            main(arguments)


def test_it_is_a_module_to_run(dvbpr_file, tmp_path):
    command = [
        sys.executable,
        "-m",
        "vars_core",
        "convert",
        "dvbpr",
        str(dvbpr_file),
        str(tmp_path / "men"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "8 items" in done.stdout, done.stderr
