"""The HNSW index, by hnswlib."""

from __future__ import annotations

import errno
import importlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray
from vwkit_hnswlib_graph import check_graph, checked_header

import vwkit
from vwkit.data import dim_of, rows_of
from vwkit.errors import ArtifactError, PluginError
from vwkit.estimates import Estimate
from vwkit.exact_search import search_rows
from vwkit.jobs import job
from vwkit.metrics import normalised
from vwkit.stream import Stream, row_spans
from vwkit.types import Array

__all__ = ["HNSW", "vwkit_backends"]

# Between two blocks the user is told how far it is and can interrupt.
_BLOCK = 16_384
# Neighbours held at once while a filtered search looks at more than it returns.
_FETCHED = 1 << 22
_WIDER = 4
_INDEX_FILE = "index.hnsw"
_DEAD_FILE = "dead.npy"


@vwkit.backend("hnsw")
class HNSW(vwkit.Index):
    """Approximate search in a graph: fast and accurate, for data that fit in memory.

    Malkov and Yashunin 2018, "Efficient and robust approximate nearest neighbor search using
    hierarchical navigable small world graphs". Memory is about 4·d + 8·M + 16 bytes a vector.

    A search always brings the k neighbours asked for: where the graph does not lead to so many
    (it falls apart where thousands of vectors are equal), those queries are answered by comparing
    with every vector. A filtered search takes more neighbours from the graph than it returns, or
    compares with all allowed vectors where they are few.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> index = vwkit.create("index", "hnsw").build(np.eye(3, dtype=np.float32))
    >>> index.search([[1.0, 0.1, 0.0]], 2).ids.tolist()
    [[0, 1]]
    """

    library = "hnswlib"
    requires = ("hnswlib",)
    license = "Apache-2.0"
    compiled = True
    choose = "up to some ten million vectors that fit in memory, when milliseconds count."
    metrics = frozenset({"l2", "cosine", "ip"})
    streams = True
    supports_add = True
    supports_remove = True
    supports_compact = True
    supports_filter = True
    # One setting, ef, belongs to the whole index: the core lets one search in at a time, and that
    # one uses all threads.
    thread_safe = False
    late = frozenset({"ef"})

    M: Annotated[int, annotated_types.Ge(2), annotated_types.Le(10_000)] = vwkit.Field(
        default=16, doc="Links of a vector; more finds more, and takes more memory."
    )
    ef_construction: vwkit.Positive = vwkit.Field(
        default=200,
        doc="Candidates looked at for the links of a new vector; more builds a better graph.",
    )
    ef: vwkit.Positive = vwkit.Field(
        default=100, doc="Candidates of a search, at least k; more finds more, and takes longer."
    )
    threads: vwkit.Positive | None = vwkit.Field(
        default=None,
        doc="Threads; those of the running job by default. With 1 the graph is reproducible.",
    )
    seed: int = vwkit.Field(default=0, doc="Seed of the vectors' levels in the graph.")

    @property
    def deterministic(self) -> bool:
        """With one thread; several add vectors in the order they happen to come."""
        return self.threads == 1

    @property
    def _threads(self) -> int:
        return self.threads or job().threads

    # Building

    def _build(self, vectors: Any) -> None:
        rows = rows_of(vectors)
        index = _hnswlib().Index(self._space, dim_of(vectors))
        index.init_index(
            max_elements=rows,
            M=self.M,
            ef_construction=self.ef_construction,
            random_seed=self.seed % (1 << 31),
        )
        self._index: Any = index
        self._total = 0
        self._dead: NDArray[np.int64] = np.zeros(0, np.int64)
        self._take_in(vectors, rows)

    def _size(self) -> int:
        return int(self._index.get_current_count())

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        # Vectors, twice M links at the bottom, a few above, and a lock for each.
        held = rows * (4.0 * dim + 8 * self.M + 120)
        return Estimate(
            work=rows * math.log2(rows + 2) ** 2 * self.ef_construction * (dim + 32),
            memory=held,
            least=4.0 * rows * dim,
            disk=rows * (4.0 * dim + 8 * self.M + 24),
        )

    def _add(self, vectors: Any) -> None:
        rows = rows_of(vectors)
        room = self._index.get_max_elements()
        if self._total + rows > room:
            # Half as much again, so that many small additions move the index only a few times.
            self._index.resize_index(max(self._total + rows, room + room // 2))
        self._take_in(vectors, rows)

    def _take_in(self, vectors: Any, rows: int) -> None:
        current, done = job(), 0
        for block in _blocks(vectors):
            current.progress(done, rows, "vectors")
            labels = np.arange(self._total, self._total + len(block))
            self._index.add_items(self._fitting(block), labels, num_threads=self._threads)
            self._total += len(block)
            done += len(block)
        current.progress(done, rows, "vectors")

    def _remove(self, rows: NDArray[np.int64]) -> None:
        for row in rows.tolist():
            self._index.mark_deleted(row)
        self._dead = np.union1d(self._dead, rows)

    def _compact(self, rows: NDArray[np.int64]) -> None:
        # The library can give the places of removed vectors to new ones, but not give them back, and
        # links to what was removed make a poorer graph: a new one, of the vectors that it holds.
        held = self._index

        def chunks() -> Iterator[Array]:
            for start, stop in row_spans(len(rows), _BLOCK):
                yield np.asarray(held.get_items(rows[start:stop]), np.float32)

        self._build(Stream(chunks, dim=self._dim or 0, dtype=np.float32, rows=len(rows)))

    @property
    def _space(self) -> str:
        # Unit vectors and 1 - dot are the cosine, also of vectors whose square is too small for
        # float32, which the library's own cosine takes for zero.
        return "l2" if self.metric == "l2" else "ip"

    def _fitting(self, vectors: Array) -> Array:
        return normalised(vectors) if self.metric == "cosine" else vectors

    # Searching

    def _search(
        self, queries: Any, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        fitting = self._fitting(queries)
        if allowed is None:
            return self._in_graph(fitting, k)
        return self._among(fitting, k, allowed)

    def _in_graph(self, queries: Array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search the graph; queries that it has not enough neighbours for go the long way."""
        found = self._ask(queries, k)
        if found is not None:
            return found
        if len(queries) == 1:
            return self._compared(queries, k, self._living())
        # The library does not say which query it was, so halves are tried.
        half = len(queries) // 2
        left, right = self._in_graph(queries[:half], k), self._in_graph(queries[half:], k)
        return np.concatenate([left[0], right[0]]), np.concatenate([left[1], right[1]])

    def _ask(self, queries: Array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        self._index.set_ef(max(self.ef, k))
        try:
            labels, distances = self._index.knn_query(queries, k, num_threads=self._threads)
        except RuntimeError:
            # "Cannot return the results in a contiguous 2D array": fewer than k were reached.
            return None
        return labels.astype(np.int64), distances

    def _living(self) -> NDArray[np.int64]:
        return np.delete(np.arange(self._total, dtype=np.int64), self._dead)

    def _among(
        self, queries: Array, k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        chosen = np.flatnonzero(allowed).astype(np.int64)
        living = self._total - len(self._dead)
        rows = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        # To see `ef` allowed vectors, this many of all must be looked at.
        width = max(k, self.ef) * living // len(chosen) + 1
        open_ = np.arange(len(queries))
        while len(open_) and width < len(chosen):
            left = []
            for start, stop in row_spans(len(open_), max(1, _FETCHED // width)):
                part = open_[start:stop]
                found, near = self._in_graph(queries[part], width)
                enough = _kept(found, near, allowed[found], k, part, rows, distances)
                left.append(part[~enough])
            open_ = np.concatenate(left)
            width *= _WIDER
        if len(open_):
            rows[open_], distances[open_] = self._compared(queries[open_], k, chosen)
        return rows, distances

    def _compared(
        self, queries: Array, k: int, chosen: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Compare with each of the chosen rows, a block at a time."""
        metric = "l2" if self.metric == "l2" else "ip"
        rows = np.zeros((len(queries), 0), np.int64)
        distances = np.zeros((len(queries), 0), np.float32)
        for start, stop in row_spans(len(chosen), _BLOCK):
            part = chosen[start:stop]
            vectors = np.asarray(self._index.get_items(part), np.float32)
            found, near = search_rows(queries, vectors, min(k, len(part)), metric)
            rows = np.concatenate([rows, part[found]], axis=1)
            distances = np.concatenate([distances, near], axis=1)
            order = np.argsort(distances, axis=1, kind="stable")[:, :k]
            rows = np.take_along_axis(rows, order, axis=1)
            distances = np.take_along_axis(distances, order, axis=1)
        return rows, distances

    # Saving

    def _save(self, folder: Path) -> None:
        path = folder / _INDEX_FILE
        self._index.save_index(str(path))
        # The library does not look whether all was written.
        if path.stat().st_size != self._index.index_file_size():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if len(self._dead):
            np.save(folder / _DEAD_FILE, self._dead, allow_pickle=False)

    def _load(self, folder: Path) -> None:
        path = folder / _INDEX_FILE
        dim = self._dim or 0
        count = checked_header(path, dim, self.M)
        dead_file = folder / _DEAD_FILE
        dead = np.zeros(0, np.int64)
        if dead_file.is_file():
            dead = np.load(dead_file, mmap_mode="r", allow_pickle=False)
        fits = dead.dtype == np.int64 and dead.ndim == 1 and len(dead) <= count
        # In memory only now: a file's header may claim any shape.
        self._dead = np.array(dead) if fits else np.zeros(0, np.int64)
        if not fits or len(self) != count - len(dead):
            raise ArtifactError(
                f"{path}: holds {count} vectors, {len(dead)} of them removed, where its "
                f"manifest says {len(self)}; damaged, make it again"
            )
        check_graph(path, count, self._dead)
        index = _hnswlib().Index(self._space, dim)
        index.load_index(str(path), max_elements=count)
        self._index = index
        self._total = count


def _hnswlib() -> Any:
    try:
        return importlib.import_module("hnswlib")
    except ImportError as error:
        raise PluginError(
            f"index hnsw: needs the library hnswlib ({error}): pip install hnswlib"
        ) from None


def _kept(
    found: NDArray[np.int64],
    near: NDArray[np.float32],
    fits: NDArray[np.bool_],
    k: int,
    part: NDArray[np.int64],
    rows: NDArray[np.int64],
    distances: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Write the first k fitting neighbours of each query, and tell which queries had so many."""
    enough: NDArray[np.bool_] = fits.sum(axis=1) >= k
    # A stable sort puts what fits first and leaves its order alone.
    order = np.argsort(~fits[enough], axis=1, kind="stable")[:, :k]
    rows[part[enough]] = np.take_along_axis(found[enough], order, axis=1)
    distances[part[enough]] = np.take_along_axis(near[enough], order, axis=1)
    return enough


def _blocks(vectors: Any) -> Iterator[Array]:
    stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
    return iter(stream.rechunk(_BLOCK))


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `hnsw`."""
    return [HNSW]
