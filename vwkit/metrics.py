"""The metrics, defined once. Smaller is nearer.

=========  ==========================================================
l2         *squared* Euclidean distance
cosine     1 − cos; 1 to a zero vector
ip         1 − dot product
hamming    number of differing bits of two uint8 vectors
=========  ==========================================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit.types import Array

__all__ = ["METRICS", "normalised", "pair_distances", "squared_norms"]

METRICS = ("l2", "cosine", "ip", "hamming")


def squared_norms(vectors: Array) -> NDArray[np.float64]:
    """Return ‖x‖² of each row, (n,) float64."""
    if vectors.dtype == np.uint8:
        wide = vectors.astype(np.int32)
        whole: NDArray[np.int64] = np.einsum("ij,ij->i", wide, wide, dtype=np.int64)
        return whole.astype(np.float64)
    wide64 = vectors.astype(np.float64, order="C")
    norms: NDArray[np.float64] = np.add.reduce(wide64 * wide64, axis=1)
    return norms


# Squares of lengths that float32 holds with all its digits; outside, float64 is used.
_SMALLEST, _LARGEST = 1e-20, 1e30
_CELLS = 1 << 16  # of one block: 256 KiB, which stay in the cache


def normalised(vectors: Array) -> NDArray[np.float32]:
    """Return each row divided by its length, (n, d) float32; zero rows stay zero.

    Each row is computed by itself in a fixed order, so that it does not depend on what else is in
    the batch: in float32, and where its square would not fit (or the data are wider) in float64.
    """
    out = np.empty(vectors.shape, np.float32)
    step = max(1, _CELLS // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        _normalise(vectors[start : start + step], out[start : start + step])
    return out


def _normalise(vectors: Array, out: NDArray[np.float32]) -> None:
    if vectors.dtype != np.float32:
        lengths = np.sqrt(squared_norms(vectors))
        lengths[lengths == 0] = 1
        out[...] = vectors / lengths[:, None]
        return
    # C order: the order of summation must not depend on how the rows lie in memory.
    rows = np.ascontiguousarray(vectors)
    with np.errstate(over="ignore", under="ignore"):
        # Not einsum: its sums depend on how many rows there are.
        squares = np.add.reduce(rows * rows, axis=1)
    odd = ~((squares > _SMALLEST) & (squares < _LARGEST))
    squares[odd] = 1
    np.divide(rows, np.sqrt(squares)[:, None], out=out)
    if odd.any():
        few = np.empty((int(odd.sum()), rows.shape[1]), np.float32)
        _normalise(rows[odd].astype(np.float64), few)
        out[odd] = few


def pair_distances(left: Array, right: Array, metric: str) -> NDArray[np.float64]:
    """Return the distance of each row of `left` to the same row of `right`, (n,) float64.

    Exact in the sense that matters here: computed in float64, each row by itself in a fixed order,
    so that it does not depend on what else is in the batch.
    """
    if metric == "hamming":
        bits: NDArray[np.float64] = np.bitwise_count(left ^ right).sum(axis=1, dtype=np.float64)
        return bits
    # C order: the order of summation must not depend on how the rows lie in memory.
    a, b = left.astype(np.float64, order="C"), right.astype(np.float64, order="C")
    if metric == "l2":
        a -= b
        squares: NDArray[np.float64] = np.add.reduce(a * a, axis=1)
        return squares
    dot: NDArray[np.float64] = np.add.reduce(a * b, axis=1)
    if metric == "ip":
        return 1.0 - dot
    scale = np.sqrt(np.add.reduce(a * a, axis=1) * np.add.reduce(b * b, axis=1))
    cosine: NDArray[np.float64] = np.divide(dot, scale, out=np.zeros_like(dot), where=scale > 0)
    return 1.0 - cosine
