"""The conformance suite itself: it catches faults, and lets odd but correct backends pass."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Annotated

import annotated_types
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from vwkit.clusterer import warn_few_distinct
from vwkit.errors import FewDistinctRows, ParameterError, UnknownNameError, UnsupportedError
from vwkit.reference import lloyd as lloyd_reference
from vwkit.reference import pq as pq_reference
from vwkit.reference import pqkmeans as pqkmeans_reference
from vwkit.reference.distances import distances
from vwkit.testing import (
    ClustererTests,
    FeaturizerTests,
    IndexTests,
    QuantizerTests,
    TransformTests,
    registered,
    strategies,
)
from vwkit.testing.run import run_conformance
from vwkit.types import Features

# Correct backends ------------------------------------------------------------------------------


@vwkit.backend("plain")
class Plain(vwkit.Index):
    """Brute force in float64, with every ability that an index can have."""

    metrics = frozenset({"l2", "cosine", "ip"})
    exact = True
    deterministic = True
    supports_add = True
    supports_remove = True
    supports_filter = True

    def _build(self, vectors):
        self._vectors = np.array(vectors)
        self._alive = np.ones(len(vectors), bool)

    def _add(self, vectors):
        self._vectors = np.concatenate([self._vectors, vectors])
        self._alive = np.concatenate([self._alive, np.ones(len(vectors), bool)])

    def _remove(self, rows):
        self._alive[rows] = False

    def _search(self, queries, k, *, allowed=None):
        table = distances(queries, self._vectors, self.metric)
        table[:, ~(self._alive if allowed is None else self._alive & allowed)] = np.inf
        rows = np.argsort(table, axis=1, kind="stable")[:, :k]
        return rows, np.take_along_axis(table, rows, axis=1).astype(np.float32)


@vwkit.backend("kdtree")
class KDTree(vwkit.Index):
    """Exact search with a k-d tree that is walked recursively."""

    exact = True
    deterministic = True
    leaf_size: vwkit.Positive = 16

    def _build(self, vectors):
        self._vectors = vectors

    def _search(self, queries, k):
        rows = np.empty((len(queries), k), np.int64)
        found = np.empty((len(queries), k), np.float32)
        wide = self._vectors.astype(np.float64)
        tree = self._split(wide, np.arange(len(wide)))
        for i, query in enumerate(queries.astype(np.float64)):
            best = []
            self._walk(wide, tree, query, k, best)
            rows[i] = [row for _, row in best]
            found[i] = [far for far, _ in best]
        return rows, found

    def _split(self, wide, rows):
        axis = int(np.ptp(wide[rows], axis=0).argmax())
        if len(rows) <= self.leaf_size or np.ptp(wide[rows, axis]) == 0:
            return rows
        order = rows[np.argsort(wide[rows, axis], kind="stable")]
        half = len(order) // 2
        cut = wide[order[half], axis]
        return axis, cut, self._split(wide, order[:half]), self._split(wide, order[half:])

    def _walk(self, wide, node, query, k, best):
        if isinstance(node, np.ndarray):
            for row in node:
                best.append((float(((wide[row] - query) ** 2).sum()), int(row)))
            best.sort()
            del best[k:]
            return
        axis, cut, low, high = node
        gap = query[axis] - cut
        near, far = (low, high) if gap < 0 else (high, low)
        self._walk(wide, near, query, k, best)
        if len(best) < k or gap**2 <= best[-1][0]:
            self._walk(wide, far, query, k, best)


@vwkit.backend("half")
class Half(vwkit.Index):
    """Keeps float16, compares in float32 with the expanded square: fast and a little off."""

    exact = True
    deterministic = False
    distance_error = 3e-3

    def _build(self, vectors):
        self._vectors = vectors.astype(np.float16)

    def _search(self, queries, k):
        held = self._vectors.astype(np.float32)
        table = (queries**2).sum(axis=1)[:, None] - 2 * queries @ held.T + (held**2).sum(axis=1)
        rows = np.argsort(table, axis=1)[:, :k]
        return rows.astype(np.int32), np.take_along_axis(table, rows, axis=1)


@vwkit.backend("cells")
class Cells(vwkit.Index):
    """Approximate: looks only into the cells nearest to the query, so it may find fewer than k."""

    deterministic = True
    late = frozenset({"probes"})
    supports_add = True

    seed: int = 0
    cells: vwkit.Positive = 20
    probes: vwkit.Positive = 8

    def _build(self, vectors):
        rng = np.random.default_rng(self.seed)
        picked = rng.permutation(len(vectors))[: self.cells]
        self._centers = vectors[picked].copy()
        self._vectors = vectors[:0]
        self._cell = np.zeros(0, np.int64)
        self._add(vectors)

    def _add(self, vectors):
        self._vectors = np.concatenate([self._vectors, vectors])
        nearest = distances(vectors, self._centers, "l2").argmin(axis=1)
        self._cell = np.concatenate([self._cell, nearest])

    def _search(self, queries, k):
        rows = np.full((len(queries), k), -1)
        found = np.full((len(queries), k), np.inf)
        order = np.argsort(distances(queries, self._centers, "l2"), axis=1)[:, : self.probes]
        for i in range(len(queries)):
            candidates = np.flatnonzero(np.isin(self._cell, order[i]))
            far = distances(queries[i : i + 1], self._vectors[candidates], "l2")[0]
            nearest = np.argsort(far, kind="stable")[:k]
            rows[i, : len(nearest)] = candidates[nearest]
            found[i, : len(nearest)] = far[nearest]
        return rows, found


@vwkit.backend("bytes-only")
class BytesOnly(vwkit.Index):
    """Takes whole numbers from 0 to 255 only, and sums them in integers."""

    dtypes = ("uint8",)
    exact = True
    deterministic = True

    def _build(self, vectors):
        self._vectors = vectors

    def _search(self, queries, k):
        wide = self._vectors.astype(np.int64)
        table = ((queries.astype(np.int64)[:, None] - wide) ** 2).sum(axis=2)
        rows = np.argsort(table, axis=1, kind="stable")[:, :k]
        return rows, np.take_along_axis(table, rows, axis=1).astype(np.float32)


@vwkit.backend("kmeans")
class KMeans(vwkit.Clusterer):
    """The reference k-means behind the interface; slow."""

    supports_weights = True
    deterministic = True

    k: vwkit.Positive
    iterations: vwkit.Positive = 30

    def _fit(self, data, weights):
        start = self._start(data, weights)
        centers, _, objective = lloyd_reference.lloyd(data, start, self.iterations, weights)
        self._finish(data, weights, centers, objective)

    def _start(self, data, weights):
        return lloyd_reference.kmeans_plus_plus(data, self.k, self.seed, weights)

    def _finish(self, data, weights, centers, objective):
        self.centers = centers.astype(np.float32)
        self.labels = lloyd_reference.assign(data, self.centers)
        last = lloyd_reference.objective(data, self.centers, self.labels, weights)
        self.objective = [*objective[:-1], last]
        used = np.unique(self.labels if weights is None else self.labels[weights > 0])
        if len(used) < self.k:
            self.centers[np.setdiff1d(np.arange(self.k), used)] = self.centers[used[-1]]
            warn_few_distinct(len(used), self.k)


@vwkit.backend("batches")
class Batches(vwkit.Clusterer):
    """Reads a Stream chunk by chunk in every pass; not deterministic over chunk sizes."""

    streams = True
    dtypes = ("uint8", "float32")

    k: vwkit.Positive

    def _fit(self, data, weights):
        rows = vwkit.Stream.from_array(data) if isinstance(data, np.ndarray) else data
        sample = rows.take(np.arange(min(rows.count(), 500)))
        distinct = np.unique(sample, axis=0)
        self.centers = lloyd_reference.kmeans_plus_plus(distinct, self.k, self.seed).astype(
            np.float32
        )
        self.objective = []
        for turn in range(31):
            sums, counts, total, labels = 0.0, 0.0, 0.0, []
            worst = []
            for chunk in rows:
                table = distances(chunk, self.centers, "l2")
                label = table.argmin(axis=1)
                labels.append(label)
                own = table[np.arange(len(chunk)), label]
                total += own.sum()
                worst += [(float(d), chunk[i].astype(np.float32)) for i, d in enumerate(own)]
                member = np.eye(self.k)[label]
                sums, counts = sums + member.T @ chunk, counts + member.sum(axis=0)
            self.labels = np.concatenate(labels).astype(np.int32)
            self.objective.append(total / len(self.labels))
            empty = np.flatnonzero(counts == 0)
            if len(empty) and max(far for far, _ in worst) > 0:
                self.centers[empty[0]] = max(worst, key=lambda one: one[0])[1]
                continue
            if turn >= 25:
                break
            full = counts > 0
            self.centers[full] = (sums[full] / counts[full, None]).astype(np.float32)
        used = np.unique(self.labels)
        if len(used) < self.k:
            self.centers[np.setdiff1d(np.arange(self.k), used)] = self.centers[used[-1]]
            warn_few_distinct(len(used), self.k)


@vwkit.backend("code-kmeans")
class CodeKMeans(vwkit.Clusterer):
    """The reference k-means of codes."""

    consumes = "codes"
    supports_weights = True
    deterministic = True

    k: vwkit.Positive

    def _fit(self, data, weights):
        book = self.quantizer.codebook
        allowed = data if weights is None else data[weights > 0]
        start = np.unique(allowed, axis=0)
        start = np.random.default_rng(self.seed).permutation(start)[: self.k]
        start = np.concatenate([start, np.repeat(start[-1:], self.k - len(start), axis=0)])
        found = pqkmeans_reference.pqkmeans(data, book, start, 25, weights)
        self.centers, self.labels, self.objective = found
        used = np.unique(self.labels if weights is None else self.labels[weights > 0])
        if len(used) < self.k:
            self.centers[np.setdiff1d(np.arange(self.k), used)] = self.centers[used[-1]]
            warn_few_distinct(len(used), self.k)

    def _predict(self, data):
        return pqkmeans_reference.assign(data, self.centers, self.quantizer.codebook)


@vwkit.backend("chain")
class Chain(vwkit.Clusterer):
    """Single linkage cut at a height: no centers, no predict, and a tree."""

    fixed_k = False
    has_centers = False
    supports_predict = False
    hierarchical = True
    deterministic = True
    late = frozenset({"height"})

    height: Annotated[float, annotated_types.Ge(0)] = 40.0

    def _fit(self, data, weights):
        n = len(data)
        table = np.sqrt(distances(data, data, "l2"))
        name, size = np.arange(n), np.ones(2 * n)
        tree = np.empty((n - 1, 4))
        for step in range(n - 1):
            apart = np.where(name[:, None] != name[None], table, np.inf)
            i, j = np.unravel_index(int(apart.argmin()), apart.shape)
            left, right = sorted((name[i], name[j]))
            size[n + step] = size[left] + size[right]
            tree[step] = left, right, apart[i, j], size[n + step]
            name[(name == left) | (name == right)] = n + step
        self.tree = tree
        self.objective = []

    @property
    def labels(self):
        n = len(self.tree) + 1
        group = list(range(2 * n - 1))
        for step in range(n - 2, -1, -1):
            left, right, height, _ = self.tree[step]
            if height <= self.height:
                group[int(left)] = group[int(right)] = group[n + step]
            # A cluster that is cut stays its own.
        for step in range(n - 2, -1, -1):
            left, right, height, _ = self.tree[step]
            if height <= self.height:
                group[int(left)] = group[int(right)] = group[n + step]
        _, labels, counts = np.unique(group[:n], return_inverse=True, return_counts=True)
        return np.where(counts[labels] > 1, labels, -1).astype(np.int32)


@vwkit.backend("plain-pq")
class PlainPQ(vwkit.Quantizer):
    """The reference product quantizer behind the interface."""

    deterministic = True

    m: vwkit.Positive = 2
    ks: vwkit.Positive = 16

    def _fit(self, vectors):
        self.codebook = pq_reference.train(vectors, self.m, self.ks, self.seed, 12).astype(
            np.float32
        )


@vwkit.backend("turned-pq")
class TurnedPQ(PlainPQ):
    """Turns vectors before it cuts them, as OPQ does."""

    def _fit(self, vectors):
        rng = np.random.default_rng(self.seed)
        d = vectors.shape[1]
        self.rotation = np.linalg.qr(rng.normal(0, 1, (d, d)))[0].astype(np.float32)
        super()._fit(vectors.astype(np.float64) @ self.rotation)

    def _encode(self, vectors):
        return super()._encode((vectors.astype(np.float64) @ self.rotation).astype(np.float32))

    def _decode(self, codes):
        return super()._decode(codes) @ self.rotation.T


@vwkit.backend("residual")
class Residual(vwkit.Quantizer):
    """Additive: each codebook quantizes what the ones before left over."""

    structure = "additive"
    deterministic = True

    m: vwkit.Positive = 2
    ks: vwkit.Positive = 16

    def _fit(self, vectors):
        left, books = vectors.astype(np.float64), []
        for j in range(self.m):
            start = lloyd_reference.kmeans_plus_plus(left, self.ks, (self.seed, j))
            books.append(lloyd_reference.lloyd(left, start, 10)[0].astype(np.float32))
            left = left - books[-1][lloyd_reference.assign(left, books[-1])]
        self.codebook = np.stack(books)

    def _encode(self, vectors):
        left, codes = vectors.astype(np.float64), np.empty((len(vectors), self.m), np.uint8)
        for j in range(self.m):
            codes[:, j] = lloyd_reference.assign(left, self.codebook[j])
            left = left - self.codebook[j][codes[:, j]]
        return codes


@vwkit.backend("scaled")
class Scaled(vwkit.Transform):
    """Divides by the largest magnitude that was seen in the fit."""

    deterministic = True

    def _fit(self, vectors):
        self._largest = float(np.abs(vectors).max()) or 1.0

    def _transform(self, vectors):
        return vectors / np.float32(self._largest)


@vwkit.backend("mean-colour")
class MeanColour(vwkit.Featurizer):
    """One vector per image, several images at a time."""

    batch_size = 3
    deterministic = True
    dim = 3

    def _extract(self, images):
        return [
            Features(
                one.rgb.reshape(-1, 3)
                .mean(axis=0, keepdims=True, dtype=np.float64)
                .astype(np.float32)
            )
            for one in images
        ]


@vwkit.backend("bright-spots")
class BrightSpots(vwkit.Featurizer):
    """A vector for each pixel that is brighter than its neighbours; often there is none."""

    local = True
    deterministic = True
    thread_safe = True
    dim = 2

    def _extract(self, images):
        found = []
        for image in images:
            gray = np.pad(image.gray.astype(np.int64), 1)
            middle = gray[1:-1, 1:-1]
            spot = (middle > gray[:-2, 1:-1] + 9) & (middle > gray[2:, 1:-1] + 9)
            y, x = np.nonzero(spot & (middle > gray[1:-1, :-2]) & (middle > gray[1:-1, 2:]))
            points = np.zeros((len(x), 5), np.float32)
            points[:, 0], points[:, 1], points[:, 2] = x, y, 3
            vectors = np.stack([middle[y, x], middle[y, x] - gray[y, x + 1]], axis=1)
            found.append(Features(vectors.astype(np.float32), points))
        return found


CORRECT = [
    (IndexTests, Plain, {}),
    (IndexTests, KDTree, {"params": {"leaf_size": 4}, "min_recall": 1.0}),
    (IndexTests, Half, {}),
    (IndexTests, Cells, {"min_recall": 0.6}),
    (IndexTests, BytesOnly, {}),
    (ClustererTests, KMeans, {}),
    (ClustererTests, Batches, {}),
    (ClustererTests, CodeKMeans, {}),
    (ClustererTests, Chain, {}),
    (QuantizerTests, PlainPQ, {}),
    (QuantizerTests, TurnedPQ, {}),
    (QuantizerTests, Residual, {}),
    (TransformTests, Scaled, {}),
    (FeaturizerTests, MeanColour, {}),
    (FeaturizerTests, BrightSpots, {}),
]


def run_test(suite, backend, name, **attributes):
    """Run one test of the suite on a class, as pytest would."""
    case = type("TestBackend", (suite,), {"backend": backend, **attributes})()
    with registered(backend):
        getattr(case, name)()


def names_of(suite):
    return sorted(suite._suite_tests)


@pytest.mark.parametrize(
    ("suite", "backend", "attributes", "name"),
    [
        pytest.param(suite, backend, attributes, name, id=f"{backend.name}-{name[5:]}")
        for suite, backend, attributes in CORRECT
        for name in names_of(suite)
    ],
)
def test_correct_backends_pass(suite, backend, attributes, name):
    run_test(suite, backend, name, **attributes)


# Faulty backends -------------------------------------------------------------------------------

FAULTS = []


def fault(suite, test, message, **attributes):
    """Note that this class must fail that test, with that message."""

    def note(cls):
        cls = vwkit.backend(cls.__name__.lower())(cls)
        FAULTS.append(pytest.param(suite, cls, test, message, attributes, id=cls.__name__))
        return cls

    return note


@fault(IndexTests, "test_distances_and_neighbours", "was returned with distance")
class Unsquared(Plain):
    """Returns Euclidean distances."""

    metrics = frozenset({"l2"})

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows, np.sqrt(found)


@fault(IndexTests, "test_distances_and_neighbours", "cosine distance is")
class Similarity(Plain):
    """Returns cosines where distances are wanted."""

    metrics = frozenset({"cosine"})

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows, np.sort(1 - found, axis=1)


@fault(IndexTests, "test_distances_and_neighbours", "cosine distance is|nearest have")
class WrongMetric(Plain):
    """Declares cosine, computes l2."""

    metrics = frozenset({"cosine"})

    def _search(self, queries, k, **options):
        table = distances(queries, self._vectors, "l2")
        rows = np.argsort(table, axis=1)[:, :k]
        return rows, np.take_along_axis(table, rows, axis=1)


@fault(IndexTests, "test_numbers_of_every_kind", "nearest have|nan")
class ZeroVector(Plain):
    """Divides by the length of a zero vector."""

    metrics = frozenset({"cosine"})

    def _search(self, queries, k, **options):
        with np.errstate(all="ignore"):
            q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
            x = self._vectors / np.linalg.norm(self._vectors, axis=1, keepdims=True)
            table = 1 - q @ x.T
        table[:, ~self._alive] = np.inf
        rows = np.argsort(table, axis=1)[:, :k]
        return rows, np.take_along_axis(table, rows, axis=1)


@fault(IndexTests, "test_distances_and_neighbours", "not ascending")
class Unsorted(Plain):
    """Finds the right ones, in any order."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows[:, ::-1], found[:, ::-1]


