"""The compiled kernels of graph k-means.

Vectors are compared in *inner coordinates*: x' = (x − shift)·scale, with a power of two as the scale,
so that float32 neither overflows nor cancels; zeros fill the dimensions up to a multiple of 16.
Whatever is added up over rows is added in int64 fixed point: the sums do not depend on the order,
hence not on threads or blocks.

Importing this module imports numba. Every function is compiled when it is first called and kept in
numba's cache on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload as _overload

from vwkit_numba.lanes import (
    dots_4,
    dots_16,
    nearest_4,
    prefetch,
    squared_distance,
)

__all__ = [
    "FAR",
    "accumulate",
    "assign",
    "group_rows",
    "means",
    "nearest_groups",
    "nearest_of_many",
    "pair_donors",
    "refresh",
    "segments",
]

# It has no types of its own.
overload: Any = _overload
_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
#: ‖c‖²/2 of the entry that fills a list up: no vector is near it.
FAR = np.float32(1e37)
#: The largest entry of a vector in inner coordinates: products of two stay below `FAR`.
_MOST = np.float32(1e17)
_BATCH = 64
_SEGMENT = 2048
_AHEAD = 12  # rows that are asked of the memory before they are needed


@_compiled
def group_rows(labels: Any, k: int, order: Any, starts: Any) -> None:
    """Sort row numbers by label; rows of a label stay in order. Labels below 0 are left out."""
    starts[:] = 0
    for label in labels:
        if label >= 0:
            starts[label + 1] += 1
    for c in range(k):
        starts[c + 1] += starts[c]
    place = starts[:-1].copy()
    for i in range(len(labels)):
        label = labels[i]
        if label >= 0:
            order[place[label]] = i
            place[label] += 1


@_compiled
def segments(starts: Any) -> Any:
    """Cut the rows of the groups into pieces: (pieces, 3) of first row, last row, group."""
    count = 0
    for c in range(len(starts) - 1):
        count += (starts[c + 1] - starts[c] + _SEGMENT - 1) // _SEGMENT
    found = np.empty((count, 3), np.int64)
    count = 0
    for c in range(len(starts) - 1):
        for first in range(starts[c], starts[c + 1], _SEGMENT):
            found[count, 0] = first
            found[count, 1] = min(starts[c + 1], first + _SEGMENT)
            found[count, 2] = c
            count += 1
    return found


def _load(x: Any, row: int, shift: Any, scale: Any, unit: bool, out: Any) -> bool:
    """Bring one row into inner coordinates; tell whether it has a direction, if that counts.

    `x` is an array of vectors, or a pair: codes and tables, (m, ks, d/m), of what they stand for in
    inner coordinates.
    """
    raise NotImplementedError


@overload(_load)
def _loader(x: Any, row: Any, shift: Any, scale: Any, unit: Any, out: Any) -> Any:
    return _load_code if isinstance(x, types.BaseTuple) else _load_vector


def _load_vector(x: Any, row: Any, shift: Any, scale: Any, unit: Any, out: Any) -> Any:
    for t in range(x.shape[1]):
        out[t] = (np.float32(x[row, t]) - shift[t]) * scale
        if not unit:
            out[t] = min(max(out[t], -_MOST), _MOST)
    if unit:
        length = 0.0
        for t in range(x.shape[1]):
            length += np.float64(out[t]) * np.float64(out[t])
        if length == 0:
            return False
        factor = 1 / np.sqrt(length)
        for t in range(x.shape[1]):
            out[t] = np.float32(out[t] * factor)
    return True


def _load_code(x: Any, row: Any, shift: Any, scale: Any, unit: Any, out: Any) -> Any:
    codes, tables = x
    m, ks, width = tables.shape
    at = 0
    for s in range(m):
        # Whatever a damaged file says, nothing outside the tables is read.
        code = min(np.int64(codes[row, s]), ks - 1)
        for t in range(width):
            out[at + t] = tables[s, code, t]
        at += width
    return True


def _ahead(x: Any, row: int) -> None:
    """Ask the memory for a row that will be read soon."""
    raise NotImplementedError


@overload(_ahead)
def _asker(x: Any, row: Any) -> Any:
    if isinstance(x, types.BaseTuple):  # codes are few bytes, and side by side

        def nothing(x: Any, row: Any) -> None:
            pass

        return nothing

    def ask(x: Any, row: Any) -> None:
        prefetch(x, row)

    return ask


@_compiled
def assign(
    x: Any,
    shift: Any,
    scale: Any,
    unit: bool,
    order: Any,
    pieces: Any,
    first: int,
    last: int,
    lists: Any,
    list_starts: Any,
    centers: Any,
    half: Any,
    keep: bool,
    labels: Any,
    runners: Any,
    gaps: Any,
    touched: Any,
) -> int:
    """Give each row the nearest center of its group's list, and the gap to the second nearest.

    Parameters
    ----------
    x : (n, d) rows, or a pair of codes and tables; shift : (d,); scale : float32; unit : whether rows are divided by their length
    order : row numbers by group; pieces : from `segments`; first, last : which pieces
    lists, list_starts : center numbers of each group, in multiples of four
    centers : (k + 1, D) in inner coordinates; half : (k + 1,) ‖c‖²/2, the last one `FAR`
    keep : whether a row stays with its label where that is nearer than the whole list; then
        `runners` are left as they are
    labels, runners : (n,) int32, and gaps : (n,) float32, written
        `runners` gets the nearest but one of four interleaved parts of the list, so most often
        the second nearest center; none if it has no entries.
    touched : (k,) bool, set where a row leaves or comes; none if it has no entries

    Returns
    -------
    int
        How many labels changed.
    """
    wide = centers.shape[1]
    blocks = wide // 16
    scratch = np.zeros((_BATCH, wide), np.float32)
    found = np.empty(48, np.float32)
    where = found.view(np.int32)
    held = np.zeros((4, wide), np.float32)
    products = np.empty(16, np.float32)
    sentinel = len(half) - 1
    changed = 0
    for piece in range(first, last):
        group = pieces[piece, 2]
        begin, count = list_starts[group], list_starts[group + 1] - list_starts[group]
        if count == 0:
            continue  # `nearest_4` takes it that there is something
        for start in range(pieces[piece, 0], pieces[piece, 1], _BATCH):
            stop = min(pieces[piece, 1], start + _BATCH)
            for i in range(start, stop):
                _ahead(x, order[min(i + _AHEAD, len(order) - 1)])
                _load(x, order[i], shift, scale, unit, scratch[i - start])
            for i in range(start, stop, 4):
                nearest_4(scratch, i - start, blocks, centers, half, lists, begin, count, found)
                if keep:
                    for q in range(min(4, stop - i)):
                        held[q] = centers[labels[order[i + q]]]
                    dots_4(scratch[i - start :], blocks, held, 0, products)
                for q in range(min(4, stop - i)):
                    row = order[i + q]
                    best, label = found[4 * q], where[16 + 4 * q]
                    second, runner = FAR, sentinel
                    for j in range(1, 4):
                        value, other = found[4 * q + j], where[16 + 4 * q + j]
                        if value < best or (value == best and other < label):
                            second, runner = best, label
                            best, label = value, other
                        elif value < second:
                            second, runner = value, other
                    if keep and labels[row] != label:
                        own = labels[row]
                        value = half[own] - products[5 * q]
                        if value < best or (value == best and own < label):
                            second, runner = best, label
                            best, label = value, own
                        elif value < second:
                            second, runner = value, own
                    for j in range(4):
                        second = min(second, found[32 + 4 * q + j])
                    if labels[row] != label:
                        if len(touched) > 0:
                            touched[labels[row]] = touched[label] = True
                        labels[row] = label
                        changed += 1
                    if len(runners) > 0 and not keep:
                        runners[row] = runner if runner < sentinel else label
                    gaps[row] = 2 * (second - best)
    return changed


@_compiled
def _uniform(seed: Any, row: int) -> float:
    """One number in (0, 1] for each row (SplitMix64; Steele, Lea, Flood 2014)."""
    z = np.uint64(row + 1) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 1.0) * 2.0**-53


@_compiled
def accumulate(
    x: Any,
    shift: Any,
    scale: Any,
    unit: bool,
    weights: Any,
    order: Any,
    starts: Any,
    first: int,
    last: int,
    active: Any,
    centers: Any,
    gaps: Any,
    row_offset: int,
    seed: Any,
    scales: Any,
    sums: Any,
    totals: Any,
    far_keys: Any,
    far_rows: Any,
) -> None:
    """Add up the rows of the groups `first` to `last`: vectors, weight, distances, gaps.

    Parameters
    ----------
    weights : (n,) float64, empty for all ones
    scales : (3,) float64: units per 1 of a vector's entry, of a weight, of a distance
    sums : (k, d) int64, added to
    totals : (k, 4) int64, added to: weight, rows, weighted distances, weighted gaps
    far_keys, far_rows : (k,) the row that was drawn in proportion to its distance, roughly
    """
    dim, wide = len(shift), centers.shape[1]
    row_values = np.zeros(wide, np.float32)
    per_value, per_weight, per_distance = scales[0], scales[1], scales[2]
    most = np.float32(8 * wide)
    weighted = len(weights) > 0
    held = np.empty(dim, np.int64)
    for c in range(first, last):
        if not active[c] or starts[c] == starts[c + 1]:
            continue
        held[:] = 0
        aimed = not unit
        for t in range(dim):
            aimed = aimed or centers[c, t] != 0
        for i in range(starts[c], starts[c + 1]):
            row = order[i]
            _ahead(x, order[min(i + _AHEAD, len(order) - 1)])
            directed = _load(x, row, shift, scale, unit, row_values)
            distance = squared_distance(row_values, wide // 16, centers, c)
            if not (directed and aimed):
                distance = np.float32(2)  # 1 − cos is 1 where there is no direction
            weight = weights[row] if weighted else 1.0
            factor = weight * per_value
            for t in range(dim):
                held[t] += np.int64(row_values[t] * factor)
            totals[c, 0] += np.int64(np.rint(weight * per_weight))
            totals[c, 1] += 1
            totals[c, 2] += np.int64(np.rint(weight * distance * per_distance))
            totals[c, 3] += np.int64(np.rint(weight * min(gaps[row], most) * per_distance))
            key = weight * distance * _uniform(seed, row_offset + row)
            if key > far_keys[c] and directed:
                far_keys[c] = key
                far_rows[c] = row_offset + row
        for t in range(dim):
            sums[c, t] += held[t]


@_compiled
def means(
    sums: Any,
    totals: Any,
    scales: Any,
    shift: Any,
    scale: float,
    unit: bool,
    centers: Any,
) -> None:
    """Set each center that has weight to the mean of its rows, in the data's coordinates."""
    ratio = scales[1] / scales[0]
    for c in range(len(sums)):
        if totals[c, 0] > 0:
            length = 1.0
            if unit:
                length = 0.0
                for t in range(sums.shape[1]):
                    mean = np.float64(sums[c, t]) / np.float64(totals[c, 0]) * ratio
                    length += mean * mean
                if length < 1e-12:  # directions that cancel: the center keeps its own
                    continue
                length = np.sqrt(length)
            for t in range(sums.shape[1]):
                mean = np.float64(sums[c, t]) / np.float64(totals[c, 0]) * ratio
                centers[c, t] = np.float32(mean / length / scale + shift[t])


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
