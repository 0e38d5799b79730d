"""Indexes that are right, some of them unusual."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import vwkit
from vwkit.reference.distances import distances


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

    def _table(self, queries):
        return distances(queries, self._vectors, self.metric)

    def _search(self, queries, k, *, allowed=None):
        table = self._table(queries)
        table[:, ~(self._alive if allowed is None else self._alive & allowed)] = np.inf
        rows = np.argsort(table, axis=1, kind="stable")[:, :k]
        return rows, np.take_along_axis(table, rows, axis=1).astype(np.float32)


@vwkit.backend("kdtree")
class KDTree(vwkit.Index):
    """Slow: exact search with a k-d tree that is walked recursively."""

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
            far = ((wide[node] - query) ** 2).sum(axis=1)
            best += zip(far.tolist(), node.tolist(), strict=True)
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
    """float16 inside, compared in float32 with the expanded square: fast and a little off."""

    exact = True
    deterministic = False
    distance_error = 3e-3

    def _build(self, vectors):
        self._vectors = vectors.astype(np.float16)

    def _search(self, queries, k):
        held = self._vectors.astype(np.float32)
        table = (queries**2).sum(axis=1)[:, None] - 2 * queries @ held.T + (held**2).sum(axis=1)
        table = np.maximum(table, 0)
        rows = np.argsort(table, axis=1)[:, :k]
        return rows.astype(np.int32), np.take_along_axis(table, rows, axis=1)


@vwkit.backend("cells")
class Cells(vwkit.Index):
    """Approximate: looks only into the cells nearest to the query, and may find fewer than k."""

    deterministic = True
    late = frozenset({"probes"})
    supports_add = True
    supports_remove = True
    supports_filter = True

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

    def _remove(self, rows):
        self._cell[rows] = -1

    def _candidates(self, nearest, allowed):
        found = np.isin(self._cell, nearest)
        return np.flatnonzero(found if allowed is None else found & allowed)

    def _search(self, queries, k, *, allowed=None):
        rows = np.full((len(queries), k), -1)
        found = np.full((len(queries), k), np.inf)
        order = np.argsort(distances(queries, self._centers, "l2"), axis=1)[:, : self.probes]
        for i in range(len(queries)):
            candidates = self._candidates(order[i], allowed)
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


@vwkit.backend("bits")
class Bits(vwkit.Index):
    """Binary codes, packed in bytes."""

    metrics = frozenset({"hamming"})
    dtypes = ("uint8",)
    exact = True
    deterministic = True

    def _build(self, vectors):
        self._vectors = vectors

    def _search(self, queries, k):
        table = np.bitwise_count(queries[:, None] ^ self._vectors).sum(axis=2, dtype=np.int64)
        rows = np.argsort(table, axis=1, kind="stable")[:, :k]
        return rows, np.take_along_axis(table, rows, axis=1).astype(np.float32)


@vwkit.backend("bytes-and-floats")
class BytesAndFloats(Plain):
    """Takes bytes as they are, too."""

    dtypes = ("uint8", "float32")


@vwkit.backend("lazy")
class Lazy(Plain):
    """Builds what it searches at the first search after every change."""

    metrics = frozenset({"l2"})

    def _build(self, vectors):
        super()._build(vectors)
        self._order = None

    def _add(self, vectors):
        super()._add(vectors)
        self._order = None

    def _search(self, queries, k, **options):
        if self._order is None:
            self._order = np.argsort(self._vectors[:, 0], kind="stable")
        return super()._search(queries, k, **options)

    def _restore(self, state):
        self._order = None
        super()._restore(state)


@vwkit.backend("capped")
class Capped(Plain):
    """Never finds more than eight: fewer columns than were asked for."""

    exact = False

    def _search(self, queries, k, **options):
        return super()._search(queries, min(k, 8), **options)


@vwkit.backend("narrowed")
class Narrowed(Plain):
    """Looks at the first vectors only, as far as a search is told to."""

    exact = False
    late = frozenset({"share"})
    share: vwkit.Fraction = 1.0

    def _looked_at(self):
        return self.share

    def _search(self, queries, k, *, allowed=None):
        seen = np.arange(len(self._vectors)) < self._looked_at() * len(self._vectors)
        seen = seen if allowed is None else seen & allowed
        rows, found = super()._search(queries, k, allowed=seen)
        return np.where(np.isinf(found), -1, rows), found


@vwkit.backend("odd-arrays")
class OddArrays(Plain):
    """Returns float64 distances and uint32 rows, neither of them contiguous."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        wide = np.zeros((len(rows), 2 * k))
        wide[:, ::2] = found
        return np.asfortranarray(rows.astype(np.uint32)), wide[:, ::2]