@fault(IndexTests, "test_duplicate_vectors", "listed twice")
class Twice(Plain):
    """Lists the nearest one again instead of the last."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        rows[:, -1], found[:, -1] = rows[:, -2 % k], found[:, -2 % k]
        return rows, found


@fault(IndexTests, "test_distances_and_neighbours", "was returned with distance")
class OffByOne(Plain):
    """Counts rows from 1."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return (rows + 1) % len(self._vectors), found


@fault(IndexTests, "test_add", "nearest have|was returned")
class StaleAfterAdd(Plain):
    """Keeps the matrix that its first search made."""

    def _build(self, vectors):
        super()._build(vectors)
        self._matrix = None

    def _search(self, queries, k, **options):
        if self._matrix is None:
            self._matrix = self._vectors
        kept, self._vectors = self._vectors, self._matrix
        alive, self._alive = self._alive, self._alive[: len(self._matrix)]
        rows, found = super()._search(queries, k)
        self._vectors, self._alive = kept, alive
        return rows, found


@fault(IndexTests, "test_remove", "removed")
class Renumbers(Plain):
    """Moves later rows up after removing."""

    def _remove(self, rows):
        self._vectors = np.delete(self._vectors, rows, axis=0)
        self._alive = np.ones(len(self._vectors), bool)


