"""The per-chunk kernels: nearest centers and sums.

A label is the argmin of the float64 distance, the lowest index on ties. Products are taken in
float32, because that is what the hardware is fast at; every candidate within the product's error
bound of the best is then computed again in float64. So the answer does not depend on how rows are
cut into chunks or on the number of threads, though the float32 products do.

Error bound of a float32 dot product of length d, in any order of summation: γ·‖x‖·‖y‖ with
γ = d·u / (1 − d·u) and u = 2⁻²⁴ (Higham 2002, Accuracy and Stability of Numerical Algorithms,
section 3.1). A few more u cover the rounding of the operands. To it comes what the float64
distances themselves are off by, so that two that tie after rounding are found to tie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vwkit.blocks import CELLS, CENTERS, PAIR_BYTES, UNIT, UNIT64
from vwkit.metrics import pair_distances, squared_norms
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = [
    "Partial",
    "accumulate",
    "assign_and_accumulate",
    "exact_sum",
    "farthest_rows",
    "fixed_point_scale",
    "merge",
    "nearest_rows",
    "row_distances",
    "split",
]


class _Table:
    """Centers made ready for products.

    They are shifted by their mean, which keeps float32 accurate for data far from the origin, and
    scaled by a power of two (which rounds nothing), which keeps huge and tiny values in its range.
    """

    def __init__(self, centers: Array) -> None:
        self.centers = centers
        wide = centers.astype(np.float64)
        self.shift = wide.mean(axis=0).astype(np.float32)
        wide -= self.shift
        self.scale = np.float32(2.0 ** -min(120, max(-120, math.frexp(np.abs(wide).max())[1])))
        moved = (wide * self.scale).astype(np.float32)
        norms = squared_norms(moved)
        self.largest = math.sqrt(float(norms.max()))
        self.slack = (centers.shape[1] + 16) * UNIT * 1.01
        self.slack64 = (centers.shape[1] + 16) * UNIT64
        # One product gives ‖c‖² − 2·x·c when x carries a 1 behind it.
        self.right = np.empty((centers.shape[1] + 1, len(centers)), np.float32)
        np.multiply(moved.T, -2, out=self.right[:-1])
        self.right[-1] = norms

    def left(self, rows: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return rows ready for a product, and how far off a score of each may be.

        Rows that float32 cannot hold here become infinite and their error NaN or infinite.
        """
        ready = np.ones((len(rows), rows.shape[1] + 1), np.float32)
        np.subtract(rows, self.shift, out=ready[:, :-1], dtype=np.float32)
        ready[:, :-1] *= self.scale
        lengths = np.sqrt(squared_norms(ready[:, :-1]))
        error = self.slack * self.largest * (2 * lengths + self.largest)
        error += self.slack64 * (lengths + self.largest) ** 2
        return ready, error.astype(np.float32)


