"""What `convert` makes of other people's files as they lie about: lost zeros, links, leavings, nothing left."""

import io
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_convert import dvbpr_content, npy

from vars_core.__main__ import main
from vars_core.data import convert, folder, ids, writer
from vars_core.data.folder import CatalogueError

ARTICLES = ["0108775015", "0110065001", "0959461001"]
BOUGHT = [("2018-09-20", "c1", "0108775015"), ("2018-09-21", "c2", "0110065001"), ("2018-09-22", "c2", "0959461001")]


def image(path, shade=0, kind="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    colours = np.random.default_rng(shade).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(colours).save(file, kind)
    path.write_bytes(file.getvalue())
    return path


def write(path, header, rows):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")


@pytest.fixture
def hm(tmp_path):
    source = tmp_path / "hm"
    for n, article in enumerate(ARTICLES):
        image(source / "images" / article[:3] / f"{article}.jpg", n)
    write(source / "articles.csv", "article_id,product_type_name", [(article, "Vest") for article in ARTICLES])
    write(source / "transactions_train.csv", "t_dat,customer_id,article_id", BOUGHT)
    return source


@pytest.fixture
def films(tmp_path):
    source = tmp_path / "ml-25m"
    source.mkdir()
    write(source / "movies.csv", "movieId,title,genres", [(str(n), f"Film {n}", "Drama|War") for n in range(1, 13)])
    ratings = [(str(n % 3), str(n), f"{n % 5 + 0.5}", "9") for n in range(1, 13)]
    write(source / "ratings.csv", "userId,movieId,rating,timestamp", ratings)
    write(source / "links.csv", "movieId,imdbId,tmdbId", [("1", "0114709", "862")])
    for n in range(1, 13):
        image(tmp_path / "posters" / f"{n}.jpg", n)
    return source


def replace(name, change, column="article_id"):
    """A change of one column of a table, as text."""

    def odd(source):
        frame = pd.read_csv(source / name, dtype=str)
        frame[column] = frame[column].map(change)
        frame.to_csv(source / name, index=False)

    return odd


def bare(item):
    return item.lstrip("0")


def photos_named(change):
    def odd(source):
        for file in sorted((source / "images").rglob("*.jpg")):
            file.rename(file.with_name(change(file.name)))

    return odd


def flat(source):
    for file in sorted((source / "images").rglob("*.jpg")):
        file.rename(source / "images" / file.name)


def by_program(source):
    """As pandas and a careless rename leave everything, tables and photos, but the transactions."""
    replace("articles.csv", bare)(source)
    photos_named(bare)(source)


PADDED = "3 ids of transactions_train.csv were padded to 10 digits (108775015 is 0108775015)"
SAID = {
    "as on Kaggle": (lambda source: None, ""),
    "pandas ate the transactions' zeros": (replace("transactions_train.csv", bare), PADDED),
    "pandas made them floats": (
        replace("transactions_train.csv", lambda item: bare(item) + ".0"),
        "were matched by number (108775015.0 is 0108775015)",
    ),
    "pandas ate the articles' zeros": (
        replace("articles.csv", bare),
        "3 names of photos were matched by number (0108775015 is 108775015)",
    ),
    "photos without zeros": (
        photos_named(bare),
        "3 names of photos were padded to 10 digits (108775015 is 0108775015)",
    ),
    "tables and photos without zeros": (by_program, "ids of transactions_train.csv were matched by number"),
    "photos in one folder": (flat, ""),
    "capital suffixes": (photos_named(lambda name: name.replace(".jpg", ".JPG")), ""),
    "another suffix": (photos_named(lambda name: name.replace(".jpg", ".jpeg")), ""),
    "a Mac's leavings": (
        lambda source: image(source / "images" / "010" / "._0108775015.jpg"),
        "1 hidden files skipped",
    ),
    "thumbnails": (lambda source: (source / "images" / "Thumbs.db").touch(), "1 system files skipped"),
    "two photos of an article": (
        lambda source: image(source / "images" / "010" / "0108775015.png", 7, "PNG"),
        "1 further photos of the same item left out",
    ),
    "an article listed twice": (
        lambda source: (source / "articles.csv").open("a").write("0108775015,Vest\n"),
        "1 repeated rows of articles.csv left out",
    ),
    "purchases of other articles": (
        lambda source: (source / "transactions_train.csv").open("a").write("2018-09-20,c1,0999999999\n"),
        "1 rows of transactions_train.csv left out, whose items articles.csv doesn't have",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_hm_is_matched_and_what_was_done_is_said(name, hm, tmp_path, capsys):
    change, expected = SAID[name]
    change(hm)
    assert main(["convert", "hm", str(hm), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "3 items, 0 without a photo, 3 interactions" in said and expected in said
    read = folder.read(tmp_path / "out")
    assert not read.rejected and not read.unknown and len(read.interactions) == 3
    assert read.files[0].read_bytes() == image(tmp_path / "first.jpg", 0).read_bytes()


def test_hm_without_transactions_is_for_simulated_feedback(hm, tmp_path, capsys):
    (hm / "transactions_train.csv").unlink()
    assert main(["convert", "hm", str(hm), str(tmp_path / "out")]) == 0
    assert "3 items, 0 without a photo, no transactions_train.csv: the study will simulate" in capsys.readouterr().out
    assert folder.read(tmp_path / "out").interactions is None


def no_photos(source):
    for file in sorted((source / "images").rglob("*.jpg")):
        file.unlink()


def gone(source):
    for file in sorted((source / "images").rglob("*.jpg")):
        file.unlink()
        file.symlink_to("../../annex/objects/none")


def added(name, line):
    return lambda source: (source / name).open("a").write(line + "\n")


def no_purchase(source):
    write(source / "transactions_train.csv", "t_dat,customer_id,article_id", [])


def only_unseen(source):
    (source / "images" / "010" / "0108775015.jpg").unlink()
    replace("transactions_train.csv", lambda item: "0108775015")(source)


def pictures(source):
    (source / "images").rename(source / "pictures")


NOTHING = {
    "no photo": (
        no_photos,
        r"no item has a photo: looked for .*images/010/0108775015\.jpg and the like, none of 3 is there; "
        r".*images has 0 photos",
    ),
    "photos of other articles": (photos_named(lambda name: "x" + name), r"has 3 photos, such as x0108775015\.jpg"),
    "links to nothing": (gone, "has 0 photos, 3 links to nothing skipped"),
    "no folder of photos": (pictures, "images: no such folder; H&M"),
    "other articles' ids": (
        replace("transactions_train.csv", lambda item: "9" + item),
        "no interaction is left: ids don't meet: articles.csv has 0108775015, transactions_train.csv has 90108775015",
    ),
    "no purchase": (no_purchase, r"transactions_train\.csv: no row below the header"),
    "purchases of what has no photo": (only_unseen, r"no row of transactions_train\.csv is of an item with a photo"),
    "a purchase by nobody": (
        replace("transactions_train.csv", lambda user: "", "customer_id"),
        r"transactions_train\.csv, row 2: no user",
    ),
    "a cut-off purchase": (
        added("transactions_train.csv", "2018-09-20,c1"),
        r"transactions_train\.csv, row 5: 2 fields, but the header has 3",
    ),
    "an article of two kinds": (
        added("articles.csv", "0108775015,Bra"),
        r"articles\.csv, row 5: item_id '0108775015' already stands in row 2",
    ),
    "an article out of the folder": (
        added("articles.csv", "../../x,Bra"),
        r"articles\.csv, row 5: item_id '../../x' cannot be a file name",
    ),
}


@pytest.mark.parametrize("name", NOTHING)
def test_hm_that_leaves_nothing_is_a_line_with_the_cause_and_no_folder(name, hm, tmp_path, capsys):
    change, message = NOTHING[name]
    change(hm)
    out = tmp_path / "out"
    assert main(["convert", "hm", str(hm), str(out)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert pd.Series([error]).str.contains(message)[0], error
    assert not out.exists() and not out.with_name("out.partial").exists()


def test_a_share_that_keeps_nobody(hm, tmp_path, capsys):
    assert main(["convert", "hm", str(hm), str(tmp_path / "out"), "--share", "0.0001"]) == 1
    assert "no interaction is left: --share 0.0001 keeps none of the users of transactions" in capsys.readouterr().err


def test_films_of_newer_releases_and_poorer_ratings(films, tmp_path, capsys):
    posters, out = tmp_path / "posters", tmp_path / "out"
    arguments = ["convert", "movielens", str(films), str(posters)]
    assert main([*arguments, str(out), "--min-rating", "3.5"]) == 0
    assert "12 items, 0 without a photo, 4 interactions, 8 ratings below 3.5 left out" in capsys.readouterr().out
    assert pd.read_csv(out / "interactions.csv")["rating"].min() == 3.5
    assert pd.read_csv(out / "items.csv")["category"].unique().tolist() == ["Drama"]
    assert main([*arguments, str(tmp_path / "b"), "--min-rating", "6"]) == 1
    assert "no interaction is left: no rating is at least --min-rating 6" in capsys.readouterr().err
    replace("ratings.csv", lambda rating: "good", "rating")(films)
    assert main([*arguments, str(tmp_path / "c"), "--min-rating", "1"]) == 1
    assert "ratings.csv, row 2: rating 'good'; a number expected" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "d")]) == 0  # not asked for


def test_poster_names_with_zeros(films, tmp_path):
    for file in sorted((tmp_path / "posters").iterdir()):
        file.rename(file.with_name(file.name.zfill(8)))
    counts = convert.movielens(films, tmp_path / "posters", tmp_path / "out")
    assert counts["items"] == 12 and counts["names of posters were matched by number (0001 is 1)"] == 12


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (".", r"ml-25m/ratings\.csv is one level below: name that folder"),
        ("ml.zip", r"ml\.zip: an archive; unpack it, and give the folder"),
        ("ml-25m/links.csv", r"links\.csv: a file, not a folder"),
        ("nowhere", r"nowhere/ratings\.csv: no such file; MovieLens expected there$"),
        ("ml-100k", "this is MovieLens 100K"),
    ],
)
def test_a_folder_that_is_not_quite_the_right_one(place, message, films, tmp_path):
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.write(films / "movies.csv", "ml/movies.csv")
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").touch()
    with pytest.raises(CatalogueError, match=message):
        convert.movielens(tmp_path / place, tmp_path / "posters", tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda place: place.mkdir(),
            r"no item has a photo: looked for .*posters2/1\.jpg .*none of 12 .* has 0 photos$",
        ),
        (lambda place: image(place / "tt0114709.jpg"), r"has 1 photos, such as tt0114709\.jpg"),
        (lambda place: None, "posters2: no such folder; posters named <movieId>"),
        (lambda place: place.touch(), "posters2: a file, not a folder; posters named"),
    ],
)
def test_a_poster_folder_without_posters(make, message, films, tmp_path):
    make(tmp_path / "posters2")
    with pytest.raises(CatalogueError, match=message):
        convert.movielens(films, tmp_path / "posters2", tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def in_a_store(place):
    """Photos as git-annex, DVC or a hub's cache leave them: relative links, here through a second link."""
    store = place.parent / "store"
    store.mkdir()
    for n, file in enumerate(sorted(place.rglob("*.jpg"))):
        file.rename(store / f"object{n}")
        (store / f"link{n}").symlink_to(f"object{n}")
        file.symlink_to(os.path.relpath(store / f"link{n}", file.parent))


def test_linked_photos_are_what_they_lead_to(hm, films, tmp_path):
    before = {file.name: file.read_bytes() for file in tmp_path.rglob("*.jpg")}
    in_a_store(hm / "images")
    in_a_store(tmp_path / "posters")
    convert.hm(hm, tmp_path / "a")
    convert.movielens(films, tmp_path / "posters", tmp_path / "b")
    convert.classes(hm / "images", tmp_path / "c")
    made = [file for name in "abc" for file in (tmp_path / name / "images").iterdir()]
    assert len(made) == 3 + 12 + 3 and not any(file.is_symlink() for file in made)
    assert all(file.read_bytes() == before[file.name.split("-")[-1]] for file in made)


def test_photos_on_the_same_disk_are_hard_links_and_copies_elsewhere(hm, tmp_path, monkeypatch):
    convert.hm(hm, tmp_path / "a")
    first = hm / "images" / "010" / "0108775015.jpg"
    assert (tmp_path / "a" / "images" / first.name).samefile(first)

    def other_disk(source, place):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(writer.os, "link", other_disk)
    convert.hm(hm, tmp_path / "b")
    copy = tmp_path / "b" / "images" / first.name
    assert not copy.samefile(first) and copy.read_bytes() == first.read_bytes()


def test_a_full_disk_is_a_line_and_the_conversion_goes_on(hm, tmp_path, monkeypatch, capsys):
    def full(source, place):
        raise OSError(28, "No space left on device", str(place))

    with monkeypatch.context() as patch:
        patch.setattr(writer.os, "link", full)
        patch.setattr(writer.shutil, "copyfile", full)
        assert main(["convert", "hm", str(hm), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "out.partial: cannot be written (No space left on device" in error and "goes on where it stopped" in error
    assert (tmp_path / "out.partial").is_dir() and convert.hm(hm, tmp_path / "out")["items"] == 3


def test_class_folders_as_systems_leave_them(tmp_path):
    source, out = tmp_path / "photos", tmp_path / "out"
    for name in (
        "hat/1.jpg",
        "hat/.ipynb_checkpoints/1-checkpoint.jpg",
        "hat/._1.jpg",
        "__MACOSX/hat/1.jpg",
        "mug/2.jpg",
    ):
        image(source / name, 1)
    (source / "mug" / "Thumbs.db").touch()
    (source / "mug" / "3.jpg").mkdir()
    image(source / "mug" / "3.jpg" / "deep.jpg", 2)
    (source / "mug" / "up").symlink_to("..")
    (source / "mug" / "self").symlink_to("self")
    (source / "mug" / "none.jpg").symlink_to("nowhere.jpg")
    image(tmp_path / "elsewhere" / "4.jpg", 3)
    (source / "tee").symlink_to("../elsewhere")
    image(source / "loose.jpg", 4)
    assert convert.classes(source, out) == {
        "items": 4, "classes": 3, "photos outside class folders skipped": 1, "files of other types skipped": 1,
        "hidden files skipped": 2, "links to folders that are read already skipped": 1, "links to nothing skipped": 1,
        "system files skipped": 2,
    }  # fmt: skip
    assert pd.read_csv(out / "items.csv")["item_id"].tolist() == ["hat-1", "mug-2", "mug-3.jpg-deep", "tee-4"]
    assert not folder.read(out).rejected


COLLIDING = {
    "two ways": ["a/b-c.jpg", "a-b/c.jpg"],
    "three ways": ["a/b-c-d.jpg", "a-b/c-d.jpg", "a-b-c/d.jpg", "a/b/c/d.jpg"],
    "with a number that is taken": ["a/b-c-2.jpg", "a/b-c.jpg", "a-b/c.jpg", "a/b/c.png", "a-b/c-2.jpg"],
    "case": ["Hat/A.jpg", "hat/a.jpg", "HAT/a.JPG"],
    "suffixes": ["hat/1.jpg", "hat/1.jpeg", "hat/1.png", "hat/1.JPG"],
    "Unicode forms": [f"hat/{unicodedata.normalize(form, 'é')}.jpg" for form in ("NFC", "NFD")],
    "space": ["hat/1.jpg", "hat/ 1.jpg", "hat/1 .jpg", "hat /1.jpg"],
    "signs": ["hat/a:b.jpg", "hat/a?b.jpg", "hat/a*b.jpg", "hat/a\nb.jpg"],
    "long names": [f"hat/{'x' * 200}{n}.jpg" for n in range(3)]
    + [f"{'é' * 100}/{'é' * 100}{n}.jpg" for n in range(2)],
    "odd names": ["=cmd()/=1+1.jpg", "<b>/<i>.jpg", "$x_1$/{}.jpg", "🎒/\u202e.jpg", "..a/..b.jpg", "-x/--help.jpg"],
}


@pytest.mark.parametrize("name", COLLIDING)
def test_class_paths_that_collapse_to_one_id_stay_apart(name, tmp_path):
    paths = COLLIDING[name]
    for shade, path in enumerate(paths):
        image(tmp_path / "source" / path, shade, "PNG" if path.endswith("png") else "JPEG")
    shown = [path for path in paths if not path.startswith(".")]
    counts = convert.classes(tmp_path / "source", tmp_path / "out")
    read = folder.read(tmp_path / "out")
    assert counts["items"] == len(read.items) == len(shown) and not read.rejected
    assert len({name.casefold() for name in read.items["item_id"]}) == len(shown)
    assert len({file.read_bytes() for file in read.files}) == len(shown)
    assert all(ids.is_a_name(item) and item == ids.canonical(item) for item in read.items["item_id"])


def test_class_paths_that_are_not_utf8(tmp_path):
    place = os.fsencode(tmp_path / "source") + b"/caf\xe9"
    Path(os.fsdecode(place)).mkdir(parents=True)
    for name in (b"/a\xff.jpg", b"/a\xfe.jpg"):
        image(tmp_path / "x.jpg", name[2]).rename(os.fsdecode(place + name))
    assert convert.classes(tmp_path / "source", tmp_path / "out")["items"] == 2
    read = folder.read(tmp_path / "out")
    assert read.items["item_id"].tolist() == ["caf -a", "caf -a-2"] and set(read.items["category"]) == {"caf"}


def test_one_class_may_be_a_level_too_high(tmp_path):
    image(tmp_path / "data" / "train" / "hat" / "1.jpg")
    counts = convert.classes(tmp_path / "data", tmp_path / "out")
    assert counts["one class only, train: is data one level too high?"] is None
    with pytest.raises(CatalogueError, match=r"no class folder with .*; 1 photos lie in the folder itself"):
        convert.classes(tmp_path / "data" / "train" / "hat", tmp_path / "b")
    with pytest.raises(CatalogueError, match=r"out2 lies in .*data, which is read"):
        convert.classes(tmp_path / "data", tmp_path / "data" / "out2")


def test_an_interrupted_conversion_of_other_photos_starts_anew(tmp_path, monkeypatch):
    source, out = tmp_path / "photos", tmp_path / "out"
    for n in range(3):
        image(source / "hat" / f"{n}.jpg", n)

    def interrupt(self, items):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer.Target, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            convert.classes(source, out)
    assert len(list((tmp_path / "out.partial" / "images").iterdir())) == 3
    (source / "hat" / "0.jpg").unlink()
    convert.classes(source, out)
    assert sorted(file.name for file in (out / "images").iterdir()) == ["hat-1.jpg", "hat-2.jpg"]


@pytest.mark.parametrize(
    ("known", "given", "found"),
    [
        (["007", "8"], "7", "007"),
        (["7"], "007", "7"),
        (["7"], "7.0", "7"),
        (["0"], "000", "0"),
        (["07", "007"], "7", None),  # a guess
        (["07", "7"], "7", "7"),
        (["7"], "7.5", None),
        (["7"], "-7", None),
        (["7"], "٧", None),
        (["a7"], "a07", None),
        (["1e5"], "100000", None),
    ],
)
def test_ids_are_matched_by_number_where_that_is_no_guess(known, given, found):
    match = ids.Matcher(known)
    assert match.find(given) == found
    assert match.changed == ({given: found} if found not in (None, given) else {})


def test_dvbpr_without_interactions_of_photos(tmp_path):
    content = dvbpr_content()
    content[0], content[1], content[2] = {0: [{"productid": 2}]}, {}, {}
    content[3][2]["imgs"] = "Not Found"
    with pytest.raises(CatalogueError, match="no interaction is left: none of 1 reviews is of an item with a photo"):
        convert.dvbpr(npy(tmp_path / "x.npy", content), tmp_path / "out")
    assert not Path(tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    "name", ["transactions_train.csv.zip", "transactions_train.parquet", "transactions_train.CSV"]
)
def test_packed_transactions_are_not_taken_for_none(name, hm, tmp_path):
    (hm / "transactions_train.csv").rename(hm / name)
    with pytest.raises(CatalogueError, match=rf"transactions_train\.csv: no such file; .*{name} is there: unpack or"):
        convert.hm(hm, tmp_path / "out")


def test_films_in_two_encodings_and_pieces(tmp_path, monkeypatch):
    source = tmp_path / "ml-10m"
    source.mkdir()
    (source / "movies.dat").write_bytes("1::Léon::Crime\n".encode() + "2::Amélie::Comedy\r\n\n".encode("latin-1"))
    (source / "ratings.dat").write_text("".join(f"{user}::{film}::4::9\n" for user in range(5) for film in (1, 2)))
    for film in (1, 2):
        image(tmp_path / "posters" / f"{film}.jpg", film)
    monkeypatch.setattr("vars_core.data.tables.ROWS", 3)
    assert convert.movielens(source, tmp_path / "posters", tmp_path / "out")["interactions"] == 10
    assert pd.read_csv(tmp_path / "out" / "items.csv")["title"].tolist() == ["Léon", "Amélie"]


def test_links_upward_are_not_followed(tmp_path):
    image(tmp_path / "outside.jpg")
    image(tmp_path / "photos" / "hat" / "1.jpg")
    (tmp_path / "photos" / "hat" / "root").symlink_to("/")
    (tmp_path / "photos" / "up").symlink_to("../..")
    counts = convert.classes(tmp_path / "photos", tmp_path / "out")
    assert counts["items"] == 1 and counts["links to folders that are read already skipped"] == 2


def test_a_damaged_note_of_an_interrupted_conversion(hm, tmp_path):
    (tmp_path / "out.partial" / "images").mkdir(parents=True)
    (tmp_path / "out.partial" / "source.json").write_text('{"kind": "h')
    assert convert.hm(hm, tmp_path / "out")["items"] == 3


def test_names_that_are_not_utf8_can_be_printed(hm, tmp_path, capsysbinary):
    assert main(["convert", "hm", str(hm), os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")]) == 0
    assert b"caf\\udce9: 3 items" in capsysbinary.readouterr().out
