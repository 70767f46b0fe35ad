"""Catalogue folders as people have them: each is read right, or refused in a line that names file and row."""

import os
import re
import tempfile
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vars_core.data import folder, photo_files, tables, timestamps
from vars_core.data.folder import CatalogueError

ITEMS = [("i0", "tee"), ("i1", "mug"), ("i2", "hat"), ("i3", "tee")]
FEEDBACK = [("u0", "i0", "3"), ("u0", "i1", "1"), ("u1", "i2", "2"), ("u1", "i3", "5")]


@pytest.fixture
def shop(tmp_path):
    """Four items, two users; tests then make one thing odd."""
    root = tmp_path / "shop"
    (root / "images").mkdir(parents=True)
    for item, _ in ITEMS:
        photo(root, f"{item}.png")
    table(root, "items.csv", "item_id,category", ITEMS)
    table(root, "interactions.csv", "user_id,item_id,timestamp", FEEDBACK)
    return root


def photo(root, name):
    Image.new("RGB", (9, 9)).save(root / "images" / name, "PNG")


def table(root, name, header, rows):
    (root / name).write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")


def raw(name, content):
    return lambda root: (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def rows(name, *lines):
    """The lines of a table, the header first."""
    return raw(name, "\n".join(lines) + "\n")


def items(*lines):
    return rows("items.csv", "item_id,category", *lines)


def bought(*lines):
    return rows("interactions.csv", "user_id,item_id", *lines)


def timed(*lines):
    return rows("interactions.csv", "user_id,item_id,timestamp", *lines)


def renamed(old, new):
    return lambda root: (root / "images" / old).rename(root / "images" / new)


def all_renamed(root):
    for n in range(4):
        renamed(f"i{n}.png", f"x{n}.png")(root)


def one_level_down(root):
    inner = root.rename(root.parent / "inner")
    root.mkdir()
    inner.rename(root / "inner")


def dangling(root):
    for file in (root / "images").iterdir():
        file.unlink()
        file.symlink_to("../annex/none")


REFUSED = {
    "a field too many in the first row": (
        items("i0,tee,x", "i1,mug"),
        r"items\.csv, row 2: 3 fields, but the header has 2 \(item_id, category\); a field that holds a comma",
    ),
    "a field too many in the last row": (items("i0,tee", "i1,mug,x"), "row 3: 3 fields"),
    "an empty field too many": (items("i0,tee,", "i1,mug,"), "row 2: 3 fields"),
    "a field too many in feedback": (
        bought("u0,i0,5", "u0,i1"),
        r"interactions\.csv, row 2: 3 fields, but the header has 2",
    ),
    "a cut-off row": (timed("u0,i0,5", "u0,i1"), "row 3: 2 fields"),
    "semicolons": (
        rows("items.csv", "item_id;category", "i0;tee"),
        "looks separated by ';', and commas are expected",
    ),
    "tabs": (rows("items.csv", "item_id\tcategory", "i0\ttee"), r"looks separated by '\\t'"),
    "pipes": (rows("items.csv", "x|item_id|category", "1|i0|tee"), r"looks separated by '\|'"),
    "semicolons and decimal commas": (rows("items.csv", "item_id;category;a,b", "i0;tee;1,2"), "separated by ';'"),
    "UTF-16": (
        raw("items.csv", "item_id,category\ni0,tee\n".encode("utf-16")),
        r"items\.csv: UTF-16 or UTF-32, not CSV in UTF-8",
    ),
    "UTF-16 without its mark": (
        raw("items.csv", "item_id,category\ni0,tee\n".encode("utf-16-le")),
        "UTF-16 or UTF-32",
    ),
    "Latin-1": (
        raw("items.csv", "item_id,category\ni0,tee\ni1,caf\xe9\n".encode("latin-1")),
        r"items\.csv, line 3: not UTF-8, perhaps Latin-1; save the table as UTF-8",
    ),
    "Latin-1 with Mac's line ends": (
        raw("items.csv", "item_id,category\ri0,\xe9\r".encode("latin-1")),
        "line 2: not UTF-8",
    ),
    "NUL": (raw("items.csv", b"item_id,category\ni0,tee\ni1,m\0ug\n"), "line 3: holds a NUL character"),
    "a spreadsheet": (raw("items.csv", b"PK\x03\x04rest"), "a spreadsheet or zip file, not CSV in UTF-8"),
    "a pointer": (
        raw("items.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "a pointer of Git LFS",
    ),
    "gzip": (raw("interactions.csv", b"\x1f\x8brest"), "packed with gzip"),
    "an empty file": (raw("items.csv", b""), r"items\.csv, row 1: no column item_id, category; the header is \[\]"),
    "the mark of UTF-8 alone": (raw("items.csv", b"\xef\xbb\xbf"), "row 1: no column item_id, category"),
    "a header alone": (rows("items.csv", "item_id,category"), r"items\.csv: no row below the header"),
    "a header alone in feedback": (rows("interactions.csv", "user_id,item_id"), r"interactions\.csv: no row below"),
    "blank rows only": (items(",", "", "  "), "no row below the header"),
    "a header in other words": (rows("items.csv", "Item_ID,category", "i0,tee"), "rename 'Item_ID' to item_id"),
    "a header with spaces": (
        rows("items.csv", "item id,Category", "i0,tee"),
        "rename 'item id' to item_id; rename 'Category'",
    ),
    "feedback's times in other words": (
        rows("interactions.csv", "user_id,item_id,Timestamp", "u0,i0,5"),
        r"interactions\.csv, row 1: .* rename 'Timestamp' to timestamp",
    ),
    "a column twice": (
        rows("items.csv", "item_id,category, category", "i0,a,b"),
        "'category' appears more than once",
    ),
    "an open quote": (items("i0,tee", 'i1,"mug', "i2,hat"), "row 3: not CSV .*quote left open"),
    "a quote inside": (items('i0,"5" disk"', "i1,mug"), "row 2: not CSV .*not doubled"),
    "two open quotes": (
        items('i0,"tee', 'i1,mug"', "i2,hat"),
        r"items\.csv, row 2: category 'tee\\ni1,mug' holds a line break",
    ),
    "an id with a line break": (items('"i0\ni1",tee'), "row 2: item_id 'i0.ni1' cannot be"),
    "a user with a line break": (bought('"u\n0",i0'), "row 2: user_id .* line break"),
    "an id out of the folder": (items("../i0,tee"), r"row 2: item_id '\.\./i0' cannot be"),
    "an id with a drive": (items("c:i0,tee"), "cannot be a file name"),
    "an id of 300 signs": (items("é" * 150 + ",tee"), "longer than 240 bytes"),
    "an id twice in two Unicode forms": (
        items("i0,tee", "caf\u00e9,tee", "cafe\u0301,mug"),
        "row 4: item_id 'café' already stands in row 3 .compared in the Unicode form NFC",
    ),
    "an id twice but for space": (items("i0,tee", '" i0 ",tee'), "row 3: .* row 2;"),
    "a day first": (
        timed("u0,i0,03/04/2019"),
        r"row 2: timestamp '03/04/2019'; a number \(such as seconds\) or an ISO date \(2019-04-03\) expected",
    ),
    "a date of the year 10000": (timed("u0,i0,10000-01-01"), "row 2: timestamp"),
    "an infinite time": (timed("u0,i0,1", "u0,i1,1e999"), "row 3: timestamp"),
    "a date among numbers": (
        timed("u0,i0,1", "u0,i1,2", "u0,i2,2019-01-01"),
        "row 4: timestamp '2019-01-01'; .* the same kind in all rows",
    ),
    "a number among dates": (
        timed("u0,i0,2019-01-01", "u0,i1,2019-01-02", "u0,i2,20190103"),
        "row 4: timestamp '20190103'",
    ),
    "ids that do not meet": (
        bought("u0,x7"),
        "none of 1 rows is of an item of items.csv: interactions.csv has 'x7', items.csv has 'i0'",
    ),
    "photos of other names": (
        all_renamed,
        "none of 4 items has a photo; looked for 'images/i0.jpg', and images/ has 4 photos, such as 'x0.png'",
    ),
    "one level too high": (
        one_level_down,
        r"items\.csv: no such file; .*inner/items\.csv is one level below: name that folder",
    ),
    "feedback in capitals": (
        lambda root: (root / "interactions.csv").rename(root / "Interactions.csv"),
        "Interactions.csv is there, but no interactions.csv; rename, unpack or remove it",
    ),
    "packed feedback": (lambda root: (root / "interactions.csv").rename(root / "interactions.csv.gz"), "unpack"),
    "an id with a terminal's command": (items("i0\x9b2J,tee"), "row 2: item_id .* cannot be a file name"),
    "only links to nothing": (dangling, "images/ has no photo; 4 links to nothing skipped"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_line(name, shop):
    change, message = REFUSED[name]
    change(shop)
    with pytest.raises(CatalogueError, match=message) as refused:
        folder.read(shop)
    assert "\n" not in str(refused.value)


def linked(root):
    """As git-annex and DVC do: each photo a relative link into a store."""
    (root / ".store").mkdir()
    for n, file in enumerate(sorted((root / "images").iterdir())):
        file.rename(root / ".store" / f"{n}")
        file.symlink_to(f"../.store/{n}")


def folder_linked(root):
    (root / "images").rename(root / "elsewhere")
    (root / "images").symlink_to("elsewhere")


ACCEPTED = {
    "the mark of UTF-8": raw("items.csv", "\ufeffitem_id,category\ni0,tee\ni1,mug\ni2,hat\ni3,tee\n"),
    "Windows's line ends": raw("items.csv", "item_id,category\r\ni0,tee\r\ni1,mug\r\ni2,hat\r\ni3,tee\r\n"),
    "an old Mac's line ends": raw("items.csv", "item_id,category\ri0,tee\ri1,mug\ri2,hat\ri3,tee"),
    "blank lines": raw("items.csv", "item_id,category\n\ni0,tee\n,\ni1,mug\n   \ni2,hat\ni3,tee\n\n"),
    "space around": raw("items.csv", " item_id , category \n i0 , tee \ni1,mug\ni2,\that\ni3,tee\n"),
    "quotes": raw("items.csv", '"item_id","category"\n"i0","tee"\n"i1","mug"\ni2,hat\ni3,tee\n'),
    "pandas's index": raw("items.csv", ",item_id,category\n0,i0,tee\n1,i1,mug\n2,i2,hat\n3,i3,tee\n"),
    "columns without a name": raw("items.csv", "item_id,category,,\ni0,tee,,\ni1,mug,,\ni2,hat,,\ni3,tee,,\n"),
    "columns with names of ours": raw(
        "items.csv",
        "item_id,category,row,item,user,index,part,timestamp\n"
        + "".join(f"i{n},{c},1,2,3,4,5,6\n" for n, (_, c) in enumerate(ITEMS)),
    ),
    "a long description": raw(
        "items.csv", "item_id,category,text\n" + "".join(f"{item},{c},{'x' * 200_000}\n" for item, c in ITEMS)
    ),
    "a description of several lines": raw(
        "items.csv", "item_id,category,text\n" + "".join(f'i{n},{c},"a\nb, c"\n' for n, (_, c) in enumerate(ITEMS))
    ),
    "links to photos": linked,
    "a link to the photos' folder": folder_linked,
    "capital suffixes": renamed("i1.png", "i1.PNG"),
    "space behind a name": renamed("i1.png", "i1.png "),
    "a dot behind a name": renamed("i1.png", "i1.png."),
    "space before the suffix": renamed("i1.png", "i1 .png"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_read_right(name, shop):
    ACCEPTED[name](shop)
    read = folder.read(shop)
    assert read.items[["item_id", "category"]].to_numpy().tolist() == [list(row) for row in ITEMS]
    assert not read.rejected and not read.unknown and all(file.is_file() for file in read.files)
    assert read.interactions["item_id"].tolist() == ["i1", "i2", "i0", "i3"]  # by time


IDS = [
    "=cmd()",
    "<b>1",
    "$x_1$",
    "it's",
    "a,b",
    "🎒 1",
    "a\u200fb",
    "NA",
    "1e5",
    "007",
    "-1",
    "@x",
    "#1",
    "%20",
    "{x}",
    "a" * 230,
]


@pytest.mark.parametrize("item", [item for item in IDS if "<" not in item])
def test_ids_are_text_and_are_kept(item, shop):
    quoted = f'"{item}"'
    photo(shop, f"{item}.png")
    raw("items.csv", f'item_id,category\n{quoted},"=1+1 <b> \u202e ${item[:9]}"\ni0,tee\n')(shop)
    raw("interactions.csv", f"user_id,item_id\n{quoted},{quoted}\n")(shop)
    read = folder.read(shop)
    assert read.items["item_id"][0] == item and read.files[0].name == f"{item}.png"
    assert read.interactions.to_numpy().tolist() == [[item, item]]


@pytest.mark.parametrize(("in_table", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_ids_in_another_unicode_form_meet(in_table, on_disk, shop):
    name, user = "cafetière 한", "Zoë"
    photo(shop, unicodedata.normalize(on_disk, name) + ".png")
    raw("items.csv", f"item_id,category\n{unicodedata.normalize(in_table, name)},tee\ni0,tee\n")(shop)
    twice = [f"{unicodedata.normalize(form, user)},{unicodedata.normalize(form, name)}" for form in ("NFC", "NFD")]
    bought(*twice)(shop)
    read = folder.read(shop)
    assert read.items["item_id"][0] == name and not read.rejected
    assert len(read.interactions) == 1 and read.notes["repeated_interactions"] == 1


def test_what_systems_leave_among_photos_is_counted(shop):
    images = shop / "images"
    for name in (
        ".DS_Store",
        "._i0.png",
        ".i9.png",
        "Thumbs.db",
        "desktop.ini",
        "notes.txt",
        "list.csv",
        "other.png",
    ):
        (images / name).write_bytes(b"x")
    for name in (".ipynb_checkpoints", "__MACOSX", "more", "i7.jpg"):
        (images / name).mkdir()
    (images / "loop").symlink_to("loop")
    (images / "loop.png").symlink_to("loop.png")
    (images / "round").symlink_to(".")
    (images / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(images / "pipe.png")
    os.link(images / "i0.png", os.fsencode(images) + b"/caf\xe9.png")
    read = folder.read(shop)
    assert not read.rejected and read.notes["photos_of_no_item"] == 1
    assert read.notes["skipped_files"] == {
        "files of other types": 3, "files with names that aren't UTF-8": 1, "folders": 3, "hidden files": 4,
        "links to nothing": 2, "system files": 3, "things that are no files": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "no image; i3.png is a folder"),
        (lambda path: path.symlink_to("nowhere"), "no image; i3.png is a link to nothing"),
        (os.mkfifo, "no image; i3.png is no regular file"),
        (lambda path: None, "no image; one file <item_id>.jpg, .jpeg, .png or .webp expected"),
        (lambda path: [photo(path.parents[1], name) for name in ("i3.jpg", "i3 .PNG")], "several images"),
    ],
)
def test_an_item_without_one_photo_is_set_aside_with_the_reason(make, reason, shop):
    (shop / "images" / "i3.png").unlink()
    make(shop / "images" / "i3.png")
    ((item, _, why),) = folder.read(shop).rejected
    assert item == "i3" and reason in why and "items.csv, row 5" in why


def test_an_unreadable_folder_is_a_line(shop, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(photo_files.os, "scandir", refused)
    with pytest.raises(CatalogueError, match=r"images: cannot be read \(Permission denied\)"):
        folder.read(shop)


def test_interactions_of_unknown_items_are_counted_as_such(shop):
    strange = [("u9", f"x{n}", "1") for n in range(40)]
    table(shop, "interactions.csv", "user_id,item_id,timestamp", [*FEEDBACK, *strange])
    read = folder.read(shop)
    assert not read.rejected and len(read.unknown) == 40 and len(read.interactions) == 4
    assert read.notes["interactions_of_unknown_items"] == 40 and read.notes["interactions_with_rejected_items"] == 0
    with pytest.raises(
        CatalogueError, match=r"40 of 44 interactions are of items that items\.csv doesn't have.*row 6"
    ):
        folder.check_shares(read, 0.5)
    folder.check_shares(read, 0.95)


TIMES = {  # in the order that they mean
    "years that pandas cannot hold": ["0001-01-01", "1500-06-01", "2019-01-01", "2400-01-01", "9999-12-31"],
    "before 1970": ["-5", "-1e3", "0", "7"],
    "huge numbers": ["1", "1e12", "1e30", "1e300"],
    "milliseconds": ["1546300800000", "1546300800001"],
    "nanoseconds": ["1546300800000000000", "1546300800000001000"],
    "zones": [
        "2019-01-01T12:00:00+02:00",
        "2019-01-01T10:30:00Z",
        "2019-01-01T10:31:00",
        "2019-01-01T06:32:00-04:00",
    ],
    "the last second of a zone": ["9999-12-31T23:59:58+00:00", "9999-12-31T23:59:59-12:00"],
    "days and times": ["2019-01", "2019-01-02", "2019-01-02 00:00:01", "20190102T000002"],
    "fractions": ["2019-01-01T00:00:00.1", "2019-01-01T00:00:00.123456", "2019-01-01T00:00:00.2"],
}


@pytest.mark.parametrize("name", TIMES)
def test_times_keep_their_order(name):
    values = timestamps.seconds(pd.Series(TIMES[name]))
    expected = sorted(values) if name != "before 1970" else [-5, -1000, 0, 7]
    assert values.notna().all() and values.tolist() == expected and values.is_unique


def test_dates_are_seconds_in_utc():
    given = ["1970-01-02", "1970-01-02T01:00:00+01:00", "1969-12-31T23:59:59Z"]
    assert timestamps.seconds(pd.Series(given)).tolist() == [86400, 86400, -1]


@pytest.mark.parametrize(
    "text", ["", "soon", "nan", "inf", "01.02.2019", "2019-13-01", "2019-02-30", "0x10", "1_000", "٣ May"]
)
def test_what_is_no_time_is_none(text):
    assert timestamps.seconds(pd.Series([text])).isna().all()


def test_pieces_count_rows_across_their_borders(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,b\n" + "".join(f"{n},x\n" if n % 3 else "\n" for n in range(10)))
    frames = list(tables.pieces(file, ("a",), rows=4))
    assert [frame[tables.ROW].tolist() for frame in frames] == [[3, 4], [6, 7, 9], [10]]
    file.write_text("a,b\n" + "1,x\n" * 6 + "1\n")
    with pytest.raises(CatalogueError, match="row 8: 1 fields"):
        list(tables.pieces(file, ("a",), rows=4))


TEXT = st.text(st.sampled_from('ab é🎒0;\t\r\n,"'), max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 3),
)
def test_both_ways_of_reading_agree(lines, end, size):
    plain = [re.sub(r'[,"\r\n]', "", "|".join(line)).replace("|", ",") for line in lines]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "t.csv"
        file.write_bytes(end.join(["a,b", *plain]).encode())
        found = []
        for regular in (tables._is_regular(file, 2), False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tables, "_is_regular", lambda path, width, regular=regular: regular)
                try:
                    frames = list(tables.pieces(file, ("a",), rows=size))
                    found.append(pd.concat(frames).to_numpy().tolist())
                except CatalogueError as error:
                    found.append(str(error))
    assert found[0] == found[1]


def test_a_table_that_is_a_folder_is_a_line(shop):
    (shop / "items.csv").unlink()
    (shop / "items.csv").mkdir()
    with pytest.raises(CatalogueError, match=r"items\.csv: no such file"):
        folder.read(shop)
