"""The compiled kernels that find neighbours of centers, and groups of centers for rows.

As in `vwkit_numba.kernels`: inner coordinates, and what is found does not depend on threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from vwkit_numba.kernels import FAR, _load
from vwkit_numba.lanes import dots_4, dots_16

__all__ = ["nearest_groups", "nearest_of_many", "pair_donors", "refresh"]

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def _keep_smallest(values: Any, numbers: Any, count: int, heap: Any, kept: Any) -> int:
    """Keep the `len(heap)` smallest values with their numbers, in any order; return how many."""
    held = 0
    room = len(heap)
    for j in range(count):
        value, number = values[j], numbers[j]
        if held < room:
            at = held
            held += 1
            while at > 0 and heap[(at - 1) // 2] < value:
                heap[at], kept[at] = heap[(at - 1) // 2], kept[(at - 1) // 2]
                at = (at - 1) // 2
            heap[at], kept[at] = value, number
        elif value < heap[0]:
            at = 0
            while True:
                child = 2 * at + 1
                if child >= held:
                    break
                if child + 1 < held and heap[child + 1] > heap[child]:
                    child += 1
                if heap[child] <= value:
                    break
                heap[at], kept[at] = heap[child], kept[child]
                at = child
            heap[at], kept[at] = value, number
    return held


@_compiled
def nearest_groups(
    x: Any,
    shift: Any,
    scale: Any,
    unit: bool,
    first: int,
    last: int,
    centers: Any,
    half: Any,
    groups: Any,
) -> None:
    """Write the nearest groups of the rows `first` to `last`, the nearest first.

    Parameters
    ----------
    centers : (4·g, D) in inner coordinates; half : (4·g,) ‖c‖²/2, `FAR` for what fills up
    groups : (n, probes) int32, written
    """
    count, wide = centers.shape
    probes = groups.shape[1]
    scratch = np.zeros((4, wide), np.float32)
    products = np.empty(16, np.float32)
    values = np.empty((4, count), np.float32)
    numbers = np.arange(count).astype(np.int32)
    heap = np.empty(probes, np.float32)
    kept = np.empty(probes, np.int32)
    for start in range(first, last, 4):
        stop = min(last, start + 4)
        for i in range(start, stop):
            _load(x, i, shift, scale, unit, scratch[i - start])
        for j in range(0, count, 4):
            dots_4(scratch, wide // 16, centers, j, products)
            for q in range(4):
                for t in range(4):
                    values[q, j + t] = half[j + t] - products[4 * q + t]
        for i in range(start, stop):
            _keep_smallest(values[i - start], numbers, count, heap, kept)
            for p in range(probes):
                best = p
                for j in range(p + 1, probes):
                    if heap[j] < heap[best] or (heap[j] == heap[best] and kept[j] < kept[best]):
                        best = j
                heap[p], heap[best] = heap[best], heap[p]
                kept[p], kept[best] = kept[best], kept[p]
                groups[i, p] = kept[p]


@_compiled
def _write_list(
    own: int, heap: Any, kept: Any, held: int, sentinel: int, line: Any, near: Any
) -> None:
    """Write a center's list, by number, and its nearest few, by distance."""
    for j in range(len(near)):
        near[j] = own
    taken = np.zeros(held, np.bool_)
    for j in range(min(len(near), held)):
        best = -1
        for i in range(held):
            if not taken[i] and (
                best < 0 or heap[i] < heap[best] or (heap[i] == heap[best] and kept[i] < kept[best])
            ):
                best = i
        taken[best] = True
        near[j] = kept[best]
    line[0] = own
    line[1 : held + 1] = kept[:held]
    line[held + 1 :] = sentinel
    line[: held + 1].sort()


