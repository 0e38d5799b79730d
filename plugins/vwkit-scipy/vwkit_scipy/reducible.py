"""Exact trees in memory that grows with the rows only, where groups have means.

The distance of two groups is worked out from what is known of each: its mean wᵢ, its number of rows
sᵢ and how far its rows lie around the mean, vᵢ. With g the squared distance,

* ward: g = 2·sᵢ·sⱼ / (sᵢ + sⱼ)·‖wᵢ − wⱼ‖²;
* the mean of squared distances (average, weighted): g = ‖wᵢ − wⱼ‖² + vᵢ + vⱼ. For unit vectors u
  with v = 0 (and v = 1 for a zero vector) g / 2 is the mean of the cosine distances 1 − uᵢ·uⱼ.

All of them are *reducible*: joining two groups brings none nearer to a third than the nearer of the
two was. So every pair of groups that are each other's nearest is joined at once (Murtagh 1983, "A
survey of recent advances in hierarchical clustering algorithms"; Sumengen et al. 2021, "Scaling
hierarchical agglomerative clustering to billion-sized datasets"), and whatever is not among the
nearest k of a group stays as far away as it was: each group keeps a short list of neighbours, and is
compared with all others only when its list has run out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.stream import row_spans
from vwkit.types import Array
from vwkit_scipy.lists import Lists
from vwkit_scipy.merges import Merges
from vwkit_scipy.neighbours import candidates

__all__ = ["NEIGHBOURS", "Groups", "join"]

NEIGHBOURS = 16
_FEW = 0.7  # when so many places are left in use, the others are left away
_NUMBERS = 1 << 20  # held at once for pairs


@dataclass
class Groups:
    """Groups of rows.

    Attributes
    ----------
    means : (n, d) float64
    around : (n,) float64
        v.
    sizes : (n,) float64
    nodes : (n,) int64
        Their numbers in the tree.
    """

    means: NDArray[np.float64]
    around: NDArray[np.float64]
    sizes: NDArray[np.float64]
    nodes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.nodes)

    def kept(self, chosen: Array) -> Groups:
        """Return some of them."""
        return Groups(
            self.means[chosen], self.around[chosen], self.sizes[chosen], self.nodes[chosen]
        )


def join(groups: Groups, lists: Lists, merges: Merges, linkage: str) -> None:
    """Join groups until one is left.

    Parameters
    ----------
    groups : Groups
        They are used up.
    lists : Lists
        The nearest of each, with ‖wᵢ − wⱼ‖² + vᵢ + vⱼ for a distance. They are used up.
    merges : Merges
        Takes note of what was joined, at which g.
    linkage : str
        ``ward``, ``average`` or ``weighted``.
    """
    total = left = len(groups)
    if linkage == "ward":
        # The sizes make them larger, and no less than they were.
        sizes = groups.sizes[:, None], groups.sizes[lists.near]
        lists.far *= 2 * sizes[0] * sizes[1] / (sizes[0] + sizes[1])
    alive = np.ones(left, bool)
    current = job()
    while left > 1:
        current.progress(total - left, total - 1, "joins")
        _settle(groups, lists, alive, linkage)
        best = lists.far.min(axis=1)
        # Of equal ones the first, so that a circle of equal distances cannot come up.
        nearest = np.where(lists.far == best[:, None], lists.near, len(alive)).min(axis=1)
        nearest[~alive] = 0
        a = _mutual(best, nearest, alive)
        b = nearest[a]
        _merge(groups, lists, merges, linkage, a, b, best[a])
        alive[b] = False
        left -= len(a)
        if left < _FEW * len(alive):
            groups, lists = _compact(groups, lists, alive)
            alive = np.ones(left, bool)
    current.progress(total - 1, total - 1, "joins")


def _settle(groups: Groups, lists: Lists, alive: Array, linkage: str) -> None:
    """See to it that the nearest of every list is the nearest of all."""
    asked = np.flatnonzero(alive & ~(lists.far.min(axis=1) <= lists.bound))
    if not len(asked):
        return
    places = np.flatnonzero(alive)
    back = np.full(len(alive), -1)
    back[places] = np.arange(len(places))
    ward, wide = linkage == "ward", min(lists.near.shape[1], len(places) - 1)
    means, sizes = groups.means[places], groups.sizes[places]
    # What float32 cannot tell apart, float64 may.
    for dtype in (np.float32, np.float64):
        around = groups.around[places] * (not ward)
        weights = sizes if ward else None
        found = candidates(back[asked], means, around, weights, wide, dtype=dtype)
        near = np.where(found.rows >= 0, places[found.rows], asked[:, None])
        g = _pairs(groups, np.repeat(asked, wide), near.ravel(), linkage).reshape(near.shape)
        g[near == asked[:, None]] = np.inf
        _put(lists, asked, near, g, found.bound)
        asked = asked[~(g.min(axis=1) <= found.bound)]
        if not len(asked):
            return
    for start, stop in row_spans(len(asked), max(1, _NUMBERS // len(places))):
        _exactly(groups, lists, asked[start:stop], places, linkage)


def _put(lists: Lists, asked: Array, near: Array, g: Array, bound: Array) -> None:
    wide = near.shape[1]
    lists.near[asked, :wide], lists.far[asked, :wide] = near, g
    lists.far[asked, wide:] = np.inf
    lists.bound[asked] = bound


def _exactly(groups: Groups, lists: Lists, asked: Array, places: Array, linkage: str) -> None:
    """Fill lists pair by pair, where many are as near as the nearest."""
    table = np.empty((len(asked), len(places)))
    for line, one in enumerate(asked.tolist()):
        table[line] = _pairs(groups, np.full(len(places), one), places, linkage)
    table[asked[:, None] == places] = np.inf
    k = min(lists.near.shape[1], len(places) - 1)
    order = np.argsort(table, axis=1, kind="stable")[:, : k + 1]
    g = np.take_along_axis(table, order, axis=1)
    _put(lists, asked, places[order[:, :k]], g[:, :k], g[:, k])


def _pairs(groups: Groups, a: Array, b: Array, linkage: str) -> NDArray[np.float64]:
    """Return g of pairs of groups, the same in both orders."""
    out = np.empty(len(a))
    for start, stop in row_spans(len(a), max(1, _NUMBERS // groups.means.shape[1])):
        apart = groups.means[a[start:stop]] - groups.means[b[start:stop]]
        out[start:stop] = np.einsum("ij,ij->i", apart, apart)
    if linkage == "ward":
        p, q = groups.sizes[a], groups.sizes[b]
        out *= 2 * p * q / (p + q)
        return out
    return out + (groups.around[a] + groups.around[b])


def _mutual(best: Array, nearest: Array, alive: Array) -> NDArray[np.int64]:
    """Return one of each pair that are each other's nearest."""
    line = np.arange(len(best))
    a = np.flatnonzero(alive & (nearest[nearest] == line) & (line < nearest))
    if len(a):
        return a
    # Rounding may leave none; the nearest pair of all is one for certain.
    return np.array([int(np.where(alive, best, np.inf).argmin())])


