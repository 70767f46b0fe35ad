"""The file that the memory benchmark invents is what Python 2's numpy would have written."""

import pickle

import numpy as np
import pandas as pd
import pytest

from benchmarks import dvbpr_memory
from benchmarks.python2_pickle import Opcodes
from vars_core.data import convert, photos


def test_opcodes(tmp_path):
    value = {n: [{b"a": b"x" * n, b"b": n - 500, b"c": [n / 7, {}]}, []] for n in range(0, 2400, 2)}
    with (tmp_path / "x").open("wb") as file:
        opcodes = Opcodes(file)
        opcodes.code(b"\x80\x02")
        opcodes.mapping((key, value[key]) for key in value)  # a generator, of more than a batch
        opcodes.code(b".")
    assert pickle.loads((tmp_path / "x").read_bytes(), encoding="bytes") == value
    with pytest.raises(TypeError, match="str: int, float"):
        opcodes.write("text")


def test_the_file_and_its_conversion(tmp_path):
    file, out = tmp_path / "x.npy", tmp_path / "out"
    wrote = dvbpr_memory.write(str(file), 0.002)
    assert 1.8e6 < file.stat().st_size < 2.2e6
    train, validation, test, goods, n_users, n_items = np.load(file, allow_pickle=True, encoding="bytes")
    assert (n_users, n_items) == (wrote["users"], wrote["items"]) == (len(train), len(goods))
    assert sum(map(len, train.values())) + len(validation) + len(test) == wrote["reviews"]
    counts = convert.dvbpr(file, out)
    assert counts == {"items": n_items, "without a photo": 0, "interactions": wrote["reviews"]}
    for item in (0, n_items - 1):
        content = (out / "images" / f"{item}.jpg").read_bytes()
        assert content == goods[item][b"imgs"] and photos.decode(content, 16).std() > 5
    table = pd.read_csv(out / "interactions.csv")
    last = table[(table["user_id"] == n_users - 1) & (table["part"] == "test")]
    assert last["item_id"].tolist() == [test[n_users - 1][0][b"productid"]]
    assert pd.read_csv(out / "items.csv")["category"][7] == goods[7][b"categories"][0][-1].decode() == "Kind 7"