@_compiled
def nearest_of_many(
    centers: Any, half: Any, members: Any, candidates: Any, graph: Any, near: Any
) -> None:
    """Write the lists of some centers: themselves and the nearest among many candidates."""
    wide = centers.shape[1]
    sentinel = len(half) - 1
    count = len(candidates)
    padded = (count + 3) // 4 * 4
    block = np.zeros((padded, wide), np.float32)
    offsets = np.full(padded, FAR, np.float32)
    for j in range(count):
        block[j] = centers[candidates[j]]
        offsets[j] = half[candidates[j]]
    own = np.zeros((4, wide), np.float32)
    products = np.empty(16, np.float32)
    values = np.empty((4, padded), np.float32)
    heap = np.empty(graph.shape[1] - 1, np.float32)
    kept = np.empty(graph.shape[1] - 1, np.int32)
    for start in range(0, len(members), 4):
        stop = min(len(members), start + 4)
        for i in range(start, stop):
            own[i - start] = centers[members[i]]
        for j in range(0, padded, 4):
            dots_4(own, wide // 16, block, j, products)
            for q in range(4):
                for t in range(4):
                    values[q, j + t] = offsets[j + t] - products[4 * q + t]
        for i in range(start, stop):
            line = values[i - start]
            for j in range(count):
                if candidates[j] == members[i]:
                    line[j] = FAR
            held = _keep_smallest(line, candidates, count, heap, kept)
            # The center itself was only put last; it is written first anyway.
            m = 0
            for j in range(held):
                if kept[j] != members[i]:
                    heap[m], kept[m] = heap[j], kept[j]
                    m += 1
            _write_list(members[i], heap, kept, m, sentinel, graph[members[i]], near[members[i]])


@_compiled
def _smallest(values: Any, count: int, rank: int) -> Any:
    """Return the value with a rank (0 for the smallest); `values` are put in another order."""
    low, high = 0, count - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return values[rank]


@_compiled
def refresh(
    centers: Any,
    half: Any,
    graph: Any,
    near: Any,
    source: Any,
    twin: Any,
    which: Any,
    first: int,
    last: int,
    new_graph: Any,
    new_near: Any,
) -> None:
    """Renew the lists of the centers `first` to `last` from their own and their nearest's lists.

    Parameters
    ----------
    source : (k,) whose old list is taken as a center's own: its own number, or for one that was
        moved elsewhere that of the center it was moved to
    twin : (k,) the center that was moved beside this one, else −1
    which : (k,) bool, the others' lists are copied
    """
    k, wide = len(graph), centers.shape[1]
    most = (graph.shape[1] * (near.shape[1] + 1)) * 2 + 32
    candidates = np.empty(most, np.int32)
    values, shuffled = np.empty(most, np.float32), np.empty(most, np.float32)
    nearest_3, of_nearest = np.empty(3, np.float32), np.empty(3, np.int32)
    seen = np.full(k, -1, np.int32)
    room = graph.shape[1] - 1
    for c in range(first, last):
        if not which[c]:
            new_graph[c], new_near[c] = graph[c], near[c]
            continue
        count = 0
        seen[c] = c
        for step in range(near.shape[1] + 1):
            other = source[c] if step == 0 else near[source[c], step - 1]
            for j in range(graph.shape[1]):
                number = graph[other, j]
                while 0 <= number < k:
                    if seen[number] != c:
                        seen[number] = c
                        candidates[count] = number
                        count += 1
                    number = twin[number]
                    if number >= 0 and seen[number] == c:
                        break
        for j in range(count, count + 16):
            candidates[j] = c
        for j in range(0, count, 16):
            dots_16(centers, c, wide // 16, candidates, j, values)
        for j in range(count):
            values[j] = half[candidates[j]] - values[j]
        limit = FAR
        if count > room:
            shuffled[:count] = values[:count]
            limit = _smallest(shuffled, count, room - 1)
        ties = room
        for j in range(count):
            ties -= values[j] < limit
        # In the order of the candidates: what stays in the list keeps its order.
        line = new_graph[c]
        line[0] = c
        held = 1
        nearest_3[:], of_nearest[:] = FAR, c
        for j in range(count):
            value = values[j]
            if value < limit or (value == limit and ties > 0):
                ties -= value == limit
                line[held] = candidates[j]
                held += 1
                place = 3
                while place > 0 and value < nearest_3[place - 1]:
                    if place < 3:
                        nearest_3[place] = nearest_3[place - 1]
                        of_nearest[place] = of_nearest[place - 1]
                    place -= 1
                if place < 3:
                    nearest_3[place], of_nearest[place] = value, candidates[j]
        line[held:] = len(half) - 1
        for j in range(near.shape[1]):
            new_near[c, j] = of_nearest[j]


@_compiled
def pair_donors(totals: Any, near: Any, donors: Any, victims: Any, gain: float, least: Any) -> Any:
    """Pair centers that are worth little with clusters that are worth splitting.

    Parameters
    ----------
    totals : (k, 4) from `accumulate`
    donors, victims : center numbers, the cheapest and the worst first
    gain : the share of a cluster's error that a split saves
    least : the smallest error of a cluster that can be split

    Returns
    -------
    (pairs, 2) int64
    """
    used = np.zeros(len(totals), np.bool_)
    pairs = np.empty((min(len(donors), len(victims)), 2), np.int64)
    count = at = 0
    for donor in donors:
        while at < len(victims) and used[victims[at]]:
            at += 1
        if at >= len(victims):
            break
        if victims[at] == donor:
            continue
        victim = victims[at]
        empty = totals[donor, 0] == 0
        if totals[victim, 2] < least or (
            not empty and totals[donor, 3] >= gain * totals[victim, 2]
        ):
            break
        # The rows of a donor go to its neighbour: not both may leave.
        if used[donor] or (not empty and used[near[donor, 0]]):
            continue
        used[donor] = used[victim] = True
        if not empty:
            used[near[donor, 0]] = True
        pairs[count, 0], pairs[count, 1] = donor, victim
        count += 1
    return pairs[:count]
