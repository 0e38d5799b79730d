"""The graph of centers: for each, itself and its nearest, kept up to date as they move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vwkit_numba.coarse import Coarse
from vwkit_numba.passes import Lists, Passes

__all__ = ["Graph", "build", "renew"]

_NEAR = 3
# A center is compared with at least this many in its own and neighbouring groups.
_CANDIDATES = 1500
_CANDIDATES_PER_NEIGHBOUR = 12
_GROUPS = 12  # and those of this many groups


@dataclass(frozen=True)
class Graph:
    """Neighbours of each center.

    Attributes
    ----------
    lists : (k, κ) int32
        Itself and its κ − 1 nearest, by number; k where there are no more.
    near : (k, 3) int32
        The three nearest others, the nearest first.
    """

    lists: NDArray[np.int32]
    near: NDArray[np.int32]

    def as_lists(self) -> Lists:
        """Return the lists for an assignment."""
        k, width = self.lists.shape
        return Lists(self.lists.reshape(-1), np.arange(k + 1, dtype=np.int64) * width)


def build(
    passes: Passes,
    centers: NDArray[np.float32],
    half: NDArray[np.float32],
    coarse: Coarse,
    neighbours: int,
) -> Graph:
    """Find the neighbours of each center among those of the nearest groups.

    Parameters
    ----------
    centers, half : from `passes.inner`
    coarse : Coarse
        Of these centers.
    neighbours : int
        κ, a multiple of four.
    """
    from vwkit_numba import graph_kernels

    k = len(centers) - 1
    width = min(neighbours, -(-k // 4) * 4)
    lists = np.full((k, width), k, np.int32)
    near = np.empty((k, _NEAR), np.int32)
    wanted = max(_CANDIDATES, _CANDIDATES_PER_NEIGHBOUR * width, k // len(coarse.centers) * _GROUPS)
    members = np.split(coarse.members, coarse.starts[1:-1])
    if k <= wanted:
        everyone = np.arange(k, dtype=np.int32)

        def part(a: int, b: int) -> None:
            graph_kernels.nearest_of_many(centers, half, everyone[a:b], everyone, lists, near)

        passes.spread(part, passes.even(k))
        return Graph(lists, near)
    sizes = np.diff(coarse.starts)
    wide = coarse.centers.astype(np.float64)

    def group(a: int, b: int) -> None:
        for g in range(a, b):
            # No matrix product: its rounding may depend on the threads of the BLAS.
            order = np.argsort(np.square(wide - wide[g]).sum(axis=1), kind="stable")
            enough = int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1
            found = np.sort(np.concatenate([members[other] for other in order[:enough]]))
            graph_kernels.nearest_of_many(centers, half, members[g], found, lists, near)

    passes.spread(group, np.arange(len(members) + 1))
    return Graph(lists, near)


def renew(
    passes: Passes,
    graph: Graph,
    centers: NDArray[np.float32],
    half: NDArray[np.float32],
    pairs: NDArray[np.int64],
    which: NDArray[np.bool_],
) -> Graph:
    """Renew lists after the centers moved.

    Each center is compared with those of its own list and of its nearest three's lists.

    Parameters
    ----------
    pairs : (p, 2) int64
        Centers that were moved beside others: who, and beside whom.
    which : (k,) bool
        The lists to be renewed; the others stay.
    """
    from vwkit_numba import graph_kernels

    k = len(graph.lists)
    source = np.arange(k, dtype=np.int32)
    twin = np.full(k, -1, np.int32)
    source[pairs[:, 0]] = pairs[:, 1]
    twin[pairs[:, 1]] = pairs[:, 0]
    lists, near = np.empty_like(graph.lists), np.empty_like(graph.near)

    def part(a: int, b: int) -> None:
        graph_kernels.refresh(
            centers, half, graph.lists, graph.near, source, twin, which, a, b, lists, near
        )

    passes.spread(part, passes.even(k))
    return Graph(lists, near)