@fault(IndexTests, "test_remove", "removed|nearest have")
class NeverForgets(Plain):
    """Removes nothing."""

    def _remove(self, rows):
        pass


@fault(IndexTests, "test_filter", "nearest have")
class FiltersLate(Plain):
    """Cuts to k first, then drops what is not allowed."""

    def _search(self, queries, k, *, allowed=None):
        rows, found = super()._search(queries, k)
        if allowed is not None:
            bad = ~allowed[rows]
            rows[bad], found[bad] = -1, np.inf
            order = np.argsort(found, axis=1, kind="stable")
            rows, found = np.take_along_axis(rows, order, 1), np.take_along_axis(found, order, 1)
        return rows, found


@fault(IndexTests, "test_distances_and_neighbours", "was returned|nearest have")
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


@fault(IndexTests, "test_inputs_are_left_alone", "changed")
class NormalisesInPlace(Plain):
    """Normalises the caller's own array."""

    metrics = frozenset({"cosine"})

    def _build(self, vectors):
        with np.errstate(all="ignore"):
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        super()._build(vectors)


@fault(IndexTests, "test_distances_and_neighbours", "changed the queries")
class ChangesQueries(Plain):
    """Subtracts the mean from the caller's queries."""

    metrics = frozenset({"l2"})

    def _build(self, vectors):
        self._mean = vectors.mean(axis=0)
        super()._build(vectors - self._mean)

    def _search(self, queries, k, **options):
        queries -= self._mean
        return super()._search(queries, k, **options)


