"""The second protocol: candidates of another recommender, the held-out item once, one pushed item."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from vars_core.recommender import shortlist

PROPOSED = np.array([[5.0, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]])
TRAIN = sparse.csr_array(np.array([[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]], bool))


def test_by_hand():
    """Six items, lists of two; item 5 is pushed (it is proposed to user 1), items 2 and 0 are held out."""
    lists = shortlist.candidates(PROPOSED, TRAIN, [2, 0], size=2)
    assert lists.tolist() == [[1, -1], [5, 3]]  # 0 and 4 are in training; 2 is held out, so not there twice
    scores = np.array([[9.0, 1, 2, 9, 9, 0], [3, 9, 9, 4, 9, 5]])
    held_out, pushed = shortlist.ranks(scores, lists, [2, 0], [5], [[1.0], [3.5]])
    # user 0: candidates 1 (1.0), 2 (2.0), pushed 5 (1.0): the tie with item 1 counts against it
    # user 1: candidates 3 (4.0), 0 (3.0), pushed 5 (3.5 now, not 5 as before)
    assert held_out.ravel().tolist() == [1, 3] and pushed.ravel().tolist() == [3, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.booleans())
def test_equal_to_a_slow_reference(seed, size, ties):
    rng = np.random.default_rng(seed)
    users, items, cold = 5, 9, [7, 8]
    draw = (lambda *s: rng.integers(0, 4, s).astype(float)) if ties else (lambda *s: rng.normal(size=s))
    proposed, scores, new = draw(users, items), draw(users, items), draw(users, len(cold))
    train = rng.random((users, items)) < 0.3
    train[:, cold] = False
    targets = np.array([next((i for i in range(7) if not train[u, i]), -1) for u in range(users)])
    targets[0] = -1
    lists = shortlist.candidates(proposed, sparse.csr_array(train), targets, size)
    held_out, pushed = shortlist.ranks(scores, lists, targets, cold, new)
    for u in range(users):
        free = [i for i in range(items) if not train[u, i]]
        top = sorted(free, key=lambda i: (-proposed[u, i], i))[:size]
        for column, item in enumerate(cold):
            value = {i: scores[u, i] for i in {*top, targets[u]} - {item, -1}} | {item: new[u, column]}
            rank = {i: 1 + sum(value[j] >= value[i] for j in value if j != i) for i in value}
            assert pushed[u, column] == rank[item]
            if targets[u] >= 0:
                assert held_out[u, column] == rank[targets[u]]
            else:
                assert np.isnan(held_out[u, column])


def test_a_pushed_item_that_is_held_out_is_refused():
    with pytest.raises(ValueError, match="2 is somebody's held-out item"):
        shortlist.ranks(PROPOSED, [[1], [1]], [2, 0], [2], [[0.0], [0.0]])