def nearest_rows(rows: Array, centers: Array) -> NDArray[np.int64]:
    """Return the index of the nearest center (squared Euclidean) of each row.

    Parameters
    ----------
    rows : (n, d) uint8 or float
    centers : (k, d) float32

    Returns
    -------
    (n,) int64
        The lowest index on exact ties.
    """
    if len(rows) == 0 or len(centers) == 1:
        return np.zeros(len(rows), np.int64)
    labels = np.empty(len(rows), np.int64)
    step = max(1, CELLS // max(min(len(centers), CENTERS), rows.shape[1]))
    # What overflows is settled in float64, so it needs no warning. (Set here, not around the
    # call: every thread has its own.)
    with np.errstate(over="ignore", invalid="ignore"):
        _nearest(rows, _Table(centers), labels, step)
    return labels


def _nearest(rows: Array, table: _Table, labels: NDArray[np.int64], step: int) -> None:
    k = len(table.centers)
    for start, stop in row_spans(len(rows), step):
        ready, error = table.left(rows[start:stop])
        best = np.full(stop - start, np.inf, np.float32)
        second = best.copy()
        label = np.zeros(stop - start, np.int64)
        lines = np.arange(stop - start)
        for first, last in row_spans(k, CENTERS):
            score = ready @ table.right[:, first:last]
            nearest = score.argmin(axis=1)
            value = score[lines, nearest]
            score[lines, nearest] = np.inf
            runner_up = score.min(axis=1)
            second = np.minimum(np.minimum(second, runner_up), np.maximum(best, value))
            better = value < best
            label[better] = nearest[better] + first
            best = np.where(better, value, best)
        close = np.flatnonzero(~(second - best > 2 * error))
        if len(close):
            label[close] = _settle(
                rows[start:stop][close], ready[close], best[close] + 2 * error[close], table
            )
        labels[start:stop] = label


def _settle(
    rows: Array, ready: NDArray[np.float32], limit: NDArray[np.float32], table: _Table
) -> NDArray[np.int64]:
    """Choose among the candidates whose score is within `limit`, in float64."""
    best = np.full(len(rows), np.inf)
    label = np.zeros(len(rows), np.int64)
    step = max(1, PAIR_BYTES // (8 * rows.shape[1]))
    for top, bottom in row_spans(len(rows), max(1, CELLS // CENTERS)):
        for first, last in row_spans(len(table.centers), CENTERS):
            score = ready[top:bottom] @ table.right[:, first:last]
            # So written, what is not a number is a candidate.
            line, column = np.nonzero(~(score > limit[top:bottom, None]))
            for i, j in row_spans(len(line), step):
                row, center = line[i:j] + top, column[i:j] + first
                distance = pair_distances(rows[row], table.centers[center], "l2")
                # Sorted by row, distance, index: the first of each row is its best here.
                order = np.lexsort((center, distance, row))
                row, center, distance = row[order], center[order], distance[order]
                lead = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
                row, center, distance = row[lead], center[lead], distance[lead]
                better = distance < best[row]
                best[row[better]] = distance[better]
                label[row[better]] = center[better]
    return label


# Sums that do not depend on order --------------------------------------------------------------


def fixed_point_scale(rows: int, largest: float) -> int:
    """Return the largest s for which `rows` values up to `largest`, times 2^s, stay below 2^62."""
    if largest <= 0:
        return 0
    (m, e), (n, f) = math.frexp(largest), math.frexp(max(1, rows))
    # largest · rows = m·n·2^(e + f) with ¼ ≤ m·n < 1
    return min(1000, 62 - e - f + (m * n < 0.5))


@dataclass(frozen=True)
class Partial:
    """What one chunk contributes: labels, and exact sums of the clusters that occur in it.

    Attributes
    ----------
    labels : (n,) int32
    used : (u,) int64
        The clusters that occur, ascending.
    sums : (u, d) int64
        Sum of w·x·2^scale.
    counts : (u,) int64
        Sum of w·2^weight_scale (of rows, without weights).
    """

    labels: NDArray[np.int32]
    used: NDArray[np.int64]
    sums: NDArray[np.int64]
    counts: NDArray[np.int64]


def assign_and_accumulate(
    chunk: Array,
    *aligned: Array,
    centers: Array,
    scale: int,
    weight_scale: int = 0,
) -> Partial:
    """Label each row with its nearest center and add up the rows of each cluster.

    Parameters
    ----------
    chunk : (n, d) uint8 or float32
    *aligned : (n,) float64, optional
        Weights.
    centers : (k, d) float32
    scale, weight_scale : int
        Sums are of w·x·2^scale and w·2^weight_scale, rounded to whole numbers; see
        `fixed_point_scale`.
    """
    return accumulate(
        chunk,
        nearest_rows(chunk, centers),
        aligned[0] if aligned else None,
        scale=scale,
        weight_scale=weight_scale,
    )


def accumulate(
    chunk: Array,
    labels: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    *,
    scale: int,
    weight_scale: int = 0,
) -> Partial:
    """Add up the rows of each cluster exactly; see `assign_and_accumulate`."""
    used, place = np.unique(labels, return_inverse=True)
    if weights is None:
        counts = np.bincount(place, minlength=len(used)).astype(np.int64)
    else:
        counts = _bin(place, _fixed(weights, weight_scale), len(used))
    sums = np.empty((len(used), chunk.shape[1]), np.int64)
    for j in range(chunk.shape[1]):
        column = chunk[:, j]
        if weights is None and chunk.dtype == np.uint8:
            # Whole numbers up to 2^53 are exact in float64.
            sums[:, j] = np.bincount(place, weights=column, minlength=len(used))
        else:
            values = column.astype(np.float64)
            if weights is not None:
                values *= weights
            sums[:, j] = _bin(place, _fixed(values, scale), len(used))
    return Partial(labels.astype(np.int32), used, sums, counts)


def merge(a: Partial, b: Partial) -> Partial:
    """Return what two chunks contribute together: whole numbers, so in any order the same.

    Labels are those of `a`, then those of `b`.
    """
    labels = np.concatenate([a.labels, b.labels]) if len(a.labels) and len(b.labels) else None
    if labels is None:
        labels = a.labels if len(a.labels) else b.labels
    if np.array_equal(a.used, b.used):
        return Partial(labels, a.used, a.sums + b.sums, a.counts + b.counts)
    used = np.union1d(a.used, b.used)
    sums = np.zeros((len(used), a.sums.shape[1]), np.int64)
    counts = np.zeros(len(used), np.int64)
    for one in (a, b):
        place = np.searchsorted(used, one.used)
        sums[place] += one.sums
        counts[place] += one.counts
    return Partial(labels, used, sums, counts)


def split(partial: Partial) -> tuple[Partial, Partial]:
    """Part the labels from the sums."""
    none = Partial(partial.labels, partial.used[:0], partial.sums[:0], partial.counts[:0])
    return none, Partial(partial.labels[:0], partial.used, partial.sums, partial.counts)


def _fixed(values: NDArray[np.float64], scale: int) -> NDArray[np.int64]:
    return np.rint(np.ldexp(values, scale)).astype(np.int64)


def _bin(place: NDArray[np.int64], values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Add up int64 values exactly, in two halves that float64 holds exactly."""
    high = values >> 31
    low = values - (high << 31)
    upper = np.bincount(place, weights=high.astype(np.float64), minlength=size)
    lower = np.bincount(place, weights=low.astype(np.float64), minlength=size)
    return (upper.astype(np.int64) << 31) + lower.astype(np.int64)


def exact_sum(values: NDArray[np.float64]) -> int:
    """Return the exact sum of numbers ≥ 0, as a whole multiple of 2^-1126.

    So it is the same in any order and can be added on.
    """
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    total = 0
    for e in np.unique(exponent):
        part = whole[exponent == e]
        # In two halves, whose sums int64 holds for 2^36 rows.
        total += ((int((part >> 26).sum()) << 26) + int((part & 0x3FFFFFF).sum())) << (
            int(e) + 1073
        )
    return total


def row_distances(chunk: Array, labels: Array, *, centers: Array) -> NDArray[np.float64]:
    """Return the squared distance of each row to its own center, (n,) float64."""
    out = np.empty(len(chunk))
    step = max(1, PAIR_BYTES // (8 * chunk.shape[1]))
    for start, stop in row_spans(len(chunk), step):
        out[start:stop] = pair_distances(chunk[start:stop], centers[labels[start:stop]], "l2")
    return out


def farthest_rows(
    chunk: Array, labels: Array, *, centers: Array, count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return distances and places in the chunk of its `count` rows farthest from their centers.

    Farthest first, the lowest row on ties.
    """
    distances = row_distances(chunk, labels, centers=centers)
    order = np.argsort(-distances, kind="stable")[:count]
    return distances[order], order
