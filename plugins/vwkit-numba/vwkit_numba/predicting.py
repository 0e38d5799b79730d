"""The nearest center of new rows: from the nearest group along the graph of the centers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit_numba.coarse import Coarse
from vwkit_numba.graph import Graph
from vwkit_numba.passes import Frame, Passes, inner, padded_lists

if TYPE_CHECKING:
    from vwkit_numba.graph_kmeans import GraphKMeans

__all__ = ["predict", "walk"]

_ROUNDS = 30


def predict(fitted: GraphKMeans, data: Any) -> NDArray[np.int32]:
    """Return the labels of rows (n, d), each found by itself."""
    frame = Frame(fitted._shift, float(fitted._scale), fitted.spherical)
    passes = Passes(Stream.from_array(data), None, frame, job(), 0)
    labels = np.zeros(len(data), np.int32)
    if len(data) == 0:
        return labels
    if fitted._ready is None:
        fitted._ready = inner(fitted.centers, frame)
    moved, half = fitted._ready
    coarse = Coarse(fitted._coarse, fitted._members, fitted._starts)
    graph = Graph(fitted._lists, np.zeros((len(moved) - 1, 0), np.int32))
    try:
        walk(passes, moved, half, coarse, graph, labels, np.empty(len(data), np.float32))
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
) -> None:
    """Label all rows: by the nearest group, by its members, then by neighbours until none is nearer."""
    k = len(centers) - 1
    groups = np.zeros(len(labels), np.int32)
    inner_frame = Frame(np.zeros(coarse.centers.shape[1], np.float32), 1.0, False)
    of_groups, group_half = inner(coarse.centers, inner_frame)
    count = len(coarse.centers)
    everyone = padded_lists([np.arange(count)], count)
    passes.assign(
        np.zeros(len(labels), np.int32),
        1,
        everyone,
        of_groups,
        group_half,
        groups,
        gaps,
    )
    passes.assign(groups, count, coarse.lists(k), centers, half, labels, gaps)
    lists = graph.as_lists()
    open_ = labels
    for _ in range(_ROUNDS):
        before = labels.copy()
        passes.assign(open_, k, lists, centers, half, labels, gaps)
        # Rows that stayed where they were are settled.
        open_ = np.where(labels == before, np.int32(-1), labels)
        if (open_ < 0).all():
            break