@fault(IndexTests, "test_read_only_arrays_are_accepted", "read-only|writ")
class WantsWritable(Plain):
    """Sets the caller's array to be written to."""

    def _build(self, vectors):
        vectors[0, 0] = vectors[0, 0]
        super()._build(vectors)


@fault(IndexTests, "test_distances_and_neighbours", "was returned with distance")
class CutToHalf(Plain):
    """Stores float16 and does not say so."""

    def _build(self, vectors):
        super()._build(vectors.astype(np.float16).astype(np.float32))


@fault(IndexTests, "test_recall", "recall@10 is")
class PoorRecall(Cells):
    """Looks into one cell only."""

    probes: vwkit.Positive = 1


@fault(IndexTests, "test_distances_and_neighbours", "nearest have")
class NotExact(Cells):
    """Says that it is exact."""

    exact = True
    probes: vwkit.Positive = 1


@fault(IndexTests, "test_save_and_load", "after loading")
class ForgetsOnSaving(Plain):
    """Does not save which rows are left, and changes what it saves."""

    def _state(self):
        return {"_vectors": np.round(self._vectors), "_alive": self._alive}


@fault(IndexTests, "test_save_and_load", "pickle")
class Pickles(Plain):
    """Saves itself as a pickle."""

    def _save(self, folder):
        import pickle

        (Path(folder) / "index.pkl").write_bytes(pickle.dumps(self._vectors))

    def _load(self, folder):
        import pickle

        self._vectors = pickle.loads((Path(folder) / "index.pkl").read_bytes())
        self._alive = np.ones(len(self._vectors), bool)


@fault(IndexTests, "test_saved_files_are_reproducible", "differ")
class WritesTheTime(Plain):
    """Saves when it was saved."""

    def _state(self):
        return {**super()._state(), "_time": np.array(time.perf_counter_ns())}


@fault(IndexTests, "test_late_parameters_of_a_search", "changed the index")
class LateSticks(Cells):
    """A late parameter of one search stays."""

    def with_late(self, values):
        for name, value in values.items():
            setattr(self, name, value)
        return self


@fault(IndexTests, "test_searches_at_the_same_time", "when several threads search")
class SharedBuffer(Plain):
    """Says that it is thread-safe, with one work space for all."""

    thread_safe = True

    def _search(self, queries, k, **options):
        self._work = queries
        time.sleep(0.001)
        rows, found = super()._search(np.resize(self._work, queries.shape), k, **options)
        return rows, found


@fault(IndexTests, "test_one_vector", ".")
class NeedsTwo(Plain):
    """Splits rows in two halves, neither of which may be empty."""

    def _build(self, vectors):
        if len(vectors) < 2:
            raise vwkit.DataError("too few")
        super()._build(vectors)


@fault(IndexTests, "test_one_dimension", ".")
class Squeezes(Plain):
    """Loses the axis of a single dimension."""

    def _search(self, queries, k, **options):
        if queries.shape[1] == 1:
            return super()._search(queries * 0, k, **options)
        return super()._search(queries, k, **options)


@fault(IndexTests, "test_prints_nothing", "it printed")
class Talks(Plain):
    """Prints from native code."""

    def _build(self, vectors):
        os.write(1, b"building...\n")
        super()._build(vectors)


@fault(IndexTests, "test_global_random_state_is_left_alone", "NumPy's global")
class SeedsEverybody(Cells):
    """Seeds NumPy's global generator."""

    def _build(self, vectors):
        np.random.seed(self.seed)  # noqa: NPY002
        super()._build(vectors)


@fault(IndexTests, "test_global_random_state_is_left_alone", "Python's global")
class DrawsFromPython(Cells):
    """Draws from Python's global generator."""

    def _build(self, vectors):
        random.random()
        super()._build(vectors)


@fault(IndexTests, "test_has_a_docstring", "no docstring")
class Silent(Plain):
    pass


@fault(IndexTests, "test_parameters_round_trip", ".")
class ChangesItsParameters(Cells):
    """Doubles a parameter on construction."""

    def __post_init__(self):
        self.probes = self.probes * 2


