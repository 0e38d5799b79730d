"""Exact trees of centroid and median linkage in memory that grows with the rows only.

Joining two groups may bring the result nearer to a third than either was, so pairs cannot be joined
side by side: always the nearest pair of all is next (Anderberg 1973, "Cluster analysis for
applications"; Müllner 2011, "Modern hierarchical, agglomerative clustering algorithms"). Each group
keeps a short list of neighbours and a bound for the rest; a new one is compared with all others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.types import Array
from vwkit_scipy.lists import Lists
from vwkit_scipy.merges import Merges

__all__ = ["NEIGHBOURS", "join_centroids"]

NEIGHBOURS = 8
_FEW = 0.7
_TOLD = 1024  # joins between two reports
_CLOSE = 1e-6


class _State:
    """Groups with means and lists; g is the squared distance of two means."""

    def __init__(
        self, means: Array, sizes: Array, nodes: Array, lists: Lists, linkage: str
    ) -> None:
        self.means, self.sizes, self.nodes = means, sizes, nodes
        self.near, self.g, self.bound = lists.near, lists.far, lists.bound
        self.norms = np.einsum("ij,ij->i", means, means)
        self.alive = np.ones(len(means), bool)
        self.best = self.g.min(axis=1)
        self.halves = linkage == "median"

    def next(self) -> tuple[int, int, float]:
        """Return the nearest pair."""
        while True:
            one = int(np.minimum(self.best, self.bound).argmin())
            if self.best[one] <= self.bound[one]:
                place = int(self.g[one].argmin())
                return one, int(self.near[one, place]), float(self.g[one, place])
            self._fill(one, self._apart(one))

    def _apart(self, one: int) -> NDArray[np.float64]:
        """Return g of one group and all others."""
        apart: NDArray[np.float64] = self.means @ self.means[one]
        apart *= -2
        apart += self.norms + self.norms[one]
        close = np.flatnonzero(apart < _CLOSE * (self.norms + self.norms[one]))
        differ = self.means[close] - self.means[one]
        apart[close] = np.einsum("ij,ij->i", differ, differ)
        apart[~self.alive] = np.inf
        apart[one] = np.inf
        return apart

    def _fill(self, one: int, apart: Array) -> None:
        """Make the list of one group anew."""
        k = self.near.shape[1]
        if len(apart) > k + 1:
            kept = np.argpartition(apart, k)[: k + 1]
            kept = kept[np.lexsort((kept, apart[kept]))]
        else:
            kept = np.argsort(apart, kind="stable")
        wide = min(k, len(kept))
        self.near[one, :wide], self.g[one, :wide] = kept[:wide], apart[kept[:wide]]
        self.g[one, wide:] = np.inf
        self.bound[one] = apart[kept[k]] if len(kept) > k else np.inf
        self.best[one] = self.g[one].min()

    def join(self, a: int, b: int) -> None:
        """Put group `b` into the place of group `a`."""
        p, q = self.sizes[a], self.sizes[b]
        share = 0.5 if self.halves else q / (p + q)
        self.means[a] += share * (self.means[b] - self.means[a])
        self.norms[a] = self.means[a] @ self.means[a]
        self.sizes[a] = p + q
        self.alive[b] = False
        self.g[b] = self.best[b] = self.bound[b] = np.inf
        line, column = np.nonzero((self.near == a) | (self.near == b))
        self.g[line, column] = np.inf
        apart = self._apart(a)
        self._fill(a, apart)
        # Where it is nearer than what is known to be left out, it must be in the list.
        entering = np.flatnonzero(apart < self.bound)
        worst = self.g[entering].argmax(axis=1)
        out = self.g[entering, worst]
        self.bound[entering] = np.minimum(self.bound[entering], np.maximum(out, apart[entering]))
        self.g[entering, worst] = np.minimum(out, apart[entering])
        fits = apart[entering] < out
        self.near[entering[fits], worst[fits]] = a
        for touched in (line, entering):
            self.best[touched] = self.g[touched].min(axis=1)

    def compact(self) -> None:
        """Leave away the places of groups that are no more."""
        place = np.cumsum(self.alive) - 1
        self.near = np.where(np.isfinite(self.g), place[self.near], 0)[self.alive]
        for name in ("means", "sizes", "nodes", "g", "bound", "norms", "best", "alive"):
            setattr(self, name, getattr(self, name)[self.alive])


def join_centroids(
    means: NDArray[np.float64],
    sizes: NDArray[np.float64],
    nodes: NDArray[np.int64],
    lists: Lists,
    merges: Merges,
    linkage: str,
) -> None:
    """Join groups until one is left; what is handed in is used up.

    Parameters
    ----------
    means : (n, d) float64
    sizes : (n,) float64
    nodes : (n,) int64
    lists : Lists
        The nearest of each, with squared distances.
    merges : Merges
        Takes note of what was joined, at which squared distance.
    linkage : str
        ``centroid`` or ``median``.
    """
    state = _State(means, sizes, nodes, lists, linkage)
    left = total = len(means)
    current = job()
    while left > 1:
        if left % _TOLD == 0:
            current.progress(total - left, total - 1, "joins")
        a, b, g = state.next()
        new = merges.add(state.nodes[a : a + 1], state.nodes[b : b + 1], np.array([g]))
        state.join(a, b)
        state.nodes[a] = new[0]
        left -= 1
        if left < _FEW * len(state.alive):
            state.compact()
    current.progress(total - 1, total - 1, "joins")