@vwkit.backend("highest-ties")
class HighestTies(Plain):
    """Of equally near vectors it takes the last ones, which the contract leaves open."""

    def _search(self, queries, k, *, allowed=None):
        table = self._table(queries)
        table[:, ~(self._alive if allowed is None else self._alive & allowed)] = np.inf
        backwards = np.argsort(table[:, ::-1], axis=1, kind="stable")[:, :k]
        rows = table.shape[1] - 1 - backwards
        return rows, np.take_along_axis(table, rows, axis=1)


@vwkit.backend("own-threads")
class OwnThreads(Plain):
    """Brings threads of its own, and lets several searches in at once."""

    thread_safe = True

    def _search(self, queries, k, **options):
        parts = np.array_split(queries, 3)
        with ThreadPoolExecutor(3) as pool:
            found = list(
                pool.map(lambda part: super(OwnThreads, self)._search(part, k, **options), parts)
            )
        return tuple(np.concatenate(one) for one in zip(*found, strict=True))


@vwkit.backend("mapped")
class Mapped(Plain):
    """Writes a file of its own, and maps it into memory when it is loaded."""

    def _save(self, folder):
        np.save(folder / "vectors.npy", self._vectors)
        np.save(folder / "alive.npy", self._alive)

    def _load(self, folder):
        self._vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self._alive = np.load(folder / "alive.npy")


@vwkit.backend("on-disk")
class OnDisk(Plain):
    """Holds its vectors in a file: a temporary one without a name, or the one that was loaded."""

    metrics = frozenset({"l2"})
    _mode = "r"

    def _build(self, vectors):
        handle, name = tempfile.mkstemp(suffix=".npy")
        with os.fdopen(handle, "wb") as file:
            np.save(file, vectors)
        self._vectors = np.load(name, mmap_mode="r")
        self._unlink(name)
        self._alive = np.ones(len(vectors), bool)

    def _unlink(self, name):
        os.unlink(name)

    def _remove(self, rows):
        if not self._alive.flags.writeable:
            self._alive = np.array(self._alive)
        super()._remove(rows)

    def _save(self, folder):
        np.save(folder / "vectors.npy", self._vectors)
        np.save(folder / "alive.npy", self._alive)

    def _load(self, folder):
        self._vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self._alive = np.load(folder / "alive.npy", mmap_mode=self._mode)


@vwkit.backend("rounded")
class Rounded(Plain):
    """Keeps one byte per number, as a share of the largest of its row."""

    metrics = frozenset({"l2"})
    exact = False
    distance_error = 3e-2
    supports_add = False

    def _build(self, vectors):
        super()._build(vectors)
        self._largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-30)
        self._vectors = np.round(vectors / self._largest * 127).astype(np.int8)

    def _table(self, queries):
        return distances(queries, self._vectors * (self._largest / 127), "l2")


@vwkit.backend("postings")
class Postings(vwkit.Index):
    """Lists the vectors that share a word with the query, and no others."""

    metrics = frozenset({"cosine"})
    exact = True
    supports_sparse = True

    def _build(self, vectors):
        self._held = self._dense(vectors)

    def _dense(self, vectors):
        return vectors.toarray() if isinstance(vectors, vwkit.Sparse) else np.array(vectors)

    def _search(self, queries, k):
        asked = self._dense(queries)
        table = distances(asked, self._held, "cosine")
        table[~((asked != 0).astype(int) @ (self._held != 0).T.astype(int) > 0)] = np.inf
        rows = np.argsort(table, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(table, rows, axis=1)
        return np.where(np.isfinite(found), rows, -1), found


@vwkit.backend("needy")
class Needy(Plain):
    """Needs eight rows at the least, and an even number of dimensions."""

    metrics = frozenset({"l2"})

    def _build(self, vectors):
        if len(vectors) < 8:
            raise vwkit.DataError(f"needy: at least 8 rows are needed; got {len(vectors)}")
        if vectors.shape[1] % 2:
            raise vwkit.ShapeError("needy: an even number of dimensions is needed")
        super()._build(vectors)
