"""Distances between groups of rows, by passes over all rows in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_scipy.distances import Prepared
from vwkit_scipy.neighbours import Lowest

__all__ = ["Layout", "nearest_groups", "table_of"]

_ROWS, _COLUMNS = 128, 4096  # of one block of distances
_CELLS = 1 << 21  # distances of groups held at once by one worker


@dataclass(frozen=True)
class Layout:
    """Rows in the order of their groups.

    Attributes
    ----------
    order : (n,) int64
        The rows.
    starts : (g + 1,) int64
        Where each group begins in it; equal ones for places without rows.
    weights : (n,) float64 or None
        Of the rows in this order, adding up to 1 in each group; None for complete linkage.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    weights: NDArray[np.float64] | None

    @classmethod
    def of(cls, group: Array, weights: Array, sizes: Array, linkage: str) -> Layout:
        """Sort rows by their groups."""
        order = np.argsort(group, kind="stable")
        counts = np.bincount(group, minlength=len(sizes))
        starts = np.concatenate([[0], np.cumsum(counts)])
        if linkage == "complete":
            return cls(order, starts, None)
        scaled = weights / sizes[group] if linkage == "average" else weights
        return cls(order, starts, scaled[order])


def nearest_groups(
    ready: Prepared, layout: Layout, asked: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the k nearest groups of some groups, their distances, and the next distance.

    Returns
    -------
    near : (q, k) int64
    far : (q, k) float64
        +inf where there are fewer.
    bound : (q,) float64
    """
    filled = np.flatnonzero(np.diff(layout.starts))
    arrays = {**_columns(ready, layout, filled), "cosine": ready.cosine}
    k = min(k, max(1, len(filled) - 1))
    place = np.full(len(layout.starts) - 1, -1)
    place[filled] = np.arange(len(filled))
    parts = list(_over_groups(_nearest, place[asked], {**arrays, "k": k}, _ROWS))
    rows, far, bound = (np.concatenate(column) for column in zip(*parts, strict=True))
    far[rows < 0] = np.inf
    return filled[np.maximum(rows, 0)], far, bound


def table_of(ready: Prepared, layout: Layout) -> NDArray[np.float64]:
    """Return the distances of all groups, (g, g), none of which is empty; +inf to themselves."""
    count = len(layout.starts) - 1
    filled = np.arange(count)
    arrays = {**_columns(ready, layout, filled), "cosine": ready.cosine}
    table = np.empty((count, count))
    done = 0
    most = max(1, _CELLS // count)
    for part in _over_groups(_part_of_table, filled, arrays, most):
        # Each worker looks at what is behind its groups; the rest is the same mirrored.
        table[done : done + len(part), done:] = part
        table[done:, done : done + len(part)] = part.T
        done += len(part)
    np.fill_diagonal(table, np.inf)
    return table


def _columns(ready: Prepared, layout: Layout, filled: Array) -> dict[str, Array | None]:
    rows = ready.rows[layout.order]
    return {
        "rows": rows,
        "norms": np.einsum("ij,ij->i", rows, rows),
        "starts": np.append(layout.starts[filled], len(rows)),
        "weights": layout.weights,
    }


def _over_groups(kernel: Any, asked: Array, arrays: Any, most: int) -> Iterator[Any]:
    """Run a kernel on some groups, up to `most` at once but none in two parts."""
    starts = arrays["starts"]
    counts = starts[asked + 1] - starts[asked]

    def chunks() -> Iterator[Array]:
        first = 0
        while first < len(asked):
            ends = np.cumsum(counts[first : first + most])
            several = max(1, int(np.searchsorted(ends, _ROWS, side="right")))
            yield asked[first : first + several, None]
            first += several

    stream = Stream(chunks, dim=1, dtype=np.int64, rows=len(asked))
    yield from job().map(kernel, stream, arrays)


def _nearest(
    chunk: Array,
    *,
    rows: Array,
    norms: Array,
    starts: Array,
    weights: Array | None,
    cosine: bool,
    k: int,
) -> tuple[Array, Array, Array]:
    asked = chunk[:, 0]
    lowest = Lowest(len(asked), k, np.float64)
    for first, far in _far(asked, 0, rows, norms, starts, weights, cosine):
        inside = (asked >= first) & (asked < first + far.shape[1])
        far[np.flatnonzero(inside), asked[inside] - first] = np.inf
        lowest.take(far, first)
    return lowest.rows(), lowest.scores[:, :k], lowest.bound()


def _part_of_table(
    chunk: Array,
    *,
    rows: Array,
    norms: Array,
    starts: Array,
    weights: Array | None,
    cosine: bool,
) -> Array:
    asked = chunk[:, 0]
    parts = [far for _, far in _far(asked, int(asked[0]), rows, norms, starts, weights, cosine)]
    return np.concatenate(parts, axis=1)


def _far(
    asked: Array,
    begin: int,
    rows: Array,
    norms: Array,
    starts: Array,
    weights: Array | None,
    cosine: bool,
) -> Iterator[tuple[int, Array]]:
    """Yield the distances of some groups to the groups from `begin` on, some at a time."""
    own = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in asked.tolist()])
    lines = np.concatenate([[0], np.cumsum(starts[asked + 1] - starts[asked])])
    last = len(starts) - 1
    while begin < last:
        # As many groups as have a block of rows; one may have more than that by itself.
        end = int(np.searchsorted(starts, starts[begin] + _COLUMNS, side="right")) - 1
        end = min(last, max(end, begin + 1))
        out = np.zeros((len(asked), end - begin))
        for top in range(0, len(own), _ROWS):
            some = own[top : top + _ROWS]
            above, ups = _segments(lines, top, top + len(some))
            for left in range(int(starts[begin]), int(starts[end]), _COLUMNS):
                right = min(left + _COLUMNS, int(starts[end]))
                across, ins = _segments(starts, left, right)
                table = _distances(
                    rows[some], norms[some], rows[left:right], norms[left:right], cosine
                )
                part = out[above, across.start - begin : across.stop - begin]
                if weights is None:
                    table = np.maximum.reduceat(table, ins, axis=1)
                    np.maximum(part, np.maximum.reduceat(table, ups, axis=0), out=part)
                else:
                    table *= weights[left:right]
                    if len(ins) < right - left:
                        table = np.add.reduceat(table, ins, axis=1)
                    table *= weights[some, None]
                    part += np.add.reduceat(table, ups, axis=0)
        yield begin, out
        begin = end


def _segments(starts: Array, low: int, high: int) -> tuple[slice, NDArray[np.int64]]:
    """Return which groups lie in a span of rows, and where each begins in it."""
    first = int(np.searchsorted(starts, low, side="right")) - 1
    last = int(np.searchsorted(starts, high, side="left"))
    return slice(first, last), np.maximum(starts[first:last], low) - low


def _distances(
    left: Array, own: Array, right: Array, theirs: Array, cosine: bool
) -> NDArray[np.float64]:
    table: NDArray[np.float64] = left @ right.T
    if cosine:
        np.subtract(1, table, out=table)
        return np.maximum(table, 0, out=table)
    table *= -2
    table += own[:, None]
    table += theirs
    np.maximum(table, 0, out=table)
    return np.sqrt(table, out=table)
