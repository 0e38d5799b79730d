"""The library `pqkmeans`, which sees only what it can take: nearest centers of codes.

Its class offers two ways to assign codes to *given* centers. `predict_one` takes one code per call,
and starts all threads for it. `fit` takes all codes at once, but begins with centers of its own: with
the codes at places that depend on their number alone. So the given centers are put at those places.
With one iteration it then assigns every code to them and changes none of them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError, PluginError, ShapeError, UnsupportedError
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = ["GROUP", "Library", "checked_codebook", "checked_codes", "medoids", "rows_at_a_time"]

#: Centers that the library compares with at a time. Groups depend on k alone, so that labels never
#: depend on how many rows there are; the winners of groups are compared in float64.
GROUP = 2048
_ROWS = 1 << 16
_LOOKUPS = 1 << 31  # of one call, about two seconds of one thread: nobody can interrupt it
_FEW = 1024  # with fewer rows (or fewer than centers), one call per row is faster
_MOST = 256  # codewords per slice
_PAIRS = 4096
_TINY = float(np.finfo(np.float32).tiny)


def checked_codebook(codebook: Any) -> NDArray[np.float32]:
    """Return a codebook (m, ks, d/m) that the library can take.

    Raises
    ------
    UnsupportedError
        More than 256 codewords: its codes are bytes.
    ShapeError, DataError
    """
    try:
        book = np.asarray(codebook)
    except (ValueError, TypeError) as error:
        raise DataError(f"pqkmeans: the codebook cannot be read as an array: {error}") from None
    if book.ndim != 3 or 0 in book.shape:
        raise ShapeError(f"pqkmeans: a codebook of shape (m, ks, d/m) is needed; got {book.shape}")
    if book.shape[1] > _MOST:
        raise UnsupportedError(
            f"pqkmeans takes codes of one byte, ks up to {_MOST}; this quantizer has "
            f"ks = {book.shape[1]}: fit it with ks: {_MOST}, or take graph-pqkmeans"
        )
    if book.dtype.kind not in "fiu":
        raise DataError(f"pqkmeans: a codebook of numbers is needed; got dtype {book.dtype}")
    with np.errstate(over="ignore"):
        book = book.astype(np.float32, order="C")
    if not np.isfinite(book).all():
        raise DataError("pqkmeans: the codebook holds NaN or infinity (in float32)")
    return book


def checked_codes(codes: Any, codebook: Array, what: str, start: int = 0) -> NDArray[np.uint8]:
    """Return codes (n, m) as bytes, if every one is in the codebook.

    Raises
    ------
    ShapeError, DataError
    """
    try:
        array = np.asarray(codes)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what}: cannot be read as an array: {error}") from None
    m, ks, _ = codebook.shape
    if array.ndim != 2 or array.shape[1] != m:
        raise ShapeError(
            f"{what}: codes of shape (n, {m}) are needed, as the quantizer makes them; "
            f"got {array.shape}"
        )
    if array.dtype.kind not in "ui":
        raise DataError(f"{what}: whole numbers are needed; got dtype {array.dtype}")
    if array.size and (int(array.max()) >= ks or int(array.min()) < 0):
        row = int(np.argwhere((array >= ks) | (array < 0))[0][0])
        raise DataError(f"{what}: row {start + row} holds a code outside 0…{ks - 1}")
    return np.ascontiguousarray(array, np.uint8)


class Library:
    """Symmetric distances of one codebook, and the library to find the smallest.

    Attributes
    ----------
    codebook : (m, ks, d/m) float32
    tables : (m, ks, ks) float64
        Squared distances between codewords; 0 also where float32 would lose it beside the largest
        codeword (2^-63 of its length), since then the library cannot tell the two apart.
    rows : int
        Codes to hand over at a time.
    """

    def __init__(self, codebook: Any) -> None:
        self.codebook = checked_codebook(codebook)
        self.m, self.ks, _ = self.codebook.shape
        # A power of two rounds nothing, and squares stay within float32.
        exponent = math.frexp(float(np.abs(self.codebook).max()))[1]
        self._scaled = np.ldexp(self.codebook, -exponent)
        self.tables = _tables(self.codebook, exponent)
        self._flat = self.tables.reshape(self.m, -1)
        # The lowest code of those that stand for the same.
        self._first = (self.tables == 0).argmax(axis=2).astype(np.uint8)
        self.rows = rows_at_a_time(self.m)
        self._engines: dict[int, Any] = {}
        self._lock = threading.Lock()

    def nearest(
        self, codes: NDArray[np.uint8], centers: NDArray[np.uint8], threads: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the nearest center of each code and its symmetric distance.

        Parameters
        ----------
        codes : (n, m) uint8
            At most `rows`, as `checked_codes` returns them.
        centers : (k, m) uint8
            Likewise.
        threads : int

        Returns
        -------
        labels : (n,) int64
            The lowest center on ties. The library compares float32 sums of float32 distances.
        distances : (n,) float64
        """
        labels = np.zeros(len(codes), np.int64)
        best = np.full(len(codes), np.inf)
        for start, stop in row_spans(len(centers), GROUP):
            group = centers[start:stop]
            found = self._argmin(codes, group, threads)
            distance = self.distances(codes, group[found])
            closer = distance < best
            labels[closer] = start + found[closer]
            best[closer] = distance[closer]
        return labels, best

    def distances(self, codes: Array, others: Array) -> NDArray[np.float64]:
        """Return the symmetric distance of each code to the same row of `others`, (n,)."""
        total = np.zeros(len(codes))
        for j in range(self.m):
            place = codes[:, j].astype(np.intp)
            place *= self.ks
            place += others[:, j]
            total += self._flat[j].take(place)
        return total

    def alike(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return codes that are equal where, and only where, the distance is 0."""
        found: NDArray[np.uint8] = self._first[np.arange(self.m), codes]
        return found

    # What the library does

    def _argmin(
        self, codes: NDArray[np.uint8], centers: NDArray[np.uint8], threads: int
    ) -> NDArray[np.int64]:
        if len(centers) == 1 or not len(codes):
            return np.zeros(len(codes), np.int64)
        with self._lock:
            engine = self._engine(len(centers))
            if len(codes) < max(_FEW, len(centers)):
                with _limited(1):
                    return _one_by_one(engine, codes, centers)
            with _limited(threads):
                return _together(engine, codes, centers)

    def _engine(self, k: int) -> Any:
        engine = self._engines.pop(k, None)
        if engine is None:
            engine = _module().PQKMeans(self._scaled, k, 1, False)
        self._engines[k] = engine
        if len(self._engines) > 2:  # a full group, and the last one
            del self._engines[next(iter(self._engines))]
        return engine


def rows_at_a_time(m: int) -> int:
    """Return how many codes of m bytes the library is given at a time."""
    return max(8 * GROUP, min(_ROWS, _LOOKUPS // (GROUP * m)))


def _one_by_one(
    engine: Any, codes: NDArray[np.uint8], centers: NDArray[np.uint8]
) -> NDArray[np.int64]:
    engine.set_cluster_centers(centers.tolist())
    return np.array([engine.predict_one(code) for code in codes.tolist()], np.int64)


def _together(
    engine: Any, codes: NDArray[np.uint8], centers: NDArray[np.uint8]
) -> NDArray[np.int64]:
    seats, others = _seats(len(codes) + len(centers), len(centers))
    rows = np.empty((len(codes) + len(centers), codes.shape[1]), np.uint8)
    rows[seats] = centers
    rows[others] = codes
    engine.fit(rows.reshape(-1).data)
    if not np.array_equal(np.array(engine.cluster_centers_), centers):
        raise PluginError(_OTHER_WAYS)
    return np.array(engine.labels_, np.int64)[others]


_OTHER_WAYS = (
    "clusterer pqkmeans: this version of the library begins in another way than 1.0.6; "
    "pip install pqkmeans==1.0.6, or take graph-pqkmeans"
)


@functools.lru_cache(maxsize=8)
def _seats(total: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of `total` codes the library takes for its first k centers, and the others.

    It is asked: the codes are the numbers of the rows, and without an iteration the centers are
    those that it begins with.
    """
    numbers = np.arange(total, dtype="<u4")
    probe = _module().PQKMeans(np.zeros((4, _MOST, 1), np.float32), k, 0, False)
    probe.fit(numbers.view(np.uint8).data)
    seats = np.array(probe.cluster_centers_, np.uint8).view("<u4")[:, 0].astype(np.int64)
    free = np.ones(total, bool)
    if len(seats) != k or seats.max() >= total:
        raise PluginError(_OTHER_WAYS)
    free[seats] = False
    others = np.flatnonzero(free)
    if len(others) != total - k:
        raise PluginError(_OTHER_WAYS)
    return seats, others


def _module() -> Any:
    try:
        # `import pqkmeans` would also load scikit-learn, for base classes.
        return importlib.import_module("_pqkmeans")
    except ImportError as error:
        raise PluginError(
            f"clusterer pqkmeans: needs the library pqkmeans ({error}): pip install pqkmeans "
            "(it needs CMake and a C++ compiler), or take graph-pqkmeans"
        ) from None


@functools.cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    _module()  # whatever it brings is loaded now, and found
    return ThreadpoolController()


def _limited(threads: int) -> contextlib.AbstractContextManager[Any]:
    limit: contextlib.AbstractContextManager[Any] = _controller().limit(
        limits=threads, user_api="openmp"
    )
    return limit


# Arithmetic of tables --------------------------------------------------------------------------


def _tables(codebook: NDArray[np.float32], exponent: int) -> NDArray[np.float64]:
    m, ks, _ = codebook.shape
    tables = np.empty((m, ks, ks))
    for j in range(m):
        words = codebook[j].astype(np.float64)
        for code in range(ks):
            gap = words - words[code]
            tables[j, code] = np.add.reduce(gap * gap, axis=1)
    tables[tables < math.ldexp(_TINY, 2 * exponent)] = 0
    return tables


def medoids(chunk: NDArray[np.int64], *, tables: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the best center code of each cluster, the lowest on ties; for `vwkit.Job.map`.

    In each slice that is the codeword with the smallest sum of distances to the members', the
    paper's sparse voting.

    Parameters
    ----------
    chunk : (c, m · ks) int64
        How often each codeword of each slice occurs among the members.
    tables : (m, ks, ks) float64

    Returns
    -------
    (c, m) uint8
    """
    m, ks, _ = tables.shape
    votes = chunk.reshape(-1, m, ks)
    best = np.empty((len(votes), m), np.uint8)
    for j in range(m):
        best[:, j] = _least(votes[:, j].astype(np.float64), tables[j])
    return best


def _least(votes: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return argmin over c of Σⱼ votes[i, j]·table[c, j] for each row i, the lowest c on ties.

    Products of matrices are rounded as the machine likes; what they leave open is added up in a
    fixed order.
    """
    sums = votes @ table  # a table of distances is symmetric
    least = sums.min(axis=1)
    best: NDArray[np.int64] = sums.argmin(axis=1)
    near = sums <= (least * (1 + 8 * votes.shape[1] * 2.0**-53))[:, None]
    # Terms are not negative: a sum of 0 is exact.
    unsure = np.flatnonzero((np.count_nonzero(near, axis=1) > 1) & (least > 0))
    line, code = np.nonzero(near[unsure])
    exact = np.empty(len(line))
    for start, stop in row_spans(len(line), _PAIRS):
        own = votes[unsure[line[start:stop]]]
        exact[start:stop] = np.add.reduce(own * table[code[start:stop]], axis=1)
    order = np.lexsort((code, exact, line))
    first = order[np.searchsorted(line, np.arange(len(unsure)))]
    best[unsure] = code[first]
    return best