@fault(IndexTests, "test_streams", ".")
class DropsTheLastChunk(Plain):
    """Reads all chunks of a Stream but the last."""

    streams = True

    def _build(self, vectors):
        if isinstance(vectors, vwkit.Stream):
            chunks = list(vectors)
            vectors = np.concatenate(chunks[:-1] or chunks)
        super()._build(vectors)


@fault(IndexTests, "test_second_fit_replaces_the_first", ".")
class KeepsTheFirst(Plain):
    """Adds the second build to the first, where it fits."""

    def _build(self, vectors):
        if "_mean" not in self.__dict__:
            self._mean = np.zeros(64)
            self._mean[: vectors.shape[1]] = vectors.mean(axis=0)
        super()._build(vectors + self._mean[: vectors.shape[1]].astype(np.float32))

    def _search(self, queries, k, **options):
        mean = self._mean[: queries.shape[1]].astype(np.float32)
        return super()._search(queries + mean if len(self._vectors) > 60 else queries, k, **options)


@fault(IndexTests, "test_distances_and_neighbours", "vectors were changed")
class NormalisesForCosine(Plain):
    """Normalises the caller's own array, in one metric only."""

    def _build(self, vectors):
        if self.metric == "cosine":
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
        super()._build(vectors)


@fault(IndexTests, "test_add", "added vectors were changed")
class ChangesWhatIsAdded(Plain):
    """Moves the caller's added vectors."""

    def _add(self, vectors):
        super()._add(vectors)
        vectors -= 1


@fault(IndexTests, "test_remove", "changed by removing")
class RemovesInPlace(Plain):
    """Marks removed rows in the caller's own array."""

    metrics = frozenset({"l2"})

    def _build(self, vectors):
        self._vectors = vectors
        self._alive = np.ones(len(vectors), bool)

    def _remove(self, rows):
        super()._remove(rows)
        self._vectors[rows] = 0


@fault(IndexTests, "test_every_metric_is_saved", "was returned|nearest have")
class LosesTheMetric(Plain):
    """Loads everything as l2."""

    def _restore(self, state):
        super()._restore(state)
        self._lost = True

    def _search(self, queries, k, **options):
        if "_lost" not in self.__dict__:
            return super()._search(queries, k, **options)
        table = distances(queries, self._vectors, "l2")
        rows = np.argsort(table, axis=1)[:, :k]
        return rows, np.take_along_axis(table, rows, axis=1)


@fault(IndexTests, "test_same_seed_same_answer", "with the same seed")
class CellsWithoutSeed(Cells):
    """Draws its cells from the system's entropy."""

    deterministic = False

    def _build(self, vectors):
        self._centers = vectors[np.random.default_rng().permutation(len(vectors))[: self.cells]]
        self._vectors, self._cell = vectors[:0], np.zeros(0, np.int64)
        self._add(vectors)


@fault(IndexTests, "test_recall_after_adding", "recall@10 after adding")
class AddsForLater(Cells):
    """Does not look at what was added."""

    def _add(self, vectors):
        first = len(self._vectors) == 0
        super()._add(vectors)
        if not first:
            self._cell[-len(vectors) :] = -1


@fault(IndexTests, "test_answers_do_not_depend_on_other_queries", "by itself")
class FirstQueryForAll(Plain):
    """Measures all queries against the mean of the batch."""

    def _search(self, queries, k, **options):
        moved = 0.5 * queries + 0.5 * queries.mean(axis=0, keepdims=True)
        return super()._search(moved, k, **options)


@fault(IndexTests, "test_unfitted_use_is_refused", ".")
class AnswersTooEarly(Plain):
    """Overrides the public method, and with it the checks."""

    def search(self, queries, k=10, *, allowed=None, **late):
        if not self._fitted:
            return vwkit.Matches(np.full((len(queries), k), -1), np.full((len(queries), k), np.inf))
        return super().search(queries, k, allowed=allowed, **late)


@fault(ClustererTests, "test_streams", "chunks")
class FirstChunkOnly(Batches):
    """Starts from its first chunk, and moves no center after that."""

    def _fit(self, data, weights):
        rows = vwkit.Stream.from_array(data) if isinstance(data, np.ndarray) else data
        chunks = list(rows)
        first = chunks[0] if len(chunks[0]) >= self.k else np.concatenate(chunks)
        start = lloyd_reference.kmeans_plus_plus(first, self.k, self.seed)
        self.centers = start.astype(np.float32)
        whole = np.concatenate(chunks)
        self.labels = lloyd_reference.assign(whole, self.centers)
        self.objective = [lloyd_reference.objective(whole, self.centers, self.labels)]


@fault(ClustererTests, "test_same_seed_same_answer", "with the same seed")
class IgnoresTheSeed(KMeans):
    """Draws its start from the system's entropy."""

    deterministic = False

    def _start(self, data, weights):
        picked = np.random.default_rng().permutation(len(data))[: self.k]
        return data[picked]


@fault(ClustererTests, "test_global_random_state_is_left_alone", "NumPy's global")
class DrawsFromNumpy(KMeans):
    """Draws from NumPy's global generator."""

    def _start(self, data, weights):
        np.random.rand()  # noqa: NPY002
        return super()._start(data, weights)


@fault(ClustererTests, "test_objective_after_few_iterations", "objective|nearest")
class StaleLabels(KMeans):
    """Moves the centers once more after the last assignment."""

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, weights, centers, objective)
        moved = lloyd_reference.update(data, self.labels, self.k, weights, self.centers)
        self.centers = moved.astype(np.float32)


@fault(ClustererTests, "test_predict", "nearest center")
class StalePredict(KMeans):
    """Predicts with the centers that it started from."""

    def _start(self, data, weights):
        self._first = super()._start(data, weights)
        return self._first

    def _predict(self, data):
        return lloyd_reference.assign(data, self._first)


@fault(ClustererTests, "test_predict", "by itself|nearest center")
class PredictsByRank(KMeans):
    """Centres what it predicts by the mean of the batch."""

    def _predict(self, data):
        moved = data - data.mean(axis=0, keepdims=True) if len(data) else data
        return super()._predict(np.ascontiguousarray(moved, np.float32))


