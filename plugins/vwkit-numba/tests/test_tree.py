"""The vocabulary tree: what a slow tree gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tree_fits import blobs, check, slowly
from vwkit_numba import VocabularyTree, tree_fitting

import vwkit
from vwkit.errors import ParameterError


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 80),
    dim=st.integers(1, 20),
    branch=st.integers(2, 11),
    depth=st.integers(1, 4),
    beam=st.integers(1, 4),
    whole=st.booleans(),
)
def test_words_are_those_of_a_slow_descent(
    seed: int, rows: int, dim: int, branch: int, depth: int, beam: int, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    data: NDArray[Any] = rng.integers(0, 256, (rows, dim)).astype(np.uint8)
    asked: NDArray[Any] = rng.integers(0, 256, (20, dim)).astype(np.uint8)
    if not whole:
        data, asked = data.astype(np.float32) - 100, asked.astype(np.float32) - 100
    tree = VocabularyTree(branch=branch, depth=depth, beam=beam, seed=seed).fit(data)
    check(tree, data)
    labels = tree.predict(asked)
    for row, label in zip(asked, labels, strict=True):
        word, closest = slowly(tree, row)
        assert label == word or closest < 1e-4 * 255**2 * dim


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    distinct=st.integers(1, 12),
    rows=st.integers(1, 60),
    dim=st.integers(1, 5),
    branch=st.integers(2, 5),
    weighted=st.booleans(),
)
def test_few_distinct_rows(
    seed: int, distinct: int, rows: int, dim: int, branch: int, weighted: bool
) -> None:
    """A deep tree ends at the distinct rows: one word for each, right at its place."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 9, (distinct, dim)).astype(np.uint8)[rng.integers(0, distinct, rows)]
    weights = rng.integers(1, 4, rows).astype(np.float64) if weighted else None
    tree = VocabularyTree(branch=branch, depth=30, seed=seed).fit(data, weights)
    check(tree, data)
    assert np.array_equal(tree.centers[tree.labels], data)
    assert len(tree.centers) == len(np.unique(data, axis=0))
    assert tree.objective[-1] == 0


@pytest.mark.parametrize("value", [0, 7.25, 255])
def test_equal_rows_are_one_word(value: float) -> None:
    rows = np.full((50, 3), value, np.float32)
    tree = VocabularyTree(branch=4, depth=3).fit(rows)
    check(tree, rows)
    assert np.array_equal(tree.centers, rows[:1])
    assert tree.path([0]).shape == (1, 0)
    assert np.array_equal(tree.predict(rows[:5] + 3), np.zeros(5, np.int32))


def test_a_row_is_a_word() -> None:
    tree = VocabularyTree().fit(np.array([[3.0, 4.0]]))
    assert np.array_equal(tree.centers, [[3, 4]])
    assert tree.objective == [0]


def test_rows_far_from_the_tree_find_a_word() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-30, 1.0, 1e30):
        rows = (rng.normal(size=(60, 4)) * scale).astype(np.float32)
        tree = VocabularyTree(branch=3, depth=3, beam=2).fit(rows)
        check(tree, rows)
        far = np.array([[3e38] * 4, [-3e38] * 4, [0, 0, 0, 3e38]], np.float32)
        assert set(tree.predict(far)) <= set(range(len(tree.centers)))


@pytest.mark.usefixtures("small_samples")
def test_samples_do_nearly_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3000, 6)).astype(np.uint8)
    monkeypatch.setattr(tree_fitting, "_SAMPLE", 300)
    sampled = VocabularyTree(branch=4, depth=3).fit(rows)
    check(sampled, rows)
    assert isinstance(sampled.labels, np.memmap)
    monkeypatch.setattr(tree_fitting, "_SAMPLE", 1 << 20)
    whole = VocabularyTree(branch=4, depth=3).fit(rows)
    check(whole, rows)
    assert sampled.objective[-1] < 1.1 * whole.objective[-1]


@pytest.mark.usefixtures("small_samples")
def test_words_of_a_sampled_node_are_means_of_all_its_rows() -> None:
    rows = np.random.default_rng(0).integers(0, 100, (3000, 3)).astype(np.uint8)
    rows[::3] += 150  # so far off that no row changes its word
    tree = VocabularyTree(branch=2, depth=1).fit(rows)
    means = np.stack([rows[tree.labels == word].mean(axis=0) for word in range(2)])
    assert np.abs(tree.centers - means).max() < 1e-3


def test_the_tree_is_better_with_more_levels_and_a_beam() -> None:
    rows = blobs(dim=16)
    trees = [VocabularyTree(branch=4, depth=depth).fit(rows) for depth in (1, 2, 3)]
    errors = [tree.objective[-1] for tree in trees]
    assert errors[0] > errors[1] > errors[2]
    assert trees[2].objective[0] == errors[0]
    assert trees[2].objective[1] == errors[1]
    wide = VocabularyTree(branch=4, depth=3, beam=64).fit(rows)
    check(wide, rows)
    assert wide.objective[-1] <= errors[2]
    distances = ((rows[:, None].astype(np.float64) - wide.centers) ** 2).sum(axis=2)
    least = distances.min(axis=1)
    own = distances[np.arange(len(rows)), wide.labels]
    assert (own <= least + 1e-3).all()  # a beam of all nodes is a search of all words


def test_uneven_weights_are_repeats() -> None:
    """With one level and k-means settled, a weight of 3 is worth three rows."""
    rows = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    tree = VocabularyTree(branch=2, depth=1).fit(rows, [1.0, 3.0, 1.0, 1.0])
    assert sorted(tree.centers.ravel().tolist()) == [0.75, 10.5]
    assert tree.objective[-1] == pytest.approx((0.75 + 0.5) / 6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("branch", 1),
        ("branch", 1025),
        ("branch", 2.5),
        ("depth", 0),
        ("depth", 65),
        ("iterations", 0),
        ("beam", 0),
        ("beam", 1025),
        ("k", 100),
    ],
)
def test_bad_parameters_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=name):
        vwkit.create("clusterer", "tree", **{name: value})


def test_words_of_a_vocabulary() -> None:
    rows = blobs(rows=400)
    tree = VocabularyTree(branch=4, depth=3).fit(rows)
    vocabulary: Any = vwkit.create("quantizer", "vocabulary", clusterer=tree)
    assert np.array_equal(vocabulary.encode(rows)[:, 0], tree.labels)
