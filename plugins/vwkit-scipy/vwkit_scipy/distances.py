"""Distances between all rows, by products of matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError
from vwkit.jobs import job
from vwkit.stream import row_spans
from vwkit.types import Array
from vwkit_scipy.neighbours import middle_of

__all__ = ["SAME_DIRECTION", "Prepared", "condensed", "pair_distances", "prepared"]

_BLOCK = 256  # rows of one block of distances
# Below this share of what they are the difference of, squared distances are computed again.
_CLOSE = 1e-6
# A cosine distance of rows in the same direction is not always 0 after rounding.
SAME_DIRECTION = 1e-15
_PAIRS = 1 << 18  # numbers held at once for pairs


@dataclass(frozen=True)
class Prepared:
    """Rows made ready for distances.

    Attributes
    ----------
    rows : (n, d) float64
        For euclidean around 0 and of a size whose squares are no trouble; for cosine of length 1,
        or 0 where they were 0.
    scale : float
        What their distances are to be multiplied by: a power of two.
    cosine : bool
    zero : (n,) bool
        Zero vectors, for cosine: their distance to all is 1.
    """

    rows: NDArray[np.float64]
    scale: float
    cosine: bool
    zero: NDArray[np.bool_]

    def take(self, chosen: Array) -> Prepared:
        """Return some of the rows."""
        return Prepared(self.rows[chosen], self.scale, self.cosine, self.zero[chosen])


def prepared(data: Array, distance: str) -> Prepared:
    """Make rows ready.

    Raises
    ------
    DataError
        The numbers are so large that distances overflow.
    """
    largest = float(np.abs(_extremes(data)).max())
    exponent = math.frexp(largest)[1]
    rows = np.empty(data.shape)
    if distance == "cosine":
        for start, stop in row_spans(len(data), 4096):
            part = data[start:stop].astype(np.float64)
            # By a power of two, so that squares neither overflow nor vanish.
            most = np.abs(part).max(axis=1, keepdims=True)
            np.ldexp(part, -np.frexp(most)[1], out=part)
            length: NDArray[np.float64] = np.sqrt(np.square(part).sum(axis=1, keepdims=True))
            rows[start:stop] = part / np.where(length > 0, length, 1)
        zero: NDArray[np.bool_] = np.logical_not(rows.any(axis=1))
        return Prepared(rows, 1.0, True, zero)
    for start, stop in row_spans(len(data), 4096):
        np.ldexp(data[start:stop].astype(np.float64), -exponent, out=rows[start:stop])
    rows -= middle_of(rows)
    # Heights of ward may be larger than distances, by the root of the number of rows.
    if exponent + math.log2(2 * data.shape[1] * len(data)) > np.finfo(np.float64).maxexp - 2:
        raise DataError(
            f"data: numbers up to {largest:.3g} are so large that distances overflow; divide them"
        )
    return Prepared(rows, 2.0**exponent, False, np.zeros(len(rows), bool))


def _extremes(data: Array) -> NDArray[np.float64]:
    """Return the smallest and the largest number."""
    return np.array([data.min(), data.max()], np.float64)


def pair_distances(ready: Prepared, a: Array, b: Array) -> NDArray[np.float64]:
    """Return the distances of rows `a` to rows `b`, one by one, before scaling."""
    out = np.empty(len(a))
    step = max(1, _PAIRS // ready.rows.shape[1])
    for start, stop in row_spans(len(a), step):
        apart = ready.rows[a[start:stop]] - ready.rows[b[start:stop]]
        out[start:stop] = np.square(apart).sum(axis=1)
    if not ready.cosine:
        return np.sqrt(out)
    # 1 − u·v of unit vectors is ½‖u − v‖²; to a zero vector the distance is 1.
    out /= 2
    out[ready.zero[a] | ready.zero[b]] = 1
    out[out < SAME_DIRECTION] = 0
    return out


def condensed(ready: Prepared) -> tuple[NDArray[np.float64], float]:
    """Return the distances of all pairs in SciPy's order, and the largest; both before scaling."""
    rows = ready.rows
    n = len(rows)
    out = np.empty(n * (n - 1) // 2)
    norms = np.square(rows).sum(axis=1)
    place = np.arange(n)
    blocks = job().map(
        _block,
        rows,
        {"rows": rows, "norms": norms, "cosine": ready.cosine},
        aligned={"place": place},
        rows=_BLOCK,
        unit="rows",
    )
    start = written = 0
    for block, close in blocks:
        if len(close):
            line, column = close[:, 0], close[:, 1]
            block[line, column] = pair_distances(ready, line + start, column + start)
        for i in range(len(block)):
            several = n - 1 - start - i
            out[written : written + several] = block[i, i + 1 :]
            written += several
        start += len(block)
    return out, float(out.max(initial=0.0))


def _block(
    chunk: Array, place: Array, *, rows: Array, norms: Array, cosine: bool
) -> tuple[Array, Array]:
    """Return distances of a block to itself and all behind it, and which are too close to trust."""
    start = int(place[0])
    right = rows[start:]
    table = chunk @ right.T
    if cosine:
        np.subtract(1, table, out=table)
        close = table < _CLOSE
    else:
        table *= -2
        table += norms[start:]
        own = norms[start : start + len(chunk), None]
        table += own
        close = table < _CLOSE * (own + norms[start:])
    # Each pair once.
    close &= np.arange(len(right)) > np.arange(len(chunk))[:, None]
    places = np.argwhere(close)
    if cosine:
        np.clip(table, 0, 2, out=table)
    else:
        np.maximum(table, 0, out=table)
        np.sqrt(table, out=table)
    return table, places
