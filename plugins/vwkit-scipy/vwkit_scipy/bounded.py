"""Exact trees in memory that grows with the rows, not with their pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit.types import Array
from vwkit_scipy import centroids, members, reducible, spanning
from vwkit_scipy.distances import SAME_DIRECTION, Prepared, prepared
from vwkit_scipy.lists import Lists, extra, nearest_lists
from vwkit_scipy.merges import Merges

__all__ = ["bounded"]

_OF_MEANS = ("ward", "centroid", "median")
_INVERSIONS = ("centroid", "median")


def bounded(
    data: Array, linkage: str, distance: str, table_rows: int
) -> tuple[NDArray[np.float64], float]:
    """Return the tree, a linkage of SciPy's form, and the largest distance of two rows.

    Parameters
    ----------
    data : (n, d)
    linkage, distance : str
    table_rows : int
        Of how many groups a table of distances fits into memory.

    Raises
    ------
    DataError
        The numbers are so large that distances overflow.
    """
    merges = Merges(len(data))
    ready, sizes, nodes = _distinct(prepared(data, distance), merges)
    by_means = linkage in _OF_MEANS or (ready.cosine and linkage in ("average", "weighted"))
    largest = 0.0
    if len(sizes) > 1:
        if linkage == "single":
            lists, largest = nearest_lists(ready, spanning.NEIGHBOURS)
            spanning.join_single(ready, lists, nodes, merges)
        elif linkage in _INVERSIONS:
            lists, largest = _squared(ready, centroids.NEIGHBOURS)
            centroids.join_centroids(ready.rows, sizes, nodes, lists, merges, linkage)
        elif by_means:
            lists, largest = _squared(ready, reducible.NEIGHBOURS)
            groups = reducible.Groups(ready.rows, extra(ready), sizes, nodes)
            reducible.join(groups, lists, merges, linkage)
        else:
            lists, largest = nearest_lists(ready, members.NEIGHBOURS)
            members.join_members(ready, lists, sizes, nodes, merges, linkage, table_rows)
    tree = merges.tree(inversions=linkage in _INVERSIONS)
    heights = tree[:, 2]
    if by_means and ready.cosine:
        heights /= 2
    elif by_means:
        np.sqrt(heights, out=heights)
    if ready.cosine:
        heights[heights < SAME_DIRECTION] = 0
    if linkage not in _OF_MEANS:
        np.minimum(heights, largest, out=heights)  # but for rounding
    heights *= ready.scale
    return tree, largest * ready.scale


def _squared(ready: Prepared, k: int) -> tuple[Lists, float]:
    """Return lists with ‖u − v‖² + e + e for a distance, which of unit vectors is 2·(1 − u·v)."""
    lists, largest = nearest_lists(ready, k)
    for array in (lists.far, lists.bound):
        if ready.cosine:
            array *= 2
        else:
            array **= 2
    return lists, largest


def _distinct(
    ready: Prepared, merges: Merges
) -> tuple[Prepared, NDArray[np.float64], NDArray[np.int64]]:
    """Join equal rows at height 0; return the distinct ones, how often each occurs, and nodes."""
    rows = ready.rows + 0.0  # −0 is 0
    n = len(rows)
    as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    group = np.unique(as_bytes, return_inverse=True)[1]
    if ready.cosine:
        zero = np.flatnonzero(ready.zero)  # as far from each other as from the rest
        group[zero] = n + np.arange(len(zero))
    _, first, group, counts = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    nodes, own = np.arange(n), group
    nodes = nodes[np.argsort(group, kind="stable")]
    own = np.sort(group)
    while len(nodes) > len(first):
        # Two by two: the first and second of each group, the third and fourth, …
        begins = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
        place = np.arange(len(own)) - np.repeat(begins, np.diff(np.r_[begins, len(own)]))
        second = np.flatnonzero(place % 2 == 1)
        nodes[second - 1] = merges.add(nodes[second - 1], nodes[second], np.zeros(len(second)))
        nodes, own = np.delete(nodes, second), np.delete(own, second)
    return ready.take(first[order]), counts[order].astype(np.float64), nodes[order]
