"""Exact trees of average, complete and weighted linkage in bounded memory.

The distance of two groups is the mean (or the largest) of the distances of their rows, which no
number about each group tells. So a group keeps a short list of its nearest groups, as in
`vwkit_scipy.reducible`, and:

* when two groups are joined, the distance to a third that is in both their lists follows from the
  two (Lance and Williams 1967, "A general theory of classificatory sorting strategies"); one that is
  in one list only is left away, and of what is left away it is known how far it is at least;
* a group whose list has run out is compared with all rows, by blocks of products;
* once so few groups are left that a table of all their distances fits, it is made by one pass over
  all pairs of rows, and the rest is joined in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.types import Array
from vwkit_scipy.chain import chain
from vwkit_scipy.distances import Prepared
from vwkit_scipy.lists import Lists
from vwkit_scipy.merges import Merges
from vwkit_scipy.passes import Layout, nearest_groups, table_of

__all__ = ["NEIGHBOURS", "join_members"]

NEIGHBOURS = 32
_LAST = np.iinfo(np.int64).max


@dataclass
class _Groups:
    """Groups of rows, each with the list of its nearest.

    Attributes
    ----------
    group : (n,) int64
        The place of each row's group.
    weights : (n,) float64
        What each row counts in it.
    sizes : (g,) float64
    nodes : (g,) int64
        Their numbers in the tree.
    alive : (g,) bool
    near, far : (g, k) int64 and float64
        Places of other groups, and their distances; +inf where there is none.
    bound : (g,) float64
        No group that is not in the list is nearer.
    """

    group: NDArray[np.int64]
    weights: NDArray[np.float64]
    sizes: NDArray[np.float64]
    nodes: NDArray[np.int64]
    alive: NDArray[np.bool_]
    near: NDArray[np.int64]
    far: NDArray[np.float64]
    bound: NDArray[np.float64]

    def compact(self) -> None:
        """Leave away the places of groups that are no more."""
        place = np.cumsum(self.alive) - 1
        self.group = place[self.group]
        self.near = np.where(np.isfinite(self.far), place[self.near], 0)[self.alive]
        for name in ("sizes", "nodes", "far", "bound", "alive"):
            setattr(self, name, getattr(self, name)[self.alive])


def join_members(
    ready: Prepared,
    lists: Lists,
    sizes: NDArray[np.float64],
    nodes: NDArray[np.int64],
    merges: Merges,
    linkage: str,
    table_rows: int,
) -> None:
    """Join rows until one group is left.

    Parameters
    ----------
    ready : Prepared
        Distinct rows.
    lists : Lists
        The nearest `NEIGHBOURS` of each; they are used up.
    sizes : (n,) float64
        How often each occurs.
    nodes : (n,) int64
        Their numbers in the tree.
    merges : Merges
        Takes note of what was joined.
    linkage : str
        ``average``, ``complete`` or ``weighted``.
    table_rows : int
        Of how many groups a table of distances fits into memory.
    """
    n = len(ready.rows)
    weights = sizes if linkage == "average" else np.ones(n)
    groups = _Groups(
        np.arange(n),
        weights.copy(),
        sizes.copy(),
        nodes.copy(),
        np.ones(n, bool),
        lists.near,
        lists.far,
        lists.bound,
    )
    current = job()
    left = n
    while left > table_rows:
        current.progress(n - left, n, "joins")
        _settle(ready, groups, linkage)
        a, b, far = _mutual(groups)
        _merge(groups, merges, linkage, a, b, far)
        left -= len(a)
        if left < 0.7 * len(groups.alive):
            groups.compact()
    groups.compact()
    layout = Layout.of(groups.group, groups.weights, groups.sizes, linkage)
    chain(table_of(ready, layout), groups.sizes, groups.nodes, merges, linkage)
    current.progress(n, n, "joins")


def _settle(ready: Prepared, groups: _Groups, linkage: str) -> None:
    """See to it that the nearest of every list is the nearest of all."""
    asked = np.flatnonzero(groups.alive & ~(groups.far.min(axis=1) <= groups.bound))
    if not len(asked):
        return
    groups_of = Layout.of(groups.group, groups.weights, groups.sizes, linkage)
    near, far, bound = nearest_groups(ready, groups_of, asked, groups.near.shape[1])
    wide = near.shape[1]
    groups.near[asked, :wide], groups.far[asked, :wide] = near, far
    groups.far[asked, wide:] = np.inf
    groups.bound[asked] = bound


def _mutual(groups: _Groups) -> tuple[Array, Array, Array]:
    """Return pairs that are each other's nearest, and how far they are apart."""
    line = np.arange(len(groups.alive))
    best = groups.far.min(axis=1)
    # Of equal ones the first, so that a circle of equal distances cannot come up.
    nearest = np.where(groups.far == best[:, None], groups.near, len(line)).min(axis=1)
    nearest[~groups.alive] = 0
    a = np.flatnonzero(groups.alive & (nearest[nearest] == line) & (line < nearest))
    if not len(a):
        # Rounding may leave none; the nearest pair of all is one for certain.
        one = int(np.where(groups.alive, best, np.inf).argmin())
        pair = sorted((one, int(nearest[one])))
        return np.array(pair[:1]), np.array(pair[1:]), best[[one]]
    return a, nearest[a], best[a]