class Naive(KMeans):
    """Means of whatever rows there are."""

    def _fit(self, data, weights):
        centers = data[np.random.default_rng(self.seed).permutation(len(data))[: self.k]].astype(
            np.float64
        )
        objective = []
        for _ in range(self.iterations):
            labels = lloyd_reference.assign(data, np.nan_to_num(centers, nan=1e9))
            objective.append(
                lloyd_reference.objective(data, np.nan_to_num(centers, nan=1e9), labels)
            )
            centers = self._means(data, labels, centers)
        self.centers = centers.astype(np.float32)
        self.labels = lloyd_reference.assign(data, np.nan_to_num(self.centers, nan=1e9))
        whole = np.nan_to_num(self.centers, nan=1e9)
        self.objective = [*objective, lloyd_reference.objective(data, whole, self.labels)]


@fault(ClustererTests, "test_few_distinct_rows", "NaN|empty|warning|used|distinct")
class NaNCenters(Naive):
    """Divides by the size of an empty cluster."""

    supports_weights = False

    def _means(self, data, labels, centers):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return np.stack([data[labels == j].mean(axis=0) for j in range(self.k)])


@fault(ClustererTests, "test_no_cluster_is_empty", "empty")
class EmptyClusters(Naive):
    """Leaves empty clusters where they are."""

    supports_weights = False

    def _means(self, data, labels, centers):
        return lloyd_reference.update(data, labels, self.k, None, centers)


@fault(ClustererTests, "test_weights", "heed the weights|objective")
class IgnoresWeights(KMeans):
    """Takes weights and forgets them."""

    def _fit(self, data, weights):
        super()._fit(data, None)


@fault(ClustererTests, "test_weights", "heed the weights")
class WeighsOnlyTheObjective(KMeans):
    """Weights enter the objective, not the centers."""

    def _fit(self, data, weights):
        super()._fit(data, None)
        self.objective[-1] = lloyd_reference.objective(data, self.centers, self.labels, weights)


@fault(ClustererTests, "test_zero_weights", "weight 0")
class SeedsWithoutWeight(KMeans):
    """Its seeding chooses rows that count nothing, and leaves them chosen."""

    def _fit(self, data, weights):
        self.centers = lloyd_reference.kmeans_plus_plus(data, self.k, self.seed).astype(np.float32)
        self.labels = lloyd_reference.assign(data, self.centers)
        self.objective = [lloyd_reference.objective(data, self.centers, self.labels, weights)]


@fault(ClustererTests, "test_objective_is_near_the_reference", "times the reference")
class StopsAtOnce(KMeans):
    """Never moves its centers."""

    def _fit(self, data, weights):
        picked = np.sort(np.random.default_rng(self.seed).permutation(len(data))[: self.k])
        self._finish(data, weights, data[picked].astype(np.float64), [np.inf])
        self.objective = self.objective[-1:]


@fault(ClustererTests, "test_objective_does_not_rise", "goes up")
class SumsTheObjective(KMeans):
    """Adds the objective of all iterations up."""

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, weights, centers, objective)
        self.objective = [
            self.objective[-1] * (i + 1) / len(objective) for i in range(len(objective))
        ]


@fault(ClustererTests, "test_labels_and_centers", "mean distance")
class RootObjective(KMeans):
    """Gives the root of the mean distance."""

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, weights, centers, objective)
        self.objective = list(np.sqrt(self.objective))


@fault(ClustererTests, "test_streams", "chunks|nearest|objective|other")
class ChunkByChunk(Batches):
    """Says that it is deterministic, and starts from the first chunk."""

    deterministic = True

    def _fit(self, data, weights):
        if isinstance(data, vwkit.Stream):
            data = np.concatenate([chunk[::-1] for chunk in data])
        super()._fit(data, weights)
        self.labels = self.labels[::-1].copy()


@fault(ClustererTests, "test_same_bytes_with_any_threads", "threads")
class DependsOnThreads(KMeans):
    """Lets the number of threads into its sums."""

    def _finish(self, data, weights, centers, objective):
        centers = centers + 1e-3 * vwkit.job().threads
        super()._finish(data, weights, centers, objective)


@fault(ClustererTests, "test_tree", "joins|counts")
class WrongTree(Chain):
    """Counts the rows of a cluster wrongly."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self.tree[:, 3] = 2


@fault(ClustererTests, "test_vocabulary_gives_the_labels|test_predict", "nearest")
class PredictsAfterDecoding(CodeKMeans):
    """Compares codes as if they were vectors."""

    def _predict(self, data):
        return lloyd_reference.assign(data, self.centers)


@fault(ClustererTests, "test_more_clusters_than_rows_are_refused", ".")
class TakesAnyK(KMeans):
    """Overrides the public method, and with it the checks."""

    def fit(self, data, weights=None, *, quantizer=None):
        rows = np.asarray(data, np.float32)
        self._fit(np.concatenate([rows, rows]), None)
        return self


@fault(QuantizerTests, "test_codes", ".")
class WideCodes(PlainPQ):
    """Gives int64 codes."""

    def _encode(self, vectors):
        return super()._encode(vectors).astype(np.int64)


@fault(QuantizerTests, "test_codes", "nearest codeword")
class SwapsSlices(PlainPQ):
    """Looks slices up in each other's codebook."""

    def _encode(self, vectors):
        return np.ascontiguousarray(super()._encode(vectors)[:, ::-1])


@fault(QuantizerTests, "test_round_trip", "do not come back|follow")
class DecodesNext(PlainPQ):
    """Decodes to the codeword behind the right one."""

    def _decode(self, codes):
        return super()._decode((codes + 1) % self.ks)


@fault(QuantizerTests, "test_codes", "nearest codeword")
class ForgetsTheRotation(TurnedPQ):
    """Encodes turned vectors, decodes without turning back."""

    def _decode(self, codes):
        return PlainPQ._decode(self, codes)


@fault(QuantizerTests, "test_distortion", "distortion")
class BarelyTrained(PlainPQ):
    """Takes any rows as codewords."""

    def _fit(self, vectors):
        width = vectors.shape[1] // self.m
        parts = [vectors[: self.ks, j * width : (j + 1) * width] for j in range(self.m)]
        self.codebook = np.stack(parts).astype(np.float32)


@fault(TransformTests, "test_rows_do_not_depend_on_each_other", "alone|order")
class ScalesTheBatch(Scaled):
    """Divides by the largest of the batch."""

    def _transform(self, vectors):
        return vectors / np.float32(np.abs(vectors).max(initial=1e-9))


