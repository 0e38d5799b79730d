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
def _below(values: Any, count: int, limit: Any) -> int:
    """Count the values below a limit."""
    found = np.int32(0)
    for j in range(count):
        found += np.int32(values[j] < limit)
    return int(found)


@_compiled
def _limit(values: Any, count: int, room: int) -> Any:
    """Return a limit that at most `room` values are below, and more are not above.

    The range is halved until it parts the values: no value has to be moved, nor any branch guessed,
    which costs a fifth of a selection by partition.
    """
    low = high = values[0]
    for j in range(1, count):
        low, high = min(low, values[j]), max(high, values[j])
    if _below(values, count, high) <= room:
        return high
    while True:
        middle = low + (high - low) / np.float32(2)
        if not low < middle < high:
            return low  # what is above it is not below the next number: these are equal
        below = _below(values, count, middle)
        if below == room:
            return middle
        if below < room:
            low = middle
        else:
            high = middle


@_compiled
def _write_list(
    own: int, candidates: Any, values: Any, count: int, sentinel: int, line: Any, near: Any
) -> None:
    """Write a center's list, itself and its nearest in the order of the candidates, and its `near`."""
    room = len(line) - 1
    limit = _limit(values, count, room) if count > room else FAR
    ties = room - _below(values, count, limit)
    line[0] = own
    held = 1
    least = np.full(len(near), FAR, np.float32)
    near[:] = own
    for j in range(count):
        value = values[j]
        if value < limit or (value == limit and ties > 0):
            ties -= value == limit
            line[held] = candidates[j]
            held += 1
            place = len(near)
            while place > 0 and value < least[place - 1]:
                if place < len(near):
                    least[place] = least[place - 1]
                    near[place] = near[place - 1]
                place -= 1
            if place < len(near):
                least[place], near[place] = value, candidates[j]
    line[held:] = sentinel


@_compiled
def nearest_of_many(
    centers: Any, half: Any, members: Any, candidates: Any, graph: Any, near: Any
) -> None:
    """Write the lists of some centers: themselves and the nearest among many ascending candidates."""
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
    others = np.empty(padded, np.int32)
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
            own_number, line = members[i], values[i - start]
            left = 0
            for j in range(count):
                line[left], others[left] = line[j], candidates[j]
                left += candidates[j] != own_number
            _write_list(
                own_number, others, line, left, sentinel, graph[own_number], near[own_number]
            )
            # In ascending order, as the candidates are: of centers in one place the lowest comes first.
            listed, place = graph[own_number], 0
            while place + 1 < len(listed) and listed[place + 1] < own_number:
                listed[place] = listed[place + 1]
                place += 1
            listed[place] = own_number


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
    values = np.empty(most, np.float32)
    seen = np.full(k + 1, -1, np.int32)
    sentinel = len(half) - 1
    for c in range(first, last):
        if not which[c]:
            new_graph[c], new_near[c] = graph[c], near[c]
            continue
        count = 0
        seen[c] = seen[k] = c
        for step in range(near.shape[1] + 1):
            other = source[c] if step == 0 else near[source[c], step - 1]
            for j in range(graph.shape[1]):
                # Written in any case, and counted if new: nobody can guess which.
                number = np.int64(min(np.uint32(graph[other, j]), np.uint32(k)))
                candidates[count] = number
                count += seen[number] != c
                seen[number] = c
        at = -1
        while at < count:  # who was moved beside this center, beside the candidates, beside those
            number = twin[c if at < 0 else candidates[at]]
            if number >= 0 and seen[number] != c:
                seen[number] = c
                candidates[count] = number
                count += 1
            at += 1
        for j in range(count, count + 16):
            candidates[j] = c
        for j in range(0, count, 16):
            dots_16(centers, c, wide // 16, candidates, j, values)
        for j in range(count):
            values[j] = half[candidates[j]] - values[j]
        _write_list(c, candidates, values, count, sentinel, new_graph[c], new_near[c])


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
