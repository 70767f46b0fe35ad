"""The split keeps its promises for any feedback."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vars_core.data import split


def tiny(users, items, n_users, n_items, timestamps=None):
    frame = pd.DataFrame({"user": users, "item": items})
    if timestamps is not None:
        frame["timestamp"] = timestamps
    return SimpleNamespace(interactions=frame, user_ids=list(range(n_users)), items=range(n_items))


def config(cold_share=0.1):
    return SimpleNamespace(cold_share=cold_share)


@st.composite
def feedback(draw):
    n_users, n_items = draw(st.integers(2, 12)), draw(st.integers(4, 25))
    density, seed = draw(st.floats(0.3, 0.9)), draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((n_users, n_items)) < density)
    times = rng.integers(0, 5, len(users)).astype(float) if draw(st.booleans()) else None
    return tiny(users, items, n_users, n_items, times)


@settings(max_examples=60, deadline=None)
@given(feedback(), st.sampled_from([0.1, 0.3]), st.integers(0, 5))
def test_every_interaction_goes_to_exactly_one_part(catalogue, cold_share, seed):
    try:
        s = split.make(catalogue, config(cold_share), seed)
    except split.SplitError:
        return
    n_users, n_items = s.train.shape
    held = np.zeros((n_users, n_items), int)
    for part in (s.validation, s.test):
        rows = np.flatnonzero(part >= 0)
        held[rows, part[rows]] += 1
    whole = s.train.toarray().astype(int) + s.cold_positives.toarray() + held
    expected = np.zeros_like(whole)
    expected[catalogue.interactions["user"], catalogue.interactions["item"]] = 1
    assert (whole == expected).all()
    assert not s.train[:, s.cold].nnz
    assert not np.isin(s.test, s.cold).any() and not np.isin(s.validation, s.cold).any()
    warm = expected.sum(1) - s.cold_positives.toarray().sum(1)
    assert ((s.test >= 0) == (warm >= 3)).all() and ((s.validation >= 0) == (warm >= 3)).all()
    parts = [s.defence[name] for name in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts)) == list(range(n_items))
    assert np.isin(s.cold, s.defence["test"]).all()
    again = split.make(catalogue, config(cold_share), seed)
    assert (again.train != s.train).nnz == 0 and (again.test == s.test).all() and (again.cold == s.cold).all()


@settings(max_examples=60, deadline=None)
@given(feedback(), st.integers(1, 6))
def test_k_core(catalogue, k):
    users, items = (catalogue.interactions[name].to_numpy() for name in ("user", "item"))
    keep = split.k_core(users, items, k)
    for codes in (users[keep], items[keep]):
        assert not len(codes) or np.unique(codes, return_counts=True)[1].min() >= k
    # nothing dropped could be added back: peeling one by one gives the same core
    left = list(zip(users.tolist(), items.tolist(), strict=True))
    while True:
        degree_u = pd.Series([u for u, _ in left]).value_counts() if left else {}
        degree_i = pd.Series([i for _, i in left]).value_counts() if left else {}
        bad = [pair for pair in left if degree_u[pair[0]] < k or degree_i[pair[1]] < k]
        if not bad:
            break
        left.remove(bad[0])
    assert set(left) == set(zip(users[keep].tolist(), items[keep].tolist(), strict=True))


def test_by_time_the_last_is_tested_and_the_one_before_validated():
    catalogue = tiny([0] * 5, [3, 1, 4, 0, 2], 1, 30, [50.0, 10.0, 40.0, 30.0, 20.0])
    for seed in range(200):
        s = split.make(catalogue, config(0.04), seed)
        if s.cold[0] > 4:
            assert s.test[0] == 3 and s.validation[0] == 4
            assert sorted(s.train.indices) == [0, 1, 2]
            return


def test_equal_times_do_not_favour_the_order_of_rows():
    catalogue = tiny([0] * 9, list(range(9)), 1, 90, [7.0] * 9)
    assert len({int(split.make(catalogue, config(0.02), seed).test[0]) for seed in range(30)}) > 3


def test_users_with_one_or_two_interactions_only_train():
    catalogue = tiny([0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2], 3, 3)
    s = split.make(catalogue, config(0.0), 0)
    assert s.test[:2].tolist() == [-1, -1] and s.validation[:2].tolist() == [-1, -1] and s.test[2] >= 0
    assert s.train[0].nnz == 1 and s.train[1].nnz == 2 and s.train[2].nnz == 1
    assert len(s.cold) == 0


def test_no_warm_item_left_is_an_error():
    with pytest.raises(split.SplitError, match="cold_share"):
        split.make(tiny([0], [0], 1, 1), config(0.5), 0)


@pytest.mark.parametrize(("n_items", "cold"), [(6, 2), (12, 2), (24, 2), (30, 3), (100, 10)])
def test_a_cold_item_is_never_alone(n_items, cold):
    users, items = np.nonzero(np.ones((3, n_items)))
    assert len(split.make(tiny(users, items, 3, n_items), config(0.1), 0).cold) == cold


def test_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((20, 40)) < 0.3)
    s = split.make(tiny(users, items, 20, 40), config(), 1)
    split.save(s, tmp_path / "split.npz")
    t = split.load(tmp_path / "split.npz")
    assert (s.train != t.train).nnz == 0 and (s.cold_positives != t.cold_positives).nnz == 0
    assert t.train.dtype == bool
    for name in ("validation", "test", "cold"):
        assert (getattr(s, name) == getattr(t, name)).all()
    assert all((s.defence[name] == t.defence[name]).all() for name in s.defence)
    first = (tmp_path / "split.npz").read_bytes()
    split.save(s, tmp_path / "split.npz")
    assert (tmp_path / "split.npz").read_bytes() == first


def _damaged_splits(whole):
    rng = np.random.default_rng(0)
    yield from (b"", b"no split", whole[: len(whole) // 2], whole[:-1])
    for _ in range(20):  # zip notices by its checksums
        place = int(rng.integers(60, len(whole) - 60))
        yield whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]


def test_a_damaged_split_is_one_line(tmp_path):
    users, items = np.nonzero(np.random.default_rng(0).random((20, 40)) < 0.3)
    path = tmp_path / "split.npz"
    split.save(split.make(tiny(users, items, 20, 40), config(), 1), path)
    whole = path.read_bytes()
    for content in _damaged_splits(whole):
        path.write_bytes(content)
        try:
            split.load(path)
        except split.SplitError as error:
            assert "split.npz is not a whole split" in str(error) and "run 01_data again" in str(error)
    with np.load(io.BytesIO(whole)) as arrays:
        arrays = dict(arrays)
    for name, value in {"train_indices": arrays["train_indices"] + 99, "shape": np.array([-1, 7])}.items():
        np.savez(path, **arrays | {name: value})
        with pytest.raises(split.SplitError, match="not a whole split"):
            split.load(path)
    np.savez(path, **{k: v for k, v in arrays.items() if k != "cold"})
    with pytest.raises(split.SplitError, match="cold"):
        split.load(path)


def test_defence_shares():
    catalogue = tiny(*np.nonzero(np.ones((5, 200))), 5, 200)
    sizes = {name: len(rows) for name, rows in split.make(catalogue, config(), 0).defence.items()}
    assert sizes == {"train": 108, "validation": 36, "test": 36 + 20}


def test_attacked_items_are_cold_and_prefix_stable():
    catalogue = tiny(*np.nonzero(np.ones((5, 200))), 5, 200)
    s = split.make(catalogue, config(), 0)
    few, many = split.attacked_items(s, 5, 3), split.attacked_items(s, 15, 3)
    assert len(few) == 5 and set(few) <= set(many) <= set(s.cold)
    assert split.attacked_items(s, 999, 3).tolist() == s.cold.tolist()


@given(st.integers(2, 300), st.floats(0.2, 0.8), st.integers(0, 9))
def test_attacker_and_reporting_users_are_disjoint(n, share, seed):
    if not 0 < round(share * n) < n:
        return
    known, reporting = split.attacker_users(n, share, seed)
    assert not set(known) & set(reporting) and len(known) + len(reporting) == n


def test_attacker_share_must_leave_both_sides():
    with pytest.raises(ValueError, match="attacker_users"):
        split.attacker_users(10, 0.01, 0)
