"""All distances between two sets of vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import DataError, ParameterError, ShapeError

__all__ = ["METRICS", "distances"]

METRICS = ("l2", "cosine", "ip", "hamming")


def distances(queries: ArrayLike, vectors: ArrayLike, metric: str) -> NDArray[np.float64]:
    """Return the distance of every query to every vector. Smaller is nearer.

    =========  =====================================================
    l2         Σᵢ (qᵢ - xᵢ)², the *squared* Euclidean distance
    cosine     1 - q·x / (‖q‖ ‖x‖); 1 when either vector is zero
    ip         1 - q·x
    hamming    number of differing bits of two uint8 rows
    =========  =====================================================

    Parameters
    ----------
    queries : (q, d) numbers
        uint8 for hamming.
    vectors : (n, d) numbers
        uint8 for hamming.
    metric : str
        One of `METRICS`.

    Returns
    -------
    (q, n) float64

    Raises
    ------
    ParameterError
        Unknown metric.
    ShapeError
        Not two 2-dimensional arrays with equal d.
    DataError
        Hamming of anything but uint8.

    Examples
    --------
    >>> distances([[0, 0]], [[3, 4]], "l2")
    array([[25.]])
    """
    a, b = np.asarray(queries), np.asarray(vectors)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ShapeError(
            f"queries (q, d) and vectors (n, d) with the same d are needed; "
            f"got shapes {a.shape} and {b.shape}"
        )
    if metric not in METRICS:
        raise ParameterError(f"unknown metric {metric!r}; known metrics: {', '.join(METRICS)}")
    if metric == "hamming":
        if a.dtype != np.uint8 or b.dtype != np.uint8:
            raise DataError(f"hamming needs uint8 rows; got {a.dtype} and {b.dtype}")
    else:
        # C order, so that the order of each sum, and with it the last bit, is always the same.
        a, b = np.array(a, np.float64, order="C"), np.array(b, np.float64, order="C")
    result = np.empty((len(a), len(b)))
    for row, query in enumerate(a):
        if metric == "l2":
            result[row] = ((b - query) ** 2).sum(axis=1)
        elif metric == "ip":
            result[row] = 1 - (b * query).sum(axis=1)
        elif metric == "hamming":
            result[row] = np.unpackbits(b ^ query, axis=1).sum(axis=1)
        else:
            dots = (b * query).sum(axis=1)
            lengths = np.sqrt((b**2).sum(axis=1)) * np.sqrt((query**2).sum())
            cosines = np.divide(dots, lengths, out=np.zeros(len(b)), where=lengths > 0)
            # Rounding may put a cosine just outside [-1, 1].
            result[row] = 1 - np.clip(cosines, -1, 1)
    return result
