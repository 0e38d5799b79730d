"""Sparse vectors: the same numbers as their dense form, and no nonsense."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from vwkit import Sparse

dense = st.builds(
    lambda n, d, seed: np.random.default_rng(seed).integers(-2, 3, (n, d)).astype(np.float32),
    st.integers(0, 8),
    st.integers(1, 8),
    st.integers(0, 9999),
)


@settings(max_examples=60, deadline=None)
@given(dense)
def test_there_and_back(matrix):
    sparse = Sparse.from_dense(matrix)
    assert sparse.shape == matrix.shape
    assert len(sparse) == len(matrix)
    assert sparse.nnz == np.count_nonzero(matrix)
    assert sparse.dtype == np.float32
    assert np.array_equal(sparse.toarray(), matrix)
    assert np.array_equal(sparse.to_scipy().toarray(), matrix)
    again = Sparse.from_scipy(sparse.to_scipy())
    assert np.array_equal(again.toarray(), matrix)
    for i, row in enumerate(matrix):
        columns, values = sparse.row(i)
        assert columns.tolist() == np.flatnonzero(row).tolist()
        assert values.tolist() == row[row != 0].tolist()


@settings(max_examples=60, deadline=None)
@given(dense, st.integers(-10, 10), st.integers(-10, 10))
def test_rows_are_slices(matrix, start, stop):
    sparse = Sparse.from_dense(matrix)
    part = sparse.rows(start, stop)
    assert np.array_equal(part.toarray(), matrix[start:stop])
    assert part.nnz == 0 or np.shares_memory(part.data, sparse.data)


@settings(max_examples=30, deadline=None)
@given(dense, st.lists(st.integers(0, 8), max_size=4))
def test_stacking_undoes_cutting(matrix, cuts):
    edges = [0, *sorted(min(cut, len(matrix)) for cut in cuts), len(matrix)]
    sparse = Sparse.from_dense(matrix)
    parts = [sparse.rows(a, b) for a, b in itertools.pairwise(edges)]
    assert np.array_equal(Sparse.stack(parts, matrix.shape[1]).toarray(), matrix)


def test_stacking_nothing():
    assert Sparse.stack([], 7).shape == (0, 7)


def test_scipy_matrices_of_any_kind_are_put_in_order():
    rows, columns, values = [1, 0, 1, 1], [2, 1, 0, 2], [5.0, 2.0, 3.0, 1.0]
    coo = scipy.sparse.coo_array((values, (rows, columns)), shape=(3, 3))
    sparse = Sparse.from_scipy(coo)
    assert np.array_equal(sparse.toarray(), coo.toarray())
    assert sparse.indices.tolist() == [1, 0, 2]
    csr = scipy.sparse.csr_array((np.ones(2), np.array([2, 0]), np.array([0, 2])), shape=(1, 3))
    assert Sparse.from_scipy(csr).indices.tolist() == [0, 2]
    assert csr.indices.tolist() == [2, 0]  # the given matrix stays as it is


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 1], [5], [1.0], (1, 5)), vwkit.DataError, "0…4"),
        (([0, 1], [-1], [1.0], (1, 5)), vwkit.DataError, "0…4"),
        (([0, 1], [2**32 + 1], [1.0], (1, 5)), vwkit.DataError, "0…4"),
        (([0, 1], [0.5], [1.0], (1, 5)), vwkit.DataError, "whole numbers"),
        (([0, 2], [1, 1], [1.0, 1.0], (1, 5)), vwkit.DataError, "sorted and unique"),
        (([0, 2], [3, 1], [1.0, 1.0], (1, 5)), vwkit.DataError, "sorted and unique"),
        (([0, 1, 1], [1], [1.0], (1, 5)), vwkit.ShapeError, "indptr of 2 entries"),
        (([0, 1], [1], [1.0, 2.0], (1, 5)), vwkit.ShapeError, "equally long"),
        (([1, 1], [1], [1.0], (1, 5)), vwkit.ShapeError, "rise from 0"),
        (([0, 2], [1], [1.0], (1, 5)), vwkit.ShapeError, "rise from 0"),
        (([0, 2, 1, 3], [0, 1, 2], [1.0] * 3, (3, 5)), vwkit.ShapeError, "rise from 0"),
    ],
)
def test_nonsense_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Sparse(*arguments)


def test_the_same_column_in_two_rows_is_fine():
    assert Sparse([0, 1, 1, 2], [3, 3], [1, 2], (3, 5)).toarray()[2, 3] == 2


def test_only_matrices_are_taken():
    with pytest.raises(vwkit.ShapeError, match=r"\(3,\)"):
        Sparse.from_dense(np.zeros(3))


def test_nan_is_found_where_it_is_used():
    bad = Sparse([0, 1], [1], [np.nan], (1, 5))
    with pytest.raises(vwkit.DataError, match="nan"):
        vwkit.create("index", "inverted").build(bad)
    with pytest.raises(vwkit.DataError, match="inf"):
        vwkit.create("index", "inverted").build(Sparse([0, 1], [1], [1e300], (1, 5)))