def _merge(
    groups: Groups,
    lists: Lists,
    merges: Merges,
    linkage: str,
    a: Array,
    b: Array,
    g: NDArray[np.float64],
) -> None:
    """Put the groups `b` into the places of the groups `a`."""
    n = len(groups)
    p, q = groups.sizes[a], groups.sizes[b]
    share = np.full(len(a), 0.5) if linkage == "weighted" else q / (p + q)
    apart = groups.means[b] - groups.means[a]
    if linkage != "ward":
        spread = share * (1 - share) * np.einsum("ij,ij->i", apart, apart)
        groups.around[a] = (1 - share) * groups.around[a] + share * groups.around[b] + spread
    groups.means[a] += share[:, None] * apart
    groups.sizes[a] = p + q
    groups.nodes[a] = merges.add(groups.nodes[a], groups.nodes[b], g)

    moved = np.arange(n)
    moved[b] = a
    changed = np.zeros(n, bool)
    changed[a] = True
    lists.near[:] = moved[lists.near]
    # Lists of others: what was joined is as far away as it is now.
    hit = changed[lists.near] & np.isfinite(lists.far)
    hit[a] = hit[b] = False
    line, column = np.nonzero(hit)
    lists.far[line, column] = _pairs(groups, line, lists.near[line, column], linkage)
    # Their own: both lists together, each group once.
    near = np.concatenate([lists.near[a], lists.near[b]], axis=1)
    known = np.isfinite(np.concatenate([lists.far[a], lists.far[b]], axis=1)) & (near != a[:, None])
    near = np.sort(np.where(known, near, n), axis=1)
    known = near < n
    known[:, 1:] &= near[:, 1:] != near[:, :-1]
    fresh = np.full(near.shape, np.inf)
    line, column = np.nonzero(known)
    fresh[line, column] = _pairs(groups, a[line], near[line, column], linkage)
    k = lists.near.shape[1]
    order = np.argsort(fresh, axis=1, kind="stable")
    fresh = np.take_along_axis(fresh, order, axis=1)
    near = np.take_along_axis(near, order, axis=1)
    lists.far[a], lists.near[a] = fresh[:, :k], np.where(near[:, :k] < n, near[:, :k], a[:, None])
    lists.bound[a] = np.minimum(np.minimum(lists.bound[a], lists.bound[b]), fresh[:, k])
    lists.far[b] = np.inf


def _compact(groups: Groups, lists: Lists, alive: Array) -> tuple[Groups, Lists]:
    """Leave away the places of groups that are no more."""
    place = np.cumsum(alive) - 1
    near = np.where(np.isfinite(lists.far[alive]), place[lists.near[alive]], 0)
    return groups.kept(alive), Lists(near, lists.far[alive], lists.bound[alive])
