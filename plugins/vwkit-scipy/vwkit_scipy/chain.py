"""Joining groups whose distances are all in one table, by chains of nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit_scipy.merges import Merges

__all__ = ["chain"]

_CHECK = 1024  # joins between two looks at the job


def chain(
    table: NDArray[np.float64],
    sizes: NDArray[np.float64],
    nodes: NDArray[np.int64],
    merges: Merges,
    linkage: str,
) -> None:
    """Join all groups; the table is used up.

    Murtagh 1983, "A survey of recent advances in hierarchical clustering algorithms". SciPy's own
    begins with single rows; these are groups of any size.

    Parameters
    ----------
    table : (g, g) float64
        Distances; +inf of each to itself.
    sizes : (g,) float64
    nodes : (g,) int64
        Their numbers in the tree.
    merges : Merges
    linkage : str
        ``average``, ``complete`` or ``weighted``.
    """
    sizes, nodes = sizes.copy(), nodes.copy()
    alive = np.ones(len(table), bool)
    path: list[int] = []
    start = 0
    for count in range(len(table) - 1):
        if count % _CHECK == 0:
            job().check()
        if not path:
            while not alive[start]:
                start += 1
            path.append(start)
        while True:
            row = table[path[-1]]
            nearest = int(row.argmin())
            if len(path) > 1 and row[path[-2]] <= row[nearest]:
                break
            path.append(nearest)
        b, a = path.pop(), path.pop()
        height = table[a, b]
        if linkage == "complete":
            joined = np.maximum(table[a], table[b])
        elif linkage == "weighted":
            joined = (table[a] + table[b]) / 2
        else:
            joined = (sizes[a] * table[a] + sizes[b] * table[b]) / (sizes[a] + sizes[b])
        joined[a] = joined[b] = np.inf
        table[a], table[:, a] = joined, joined
        table[b], table[:, b] = np.inf, np.inf
        one = np.array([height])
        nodes[a] = merges.add(nodes[a : a + 1], nodes[b : b + 1], one)[0]
        sizes[a] += sizes[b]
        alive[b] = False
