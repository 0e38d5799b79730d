"""The nearest rows of some rows, by blocks of products, in memory that does not grow.

A product finds candidates; how far apart two rows are is always said in float64. What a product
may be off by is bounded (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.types import Array

__all__ = ["Candidates", "Lowest", "candidates", "middle_of"]

_ROWS, _COLUMNS = 256, 8192  # of one block of products
_FIRST = 2048


@dataclass(frozen=True)
class Candidates:
    """The rows that may be nearest.

    Attributes
    ----------
    rows : (q, k) int64
        In no order; −1 where there are fewer.
    bound : (q,) float64
        No other row has a score below.
    largest : (q,) float64
        The largest score of all, as computed.
    """

    rows: NDArray[np.int64]
    bound: NDArray[np.float64]
    largest: NDArray[np.float64]


def candidates(
    asked: NDArray[np.int64],
    points: NDArray[np.float64],
    extra: NDArray[np.float64],
    sizes: NDArray[np.float64] | None,
    k: int,
    labels: NDArray[np.int64] | None = None,
    dtype: Any = np.float32,
    unit: str | None = None,
) -> Candidates:
    """Find, for some of the points, the others with the lowest scores.

    The score of i and j is ‖xᵢ − xⱼ‖² + eᵢ + eⱼ; with sizes, times 2·sᵢ·sⱼ / (sᵢ + sⱼ).

    Parameters
    ----------
    asked : (q,) int64
    points : (n, d) float64
    extra : (n,) float64
        e.
    sizes : (n,) float64, optional
        s.
    k : int
        How many to return for each.
    labels : (n,) int64, optional
        Points of the same label are left out.
    dtype : dtype
        Of the products.
    unit : str, optional
        With it, progress over the points that were asked for is told.
    """
    middle = middle_of(points)
    right = np.empty((points.shape[1] + 1, len(points)), dtype)
    np.subtract(points.T, middle[:, None], out=right[:-1], casting="same_kind")
    norms = np.einsum("ij,ij->j", right[:-1], right[:-1], dtype=np.float64) + extra
    right[-1] = norms
    left = np.ones((len(asked), points.shape[1] + 1), dtype)
    np.multiply(right[:-1, asked].T, -2, out=left[:, :-1])
    arrays = {
        "right": right,
        "k": min(k, len(points) - 1),
        "sizes": None if sizes is None else sizes.astype(dtype),
        "labels": labels,
    }
    aligned = {"asked": asked, "own": norms[asked].astype(dtype)}
    parts = list(job().map(_lowest, left, arrays, aligned=aligned, rows=_ROWS, unit=unit))
    bound = np.concatenate([part[1] for part in parts]).astype(np.float64)
    # Whatever is longer than a point and the bound together is farther than the bound.
    reach = np.sqrt(np.clip(bound, 0, norms.max()))
    error = (2 * np.sqrt(norms[asked]) + reach) ** 2 * float(np.finfo(dtype).eps)
    error += float(np.finfo(dtype).smallest_subnormal)
    error *= points.shape[1] + 16
    if sizes is not None:
        error *= 2 * sizes[asked] * sizes.max() / (sizes[asked] + sizes.max())
    return Candidates(
        np.concatenate([part[0] for part in parts]),
        bound - error,
        np.concatenate([part[2] for part in parts]).astype(np.float64),
    )


def middle_of(points: Array) -> NDArray[np.float64]:
    """Return a point that many are around: far ones do not draw it away, as they do a mean."""
    middle: NDArray[np.float64] = np.median(points[:: 1 + len(points) // 1000], axis=0)
    return middle


def _lowest(
    left: Array,
    asked: Array,
    own: Array,
    *,
    right: Array,
    k: int,
    sizes: Array | None,
    labels: Array | None,
) -> tuple[Array, Array, Array]:
    """Return the k columns of the lowest scores, the next score, and the largest."""
    n, q = right.shape[1], len(left)
    largest = np.full(q, -np.inf, left.dtype)
    lowest = Lowest(q, k, left.dtype)
    lines, start = np.arange(q), 0
    while start < n:
        # The first block is small: after it, few scores are below the limit.
        stop = min(n, start + (_COLUMNS if start else max(_FIRST, 2 * k)))
        score = left @ right[:, start:stop]
        score += own[:, None]
        if sizes is not None:
            here = sizes[start:stop]
            score *= 2 * here / (1 + here / sizes[asked][:, None])
        np.maximum(largest, score.max(axis=1), out=largest)
        inside = (asked >= start) & (asked < stop)
        score[lines[inside], asked[inside] - start] = np.inf
        if labels is not None:
            score[labels[asked][:, None] == labels[start:stop]] = np.inf
        lowest.take(score, start)
        start = stop
    return lowest.rows(), lowest.bound(), largest


class Lowest:
    """The k lowest scores of each line, of blocks of columns that come one after another."""

    def __init__(self, lines: int, k: int, dtype: Any) -> None:
        self._k = k
        self._limit = np.full(lines, np.inf, dtype)  # scores at or above it are of no use
        self.scores: Array = np.empty((lines, 0), dtype)
        self._rows: Array = np.empty((lines, 0), np.int64)

    def take(self, scores: Array, start: int) -> None:
        """Look at scores of the columns from `start` on."""
        if start == 0:
            more, which = scores, np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        else:
            more, which = _below(scores, self._limit)
            more = np.concatenate([self.scores, more], axis=1)
            which = np.concatenate([self._rows, which + start], axis=1)
        if more.shape[1] > self._k:
            # The highest of them comes last.
            kept = np.argpartition(more, self._k, axis=1)[:, : self._k + 1]
            more = np.take_along_axis(more, kept, axis=1)
            which = np.take_along_axis(which, kept, axis=1)
        self.scores, self._rows = more, which
        if more.shape[1] > self._k:
            self._limit = more[:, self._k]

    def rows(self) -> NDArray[np.int64]:
        """Return the columns of the k lowest, in no order; −1 where there are fewer."""
        rows, scores = self._rows[:, : self._k], self.scores[:, : self._k]
        found: NDArray[np.int64] = np.where(np.isfinite(scores), rows, -1)
        return found

    def bound(self) -> Array:
        """Return what no other score is below."""
        if self.scores.shape[1] > self._k:
            return self.scores[:, self._k]
        return np.full(len(self.scores), np.inf, self.scores.dtype)


def _below(score: Array, limit: Array) -> tuple[Array, Array]:
    """Return the scores below the limit of their line, moved to the left, and their columns."""
    flat = np.flatnonzero(score < limit[:, None])
    line, column = np.divmod(flat, score.shape[1])
    counts = np.bincount(line, minlength=len(score))
    place = np.arange(len(flat)) - (np.cumsum(counts) - counts)[line]
    shape = (len(score), int(counts.max(initial=0)))
    more, which = np.full(shape, np.inf, score.dtype), np.full(shape, -1, np.int64)
    more[line, place] = score.ravel()[flat]
    which[line, place] = column
    return more, which
