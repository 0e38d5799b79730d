"""What `lloyd` computes chunk by chunk: module-level functions of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit import kernels
from vwkit.index import Index
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = [
    "extremes",
    "far",
    "larger",
    "own_distances",
    "search_labels",
    "searched",
    "squares",
]

_FLOAT_ROWS = 4096


def search_labels(index: Index, rows: Array, centers: Array) -> NDArray[np.int64]:
    """Return the labels that an index over the centers gives."""
    labels = index.search(rows, 1).ids[:, 0]
    lost = np.flatnonzero(labels < 0)  # an approximate index may come back with nothing
    if len(lost):
        labels[lost] = kernels.nearest_rows(rows[lost], centers)
    return labels


def searched(
    chunk: Array,
    *aligned: Array,
    index: Index,
    centers: Array,
    pins: NDArray[np.int64],
    scale: int,
    weight_scale: int,
) -> kernels.Partial:
    """Label each row by an index over the centers; `pins` need the numbers of the rows first."""
    labels = search_labels(index, chunk, centers)
    if len(pins):
        places, *aligned = aligned  # type: ignore[assignment]
        for row, center in pins:
            labels[places == row] = center
    weights = aligned[0] if aligned else None
    return kernels.accumulate(chunk, labels, weights, scale=scale, weight_scale=weight_scale)


def larger(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    """Combine the extremes of two chunks."""
    return tuple(map(max, a, b))


def extremes(chunk: Array, *aligned: Array, shift: Array) -> tuple[float, float, float]:
    """Return the largest w, |w·x| and w·‖x − shift‖² of a chunk."""
    largest = np.abs(chunk).max(axis=1).astype(np.float64)
    squares = _shifted_squares(chunk, shift)
    if not aligned:
        return 1.0, float(largest.max()), float(squares.max())
    weights = aligned[0]
    return (
        float(weights.max()),
        float((weights * largest).max()),
        float((weights * squares).max()),
    )


def squares(chunk: Array, *aligned: Array, shift: Array, scale: int) -> int:
    """Return the sum of w·‖x − shift‖²·2^scale as a whole number."""
    squares = _shifted_squares(chunk, shift)
    if aligned:
        squares *= aligned[0]
    return int(np.rint(np.ldexp(squares, scale)).astype(np.int64).sum())


def _shifted_squares(chunk: Array, shift: Array) -> NDArray[np.float64]:
    squares = np.empty(len(chunk))
    for start, stop in row_spans(len(chunk), _FLOAT_ROWS):  # never a float copy of a whole chunk
        moved = chunk[start:stop].astype(np.float64, order="C")
        moved -= shift
        squares[start:stop] = np.add.reduce(np.square(moved, out=moved), axis=1)
    return squares


def own_distances(chunk: Array, labels: Array, *aligned: Array, centers: Array) -> int:
    """Return the sum of w·‖x − c‖², exactly; see `vwkit.kernels.exact_sum`."""
    distances = kernels.row_distances(chunk, labels, centers=centers)
    return kernels.exact_sum(distances * aligned[0] if aligned else distances)


def far(
    chunk: Array, labels: Array, *aligned: Array, centers: Array, count: int, scale: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], Array, int]:
    """Return distances, places and rows of those farthest from their centers, and the chunk's size."""
    useful = np.arange(len(chunk))
    if aligned:
        useful = np.flatnonzero(np.rint(np.ldexp(aligned[0], scale)) > 0)
    distances, places = kernels.farthest_rows(
        chunk[useful], labels[useful], centers=centers, count=count
    )
    places = useful[places]
    return distances, places, chunk[places], len(chunk)
