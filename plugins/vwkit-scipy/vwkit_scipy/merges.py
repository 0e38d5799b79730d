"""What was joined, in any order, and the tree that it makes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit.types import Array

__all__ = ["Merges"]


class Merges:
    """Joins of nodes: 0 to n − 1 are rows, n + i is what the i-th join made."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.count = 0
        self._pairs = np.empty((max(0, rows - 1), 2), np.int64)
        self._heights = np.empty(max(0, rows - 1))

    def add(self, a: Array, b: Array, heights: Array) -> NDArray[np.int64]:
        """Take note of joins, and return the nodes they make."""
        start, stop = self.count, self.count + len(a)
        self._pairs[start:stop, 0], self._pairs[start:stop, 1] = a, b
        self._heights[start:stop] = heights
        self.count = stop
        return self.rows + np.arange(start, stop)

    def tree(self, *, inversions: bool = False) -> NDArray[np.float64]:
        """Return a linkage of SciPy's form, lowest join first.

        A join that is lower than one below it, by rounding, is raised to that one's height; with
        `inversions` it is not, and the joins stay in their order.
        """
        n = self.rows
        pairs, heights = self._pairs, self._heights.copy()
        sizes = [1.0] * n
        below = [0.0] * n
        # Each join needs those before it; over lists, 200,000 take a fraction of a second.
        for i, (a, b) in enumerate(pairs.tolist()):
            height = max(float(heights[i]), below[a], below[b])
            below.append(height)
            sizes.append(sizes[a] + sizes[b])
        if not inversions:
            heights = np.array(below[n:])
        order = np.arange(n - 1) if inversions else np.argsort(heights, kind="stable")
        number = np.arange(2 * n - 1)
        number[n + order] = n + np.arange(n - 1)
        tree = np.empty((n - 1, 4))
        tree[:, :2] = np.sort(number[pairs[order]], axis=1)
        tree[:, 2] = heights[order]
        tree[:, 3] = np.array(sizes[n:])[order]
        return tree
