"""The nearest center of new rows: among the members of the nearest groups, then along the graph.

The search in groups is that of inverted lists (Jégou, Douze, Schmid 2011, "Product quantization for
nearest neighbor search"), but group by group for many rows at once, so that it runs at the speed of
a matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.stream import Stream, row_spans
from vwkit_numba.coarse import Coarse
from vwkit_numba.graph import Graph
from vwkit_numba.marks import Mark
from vwkit_numba.passes import Frame, Passes, inner, padded_lists
from vwkit_numba.totals import Tally

if TYPE_CHECKING:
    from vwkit_numba.graph_kmeans import GraphClusterer

__all__ = ["everywhere", "predict", "walk"]

# Rows that are looked at together: what is kept of them meanwhile takes probes·4 bytes each.
_ROWS = 1 << 18
# Centers that rows are compared with at once when it is to be all: they stay in the second cache.
_CENTERS = 1024


def predict(fitted: GraphClusterer, data: Any) -> NDArray[np.int32]:
    """Return the labels of rows (n, d), each found by itself."""
    frame = fitted._frame()
    passes = Passes(Stream.from_array(data), None, frame, job(), 0)
    labels = np.zeros(len(data), np.int32)
    if len(data) == 0:
        return labels
    if fitted._ready is None:
        centers = fitted.centers if frame.book is None else frame.vectors(fitted.centers)
        fitted._ready = inner(centers, frame)
    moved, half = fitted._ready
    coarse = Coarse(fitted._coarse, fitted._members, fitted._starts)
    graph = Graph(fitted._lists, np.zeros((len(moved) - 1, 0), np.int32))
    try:
        gaps = np.empty(len(data), np.float32)
        walk(passes, moved, half, coarse, graph, labels, gaps, fitted.probes)
    finally:
        passes.close()
    return labels


def walk(
    passes: Passes,
    centers: NDArray[np.float32],
    half: NDArray[np.float32],
    coarse: Coarse,
    graph: Graph,
    labels: NDArray[np.int32],
    gaps: NDArray[np.float32],
    probes: int,
    mark: Mark | None = None,
) -> None:
    """Label all rows: by the members of the nearest groups, then along the graph.

    Parameters
    ----------
    probes : int
        Groups whose members each row is compared with.
    mark : Mark, optional
        Tells where to begin, and is told how far it is.
    """
    arrays = {
        "centers": centers,
        "half": half,
        "coarse": coarse,
        "graph": graph,
        "probes": probes,
    }
    mark = mark or Mark()
    for _ in passes.run(_walked, arrays, write=(labels, gaps), mark=mark, rows=_ROWS):
        passes.job.check()


def _walked(
    passes: Passes,
    labels: NDArray[np.int32],
    gaps: NDArray[np.float32],
    *,
    centers: NDArray[np.float32],
    half: NDArray[np.float32],
    coarse: Coarse,
    graph: Graph,
    probes: int,
) -> None:
    k, count = len(centers) - 1, len(coarse.centers)
    frame = Frame(np.zeros(coarse.centers.shape[1], np.float32), 1.0, False)
    of_groups, group_half = inner(coarse.centers, frame)
    padding = -(-count // 4) * 4 - count
    of_groups = np.concatenate([of_groups[:-1], np.zeros((padding, frame.wide), np.float32)])
    group_half = np.concatenate([group_half[:-1], np.full(padding, group_half[-1], np.float32)])
    members, neighbours = coarse.lists(k), graph.as_lists()
    for start, block in passes.parts():
        for first, last in row_spans(len(block), _ROWS):
            part = passes.over(block[first:last], start + first)
            here = slice(start + first, start + last)
            groups = part.nearest_groups(of_groups, group_half, min(probes, count))
            for probe, column in enumerate(np.ascontiguousarray(groups.T)):
                part.assign(
                    column, count, members, centers, half, labels[here], gaps[here], keep=probe > 0
                )
            part.assign(labels[here], k, neighbours, centers, half, labels[here], gaps[here])
            passes.job.check()


def everywhere(
    passes: Passes,
    centers: NDArray[np.float32],
    half: NDArray[np.float32],
    labels: NDArray[np.int32],
    gaps: NDArray[np.float32],
    touched: NDArray[np.bool_],
    mark: Mark | None = None,
) -> int:
    """Label all rows by the nearest of all centers, as float32 tells; return how many change."""
    arrays = {"centers": centers, "half": half}
    mark = mark or Mark()
    state = {"change": (labels,), "write": (gaps,)}
    for tally in passes.run(_compared, arrays, **state, unit="rows", mark=mark, rows=_ROWS):
        mark.changed += tally.changed
        tally.mark(touched)
    return mark.changed


def _compared(
    passes: Passes,
    labels: NDArray[np.int32],
    gaps: NDArray[np.float32],
    *,
    centers: NDArray[np.float32],
    half: NDArray[np.float32],
) -> Tally:
    k, changed = len(centers) - 1, 0
    touched = np.zeros(k, np.bool_)
    pieces = [padded_lists([np.arange(first, last)], k) for first, last in row_spans(k, _CENTERS)]
    for start, block in passes.parts():
        for first, last in row_spans(len(block), _ROWS):
            part = passes.over(block[first:last], start + first)
            here = slice(start + first, start + last)
            everyone, before = np.zeros(last - first, np.int32), labels[here].copy()
            for piece in pieces:
                part.assign(everyone, 1, piece, centers, half, labels[here], gaps[here], keep=True)
            other = before != labels[here]
            touched[before[other]] = touched[labels[here][other]] = True
            changed += int(other.sum())
            passes.job.check()
    return Tally.of(changed, touched)
