"""The compiled kernels of the vocabulary tree.

Vectors are compared in the inner coordinates of `vwkit_numba.kernels`. Nodes are numbered level by
level, so that the children of a node lie side by side and behind it: ``first[i]`` to
``first[i + 1]``. A row goes down by itself; a node is split by one thread, its rows in ascending
order. So nothing depends on threads or chunks.

Importing this module imports numba. Every function is compiled when it is first called and kept in
numba's cache on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from vwkit_numba.kernels import FAR
from vwkit_numba.lanes import LANES, nearest_4, squared_distance
from vwkit_numba.tree_lanes import products_4, products_8

__all__ = ["SPARE", "count_rows", "descend", "keep_rows", "split"]

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
#: Rows of zeros behind the centers: products are taken of eight at once.
SPARE = 8
# Entries of a row are cut off here, far beyond all centers, so that no product overflows.
_LIMIT = np.float32(1e15)


@_compiled
def _load(x: Any, row: int, shift: Any, scale: Any, out: Any) -> None:
    """Bring one row into inner coordinates."""
    for t in range(x.shape[1]):
        value = (np.float32(x[row, t]) - shift[t]) * scale
        out[t] = min(max(value, -_LIMIT), _LIMIT)


@_compiled
def _uniform(seed: Any, node: int, draw: int) -> float:
    """One number in (0, 1) for each node and draw (SplitMix64; Steele, Lea, Flood 2014)."""
    z = np.uint64(seed)
    for number in (node, draw):
        z += np.uint64(number + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 0.5) * 2.0**-53


@_compiled
def count_rows(nodes: Any, weights: Any, counts: Any) -> None:
    """Add to ``counts[i]`` the rows of node i that have weight."""
    weighted = len(weights) > 0
    for i in range(len(nodes)):
        if not weighted or weights[i] > 0:
            counts[nodes[i]] += 1


@_compiled
def keep_rows(
    nodes: Any, weights: Any, lowest: int, limits: Any, seed: Any, places: Any, order: Any
) -> None:
    """Draw the rows that nodes are split by, and sort them by node.

    Parameters
    ----------
    nodes : (n,) the node of each row
    lowest : the number of the first node that may be split
    limits : (m,) float64, the share of each node's rows to keep
    places : (m,) int64, added to: how many were kept; where each node's next row goes in `order`
    order : row numbers, written; empty to count only
    """
    weighted = len(weights) > 0
    for i in range(len(nodes)):
        node = nodes[i] - lowest
        if node < 0 or limits[node] == 0 or (weighted and weights[i] == 0):
            continue
        if limits[node] < 1 and _uniform(seed, i, 0) >= limits[node]:
            continue
        if len(order) > 0:
            order[places[node]] = i
        places[node] += 1


@_compiled
def _enter(values: Any, nodes: Any, held: int, value: Any, node: int) -> int:
    """Put a node into the beam, nearest first, the lower number first among equals."""
    if not value < FAR:
        value = FAR  # whatever is not a number is far away
    if held == len(values):
        worst = values[held - 1]
        if value > worst or (value == worst and node > nodes[held - 1]):
            return held
        held -= 1
    at = held
    while at > 0 and (value < values[at - 1] or (value == values[at - 1] and node < nodes[at - 1])):
        values[at], nodes[at] = values[at - 1], nodes[at - 1]
        at -= 1
    values[at], nodes[at] = value, node
    return held + 1


@_compiled
def descend(
    x: Any,
    shift: Any,
    scale: Any,
    begin: int,
    end: int,
    first: Any,
    centers: Any,
    half: Any,
    levels: int,
    beam: int,
    weights: Any,
    per_distance: float,
    nodes: Any,
) -> Any:
    """Take the rows `begin` to `end` down from their nodes, at most so many levels.

    At each level the `beam` nearest are kept among the children of those kept before, and those of
    them that have no children.

    Parameters
    ----------
    x : (n, d) rows; shift : (d,); scale : float32
    first : (N + 1,) int64; centers : (N + SPARE, D) in inner coordinates; half : (N,) ‖c‖²/2
    weights : (n,) float64, empty for all ones
    per_distance : units per 1 of a distance; 0 to leave distances out
    nodes : (n,) int32, where each row is; changed to where it comes to

    Returns
    -------
    int
        The sum of weight times squared distance to the node's center, in units.
    """
    wide = centers.shape[1]
    blocks = wide // LANES
    row_values = np.zeros(wide, np.float32)
    products = np.empty(LANES, np.float32)
    values, fresh_values = np.empty(beam, np.float32), np.empty(beam, np.float32)
    kept, fresh = np.empty(beam, np.int64), np.empty(beam, np.int64)
    weighted = len(weights) > 0
    total: Any = 0
    for row in range(begin, end):
        _load(x, row, shift, scale, row_values)
        kept[0], values[0] = nodes[row], FAR
        held = 1
        for _ in range(levels):
            count = 0
            moved = False
            for j in range(held):
                low, high = first[kept[j]], first[kept[j] + 1]
                if low == high:
                    count = _enter(fresh_values, fresh, count, values[j], kept[j])
                    continue
                moved = True
                for c in range(low, high, 8):
                    if high - c > 4:
                        products_8(row_values, blocks, centers, c, products)
                    else:
                        products_4(row_values, blocks, centers, c, products)
                    for t in range(min(8, high - c)):
                        value = half[c + t] - products[t]
                        count = _enter(fresh_values, fresh, count, value, c + t)
            if not moved:
                break
            values, fresh_values = fresh_values, values
            kept, fresh = fresh, kept
            held = count
        nodes[row] = kept[0]
        if per_distance > 0:
            distance = squared_distance(row_values, blocks, centers, kept[0])
            weight = weights[row] if weighted else 1.0
            total += np.int64(np.rint(weight * distance * per_distance))
    return total


@_compiled
def _drawn(masses: Any, count: int, total: float, share: float) -> int:
    """Return the number at which the sum of the masses passes a share of the total."""
    target = share * total
    last = 0
    reached = 0.0
    for i in range(count):
        if masses[i] > 0:
            last = i
            reached += masses[i]
            if reached > target:
                break
    return last


@_compiled
def _seeded(
    rows: Any, masses: Any, count: int, branch: int, seed: Any, node: int, trials: int, centers: Any
) -> int:
    """Choose centers among the rows by greedy k-means++; return how many there are.

    Fewer than `branch` are all distinct rows (Arthur and Vassilvitskii 2007).
    """
    blocks = rows.shape[1] // LANES
    near = np.empty(count, np.float32)
    best = np.empty(count, np.float32)
    trial = np.empty(count, np.float32)
    error = np.empty(count, np.float64)
    total = 0.0
    for i in range(count):
        total += masses[i]
    chosen = _drawn(masses, count, total, _uniform(seed, node, 1))
    centers[0] = rows[chosen]
    total = 0.0
    for i in range(count):
        near[i] = squared_distance(rows[i], blocks, centers, 0)
        error[i] = masses[i] * near[i]
        total += error[i]
    found = 1
    while found < branch and total > 0:
        least = np.inf
        for attempt in range(trials):
            draw = 2 + found * trials + attempt
            candidate = _drawn(error, count, total, _uniform(seed, node, draw))
            potential = 0.0
            for i in range(count):
                trial[i] = min(near[i], squared_distance(rows[i], blocks, rows, candidate))
                potential += masses[i] * trial[i]
            if potential < least:
                least, chosen = potential, candidate
                best, trial = trial, best
        centers[found] = rows[chosen]
        near, best = best, near
        total = 0.0
        for i in range(count):
            error[i] = masses[i] * near[i]
            total += error[i]
        found += 1
    return found


@_compiled
def split(
    x: Any,
    shift: Any,
    scale: Any,
    weights: Any,
    order: Any,
    starts: Any,
    first: int,
    last: int,
    lowest: int,
    branch: int,
    iterations: int,
    trials: int,
    seed: Any,
    slots: Any,
    found: Any,
    counts: Any,
) -> None:
    """Split the nodes `first` to `last` by k-means of their rows.

    Parameters
    ----------
    x : (rows, d); weights : (rows,) float64, empty for all ones
    order, starts : the rows of each node
    lowest : the number of node 0 in the tree
    slots : (m + 1,) int64, where the centers of each node go in `found`
    found : (slots, d) float32, written: centers in the data's coordinates
    counts : (m,) int64, written: how many; 0 where all rows are equal
    """
    dim = x.shape[1]
    wide = -(-dim // LANES) * LANES
    blocks = wide // LANES
    most = 0
    for node in range(first, last):
        most = max(most, starts[node + 1] - starts[node])
    rows = np.zeros((most + 3, wide), np.float32)
    masses = np.ones(most, np.float64)
    labels = np.empty(most, np.int32)
    padded = -(-branch // 4) * 4
    listed = np.empty(padded, np.int32)
    centers = np.zeros((branch + 1, wide), np.float32)
    half = np.empty(branch + 1, np.float32)
    sums = np.empty((branch, wide), np.float64)
    held = np.empty(branch, np.float64)
    lane = np.empty(48, np.float32)
    where = lane.view(np.int32)
    for node in range(first, last):
        counts[node] = 0
        count = starts[node + 1] - starts[node]
        if count < 2:
            continue
        for i in range(count):
            row = order[starts[node] + i]
            _load(x, row, shift, scale, rows[i])
            if len(weights) > 0:
                masses[i] = weights[row]
        size = _seeded(rows, masses, count, branch, seed, lowest + node, trials, centers)
        if size < 2:
            continue
        for j in range(padded):
            listed[j] = min(j, size)
        entries = -(-size // 4) * 4
        half[size] = FAR
        labels[:count] = -1
        for _ in range(iterations):
            for c in range(size):
                length = 0.0
                for t in range(wide):
                    length += np.float64(centers[c, t]) * np.float64(centers[c, t])
                half[c] = np.float32(length / 2)
            changed = 0
            sums[:size] = 0
            held[:size] = 0
            for i in range(0, count, 4):
                nearest_4(rows, i, blocks, centers, half, listed, 0, entries, lane)
                for q in range(min(4, count - i)):
                    best, label = lane[4 * q], where[16 + 4 * q]
                    for j in range(1, 4):
                        value, other = lane[4 * q + j], where[16 + 4 * q + j]
                        if value < best or (value == best and other < label):
                            best, label = value, other
                    row = i + q
                    if labels[row] != label:
                        labels[row] = label
                        changed += 1
                    mass = masses[row]
                    held[label] += mass
                    for t in range(wide):
                        sums[label, t] += mass * rows[row, t]
            if changed == 0:
                break
            for c in range(size):
                if held[c] > 0:
                    for t in range(wide):
                        centers[c, t] = np.float32(sums[c, t] / held[c])
        for c in range(size):
            if held[c] > 0:
                at = slots[node] + counts[node]
                for t in range(dim):
                    found[at, t] = np.float32(np.float64(centers[c, t]) / scale + shift[t])
                counts[node] += 1
