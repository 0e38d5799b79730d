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


def normalised(vectors: Array) -> NDArray[np.float32]:
    """Return each row divided by its length, (n, d) float32; zero rows stay zero."""
    lengths = np.sqrt(squared_norms(vectors))
    lengths[lengths == 0] = 1
    return (vectors / lengths[:, None]).astype(np.float32)


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
