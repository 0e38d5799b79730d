"""The index `annoy`: forests of random splits, in a file that is memory-mapped."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.data import dim_of, rows_of
from vwkit.errors import ArtifactError, DataError, ParameterError, PluginError
from vwkit.estimates import Estimate
from vwkit.jobs import job
from vwkit.metrics import normalised
from vwkit.stream import Stream, row_spans
from vwkit.types import Array

__all__ = ["Annoy", "vwkit_backends"]

# Rows that are Python floats at the same time; between two blocks the user is told how far it is.
_BLOCK = 4096
# Neighbours that the number of candidates is reckoned from at the least: with as many as the
# library takes for one neighbour, the first of one is far more often wrong than the first of ten.
_LEAST_WANTED = 10
_CHECKED_BYTES = 16 << 20
_INDEX_FILE = "index.annoy"
_INT32 = 2**31 - 1
# Each level of a tree takes memory for one node from the stack of the thread that builds it, and
# the whole process dies where that is not enough. A split may put this share on one side.
_STACK = 6 << 20 if sys.platform != "darwin" else 400 << 10
_UNEVEN = 0.98
_FRAME = 512


@vwkit.backend("annoy")
class Annoy(vwkit.Index):
    """Approximate search in a forest of random splits, for an index that many processes share.

    Bernhardsson's Annoy (https://github.com/spotify/annoy). The saved file is memory-mapped when
    it is loaded: nothing is read before it is needed, and processes share the pages.

    A search looks at `search_k` candidates, and at all vectors where these are fewer than the k
    neighbours asked for. Memory is about 4·d + 16 bytes a vector, and 4 to 8 more for each tree.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> index = vwkit.create("index", "annoy").build(np.eye(3, dtype=np.float32))
    >>> index.search([[1.0, 0.2, 0.1]], 2).ids.tolist()
    [[0, 1]]
    """

    library = "annoy"
    requires = ("annoy",)
    license = "Apache-2.0"
    compiled = True
    choose = "many processes that search one index which is built once and never changes."
    metrics = frozenset({"l2", "cosine"})
    streams = True
    # Saving makes the library let go of its memory and map the file instead, so nobody may search
    # meanwhile: the core's lock keeps the two apart, and one search uses all threads.
    thread_safe = False
    memory_mapped = True
    late = frozenset({"search_k"})

    n_trees: vwkit.Positive = vwkit.Field(
        default=100, doc="Trees; more find more, and take longer to build and more memory."
    )
    search_k: Annotated[int, annotated_types.Ge(-1), annotated_types.Le(_INT32)] = vwkit.Field(
        default=-1,
        doc="Candidates of a search; -1: 2 · n_trees · k, k taken for 10 if it is less.",
    )
    n_jobs: vwkit.Positive | None = vwkit.Field(
        default=None,
        doc="Threads; those of the running job by default. With 1 the forest is reproducible.",
    )
    seed: int = vwkit.Field(default=0, doc="Seed of the random splits.")

    def __post_init__(self) -> None:
        if self.search_k == 0:
            raise ParameterError(
                "annoy.search_k: 0 candidates find nothing; give 1 or more, or -1 for "
                "2 · n_trees · k"
            )

    @property
    def deterministic(self) -> bool:
        """With one thread; several put their trees into the file as they happen to be ready."""
        return self.n_jobs == 1

    @property
    def _threads(self) -> int:
        return min(self.n_jobs or job().threads, 1024)

    # Building

    def _build(self, vectors: Any) -> None:
        rows, dim = rows_of(vectors), dim_of(vectors)
        _check_size(rows, dim, self.n_trees)
        index = self._opened(dim)
        index.set_seed(self.seed % _INT32)
        current, row = job(), 0
        for block in _blocks(vectors):
            current.progress(row, rows, "vectors")
            # The library takes one sequence of Python floats at a time.
            for numbers in self._fitting(block).tolist():
                index.add_item(row, numbers)
                row += 1
        current.progress(row, rows, "vectors")
        index.build(self.n_trees, self._threads)
        self._index: Any = index

    def _size(self) -> int:
        return int(self._index.get_n_items())

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        # Each tree halves the rows until a node holds about as many numbers as a vector.
        depth = math.log2(max(2.0, rows / (dim + 2)))
        return Estimate(
            work=rows * (300 + self.n_trees * dim * max(1.0, depth)), least=4.0 * rows * dim
        )

    def _opened(self, dim: int) -> Any:
        metric = "euclidean" if self.metric == "l2" else "angular"
        return _annoy().AnnoyIndex(dim, metric)

    def _fitting(self, vectors: Array) -> Array:
        # The library takes vectors whose square is too small for float32 for zero vectors.
        return normalised(vectors) if self.metric == "cosine" else vectors

    # Searching

    def _search(self, queries: Any, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        asked = self._fitting(queries)

        def answer(span: tuple[int, int]) -> None:
            self._answer(asked[slice(*span)], rows[slice(*span)], distances[slice(*span)])

        threads = self._threads
        step = max(1, min(_BLOCK, -(-len(asked) // threads)))
        spans = list(row_spans(len(asked), step))
        if len(spans) == 1:
            answer(spans[0])
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(answer, spans))
        # `euclidean` is not squared, `angular` is sqrt(2 - 2·cos).
        with np.errstate(over="ignore"):
            np.square(distances, out=distances)
        if self.metric == "cosine":
            distances *= 0.5
        return rows, distances

    def _answer(
        self, queries: Array, rows: NDArray[np.int64], distances: NDArray[np.float32]
    ) -> None:
        k = rows.shape[1]
        candidates = self.search_k
        if candidates < 0:
            candidates = min(2 * self.n_trees * max(k, _LEAST_WANTED), _INT32)
        for i, query in enumerate(queries.tolist()):
            found, near = self._index.get_nns_by_vector(query, k, candidates, True)
            if len(found) < k:
                # The trees name vectors more than once; this many reach every one of them.
                found, near = self._index.get_nns_by_vector(query, k, _INT32, True)
            rows[i, : len(found)] = found
            distances[i, : len(near)] = near

    # Saving

    def _save(self, folder: Path) -> None:
        with self._locked():
            self._index.save(str(folder / _INDEX_FILE))

    def _load(self, folder: Path) -> None:
        path, dim = folder / _INDEX_FILE, self._dim or 0
        _check_file(path, dim, len(self), self.metric)
        index = self._opened(dim)
        index.load(str(path))
        self._index = index


def _annoy() -> Any:
    try:
        return importlib.import_module("annoy")
    except ImportError as error:
        raise PluginError(
            f"index annoy: needs the library annoy ({error}): pip install annoy"
        ) from None


def _blocks(vectors: Any) -> Iterator[Array]:
    stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
    return iter(stream.rechunk(_BLOCK))


# What the library would crash on ---------------------------------------------------------------


def _node_bytes(dim: int, metric: str) -> tuple[int, int, int]:
    """Return the bytes of a node, where in it (in int32) children begin, and how many fit.

    `euclidean`: number of descendants, offset, two children, vector. `angular`: number of
    descendants, two children (or the norm of an item), vector. A node of few descendants lists
    them in place of its children and vector.
    """
    first = 2 if metric == "l2" else 1
    return 4 * (first + 2 + dim), first, dim + 2


def _check_size(rows: int, dim: int, trees: int) -> None:
    size, _, room = _node_bytes(dim, "l2")
    nodes = rows + trees * (3 * rows // room + 2)
    if nodes > _INT32:
        raise DataError(
            f"annoy: {rows:,} vectors of {dim} dimensions in {trees} trees make about {nodes:,} "
            f"nodes; it can number {_INT32:,}: take fewer n_trees, or another index"
        )
    levels = 3 + math.log(max(1.0, rows / room)) / -math.log(_UNEVEN)
    if levels * (size + _FRAME) > _STACK:
        raise DataError(
            f"annoy: {rows:,} vectors of {dim:,} dimensions may need more stack than its threads "
            "have; reduce the dimensions (transform pca), or take another index"
        )


def _check_file(path: Path, dim: int, rows: int, metric: str) -> None:
    """Look at every node of a saved forest: the library follows whatever numbers stand there.

    It searches from the last nodes, those that say they have all rows below them. A child of a
    node always stands before it, so no search can go round in circles.

    Raises
    ------
    ArtifactError
    """
    size, first, room = _node_bytes(dim, metric)
    length = path.stat().st_size if path.is_file() else 0
    count = length // size
    fine = length % size == 0 and rows < count <= _INT32
    if fine:
        nodes = np.memmap(path, np.int32, "r", shape=(count, size // 4))
        step = max(1, _CHECKED_BYTES // size)
        fine = nodes[-1, 0] == rows and all(
            _fine(nodes[start:stop], start, rows, first, room)
            for start, stop in row_spans(count, step)
        )
    if not fine:
        raise ArtifactError(
            f"{path}: not an annoy index of {rows} vectors of {dim} dimensions in metric "
            f"{metric}; damaged, make it again"
        )


def _fine(nodes: Array, start: int, rows: int, first: int, room: int) -> bool:
    items, inner = nodes[: max(0, rows - start)], nodes[max(0, rows - start) :]
    if not (items[:, 0] == 1).all():
        return False
    below = inner[:, 0]
    if not ((below >= 1) & (below <= rows)).all():
        return False
    # Lists of rows.
    lists = below <= room
    listed = inner[lists, first : first + room]
    used = np.arange(room) < below[lists, None]
    if not ((listed >= 0) & (listed < rows) | ~used).all():
        return False
    # Splits, with two children.
    own = start + max(0, rows - start) + np.flatnonzero(~lists)
    children = inner[~lists, first : first + 2]
    return bool(((children >= 0) & (children < own[:, None])).all())


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `annoy`."""
    return [Annoy]
