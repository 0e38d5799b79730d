"""Exact trees of single linkage: the shortest links that hold all rows together.

Borůvka 1926: every component takes the shortest link that leads out of it. A row knows its nearest
others; where they are all in its own component, it is asked again, but only if it could have a
shorter link than the best one known, and never in the largest component: to join two of them it is
enough that the smaller one looks for the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.types import Array
from vwkit_scipy.distances import Prepared
from vwkit_scipy.lists import Lists, exact_lists, nearest_lists
from vwkit_scipy.merges import Merges

__all__ = ["NEIGHBOURS", "join_single"]

NEIGHBOURS = 16


def join_single(ready: Prepared, lists: Lists, nodes: NDArray[np.int64], merges: Merges) -> None:
    """Join rows until one group is left.

    Parameters
    ----------
    ready : Prepared
        Distinct rows.
    lists : Lists
        The nearest `NEIGHBOURS` of each; they are used up.
    nodes : (n,) int64
        Their numbers in the tree.
    merges : Merges
        Takes note of what was joined.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(ready.rows)
    component, left = np.arange(n), n
    found: list[tuple[Array, Array, Array]] = []
    current = job()
    while left > 1:
        current.progress(n - left, n - 1, "joins")
        a, b, far = _links(ready, lists, component, left)
        a, b, far = _forest(component, a, b, far, left)
        found.append((a, b, far))
        graph = coo_array((np.ones(len(a)), (component[a], component[b])), shape=(left, left))
        left, joined = connected_components(graph, directed=False)
        component = joined[component].astype(np.int64)
    if found:
        a, b, far = (np.concatenate(part) for part in zip(*found, strict=True))
        _note(a, b, far, nodes, merges)
    current.progress(n - 1, n - 1, "joins")


def _links(
    ready: Prepared, lists: Lists, component: Array, count: int
) -> tuple[Array, Array, Array]:
    """Return the shortest link out of each component but the largest one."""
    largest = int(np.bincount(component, minlength=count).argmax())
    lines = np.flatnonzero(component != largest)
    for ask in (_by_float32, _by_float64, exact_lists, None):
        inside = component[lists.near[lines]] == component[lines][:, None]
        far = np.where(inside, np.inf, lists.far[lines])
        own = far.min(axis=1)
        best = np.full(count, np.inf)
        np.minimum.at(best, component[lines], own)
        # Those that may have a shorter one, and do not know.
        unsure = (own > lists.bound[lines]) & (lists.bound[lines] < best[component[lines]])
        asked = lines[unsure]
        if ask is None or not len(asked):
            break
        _put(lists, asked, ask(ready, asked, lists.near.shape[1], component))
    # The shortest; of equal ones the one with the lowest numbers.
    place = far.argmin(axis=1)
    other = lists.near[lines, place]
    own = far[np.arange(len(lines)), place]
    order = np.lexsort((np.maximum(lines, other), np.minimum(lines, other), own, component[lines]))
    first = order[np.unique(component[lines][order], return_index=True)[1]]
    first = first[np.isfinite(own[first])]
    return lines[first], other[first], own[first]


def _by_float32(ready: Prepared, asked: Array, k: int, labels: Array) -> Lists:
    return nearest_lists(ready, k, asked, labels)[0]


def _by_float64(ready: Prepared, asked: Array, k: int, labels: Array) -> Lists:
    return nearest_lists(ready, k, asked, labels, np.float64)[0]


def _put(lists: Lists, asked: Array, new: Lists) -> None:
    wide = new.near.shape[1]
    lists.near[asked, :wide], lists.far[asked, :wide] = new.near, new.far
    lists.far[asked, wide:] = np.inf
    lists.bound[asked] = new.bound


def _forest(
    component: Array, a: Array, b: Array, far: Array, count: int
) -> tuple[Array, Array, Array]:
    """Leave away links that close a circle: the same one from both sides, or equal ones."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    ends = np.sort(np.stack([component[a], component[b]]), axis=0)
    order = np.lexsort((np.maximum(a, b), np.minimum(a, b), far))
    _, first = np.unique((ends[0] * count + ends[1])[order], return_index=True)
    kept = order[np.sort(first)]
    # Ranks, as a link of length 0 would be none.
    rank = np.arange(1, len(kept) + 1, dtype=np.float64)
    graph = coo_array((rank, (ends[0, kept], ends[1, kept])), shape=(count, count))
    chosen = kept[minimum_spanning_tree(graph.tocsr()).data.astype(np.int64) - 1]
    return a[chosen], b[chosen], far[chosen]


def _note(a: Array, b: Array, far: Array, nodes: Array, merges: Merges) -> None:
    """Turn links into joins, the shortest first."""
    order = np.argsort(far, kind="stable")
    top = list(range(len(nodes)))  # the row that stands for each row's group
    left, right = [], []
    own = nodes.tolist()
    number = merges.rows + merges.count
    # Each link needs those before it; over lists, 200,000 take a fraction of a second.
    for x, y in zip(a[order].tolist(), b[order].tolist(), strict=True):
        while top[x] != x:
            top[x] = x = top[top[x]]
        while top[y] != y:
            top[y] = y = top[top[y]]
        left.append(own[x])
        right.append(own[y])
        top[y] = x
        own[x] = number
        number += 1
    merges.add(np.array(left), np.array(right), far[order])
