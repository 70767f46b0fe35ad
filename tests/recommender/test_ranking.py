"""Ranks and what is computed from them: by hand, and against a slow reference in plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import metrics

from vars_core.recommender import accuracy_metrics, attack_metrics, list_overlap, ranking

# Three users, five items; stars mark training items.
SCORES = np.array(
    [
        [5.0, 4.0, 3.0, 2.0, 1.0],  # user 0 has item 0*
        [1.0, 2.0, 2.0, 4.0, 0.0],  # user 1 has item 3*
        [3.0, 3.0, 3.0, 3.0, 9.0],  # user 2 has item 4*, all others tie
    ]
)
TRAIN = sparse.csr_array(np.array([[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]], bool))
TARGETS = np.array([2, 1, 0])


def slow_rank(scores, train, user, item, value=None):
    """r_u(i) read straight from the formula."""
    own = scores[user, item] if value is None else value
    return 1 + sum(scores[user, j] >= own for j in range(scores.shape[1]) if j != item and not train[user, j])


def slow_cold_auc(scores, cold, positives):
    """The definition of cold AUC, pair by pair."""
    values = np.full(len(scores), np.nan)
    for user in range(len(scores)):
        mine = [i for i in cold if positives[user, i]]
        others = [j for j in cold if not positives[user, j]]
        if mine and others:
            shares = [
                np.mean(
                    [
                        float(scores[user, j] < scores[user, i]) + 0.5 * (scores[user, j] == scores[user, i])
                        for j in others
                    ]
                )
                for i in mine
            ]
            values[user] = np.mean(shares)
    return values


def test_ranks_by_hand():
    # user 0: only item 1 is above item 2; user 1: item 2 ties with item 1, item 3 is masked;
    # user 2: three ties, all counted against item 0, and the masked item 4 is not.
    assert ranking.ranks(SCORES, TARGETS, TRAIN).tolist() == [2, 2, 4]


def test_accuracy_by_hand():
    values = accuracy_metrics.from_ranks([2, 2, 4], [3, 3, 3], ks=(1, 2, 4))
    assert values["hr@1"].tolist() == [0, 0, 0]
    assert values["hr@2"].tolist() == [1, 1, 0]
    assert values["ndcg@2"] == pytest.approx([1 / np.log2(3), 1 / np.log2(3), 0])
    assert values["ndcg@4"][2] == pytest.approx(1 / np.log2(5))
    assert values["auc"] == pytest.approx([2 / 3, 2 / 3, 0])
    assert values["mrr"] == pytest.approx([1 / 2, 1 / 2, 1 / 4])


def test_users_without_a_held_out_item_are_left_out():
    rank = ranking.ranks(SCORES, [2, -1, 0], TRAIN)
    assert np.isnan(rank).tolist() == [False, True, False]
    assert all(np.isnan(v[1]) for v in accuracy_metrics.from_ranks(rank, [3, 3, 3]).values())


def test_exposure_and_rank_shift_by_hand():
    items, new = np.array([3, 2]), np.array([[9.0, 4.0], [9.0, 0.5], [3.0, 3.5]])
    clean = ranking.item_ranks(SCORES, TRAIN, items, SCORES[:, items])
    attacked = ranking.item_ranks(SCORES, TRAIN, items, new)
    np.testing.assert_equal(clean, [[3, 2], [np.nan, 2], [4, 4]])
    # user 0, item 2 at 4.0: item 1 ties with it and its own clean 3.0 doesn't compete.
    np.testing.assert_equal(attacked, [[1, 2], [np.nan, 3], [4, 1]])
    assert attack_metrics.exposure_rate(clean, 2) == pytest.approx((0 / 2 + 2 / 3) / 2)
    assert attack_metrics.exposure_rate(attacked, 2) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert attack_metrics.rank_shift(clean, attacked) == pytest.approx(((2 + 0) / 2 + (0 - 1 + 3) / 3) / 2)
    doublings = ((np.log2(3) + 0) / 2 + (0 + np.log2(2 / 3) + 2) / 3) / 2
    assert attack_metrics.rank_shift(clean, attacked, log2=True) == pytest.approx(doublings)
    shift = attack_metrics.prediction_shift(SCORES[:, items], new)
    assert shift.tolist() == [[7, 1], [5, -1.5], [0, 0.5]]
    in_units = attack_metrics.prediction_shift(SCORES[:, items], new, SCORES)
    assert in_units[0] == pytest.approx(shift[0] / np.sqrt(2))


def test_lists_and_category_shares_by_hand():
    lists = ranking.top_k(SCORES, TRAIN, 2)
    assert lists.tolist() == [[1, 2], [1, 2], [0, 1]]  # ties in the order of the catalogue
    members = np.array([0, 1, 0, 0, 1], bool)
    assert attack_metrics.category_hit_ratio(lists, members).tolist() == [0.5, 0.5, 0.5]
    second = 1 / np.log2(3)
    # users 0 and 1 could still see items 1 and 4; user 2 has item 4.
    assert attack_metrics.category_ndcg(lists, members, TRAIN) == pytest.approx(
        [1 / (1 + second), 1 / (1 + second), second]
    )
    assert ranking.top_k(SCORES, TRAIN, 5)[:, 4].tolist() == [-1, -1, -1]


def test_list_fidelity_by_hand():
    clean = np.array([[1, 2, 3], [1, 2, 3], [1, 2, 3]])
    other = np.array([[1, 2, 3], [3, 1, 2], [7, 8, 9]])
    assert list_overlap.overlap_at_k(clean, other).tolist() == [1, 1, 0]
    # shared at depth 1, 2, 3: 0, 1, 3
    extrapolated = 0.1 / 0.9 * (1 / 2 * 0.9**2 + 0.9**3) + 0.9**3
    assert list_overlap.rbo(clean, other) == pytest.approx([1, extrapolated, 0])


def test_cold_auc_by_hand():
    cold, positives = np.array([1, 2, 3]), sparse.csr_array((3, 5), dtype=bool).tolil()
    positives[0, 1] = positives[1, 1] = positives[1, 3] = True
    values = accuracy_metrics.cold_auc(SCORES, cold, sparse.csr_array(positives))
    # user 0: item 1 beats 2 and 3. user 1: item 1 ties with item 2, item 3 beats it. user 2: none.
    assert values[:2].tolist() == [1, 0.75]
    assert np.isnan(values[2])


def test_a_recommender_that_knows_nothing_of_cold_items_is_at_chance():
    positives = sparse.csr_array(np.eye(3, 5, dtype=bool))
    assert accuracy_metrics.cold_auc(np.zeros((3, 5)), np.arange(5), positives).tolist() == [0.5, 0.5, 0.5]


@st.composite
def cases(draw):
    """Few distinct scores, so that ties are common; random training, cold items and replacements."""
    n_users, n_items = draw(st.integers(1, 6)), draw(st.integers(3, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([2, 4, 1000]))
    scores = rng.integers(levels, size=(n_users, n_items)) / 7
    train = rng.random((n_users, n_items)) < 0.3
    items = rng.choice(n_items, size=draw(st.integers(1, n_items)), replace=False)
    return scores, train, items, rng.integers(levels, size=(n_users, len(items))) / 7, rng


@settings(max_examples=150, deadline=None)
@given(cases())
def test_equal_to_the_slow_reference(case):
    scores, train, items, new, rng = case
    n_users, n_items = scores.shape
    sparse_train = sparse.csr_array(train)
    targets = np.array([rng.choice(np.flatnonzero(~row)) if not row.all() else -1 for row in train])
    expected = [slow_rank(scores, train, u, t) if t >= 0 else np.nan for u, t in enumerate(targets)]
    np.testing.assert_equal(ranking.ranks(scores, targets, sparse_train), expected)

    expected = [
        [np.nan if train[u, i] else slow_rank(scores, train, u, i, new[u, a]) for a, i in enumerate(items)]
        for u in range(n_users)
    ]
    found = ranking.item_ranks(scores, sparse_train, items, new)
    np.testing.assert_equal(found, expected)
    if not np.isnan(found).all():
        columns = [c[~np.isnan(c)] for c in np.array(expected).T]
        slow = np.mean([np.mean(c <= 2) for c in columns if len(c)])
        assert attack_metrics.exposure_rate(found, 2) == pytest.approx(slow, abs=1e-9)

    cold = np.sort(rng.choice(n_items, size=n_items // 2 + 1, replace=False))
    positives = np.zeros_like(train)
    positives[:, cold] = rng.random((n_users, len(cold))) < 0.4
    found = accuracy_metrics.cold_auc(scores, cold, sparse.csr_array(positives))
    np.testing.assert_allclose(found, slow_cold_auc(scores, cold, positives), atol=1e-9, rtol=0)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_blocks_of_users_change_nothing(case):
    scores, train, items, new, _ = case
    train = sparse.csr_array(train)
    whole = ranking.item_ranks(scores, train, items, new), ranking.top_k(scores, train, 3)
    before = ranking._CHUNK
    try:
        ranking._CHUNK = 1  # one user at a time
        parts = ranking.item_ranks(scores, train, items, new), ranking.top_k(scores, train, 3)
    finally:
        ranking._CHUNK = before
    np.testing.assert_equal(whole[0], parts[0])
    np.testing.assert_equal(whole[1], parts[1])


def test_training_items_never_enter_a_list():
    rng = np.random.default_rng(0)
    scores, train = rng.normal(size=(40, 30)), rng.random((40, 30)) < 0.5
    lists = ranking.top_k(scores, sparse.csr_array(train), 10)
    for user, row in enumerate(lists):
        assert not train[user, row[row >= 0]].any()


def test_training_items_do_not_compete():
    louder = SCORES.copy()
    louder[TRAIN.toarray()] = 1e6
    assert ranking.ranks(louder, TARGETS, TRAIN).tolist() == ranking.ranks(SCORES, TARGETS, TRAIN).tolist()


class Fixed:
    """A recommender with given scores."""

    def __init__(self, scores):
        self.values = scores

    def scores(self, users, features):
        return self.values[users]


class SmallSplit:
    train, test, validation = TRAIN, TARGETS, np.array([-1, 0, 1])
    cold, cold_positives = np.array([2]), sparse.csr_array((3, 5), dtype=bool)


def test_accuracy_goes_over_the_whole_catalogue():
    values = accuracy_metrics.full_ranking(Fixed(SCORES), None, SmallSplit, ks=(2,))
    assert values["rank"].tolist() == [2, 2, 4]
    assert values["auc"] == pytest.approx([2 / 3, 2 / 3, 0])
    assert np.isnan(values["cold_auc"]).all()
    assert np.isnan(
        accuracy_metrics.full_ranking(Fixed(SCORES), None, SmallSplit, ks=(2,), part="validation")["rank"][0]
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: accuracy_metrics.full_ranking(Fixed(SCORES), None, SmallSplit, ks=(2, 20)), "k = 20 .* 5 items"),
        (lambda: ranking.top_k(SCORES, TRAIN, 6), "k = 6 .* 5 items"),
        (lambda: ranking.ranks(np.where(SCORES == 9, np.nan, SCORES), TARGETS, TRAIN), r"scores.*\(2, 4\)"),
        (lambda: ranking.item_ranks(SCORES, TRAIN, [1], [[np.inf]] * 3), "new scores hold"),
        (lambda: ranking.item_ranks(SCORES, TRAIN, [1], np.zeros((3, 2))), r"not \(3, 1\)"),
        (lambda: ranking.item_ranks(SCORES, TRAIN, [7], np.zeros((3, 1))), "below 5"),
        (lambda: ranking.ranks(SCORES, [0, 1, 0], TRAIN), "item 0 of user 0 is in training"),
        (lambda: ranking.ranks(SCORES[:, :4], TARGETS, TRAIN), "training matrix"),
        (lambda: attack_metrics.exposure_rate(np.full((2, 2), np.nan), 1), "nothing to average"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# An independent implementation: scikit-learn, whose LRAP of a single relevant label is 1 / (pessimistic rank).
@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_equal_to_scikit_learn(seed, ties):
    rng = np.random.default_rng(seed)
    users, items = 6, 17
    scores = rng.integers(0, 5, (users, items)).astype(float) if ties else rng.normal(size=(users, items))
    owned = rng.random((users, items)) < 0.3
    owned[:, :2] = False
    targets = np.array([rng.choice(np.flatnonzero(~row)) for row in owned])
    train = sparse.csr_array(owned)
    rank = ranking.ranks(scores, targets, train)
    ours = accuracy_metrics.from_ranks(rank, items - owned.sum(1) - 1, (1, 3, 5))
    for user, target in enumerate(targets):
        left = np.flatnonzero(~owned[user])
        truth = (left == target)[None]
        places = np.unique(scores[user, left], return_inverse=True)[1][None].astype(float)
        lowered = places - 0.5 * truth  # scikit-learn breaks ties by position or halves them; ours count against
        assert ours["mrr"][user] == pytest.approx(
            metrics.label_ranking_average_precision_score(truth, places), abs=1e-9
        )
        assert ours["auc"][user] == pytest.approx(metrics.roc_auc_score(truth[0], lowered[0]), abs=1e-9)
        for k in (1, 3, 5):
            expected = metrics.ndcg_score(truth, lowered, k=k, ignore_ties=True)
            assert ours[f"ndcg@{k}"][user] == pytest.approx(expected, abs=1e-9)
            if k < len(left):
                found = metrics.top_k_accuracy_score(np.flatnonzero(truth[0]), lowered, k=k, labels=range(len(left)))
                assert ours[f"hr@{k}"][user] == found
