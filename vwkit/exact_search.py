"""The per-chunk kernel of exact search: the nearest rows, by every metric.

As in `vwkit.kernels`, products are float32, and whatever their rounding leaves open is decided in
float64: the answer depends on the numbers alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.blocks import CELLS, CENTERS, PAIR_BYTES, UNDERFLOW, UNIT, UNIT64
from vwkit.metrics import pair_distances, squared_norms
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = ["search_rows"]


def search_rows(
    queries: Array, vectors: Array, k: int, metric: str, allowed: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of the k nearest vectors of each query, nearest first, and distances.

    Parameters
    ----------
    queries : (q, d), vectors : (n, d)
        float32; uint8 for ``hamming``.
    k : int
        At most the number of (allowed) vectors.
    metric : str
    allowed : (n,) bool, optional

    Returns
    -------
    rows : (q, k) int64
        The lowest row on exact ties.
    distances : (q, k) float32
        Computed in float64 before the last rounding.
    """
    rows = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.float32)
    step = max(1, CELLS // CENTERS)
    # Set here, not around the call: every thread has its own.
    with np.errstate(over="ignore", invalid="ignore"):
        for start, stop in row_spans(len(queries), step):
            block = queries[start:stop]
            if metric == "hamming":
                found = _search_bits(block, vectors, k, allowed)
            else:
                found = _search_block(block, vectors, k, metric, allowed)
            rows[start:stop], distances[start:stop] = found
    return rows, distances


# Squared lengths between these make float32 products that neither overflow nor lose their digits.
_TINY, _HUGE = 1e-30, 1e37
_SPARE = 8  # candidates kept beyond k, so that near ties rarely need a second look


def _search_block(
    queries: Array, vectors: Array, k: int, metric: str, allowed: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    q = len(queries)
    keep = k + _SPARE
    left: NDArray[np.float32] = queries.astype(np.float32)
    if metric == "l2":
        # Differences stay the same, and products accurate for vectors far from the origin.
        shift = vectors[:CENTERS].mean(axis=0, dtype=np.float64).astype(np.float32)
        left -= shift
    own = squared_norms(left)
    lengths = np.sqrt(own)
    if metric == "cosine":
        left /= np.where(lengths > 0, lengths, 1)[:, None].astype(np.float32)
    best = np.full((q, 0), np.inf, np.float32)
    rows = np.zeros((q, 0), np.int64)
    largest, smallest = 0.0, np.inf
    for first, last in row_spans(len(vectors), CENTERS):
        part = vectors[first:last].astype(np.float32, copy=False)
        if metric == "l2":
            part = part - shift
        norms = squared_norms(part)
        score = left @ part.T
        if metric == "l2":
            score *= -2
            score += norms.astype(np.float32)
        elif metric == "cosine":
            score *= (-1 / np.sqrt(np.where(norms > 0, norms, np.inf))).astype(np.float32)
        else:
            np.negative(score, out=score)
        if allowed is not None:
            score[:, ~allowed[first:last]] = np.inf
        largest = float(np.maximum(largest, norms.max()))
        smallest = min(smallest, float(norms.min(initial=np.inf, where=norms > 0)))
        best = np.concatenate([best, score], axis=1)
        rows = np.concatenate(
            [rows, np.broadcast_to(np.arange(first, last), (q, last - first))], axis=1
        )
        if best.shape[1] > keep:
            kept = np.argpartition(best, keep - 1, axis=1)[:, :keep]
            best = np.take_along_axis(best, kept, axis=1)
            rows = np.take_along_axis(rows, kept, axis=1)
    error = _score_error(metric, queries.shape[1], lengths, math.sqrt(largest))
    error[~(own + largest <= _HUGE)] = np.inf  # believe no product
    if metric == "cosine":
        error[((own > 0) & (own < _TINY)) | (smallest < _TINY)] = np.inf
    return _ranked(queries, vectors, rows, best, error, k, metric, allowed)


def _score_error(
    metric: str, dim: int, lengths: NDArray[np.float64], largest: float
) -> NDArray[np.float64]:
    """Return how far off a score may be, its own float64 distance included."""
    slack, slack64 = (dim + 16) * UNIT * 1.01, (dim + 16) * UNIT64
    if metric == "cosine":
        return np.full(len(lengths), 3 * slack)
    lost = (dim + 16) * UNDERFLOW
    if metric == "ip":
        return slack * lengths * largest + slack64 + lost
    return slack * largest * (2 * lengths + largest) + slack64 * (lengths + largest) ** 2 + lost


def _ranked(
    queries: Array,
    vectors: Array,
    rows: NDArray[np.int64],
    score: NDArray[np.float32],
    error: NDArray[np.float64],
    k: int,
    metric: str,
    allowed: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Order candidates by their float64 distances; look at everything where too many are close."""
    q, kept = rows.shape
    kth = np.partition(score, k - 1, axis=1)[:, k - 1]
    # Were a row left out that could still belong, its score would be within the bound of the k-th.
    unsure = ~(score.max(axis=1) > kth + 2 * error) & (kept < len(vectors))
    line = np.repeat(np.arange(q), kept)
    place = rows.ravel()
    exact = np.empty(len(line))
    step = max(1, PAIR_BYTES // (8 * vectors.shape[1]))
    for i, j in row_spans(len(line), step):
        exact[i:j] = pair_distances(queries[line[i:j]], vectors[place[i:j]], metric)
    if allowed is not None:
        exact[~allowed[place]] = np.inf
    order = np.lexsort((place, exact, line)).reshape(q, kept)[:, :k]
    out_rows: NDArray[np.int64] = place[order]
    out: NDArray[np.float64] = exact[order]
    for one in np.flatnonzero(unsure).tolist():
        out_rows[one], out[one] = _search_one(queries[one : one + 1], vectors, k, metric, allowed)
    return out_rows, out


def _search_one(
    query: Array, vectors: Array, k: int, metric: str, allowed: NDArray[np.bool_] | None
) -> tuple[Any, Any]:
    """Search one query wholly in float64."""
    exact = np.empty(len(vectors))
    step = max(1, PAIR_BYTES // (8 * vectors.shape[1]))
    for first, last in row_spans(len(vectors), step):
        repeated = np.broadcast_to(query, (last - first, query.shape[1]))
        exact[first:last] = pair_distances(repeated, vectors[first:last], metric)
    if allowed is not None:
        exact[~allowed] = np.inf
    order = np.lexsort((np.arange(len(vectors)), exact))[:k]
    return order, exact[order]


def _search_bits(
    queries: Array, vectors: Array, k: int, allowed: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    best = np.zeros((len(queries), 0), np.int64)
    rows = np.zeros((len(queries), 0), np.int64)
    far = int(np.iinfo(np.int64).max)
    step = max(1, CENTERS // vectors.shape[1])
    for first, last in row_spans(len(vectors), step):
        differ = np.bitwise_xor(queries[:, None, :], vectors[None, first:last])
        bits = np.bitwise_count(differ).sum(axis=2, dtype=np.int64)
        if allowed is not None:
            bits[:, ~allowed[first:last]] = far
        best = np.concatenate([best, bits], axis=1)
        rows = np.concatenate(
            [rows, np.broadcast_to(np.arange(first, last), (len(queries), last - first))], axis=1
        )
        # A stable sort keeps the lowest row first among equals.
        order = np.argsort(best, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(best, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
    return rows, best.astype(np.float64)