@fault(TransformTests, "test_values", "NaN")
class DividesByZero(Scaled):
    """Divides by lengths that may be 0."""

    def _transform(self, vectors):
        with np.errstate(all="ignore"):
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@fault(
    TransformTests,
    "test_values",
    "differs by",
    reference=staticmethod(lambda fitted_on, rows: rows / (np.abs(fitted_on).max() or 1)),
)
class NotTheReference(Scaled):
    """Is half of what it should be."""

    def _transform(self, vectors):
        return super()._transform(vectors) / np.float32(2)


@fault(FeaturizerTests, "test_one_result_for_each_image", ".")
class OtherOrder(MeanColour):
    """Sorts the images of a batch by size."""

    def _extract(self, images):
        return super()._extract(sorted(images, key=lambda one: one.size))


@fault(
    FeaturizerTests, "test_results_do_not_depend_on_the_batch", "for the repeated image|for image"
)
class BatchNorm(MeanColour):
    """Subtracts the mean of the batch."""

    def _extract(self, images):
        found = super()._extract(images)
        mean = np.mean([one.vectors for one in found], axis=0)
        return [
            Features((one.vectors - mean * np.float32(0.1)).astype(np.float32)) for one in found
        ]


@fault(FeaturizerTests, "test_images_of_any_kind|test_images_without_anything", ".")
class NeedsSpots(BrightSpots):
    """Fails without keypoints."""

    def _extract(self, images):
        found = super()._extract(images)
        for one in found:
            one.vectors[0]
        return found


@fault(FeaturizerTests, "test_images_of_any_kind", ".")
class WrongDim(MeanColour):
    """Gives four numbers for transparent images."""

    def _extract(self, images):
        plain = super()._extract(images)
        return [
            Features(np.hstack([found.vectors, [[1]]]).astype(np.float32))
            if one.alpha is not None
            else found
            for one, found in zip(images, plain, strict=True)
        ]


@fault(FeaturizerTests, "test_ways_to_give_an_image", "for grey")
class KnowsGrey(MeanColour):
    """Reads something that the image does not promise."""

    def _extract(self, images):
        found = super()._extract(images)
        return [
            Features(one.vectors * np.float32(1 if image._pixels.ndim == 3 else 0.5))
            for one, image in zip(found, images, strict=True)
        ]


@pytest.mark.parametrize(("suite", "backend", "tests", "message", "attributes"), FAULTS)
def test_faults_are_caught(suite, backend, tests, message, attributes):
    # pytest.fail raises an exception of its own, which is no Exception.
    caught = (Exception, pytest.fail.Exception)
    first, *others = tests.split("|")
    with pytest.raises(caught, match=message):
        run_test(suite, backend, first, **attributes)
    for name in others:
        with pytest.raises(caught, match=message):
            run_test(suite, backend, name, **attributes)


def test_the_suite_knows_many_faults():
    assert len(FAULTS) > 50
    assert len({entry.values[1] for entry in FAULTS}) == len(FAULTS)


# The rules of subclassing ----------------------------------------------------------------------


def test_overriding_a_test_is_refused():
    with pytest.raises(TypeError, match=r"TestMine\.test_recall overrides .*expected_failures"):

        class TestMine(IndexTests):
            backend = Plain

            def test_recall(self):
                pass


def test_removing_a_test_is_refused():
    with pytest.raises(TypeError, match="test_recall"):
        type("TestMine", (IndexTests,), {"backend": Plain, "test_recall": None})


def test_overriding_through_another_base_is_refused():
    class Easier:
        def test_recall(self):
            pass

    with pytest.raises(TypeError, match="test_recall"):
        type("TestMine", (Easier, IndexTests), {"backend": Plain})


def test_expected_failures_name_a_test_and_a_reason():
    with pytest.raises(TypeError, match="names test_recal, which is no test"):
        type("TestMine", (IndexTests,), {"expected_failures": {"test_recal": "reason"}})
    with pytest.raises(TypeError, match="needs a reason"):
        type("TestMine", (IndexTests,), {"expected_failures": {"test_recall": " "}})


def test_the_backend_is_of_the_role():
    with pytest.raises(TypeError, match=r"derived from vwkit\.Index"):
        type("TestMine", (IndexTests,), {"backend": KMeans})

    class Undecorated(Plain):
        pass

    with pytest.raises(TypeError, match=r"decorated with @vwkit\.backend"):
        type("TestMine", (IndexTests,), {"backend": Undecorated})


def test_own_tests_may_be_added():
    made = type("TestMine", (IndexTests,), {"backend": Plain, "test_of_mine": lambda self: None})
    assert "test_of_mine" not in made._suite_tests


@pytest.mark.parametrize(
    "suite", [ClustererTests, FeaturizerTests, IndexTests, QuantizerTests, TransformTests]
)
def test_every_test_says_what_to_check(suite):
    assert len(names_of(suite)) > 15
    for name in names_of(suite):
        last = (getattr(suite, name).__doc__ or "").strip().rpartition("\n\n")[2].strip()
        assert last.startswith("If this fails, check "), name
        assert last.endswith("."), name


def test_registered_lends_a_name_and_takes_it_back():
    with pytest.raises(UnknownNameError):
        vwkit.create("index", "plain")
    with registered(Plain):
        assert isinstance(vwkit.create("index", "plain"), Plain)
    with pytest.raises(UnknownNameError):
        vwkit.create("index", "plain")


# The strategies --------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.data())
def test_strategies_keep_their_word(data):
    rows = data.draw(strategies.vectors(rows=(2, 9), dim=(2, 8), step=2))
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert 2 <= len(rows) <= 9
    assert rows.shape[1] in (2, 4, 6, 8)
    assert np.abs(rows).max() <= 1000
    codes = data.draw(strategies.codes(m=3, ks=300))
    assert codes.dtype == np.uint16
    assert codes.max() < 300
    image = data.draw(strategies.images(side=(1, 9)))
    assert image.dtype in (np.uint8, np.uint16)
    assert image.ndim in (2, 3)
    stream = data.draw(strategies.streams())
    assert stream.count() == len(stream.toarray())


# In pytest -------------------------------------------------------------------------------------

MODULE = """
import numpy as np
import vwkit
from vwkit.testing import TransformTests


@vwkit.backend("doubled")
class Doubled(vwkit.Transform):
    "Times two."
    deterministic = True

    def _transform(self, vectors):
        return vectors * np.float32(2)


@vwkit.backend("spoilt")
class Spoilt(Doubled):
    "Times two, into the caller's array."

    def _transform(self, vectors):
        vectors *= np.float32(2)
        return vectors


class TestDoubled(TransformTests):
    backend = Doubled


class TestSpoilt(TransformTests):
    backend = Spoilt
    expected_failures = {SPOILT}
"""


