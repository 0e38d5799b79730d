"""A hierarchical clusterer that is right, with all that the suite looks at."""

from __future__ import annotations

from typing import Annotated, Literal

import annotated_types
import numpy as np

import vwkit
from vwkit.reference import agglomerative as reference


@vwkit.backend("joined")
class Joined(vwkit.Clusterer):
    """The reference behind the interface; slow."""

    supports_predict = False
    has_centers = False
    fixed_k = False
    hierarchical = True
    deterministic = True
    late = frozenset({"similarity", "scale", "min_size"})

    linkage: Literal["single", "complete", "average", "weighted", "ward"] = "average"
    similarity: vwkit.Fraction = 0.5
    scale: Literal["diameter", "root"] = "diameter"
    min_size: Annotated[int, annotated_types.Ge(1)] = 2

    def _fit(self, data, weights):
        # Of so many rows the tree is not drawn up to the last join: the reference is slow.
        self.tree = self._tree(data)
        self.diameter = float(self._apart(data).max())
        self.objective = []

    def _tree(self, data):
        return _quick(self._apart(data), self.linkage)

    def _apart(self, data):
        return reference.row_distances(data, "euclidean")

    @property
    def labels(self):
        return reference.cut(self.tree, self._height(), self.min_size)

    def _height(self):
        largest = self.tree[:, 2].max(initial=0) if self.scale == "root" else self.diameter
        return (1 - self.similarity) * largest


def _quick(table, linkage):
    """Join as the reference does, with a table instead of a dict; for a thousand rows too."""
    n = len(table)
    table = np.array(table)
    np.fill_diagonal(table, np.inf)
    number, sizes = np.arange(n), np.ones(n)
    nearest = table.min(axis=1, initial=np.inf)
    tree = np.empty((n - 1, 4))
    for step in range(n - 1):
        a = int(nearest.argmin())
        b = int(table[a].argmin())
        height, p, q = table[a, b], sizes[a], sizes[b]
        tree[step] = min(number[a], number[b]), max(number[a], number[b]), height, p + q
        table[a] = _updated(table[a], table[b], height, p, q, sizes, linkage)
        table[:, a] = table[a]
        table[a, a] = np.inf
        table[b] = table[:, b] = np.inf
        sizes[a], number[a] = p + q, n + step
        nearest = table.min(axis=1)
    return tree


def _updated(to_a, to_b, height, p, q, sizes, linkage):
    if linkage == "single":
        return np.minimum(to_a, to_b)
    if linkage == "complete":
        return np.maximum(to_a, to_b)
    if linkage == "average":
        return (p * to_a + q * to_b) / (p + q)
    if linkage == "weighted":
        return (to_a + to_b) / 2
    square = (p + sizes) * to_a**2 + (q + sizes) * to_b**2 - sizes * height**2
    return np.sqrt(np.maximum(0, square / (p + q + sizes)))
