"""The restricted unpickler: equal to Python's own on data, deaf to everything else."""

import collections
import contextlib
import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vars_core.unpickle import LONG, Span, UnpickleError, load

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    | st.tuples(inner, inner) | st.sets(st.integers(), max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(plain, st.integers(0, 5))
def test_plain_data_comes_back_as_python_itself_reads_it(value, protocol):
    assert load(io.BytesIO(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", range(5))  # numpy.save writes 2, 3 or 4
def test_numpy_values(protocol):
    value = {
        "vector": np.arange(6, dtype=">i2"),
        "matrix": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "number": np.float32(0.5),
        "objects": np.array([{"a": 1}, None], dtype=object),
        "dict": collections.defaultdict(list, {3: [1]}),
    }
    assert load(io.BytesIO(pickle.dumps(value, protocol))) == {
        "vector": [0, 1, 2, 3, 4, 5],
        "matrix": [[0, 1, 2], [3, 4, 5]],
        "number": 0.5,
        "objects": [{"a": 1}, None],
        "dict": {3: [1]},
    }


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("photo", [os.urandom(LONG + 1), bytes(100_000)], ids=["random", "zeros"])
def test_long_strings_stay_in_the_file(protocol, photo):
    if protocol < 3:  # Python 2's way: a string of bytes
        protocol, text = 2, b"T" + len(photo).to_bytes(4, "little") + photo
        content = b"\x80\x02]q\x00" + text + b"q\x01a."
    else:
        content = pickle.dumps([photo], protocol)
    file = io.BytesIO(b"in front" + content)
    file.seek(8)
    (span,) = load(file)
    assert isinstance(span, Span) and span.length == len(photo) and span.read(file) == photo


def test_what_is_remembered_is_found_whatever_its_number():
    row = b"\x80\x02]q\x01(U\x01aq\x02U\x01bq\x07U\x01cq\x03h\x02h\x07h\x03U\x01dq\x07h\x07e."  # 7 out of order
    assert load(io.BytesIO(row)) == pickle.loads(row, encoding="latin-1") == list("abcabcdd")
    for never_put in (b"\x80\x02h\x00.", b"\x80\x02]q\x01h\x02.", b"g-1\n."):
        with pytest.raises(UnpickleError, match="damaged"):
            load(io.BytesIO(never_put))


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {place}",), "posix.system"),
        (eval, ("open({place!r}, 'w')",), "eval"),
        (os.mkdir, ("{place}",), "posix.mkdir"),
        (np.save, ("{place}", 1), "numpy.save"),
        (getattr, (dict, "fromkeys"), "getattr"),
    ],
)
def test_a_hostile_pickle_is_refused_by_name_and_nothing_runs(protocol, function, arguments, name, tmp_path):
    place = tmp_path / "ran"
    arguments = tuple(a.format(place=str(place)) if isinstance(a, str) else a for a in arguments)
    content = pickle.dumps([1, Hostile(function, *arguments)], protocol)
    with pytest.raises(UnpickleError, match=f"tries to import .*{name}; nothing"):
        load(io.BytesIO(content))
    assert not place.exists()


def test_the_name_of_the_import_is_told():
    with pytest.raises(UnpickleError, match=r"tries to import posix\.system; nothing of it was run"):
        load(io.BytesIO(pickle.dumps(Hostile(os.system, "true"), 2)))


def test_state_is_set_on_arrays_only():
    content = b"}(S'a'\nI1\nub."  # an attempt to BUILD a dict
    with pytest.raises(UnpickleError):
        load(io.BytesIO(content))


@given(st.binary(max_size=60))
def test_rubbish_gives_one_kind_of_error(content):
    with contextlib.suppress(UnpickleError):
        load(io.BytesIO(content))


@pytest.mark.parametrize("cut", [1, 10, 50])
def test_a_pickle_that_stops_in_the_middle_is_said_to(cut):
    content = pickle.dumps({"imgs": b"x" * 400, "more": [1, 2, 3]}, 2)
    with pytest.raises(UnpickleError, match="damaged"):
        load(io.BytesIO(content[:-cut]))