def run_pytest(folder, text, *options):
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "test_mine.py").write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers"]
    done = subprocess.run(
        [*command, "--import-mode=importlib", "-rfEX", *options],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


KNOWN = (
    "{'test_inputs_are_left_alone': 'in place', 'test_read_only_arrays_are_accepted': 'in place'"
)


def test_an_expected_failure_is_an_xfail(tmp_path):
    reasons = KNOWN + ", 'test_dtypes_and_layouts': 'in place', 'test_values': 'in place'}"
    status, text = run_pytest(tmp_path, MODULE.replace("{SPOILT}", reasons), "-rx")
    assert "in place" in text
    failed = [line for line in text.splitlines() if line.startswith("FAILED")]
    assert all("TestSpoilt" in line for line in failed)
    assert "test_inputs_are_left_alone" not in "".join(failed)
    assert status in (0, 1)


def test_an_expected_failure_that_passes_is_a_failure(tmp_path):
    reasons = "{'test_has_a_docstring': 'I thought so'}"
    status, text = run_pytest(tmp_path, MODULE.replace("{SPOILT}", reasons), "-k", "docstring")
    assert status == 1
    assert "XPASS(strict)" in text
    assert "I thought so" in text


def test_the_suite_passes_in_a_strict_project(tmp_path):
    text = MODULE.partition("class TestSpoilt")[0]
    status, output = run_pytest(tmp_path, text, "-m", "conformance", "--strict-config")
    assert status == 0, output
    assert "deselected" not in output


def test_a_heavy_import_is_caught(tmp_path, monkeypatch):
    (tmp_path / "heavy_library.py").write_text("")
    source = """
    import heavy_library
    import vwkit

    @vwkit.backend("heavy")
    class Heavy(vwkit.Transform):
        "Loads its library at once."
        requires = ("heavy_library",)

        def _transform(self, vectors):
            return vectors
    """
    (tmp_path / "heavy_backend.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    heavy = importlib.import_module("heavy_backend").Heavy
    with pytest.raises(AssertionError, match="also imports heavy_library"):
        run_test(TransformTests, heavy, "test_import_is_light")


def test_the_pytest_plugin_is_light():
    code = (
        "import sys; import vwkit.testing.plugin; "
        "print([m for m in ('numpy', 'hypothesis', 'pydantic', 'vwkit.base') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_nothing_else_imports_pytest_or_hypothesis():
    folder = Path(vwkit.__file__).parent
    sources = [path for path in folder.rglob("*.py") if "testing" not in path.parts]
    assert len(sources) > 20
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert "import pytest" not in text, path
        assert "import hypothesis" not in text, path
        assert "from hypothesis" not in text, path


# From the shell --------------------------------------------------------------------------------


def test_run_conformance():
    code = (
        "import sys; from vwkit.testing.run import run_conformance; "
        "sys.exit(run_conformance('transform', 'l2-norm', {}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_run_conformance_tells_a_failure():
    with registered(ScalesTheBatch):
        status = run_conformance("transform", "scalesthebatch", {}, ["-x"])
    assert status == 1


def test_run_conformance_refuses_what_it_cannot_run():
    with pytest.raises(UnknownNameError, match="l2-norm"):
        run_conformance("transform", "l2norm", {})
    with pytest.raises(ParameterError, match="output"):
        run_conformance("output", "table", {})
    with pytest.raises(ParameterError, match="whiten"):
        run_conformance("transform", "pca", {"whitten": True})
    with pytest.raises(ParameterError, match="greater than 0"):
        run_conformance("quantizer", "pq", {"m": 0})
    with pytest.raises(ParameterError, match="needs it"):
        run_conformance("quantizer", "vocabulary", {})
    assert UnknownNameError.exit_status == 2


def test_an_approximate_index_declares_its_promises():
    said = {"cells": 20, "probes": 4}
    only = ["-k", "test_recall and not adding"]
    with registered(Cells):
        assert run_conformance("index", "cells", said, only) == 1
        assert run_conformance("index", "cells", said, only, min_recall=0.3) == 0
        assert run_conformance("index", "cells", said, only, min_recall=1) == 1
        known = {"test_recall": 'it "looks" into {few}\\ cells'}
        assert run_conformance("index", "cells", said, only, expected_failures=known) == 0
        # Strict: what passes must not be declared.
        wrong = {"min_recall": 0.3, "expected_failures": known}
        assert run_conformance("index", "cells", said, only, **wrong) == 1


@pytest.mark.parametrize(
    ("role", "promises", "message"),
    [
        ("transform", {"min_recall": 0.5}, "promise of an index"),
        ("index", {"min_recall": 1.5}, "from 0 to 1; got 1.5"),
        ("index", {"min_recall": float("nan")}, "got nan"),
        ("index", {"expected_failures": {"test_recal": "few"}}, "did you mean test_recall"),
        ("index", {"expected_failures": {"zzz": "few"}}, "its tests: .*test_recall"),
        ("index", {"expected_failures": {"test_recall": " "}}, "needs a reason"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(role, promises, message):
    name = {"transform": "l2-norm", "index": "exact"}[role]
    with pytest.raises(ParameterError, match=message):
        run_conformance(role, name, {}, **promises)


def test_the_command_takes_promises():
    def conformance(*options):
        command = [sys.executable, "-m", "vwkit", "conformance", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    shown = conformance("transform", "l2-norm", "--expect-failure", "test_has_a_docstring=why not")
    assert shown.returncode == 1
    assert "why not" in shown.stdout
    for options, message in (
        (["transform", "l2-norm", "--min-recall", "0.5"], "promise of an index"),
        (["index", "exact", "--expect-failure", "test_recall"], "write TEST=REASON"),
    ):
        refused = conformance(*options)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_missing_library_skips(tmp_path):
    text = """
    import vwkit
    from vwkit.testing import TransformTests

    @vwkit.backend("absent")
    class Absent(vwkit.Transform):
        "Needs what is not there."
        requires = ("no_such_library",)

    class TestAbsent(TransformTests):
        backend = Absent
    """
    status, output = run_pytest(tmp_path, text, "-rs")
    assert status == 0, output
    assert "needs no_such_library" in output
    assert "passed" not in output


def test_few_distinct_warning_is_public():
    with pytest.warns(FewDistinctRows, match="2 words repeat"):
        warn_few_distinct(3, 5)
    assert issubclass(UnsupportedError, vwkit.VwkitError)
