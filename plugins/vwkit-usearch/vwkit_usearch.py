"""The index `usearch`: HNSW, with vectors stored in 32, 16 or 8 bits."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray
from vwkit_usearch_file import check_file

import vwkit
from vwkit.data import dim_of, rows_of
from vwkit.errors import ArtifactError, DataError, PluginError
from vwkit.estimates import Estimate
from vwkit.exact_search import search_rows
from vwkit.jobs import job
from vwkit.metrics import normalised
from vwkit.stream import Stream, row_spans
from vwkit.types import Array

__all__ = ["USearch", "vwkit_backends"]

# Between two blocks the user is told how far it is and can interrupt.
_BLOCK = 16_384
# The first vectors are added by one thread: of those that several add at the same time, some find no
# neighbours that lead to them, the more the smaller the graph (of 600, up to one in fifty).
_ALONE = 4096
# Neighbours held at once while a filtered search looks at more than it returns.
_FETCHED = 1 << 22
_WIDER = 4
_INDEX_FILE = "index.usearch"
_CODING_FILE = "coding.npy"
# The largest number of the data becomes this in float16, which leaves room up to its own largest.
_HALF_UNIT = 10
_HALF_LARGEST = 65_504.0
_STEPS = 255
_MOST = 1 << 20

_Links = Annotated[int, annotated_types.Ge(2), annotated_types.Le(1024)]
_Candidates = Annotated[int, annotated_types.Ge(1), annotated_types.Le(_MOST)]


@vwkit.backend("usearch")
class USearch(vwkit.Index):
    """Approximate search in a graph, with vectors in 32, 16 or 8 bits and memory-mapped files.

    Malkov and Yashunin 2018, "Efficient and robust approximate nearest neighbor search using
    hierarchical navigable small world graphs", by USearch (https://github.com/unum-cloud/usearch).
    Memory is about b·d + 8·connectivity + 22 bytes a vector, b being 4, 2 or 1.

    A search always brings the k neighbours asked for: where the graph does not lead to so many (it
    falls apart where thousands of vectors are equal), those queries are compared with every vector.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> index = vwkit.create("index", "usearch", dtype="f16").build(np.eye(3, dtype=np.float32))
    >>> index.search([[1.0, 0.2, 0.1]], 2).ids.tolist()
    [[0, 1]]
    """

    library = "usearch"
    requires = ("usearch",)
    license = "Apache-2.0"
    choose = "data that fit in memory only with half or a quarter of the bytes, or an index opened by many processes."
    metrics = frozenset({"l2", "cosine", "ip"})
    streams = True
    supports_add = True
    supports_remove = True
    supports_filter = True
    # expansion_search belongs to the whole index, and so do the work spaces of its threads: the
    # core lets one search in at a time, and that one uses all threads.
    thread_safe = False
    memory_mapped = True
    late = frozenset({"expansion_search"})

    dtype: Literal["f32", "f16", "i8"] = vwkit.Field(
        default="f32", doc="How vectors are stored; less bits take less memory and find less."
    )
    connectivity: _Links = vwkit.Field(
        default=16, doc="Links of a vector; more finds more, and takes more memory."
    )
    expansion_add: _Candidates = vwkit.Field(
        default=128,
        doc="Candidates looked at for the links of a new vector; more builds a better graph.",
    )
    expansion_search: _Candidates = vwkit.Field(
        default=100, doc="Candidates of a search, at least k; more finds more, and takes longer."
    )
    threads: vwkit.Positive | None = vwkit.Field(
        default=None,
        doc="Threads; those of the running job by default. With 1 the graph is reproducible.",
    )

    @property
    def deterministic(self) -> bool:
        """With one thread; several add vectors in the order they happen to come."""
        return self.threads == 1

    @property
    def distance_error(self) -> float:  # type: ignore[override]
        """What the stored numbers lose: of a half float 2^-11; of 8 bits nothing is promised.

        So a distance is off by about five times that part of ‖q‖² + ‖x‖².
        """
        return {"f32": 1e-5, "f16": 2.5e-3, "i8": 2.0}[self.dtype]

    @property
    def _threads(self) -> int:
        return min(self.threads or job().threads, 1024)

    # Building

    def _build(self, vectors: Any) -> None:
        rows, dim = rows_of(vectors), dim_of(vectors)
        if rows >= 1 << 32:
            raise DataError(f"usearch: takes up to 2^32 vectors; got {rows:,}; take faiss")
        self._learn(vectors, dim)
        self._index: Any = self._opened(dim)
        self._mapped = False
        self._total = 0
        self._take_in(vectors, rows)

    def _size(self) -> int:
        return len(self._index)

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        held = rows * dim * {"f32": 4.0, "f16": 2.0, "i8": 1.0}[self.dtype]
        return Estimate(
            work=rows * math.log2(rows + 2) ** 2 * self.expansion_add * (dim + 32), least=held
        )

    def _opened(self, dim: int) -> Any:
        return _usearch().Index(
            ndim=dim,
            metric=self._space,
            dtype=self.dtype,
            connectivity=self.connectivity,
            expansion_add=self.expansion_add,
            expansion_search=self.expansion_search,
        )

    @property
    def _space(self) -> str:
        if self.metric == "l2":
            return "l2sq"
        # Unit vectors and 1 - dot are the cosine, more exactly than by the library's own.
        return "cos" if self.metric == "cosine" and self.dtype == "i8" else "ip"

    def _add(self, vectors: Any) -> None:
        rows = rows_of(vectors)
        if self._limit < np.inf:
            # Before the first one is in: an addition is whole or not at all.
            low, high = _extremes(vectors)
            largest = max([*low, *high], key=abs)
            if abs(largest) > self._limit:
                raise DataError(
                    f"usearch: a vector holds {largest:g}, and the numbers of this "
                    f"f16 index go to {self._limit:g}, over 60 times the largest it was built of; "
                    "build it anew, or take dtype f32"
                )
        self._change()
        self._take_in(vectors, rows)

    def _change(self) -> None:
        """Take a memory-mapped graph into memory; the library would write to the map."""
        if self._mapped:
            self._index, self._mapped = self._index.copy(), False

    def _take_in(self, vectors: Any, rows: int) -> None:
        current, done = job(), 0
        for block in _blocks(vectors):
            current.progress(done, rows, "vectors")
            keys = np.arange(self._total, self._total + len(block), dtype=np.uint64)
            stored = self._stored(block)
            alone = min(len(block), max(0, _ALONE - self._total))
            if alone:
                self._index.add(keys[:alone], stored[:alone], threads=1)
            if alone < len(block):
                self._index.add(keys[alone:], stored[alone:], threads=self._threads)
            self._total += len(block)
            done += len(block)
        current.progress(done, rows, "vectors")

    def _remove(self, rows: NDArray[np.int64]) -> None:
        self._change()
        self._index.remove(rows, threads=self._threads)

    @property
    def supports_compact(self) -> bool:  # type: ignore[override]
        """With 32 bits; of fewer, new rounding would be added to the old: then it needs the vectors."""
        return self.dtype == "f32"

    def _compact(self, rows: NDArray[np.int64]) -> None:
        old = copy.copy(self)  # `_build` puts another index in this one's place

        def chunks() -> Iterator[Array]:
            for start, stop in row_spans(len(rows), _BLOCK):
                yield old._held(rows[start:stop])

        self._build(Stream(chunks, dim=self._dim or 0, dtype=np.float32, rows=len(rows)))

    # How vectors are stored: (x - center)·scale

    def _learn(self, vectors: Any, dim: int) -> None:
        self._scale, self._center = 1.0, np.zeros(dim, np.float32)
        if self.dtype == "f32" or self.metric == "cosine":
            return
        low, high = _extremes(vectors)
        largest = max(*map(abs, low), *map(abs, high))
        if self.dtype == "f16":
            if largest > 0:
                # A power of two rounds nothing. (Kept from what float32 itself cannot hold.)
                power = _HALF_UNIT - math.frexp(largest)[1]
                self._scale = 2.0 ** min(120, max(-120, power))
        elif self.metric == "ip":
            self._scale = 127 / largest if largest > 1e-30 else 1.0
        else:
            width = max(b - a for a, b in zip(low, high, strict=True))
            self._scale = _STEPS / width if width > 1e-30 else 1.0
            if self._scale >= 1 and _are_whole(vectors):
                # Steps of whole numbers round nothing: bytes such as SIFT's are kept as they are.
                self._scale = float(math.floor(self._scale))
            # The lowest of each dimension becomes -128.
            self._center = (np.array(low) + 128 / self._scale).astype(np.float32)

    @property
    def _limit(self) -> float:
        """The largest number that can be stored; others are cut (i8) or do not occur."""
        if self.dtype != "f16" or self.metric == "cosine":
            return math.inf
        return _HALF_LARGEST / self._scale

    def _stored(self, vectors: Array) -> Array:
        if self.metric == "cosine":
            return _stretched(vectors)[0] if self.dtype == "i8" else normalised(vectors)
        if self.dtype == "f32":
            return vectors
        if self.dtype == "f16":
            scaled: Array = vectors * np.float32(self._scale)
            return scaled
        wide = (vectors.astype(np.float64) - self._center) * self._scale
        low = -127 if self.metric == "ip" else -128
        codes: Array = np.clip(np.rint(wide), low, 127).astype(np.int8)
        return codes

    def _held(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of some rows as they are stored, (n, d); for cosine of any length."""
        found = np.stack(self._index.get(rows.astype(np.uint64)))
        if self.metric == "cosine":
            return found.astype(np.float32)
        wide = found.astype(np.float64) / self._scale + self._center
        return wide.astype(np.float32)

    # Searching

    def _search(
        self, queries: Any, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if math.isinf(self._limit):
            return self._anywhere(queries, k, allowed)
        fits = np.abs(queries).max(axis=1) <= self._limit
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.float32)
        if fits.any():
            rows[fits], distances[fits] = self._anywhere(queries[fits], k, allowed)
        if not fits.all():
            chosen = self._living() if allowed is None else np.flatnonzero(allowed)
            rows[~fits], distances[~fits] = self._compared(queries[~fits], k, chosen)
        return rows, distances

    def _anywhere(
        self, queries: Array, k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if allowed is None:
            return self._in_graph(queries, k)
        return self._among(queries, k, allowed)

    def _in_graph(self, queries: Array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search the graph; queries that it has not enough neighbours for go the long way."""
        stretch: NDArray[np.float64] | None = None
        if self.dtype == "i8" and self.metric == "ip":
            # Of a query only the direction matters, so it gets all the steps there are.
            asked, stretch = _stretched(queries)
        else:
            asked = self._stored(queries)
        self._index.expansion_search = self.expansion_search
        rows, distances, counts = self._ask(asked, k, exact=False)
        short = np.flatnonzero(counts < k)
        if len(short):
            rows[short], distances[short], _ = self._ask(asked[short], k, exact=True)
        return rows, self._unscaled(queries, distances, stretch)

    def _unscaled(
        self, queries: Array, distances: NDArray[np.float32], stretch: NDArray[np.float64] | None
    ) -> NDArray[np.float32]:
        """Turn distances of what is stored into those of the vectors."""
        if self.metric == "cosine":
            if self.dtype == "i8":
                # The library's cosine of two zero vectors is 1.
                distances[~queries.any(axis=1)] = 1
            return distances
        if self.dtype == "f32":
            return distances
        wide = distances.astype(np.float64)
        if self.metric == "l2":
            wide /= self._scale**2
        else:
            other = self._scale if stretch is None else stretch[:, None]
            wide = 1 - (1 - wide) / self._scale / other
        with np.errstate(over="ignore"):
            return wide.astype(np.float32)

    def _ask(
        self, asked: Array, k: int, exact: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        found = self._index.search(asked, k, threads=self._threads, exact=exact)
        rows = np.full((len(asked), k), -1, np.int64)
        distances = np.full((len(asked), k), np.inf, np.float32)
        if len(asked) == 1:  # another class, without what was not found
            count = len(found.keys)
            rows[0, :count], distances[0, :count] = found.keys, found.distances
            return rows, distances, np.array([count])
        # Behind those found it leaves numbers from anywhere.
        real = np.arange(k) < found.counts[:, None]
        rows[real], distances[real] = found.keys[real], found.distances[real]
        return rows, distances, found.counts

    def _living(self) -> NDArray[np.int64]:
        keys = np.asarray(self._index.keys)
        return np.sort(keys[keys < self._total].astype(np.int64))

    def _among(
        self, queries: Array, k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        chosen = np.flatnonzero(allowed)
        rows = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        # To see `expansion_search` allowed vectors, this many of all must be looked at.
        width = max(k, self.expansion_search) * len(self._index) // len(chosen) + 1
        open_ = np.arange(len(queries))
        while len(open_) and width < len(chosen):
            left = []
            for start, stop in row_spans(len(open_), max(1, _FETCHED // width)):
                part = open_[start:stop]
                found, near = self._in_graph(queries[part], width)
                fits = allowed[found]
                enough = fits.sum(axis=1) >= k
                # A stable sort puts what fits first and leaves its order alone.
                order = np.argsort(~fits[enough], axis=1, kind="stable")[:, :k]
                rows[part[enough]] = np.take_along_axis(found[enough], order, axis=1)
                distances[part[enough]] = np.take_along_axis(near[enough], order, axis=1)
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
        rows = np.zeros((len(queries), 0), np.int64)
        distances = np.zeros((len(queries), 0), np.float32)
        for start, stop in row_spans(len(chosen), _BLOCK):
            part = chosen[start:stop]
            found, near = search_rows(queries, self._held(part), min(k, len(part)), self.metric)
            rows = np.concatenate([rows, part[found]], axis=1)
            distances = np.concatenate([distances, near], axis=1)
            order = np.argsort(distances, axis=1, kind="stable")[:, :k]
            rows = np.take_along_axis(rows, order, axis=1)
            distances = np.take_along_axis(distances, order, axis=1)
        return rows, distances

    # Saving

    def _save(self, folder: Path) -> None:
        with self._locked():
            self._index.save(str(folder / _INDEX_FILE))
            coding = np.array([self._total, self._scale, *self._center], np.float64)
            np.save(folder / _CODING_FILE, coding, allow_pickle=False)

    def _load(self, folder: Path) -> None:
        path, dim = folder / _INDEX_FILE, self._dim or 0
        # A map is checked against the file's size: a header may claim any shape.
        coding = np.load(folder / _CODING_FILE, mmap_mode="r", allow_pickle=False)
        if (
            coding.dtype != np.float64
            or coding.shape != (2 + dim,)
            or not np.isfinite(coding).all()
            # Its square is needed, too.
            or not (1e-60 < coding[1] < 1e60 and len(self) <= coding[0] < 1 << 53)
        ):
            raise ArtifactError(
                f"{folder / _CODING_FILE}: not how vectors of {dim} dimensions are stored; "
                "damaged, make it again"
            )
        self._total, self._scale = int(coding[0]), float(coding[1])
        self._center = coding[2:].astype(np.float32)
        links = self.connectivity
        check_file(path, dim, self.dtype, self._space, links, len(self), self._total)
        index = self._opened(dim)
        index.view(str(path))
        self._index, self._mapped = index, True


def _usearch() -> Any:
    if "usearch" not in sys.modules:
        _make_locales()
    try:
        return importlib.import_module("usearch.index")
    except ImportError as error:
        raise PluginError(
            f"index usearch: needs the library usearch ({error}): pip install usearch"
        ) from None


def _make_locales() -> None:
    """Let the system's C++ library number its locale facets before usearch's own copy of it does.

    The wheel for Linux brings a copy that shares some of these numbers with libstdc++, but not all.
    If the copy is first, whatever asks libstdc++ for a facet later (FAISS for a factory string, ONNX
    Runtime when it is imported) gets another one, and the process dies.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl, or no C++ library at all
            classic = ctypes.CDLL("libstdc++.so.6")._ZNSt6locale7classicEv
            classic.restype = ctypes.c_void_p
            classic()


def _blocks(vectors: Any) -> Iterator[Array]:
    stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
    return iter(stream.rechunk(_BLOCK))


def _extremes(vectors: Any) -> tuple[list[float], list[float]]:
    """Return the lowest and the highest number of each dimension."""
    low = high = None
    for block in _blocks(vectors):
        below, above = block.min(axis=0), block.max(axis=0)
        low = below if low is None else np.minimum(low, below)
        high = above if high is None else np.maximum(high, above)
    return np.asarray(low, np.float64).tolist(), np.asarray(high, np.float64).tolist()


def _are_whole(vectors: Any) -> bool:
    return all(bool((block == np.rint(block)).all()) for block in _blocks(vectors))


def _stretched(vectors: Array) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return each row stretched to the numbers from -127 to 127, and by how much, (n,)."""
    largest = np.abs(vectors).max(axis=1).astype(np.float64)
    scale = 127 / np.where(largest > 0, largest, 127)
    return np.rint(vectors * scale[:, None]).astype(np.int8), scale


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `usearch`."""
    return [USearch]
