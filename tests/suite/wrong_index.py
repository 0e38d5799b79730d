"""Indexes with one fault each: wrong answers."""

from __future__ import annotations

import random
import time
from functools import partial

import numpy as np

import vwkit
from tests.suite.faults import fault
from tests.suite.right_index import (
    Bits,
    BytesAndFloats,
    BytesOnly,
    Cells,
    KDTree,
    Plain,
    Postings,
)
from vwkit.reference.distances import distances
from vwkit.testing import IndexTests

FAULTS = []
wrong = partial(fault, FAULTS, IndexTests)


def nearest(table, k):
    rows = np.argsort(table, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(table, rows, axis=1).astype(np.float32)


# Distances -------------------------------------------------------------------------------------


@wrong("test_distances_and_neighbours", "its square root was returned")
class Unsquared(Plain):
    """Returns Euclidean distances."""

    metrics = frozenset({"l2"})

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows, np.sqrt(found)


@wrong("test_distances_and_neighbours", "the similarity was returned")
class Similarity(Plain):
    """Returns cosines where distances are wanted."""

    metrics = frozenset({"cosine"})

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows[:, ::-1], (1 - found)[:, ::-1]


@wrong("test_distances_and_neighbours", r"sqrt\(2 - 2·cos\)")
class Angular(Plain):
    """Returns the Euclidean distance of the normalised vectors."""

    metrics = frozenset({"cosine"})

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows, np.sqrt(2 * np.maximum(found, 0))


@wrong("test_distances_and_neighbours", "cosine distance is|nearest have")
class WrongMetric(Plain):
    """Declares cosine, computes l2."""

    metrics = frozenset({"cosine"})

    def _table(self, queries):
        return distances(queries, self._vectors, "l2")


@wrong("test_distances_and_neighbours", "1 is missing")
class NegatedDot(Plain):
    """Returns minus the inner product."""

    metrics = frozenset({"ip"})

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows, found - 1


@wrong("test_distances_and_neighbours", "ip distance is|nearest have")
class WrongSign(Plain):
    """Takes the least similar vectors for the nearest."""

    metrics = frozenset({"ip"})

    def _table(self, queries):
        return 2 - distances(queries, self._vectors, "ip")


@wrong("test_distances_and_neighbours", "hamming distance is")
class CountsBytes(Bits):
    """Counts bytes that differ, not bits."""

    metrics = frozenset({"hamming"})

    def _search(self, queries, k):
        return nearest((queries[:, None] != self._vectors).sum(axis=2), k)


@wrong("test_numbers_of_every_kind", "nearest have|nan")
class ZeroVector(Plain):
    """Divides by the length of a zero vector."""

    metrics = frozenset({"cosine"})

    def _table(self, queries):
        with np.errstate(all="ignore"):
            q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
            x = self._vectors / np.linalg.norm(self._vectors, axis=1, keepdims=True)
            return (1 - q @ x.T).astype(np.float64)


@wrong("test_distances_and_neighbours", "was returned with distance")
class CutToHalf(Plain):
    """Stores float16 and does not say so."""

    def _build(self, vectors):
        super()._build(vectors.astype(np.float16).astype(np.float32))


@wrong("test_distances_and_neighbours", "was returned with distance")
class CutToIntegers(Plain):
    """Stores whole numbers."""

    def _build(self, vectors):
        super()._build(vectors.astype(np.int32))


@wrong("test_distances_and_neighbours", "was returned with distance")
class BytesOverflow(BytesOnly):
    """Subtracts in uint8."""

    def _search(self, queries, k):
        return nearest(((queries[:, None] - self._vectors) ** 2).sum(axis=2, dtype=np.int64), k)


@wrong("test_dtypes_and_layouts", "for a uint8 array")
class SquaresOverflow(BytesAndFloats):
    """Takes bytes, and squares them in int16."""

    def _table(self, queries):
        if queries.dtype != np.uint8 or self._vectors.dtype != np.uint8 or self.metric != "l2":
            return super()._table(queries)
        apart = queries[:, None].astype(np.int16) - self._vectors.astype(np.int16)
        return (apart * apart).sum(axis=2).astype(np.float64)


@wrong("test_far_from_the_origin", "was returned with distance", keep=("metrics", "distance_error"))
class Cancels(Plain):
    """Promises precision, and expands the square in float32."""

    metrics = frozenset({"l2"})
    distance_error = 1e-8

    def _table(self, queries):
        x = self._vectors
        table = (queries**2).sum(axis=1)[:, None] - 2 * queries @ x.T + (x**2).sum(axis=1)
        return np.maximum(table, 0).astype(np.float64)


@wrong("test_far_from_the_origin", "never negative")
class NegativeDistances(Plain):
    """Expands the square in float32, and leaves what falls below zero there."""

    metrics = frozenset({"l2"})

    def _table(self, queries):
        x = self._vectors
        table = (queries**2).sum(axis=1)[:, None] - 2 * queries @ x.T + (x**2).sum(axis=1)
        return table.astype(np.float64)


@wrong("test_many_dimensions", "was returned with distance")
class DropsTheTail(Plain):
    """Handles eight dimensions at a time, and forgets the rest of a long row."""

    def _table(self, queries):
        wide = queries.shape[1]
        kept = wide - wide % 8 if wide > 8 else wide
        return distances(queries[:, :kept], self._vectors[:, :kept], self.metric)


# Neighbours ------------------------------------------------------------------------------------


@wrong("test_distances_and_neighbours", "not ascending")
class Unsorted(Plain):
    """Finds the right ones, in any order."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows[:, ::-1], found[:, ::-1]


@wrong("test_distances_and_neighbours", "was returned with distance")
class SortsDistancesOnly(Plain):
    """Sorts the distances, and leaves the rows as the partition had them."""

    def _search(self, queries, k, *, allowed=None):
        table = self._table(queries)
        table[:, ~(self._alive if allowed is None else self._alive & allowed)] = np.inf
        rows = np.argpartition(table, k - 1, axis=1)[:, :k]
        return rows[:, ::-1], np.sort(np.take_along_axis(table, rows, axis=1), axis=1)


@wrong("test_duplicate_vectors", "listed twice")
class Twice(Plain):
    """Lists the nearest one again instead of the last."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        rows[:, -1], found[:, -1] = rows[:, -2 % k], found[:, -2 % k]
        return rows, found


@wrong("test_distances_and_neighbours", "was returned with distance")
class OffByOne(Plain):
    """Counts rows from 1."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return (rows + 1) % len(self._vectors), found


@wrong("test_duplicate_vectors", "distances of the ids .* inf")
class MergesEqual(Plain):
    """Holds equal vectors once."""

    def _build(self, vectors):
        _, first = np.unique(vectors, axis=0, return_index=True)
        super()._build(vectors)
        self._alive[:] = False
        self._alive[first] = True


@wrong("test_more_neighbours_than_vectors", "id is listed twice|was returned")
class PadsWithRowZero(Cells):
    """Fills up with row 0 at the largest number there is."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return np.where(rows < 0, 0, rows), np.minimum(found, np.finfo(np.float32).max)


@wrong("test_more_neighbours_than_vectors", r"\+inf|was returned|distances of the ids")
class PadsWithRowZeroAtInfinity(Cells):
    """Fills up with row 0 at distance infinity."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return np.where(rows < 0, 0, rows), found


@wrong("test_more_neighbours_than_vectors", "shape")
class TooManyColumns(Plain):
    """Always returns a multiple of eight columns, the last ones without a neighbour."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        wide = ((0, 0), (0, -k % 8))
        return np.pad(rows, wide, constant_values=-1), np.pad(found, wide, constant_values=np.inf)


@wrong("test_more_neighbours_than_vectors", "at most 20")
class FailsBeyond(Plain):
    """Its buffer has twenty places."""

    def _search(self, queries, k, **options):
        if k > 20:
            raise ValueError("at most 20 neighbours")
        return super()._search(queries, k, **options)


@wrong("test_distances_and_neighbours", "integer rows")
class FloatRows(Plain):
    """Returns row numbers as floating-point numbers."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows.astype(np.float32), found


@wrong("test_distances_and_neighbours", "was returned|nearest have")
class StaleAnswer(Plain):
    """Returns the answer of the last search of the same shape."""

    def _build(self, vectors):
        super()._build(vectors)
        self.__dict__.pop("_cache", None)

    def _search(self, queries, k, **options):
        cache = self.__dict__.setdefault("_cache", {})
        key = (queries.shape, k)
        if key not in cache:
            cache[key] = super()._search(queries, k, **options)
        return cache[key]


@wrong("test_answers_do_not_depend_on_other_queries", "by itself")
class MovesTheBatch(Plain):
    """Measures all queries against the mean of the batch."""

    def _search(self, queries, k, **options):
        moved = 0.5 * queries + 0.5 * queries.mean(axis=0, keepdims=True)
        return super()._search(moved, k, **options)


@wrong("test_many_rows", "for rows")
class DropsTheLastBlock(Plain):
    """Answers whole blocks of 256 queries, and leaves the rest without neighbours."""

    def _search(self, queries, k, **options):
        if len(queries) < 256:
            return super()._search(queries, k, **options)
        rows = np.full((len(queries), k), -1)
        found = np.full((len(queries), k), np.inf)
        for start in range(0, len(queries) - 255, 256):
            block = slice(start, start + 256)
            rows[block], found[block] = super()._search(queries[block], k, **options)
        return rows, found


@wrong("test_one_vector", "too few")
class NeedsTwo(Plain):
    """Splits rows in two halves, neither of which may be empty."""

    def _build(self, vectors):
        if len(vectors) < 2:
            raise vwkit.DataError("too few")
        super()._build(vectors)


@wrong("test_one_dimension", "nearest have|was returned")
class Squeezes(Plain):
    """Loses the axis of a single dimension."""

    def _search(self, queries, k, **options):
        if queries.shape[1] == 1:
            return super()._search(queries * 0, k, **options)
        return super()._search(queries, k, **options)


@wrong("test_sparse", "nearest have|was returned")
class EmptyRowsShift(Postings):
    """Leaves rows without entries out, and so counts those behind them wrongly."""

    def _dense(self, vectors):
        dense = super()._dense(vectors)
        if not isinstance(vectors, vwkit.Sparse):
            return dense
        full = dense[(dense != 0).any(axis=1)]
        return np.concatenate([full, np.zeros((len(dense) - len(full), dense.shape[1]))])


# Recall ----------------------------------------------------------------------------------------


@wrong("test_recall", "recall@10, l2 is")
class PoorRecall(Cells):
    """Looks into one cell only."""

    probes: vwkit.Positive = 1


@wrong("test_recall", "lost by loading|loaded is", min_recall=0.5)
class LoadsWithDefaults(Cells):
    """Its library comes back from the file with settings of its own."""

    def _restore(self, state):
        super()._restore(state)
        self._few = 2

    def _candidates(self, order, allowed):
        return super()._candidates(order[: self.__dict__.get("_few", 99)], allowed)


@wrong("test_distances_and_neighbours", "nearest have", mended=Plain)
class NotExact(Cells):
    """Says that it is exact."""

    exact = True
    probes: vwkit.Positive = 1


# Data in other forms ---------------------------------------------------------------------------


@wrong("test_dtypes_and_layouts", "was returned|nearest have|other distances")
class MisreadsFortran(Plain):
    """Reads the caller's memory as it lies there."""

    def build(self, vectors, ids=None):
        if isinstance(vectors, np.ndarray) and vectors.ndim == 2:
            vectors = vectors.ravel(order="K").reshape(vectors.shape)
        return super().build(vectors, ids)


@wrong("test_queries_of_any_layout", "Fortran-ordered queries")
class MisreadsFortranQueries(Plain):
    """Reads the caller's queries as they lie there."""

    def search(self, queries, k=10, *, allowed=None, **late):
        if isinstance(queries, np.ndarray) and queries.flags.f_contiguous:
            queries = queries.ravel(order="K").reshape(queries.shape)
        return super().search(queries, k, allowed=allowed, **late)


@wrong("test_streams", "chunks|nearest have|was returned|no id")
class DropsTheLastChunk(Plain):
    """Reads all chunks of a Stream but the last."""

    streams = True

    def _build(self, vectors):
        if isinstance(vectors, vwkit.Stream):
            chunks = list(vectors)
            vectors = np.concatenate(chunks[:-1] or chunks)
        super()._build(vectors)


@wrong("test_streams", "index 0 is out of bounds")
class CrashesOnAnEmptyChunk(Plain):
    """Looks at the first row of each chunk, past the core."""

    def build(self, vectors, ids=None):
        if isinstance(vectors, vwkit.Stream) and vectors.dtype.kind == "f":
            for chunk in vectors.chunks():
                chunk[0]
        return super().build(vectors, ids)


@wrong("test_second_fit_replaces_the_first", "nearest have|was returned|fitted twice")
class KeepsTheFirst(Plain):
    """Centres all data by the mean of the first."""

    def _build(self, vectors):
        if "_mean" not in self.__dict__:
            self._mean = np.zeros(256)
            self._mean[: vectors.shape[1]] = vectors.mean(axis=0)
        super()._build(vectors + self._mean[: vectors.shape[1]].astype(np.float32))

    def _search(self, queries, k, **options):
        mean = self._mean[: queries.shape[1]].astype(np.float32)
        return super()._search(queries + mean if len(self._vectors) > 60 else queries, k, **options)


# Seeds, threads --------------------------------------------------------------------------------


@wrong("test_same_seed_same_answer", "with the same seed")
class CellsWithoutSeed(Cells):
    """Draws its cells from the system's entropy."""

    deterministic = False

    def _build(self, vectors):
        self._centers = vectors[np.random.default_rng().permutation(len(vectors))[: self.cells]]
        self._vectors, self._cell = vectors[:0], np.zeros(0, np.int64)
        self._add(vectors)


@wrong("test_global_random_state_is_left_alone", "NumPy's global")
class SeedsEverybody(Cells):
    """Seeds NumPy's global generator."""

    def _build(self, vectors):
        np.random.seed(self.seed)  # noqa: NPY002
        super()._build(vectors)


@wrong("test_global_random_state_is_left_alone", "Python's global")
class DrawsFromPython(Cells):
    """Draws from Python's global generator."""

    def _build(self, vectors):
        random.random()
        super()._build(vectors)


@wrong("test_searches_at_the_same_time", "when several threads search", keep=("thread_safe",))
class SharedBuffer(Plain):
    """Says that it is thread-safe, with one work space for all."""

    thread_safe = True

    def _search(self, queries, k, **options):
        self._work = queries
        time.sleep(0.001)
        rows, found = super()._search(np.resize(self._work, queries.shape), k, **options)
        return rows, found


@wrong("test_same_bytes_with_any_threads", "on 1 and 2 threads")
class RoundsByThreads(Plain):
    """Adds partial sums, as many as there are threads."""

    def _table(self, queries):
        return super()._table(queries) * (1 + 1e-6 * vwkit.job().threads)


# Declarations ----------------------------------------------------------------------------------


@wrong("test_add", "must define _add")
class DeclaresAdd(KDTree):
    """Says that it can add, and cannot."""

    supports_add = True


@wrong("test_remove", "must define _remove")
class DeclaresRemove(KDTree):
    """Says that it can remove, and cannot."""

    supports_remove = True


@wrong("test_filter", "unexpected keyword argument 'allowed'")
class DeclaresFilter(KDTree):
    """Says that it can filter, and cannot."""

    supports_filter = True


@wrong("test_sparse", ".")
class DeclaresSparse(KDTree):
    """Says that it takes sparse vectors, and does not."""

    supports_sparse = True


@wrong("test_add", "DID NOT RAISE")
class IgnoresAdded(KDTree):
    """Cannot add, and says nothing."""

    def add(self, vectors, ids=None):
        return self


@wrong("test_remove", "DID NOT RAISE")
class IgnoresRemoved(KDTree):
    """Cannot remove, and says nothing."""

    def remove(self, ids):
        return self


@wrong("test_filter", "DID NOT RAISE")
class IgnoresAllowed(KDTree):
    """Cannot filter, and says nothing."""

    def search(self, queries, k=10, *, allowed=None, **late):
        return super().search(queries, k, **late)


@wrong("test_unfitted_use_is_refused", "DID NOT RAISE")
class AnswersTooEarly(Plain):
    """Overrides the public method, and with it the checks."""

    def search(self, queries, k=10, *, allowed=None, **late):
        if not self._fitted:
            return vwkit.Matches(np.full((len(queries), k), -1), np.full((len(queries), k), np.inf))
        return super().search(queries, k, allowed=allowed, **late)


@wrong("test_has_a_docstring", "no docstring")
class Silent(Plain):
    pass
