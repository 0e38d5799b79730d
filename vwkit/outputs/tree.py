"""A linkage as a tree to draw: the order of its leaves, its top, and what a cut gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError

__all__ = ["Shown", "Tree", "cut_sizes", "full_height", "lowest_cut", "read_tree", "shown"]

#: The height of a single image: below every cut.
_SINGLE = -1.0


@dataclass(frozen=True)
class Tree:
    """A checked hierarchy of n rows; nodes 0 to n − 1 are rows, n + i is merge i.

    Attributes
    ----------
    children : (n − 1, 2) int64
        What each merge joins; nodes of a smaller number.
    heights : (2n − 1,) float64
        Of each node, never below that of its children; −1 of a row.
    counts : (2n − 1,) int64
        Rows below each node.
    starts : (2n − 1,) int64
        Where the rows below each node begin in `order`.
    order : (n,) int64
        The rows from left to right.
    """

    children: NDArray[np.int64]
    heights: NDArray[np.float64]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    order: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many there are: n."""
        return len(self.order)

    @property
    def top(self) -> float:
        """The height of the last merge, 0 without any."""
        return max(0.0, float(self.heights[-1]))

    def below(self, node: int, most: int | None = None) -> list[int]:
        """Return the rows below a node, from left to right, or the first of them."""
        start, count = int(self.starts[node]), int(self.counts[node])
        found: list[int] = self.order[start : start + min(count, most or count)].tolist()
        return found


def read_tree(linkage: Any, rows: int) -> Tree:
    """Check an (n − 1, 4) linkage as SciPy makes them, and lay it out.

    Where a merge is lower than one below it (centroid linkage), it is raised to that height, as for
    a cut by distance.

    Raises
    ------
    DataError
        It is not a linkage of so many rows.
    """
    table = np.asarray(linkage)
    if table.dtype.kind not in "iuf" or table.shape != (rows - 1, 4):
        raise DataError(
            f"tree: a linkage of {rows} rows has the shape ({rows - 1}, 4); got {table.shape}"
        )
    children = table[:, :2].astype(np.int64)
    good = (
        bool(np.isfinite(table).all())
        and bool((table[:, 2] >= 0).all())
        and bool((children == table[:, :2]).all())
        and bool((children >= 0).all())
        and bool((children < rows + np.arange(rows - 1)[:, None]).all())
        and len(np.unique(children)) == children.size
    )
    if not good:
        raise DataError("tree: not a linkage: each row must join two earlier nodes, each once")
    heights, counts, starts = _laid_out(children.tolist(), table[:, 2].tolist(), rows)
    order = np.empty(rows, np.int64)
    order[starts[:rows]] = np.arange(rows)
    return Tree(children, heights, counts, starts, order)


def _laid_out(
    children: list[list[int]], raw: list[float], rows: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    # Each merge needs those before it, so these are loops; over lists, 200,000 take a fraction of a
    # second.
    heights, counts = [_SINGLE] * rows, [1] * rows
    for (left, right), height in zip(children, raw, strict=True):
        heights.append(max(height, heights[left], heights[right]))
        counts.append(counts[left] + counts[right])
    starts = [0] * len(counts)
    for i in range(len(children) - 1, -1, -1):
        left, right = children[i]
        starts[left] = starts[rows + i]
        starts[right] = starts[left] + counts[left]
    return np.array(heights), np.array(counts, np.int64), np.array(starts, np.int64)


def full_height(clusterer: Any, top: float) -> float:
    """Return the height that is similarity 0, above 0.

    That is the clusterer's `diameter`, where it has one and its `scale` is not the root, else the top
    of its tree.
    """
    by_root = getattr(clusterer, "scale", "diameter") == "root"
    full = top if by_root else float(getattr(clusterer, "diameter", top))
    return full if np.isfinite(full) and full > 0 else top or 1.0


def lowest_cut(tree: Tree, labels: NDArray[np.int32]) -> float:
    """Return the height of the highest merge inside a cluster, 0 where there is none."""
    inside = labels.tolist()
    cut = 0.0
    heights = tree.heights.tolist()
    for i, (left, right) in enumerate(tree.children.tolist(), tree.rows):
        alike = inside[left] >= 0 and inside[left] == inside[right]
        inside.append(inside[left] if alike else -1)
        if alike:
            cut = max(cut, heights[i])
    return cut


@dataclass(frozen=True)
class Shown:
    """The top of a tree, as it is drawn; leaves 0 to p − 1 from top to bottom, p + i is merge i.

    Attributes
    ----------
    nodes : list of int
        The node of the whole tree that each leaf is.
    merges : list of (int, int)
        What each merge joins, those below before those above.
    heights : list of float
        Of leaves and merges; −1 for a leaf that is one row.
    places : list of float
        Where each leaf or merge is between the first leaf (0) and the last (p − 1).
    """

    nodes: list[int]
    merges: list[tuple[int, int]]
    heights: list[float]
    places: list[float]


def shown(tree: Tree, most: int) -> Shown:
    """Return the last merges of a tree, with at most so many leaves (SciPy's ``lastp``)."""
    rows, total = tree.rows, len(tree.heights)
    first = max(rows, total - (most - 1))  # merges from here on are drawn
    drawn = np.arange(first, total)
    below = tree.children[drawn - rows].ravel() if len(drawn) else np.array([total - 1])
    leaves = below[below < first]
    leaves = leaves[np.argsort(tree.starts[leaves])]
    place = {int(node): i for i, node in enumerate(leaves)}
    place.update({int(node): len(leaves) + i for i, node in enumerate(drawn)})
    merges = []
    places = [float(i) for i in range(len(leaves))]
    for left, right in tree.children[drawn - rows].tolist():
        merges.append((place[left], place[right]))
        places.append((places[place[left]] + places[place[right]]) / 2)
    heights = tree.heights[np.concatenate([leaves, drawn])].tolist()
    return Shown(leaves.tolist(), merges, heights, places)


def cut_sizes(
    tree: Tree, cuts: Sequence[float], min_size: int
) -> list[tuple[list[tuple[int, int]], int]]:
    """Return what a cut at each height gives, over the whole tree.

    Returns
    -------
    list of (sizes, alone)
        ``sizes`` are (rows in a cluster, clusters of that size), the largest first; ``alone`` counts
        the rows whose cluster would be smaller than `min_size`.
    """
    parents = np.full(len(tree.heights), np.inf)
    parents[tree.children] = tree.heights[tree.rows :, None]
    found = []
    for cut in cuts:
        # A node is a cluster from its own height to that of the merge above it.
        sizes = tree.counts[(tree.heights <= cut) & (parents > cut)]
        kept, numbers = np.unique(sizes[sizes >= min_size], return_counts=True)
        pairs = list(zip(kept[::-1].tolist(), numbers[::-1].tolist(), strict=True))
        found.append((pairs, int(sizes[sizes < min_size].sum())))
    return found