def _merge(
    groups: _Groups, merges: Merges, linkage: str, a: Array, b: Array, far: NDArray[np.float64]
) -> None:
    """Put the groups `b` into the places of the groups `a`."""
    p, q = groups.sizes[a], groups.sizes[b]
    share = np.full(len(a), 0.5) if linkage == "weighted" else q / (p + q)

    # The lists of the joined, each of both lists, to what there was before.
    near = np.concatenate([groups.near[a], groups.near[b]], axis=1)
    g = np.concatenate([groups.far[a], groups.far[b]], axis=1)
    g[(near == a[:, None]) | (near == b[:, None])] = np.inf
    k = groups.near.shape[1]
    side = np.repeat([0, 1], k)[None].repeat(len(a), axis=0)
    other = np.where(side == 0, groups.bound[b][:, None], groups.bound[a][:, None])
    near, g, dropped = _united(near, side, g, share[:, None], other, linkage)
    both = _combined(groups.bound[a], groups.bound[b], share, linkage)
    order = np.argsort(g, axis=1, kind="stable")
    g, near = (np.take_along_axis(one, order, axis=1) for one in (g, near))
    groups.far[a], groups.near[a] = g[:, :k], near[:, :k]
    groups.bound[a] = np.minimum(np.minimum(dropped, both), g[:, k])
    groups.far[b] = np.inf
    groups.alive[b] = False

    # All lists: what was joined is one now.
    pair = np.full(len(groups.alive), -1)
    pair[a] = pair[b] = np.arange(len(a))
    second = np.zeros(len(groups.alive), np.int64)
    second[b] = 1
    which = pair[groups.near]
    hit = (which >= 0) & np.isfinite(groups.far)
    lines = np.flatnonzero(hit.any(axis=1))
    hit, which, near = hit[lines], which[lines], groups.near[lines]
    shares = np.where(hit, share[which], 0.0)
    keys = np.where(hit, which, -1 - near)  # those that stay have keys of their own
    other = np.where(hit, groups.bound[lines][:, None], -np.inf)
    keys, g, dropped = _united(
        keys, second[near] * hit, groups.far[lines], shares, other, linkage, alone=keys < 0
    )
    groups.near[lines] = np.where(keys < 0, -1 - keys, a[np.maximum(keys, 0)])
    groups.far[lines] = g
    groups.bound[lines] = np.minimum(groups.bound[lines], dropped)

    groups.sizes[a] = p + q
    groups.nodes[a] = merges.add(groups.nodes[a], groups.nodes[b], far)
    if linkage == "weighted":
        groups.weights[pair[groups.group] >= 0] *= 0.5
    moved = np.arange(len(groups.alive))
    moved[b] = a
    groups.group = moved[groups.group]


def _united(
    keys: Array,
    side: Array,
    g: Array,
    share: Array,
    other: Array,
    linkage: str,
    alone: Array | None = None,
) -> tuple[Array, Array, NDArray[np.float64]]:
    """Make one of two entries of a line that have the same key.

    An entry without its other half is left away, unless it is `alone`.

    Parameters
    ----------
    keys, side, g : (r, c)
    share : (r, c) or (r, 1)
        The part of the entries of side 1.
    other : (r, c)
        How far the other half is at least, where there is none.

    Returns
    -------
    keys, g : (r, c)
        Left away ones are +inf.
    dropped : (r,) float64
        How far those left away are at least.
    """
    # What is left away stands at the end, not between two that belong together.
    order = np.argsort(np.where(np.isfinite(g), 2 * keys + side, _LAST), axis=1, kind="stable")
    share = np.broadcast_to(share, keys.shape)
    stays = np.zeros(keys.shape, bool) if alone is None else alone
    keys, side, g, share, other, stays = (
        np.take_along_axis(one, order, axis=1) for one in (keys, side, g, share, other, stays)
    )
    known = np.isfinite(g) & ~stays
    twin = np.zeros(keys.shape, bool)
    twin[:, :-1] = known[:, :-1] & known[:, 1:] & (keys[:, :-1] == keys[:, 1:])
    late = np.zeros(keys.shape, bool)
    late[:, 1:] = twin[:, :-1]
    single = known & ~twin & ~late
    out = np.where(stays, g, np.inf)
    line, column = np.nonzero(twin)
    out[line, column] = _combined(
        g[line, column], g[line, column + 1], share[line, column], linkage
    )
    line, column = np.nonzero(single)
    first = side[line, column] == 0
    mine, least = g[line, column], other[line, column]
    low = _combined(
        np.where(first, mine, least), np.where(first, least, mine), share[line, column], linkage
    )
    dropped = np.full(len(keys), np.inf)
    np.minimum.at(dropped, line, low)
    return keys, out, dropped


def _combined(first: Array, second: Array, share: Array, linkage: str) -> NDArray[np.float64]:
    """Return the distance to two groups that become one."""
    if linkage == "complete":
        return np.maximum(first, second)
    joined: NDArray[np.float64] = (1 - share) * first + share * second
    return joined
