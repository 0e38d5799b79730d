"""Exact trees of as many rows as their distances fit into memory: by SciPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit.types import Array
from vwkit_scipy.distances import condensed, prepared

__all__ = ["in_memory"]

#: Whose heights are never larger than the largest distance, but for rounding.
_WITHIN = ("single", "complete", "average", "weighted")


def in_memory(data: Array, linkage: str, distance: str) -> tuple[NDArray[np.float64], float]:
    """Return the tree, a linkage of SciPy's form, and the largest distance of two rows."""
    ready = prepared(data, distance)
    if len(data) == 1:
        return np.empty((0, 4)), 0.0
    table, largest = condensed(ready)
    from scipy.cluster import hierarchy

    tree: NDArray[np.float64] = hierarchy.linkage(table, linkage)
    if linkage in _WITHIN:
        np.minimum(tree[:, 2], largest, out=tree[:, 2])
    tree[:, 2] *= ready.scale
    return tree, largest * ready.scale
