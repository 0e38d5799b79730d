"""The compiled kernels of graph k-means.

Vectors are compared in *inner coordinates*: x' = (x − shift)·scale, with a power of two as the scale,
so that float32 neither overflows nor cancels; zeros fill the dimensions up to a multiple of 16.
Whatever is added up over rows is added in int64 fixed point: the sums do not depend on the order,
hence not on threads or blocks.

Importing this module imports numba. Every function is compiled when it is first called and kept in
numba's cache on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload as _overload

from vwkit_numba.lanes import (
    F,
    nearest_4,
    prefetch,
    product,
    squared_distance,
)

__all__ = [
    "FAR",
    "accumulate",
    "assign",
    "group_rows",
    "means",
    "place",
    "segments",
]

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
#: ‖c‖²/2 of the entry that fills a list up: no vector is near it.
FAR = np.float32(1e37)
#: The largest entry of a vector in inner coordinates: products of two stay below `FAR`.
_MOST = np.float32(1e17)
_BATCH = 64
_SEGMENT = 2048
_AHEAD = 12  # rows that are asked of the memory before they are needed


def overload(of: Any) -> Callable[[F], F]:
    """Say what compiled code does in place of a function: numba's own, with types."""
    made: Callable[[F], F] = _overload(of)
    return made


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
                        value = half[own] - product(scratch, i - start + q, blocks, centers, own)
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
def place(centers: Any, shift: Any, scale: float, unit: bool, moved: Any, half: Any) -> None:
    """Bring centers, (k, d), into inner coordinates, and write half their squared lengths.

    Parameters
    ----------
    moved : (k, D) float32, zeros; half : (k,) float32
    """
    most = np.float64(_MOST)
    for c in range(len(centers)):
        # As many sums as a register holds, so that one need not wait for the other.
        lengths = np.zeros(8)
        for t in range(centers.shape[1]):
            value = (np.float64(centers[c, t]) - np.float64(shift[t])) * scale
            moved[c, t] = np.float32(min(max(value, -most), most))
        for t in range(0, moved.shape[1], 8):
            for j in range(8):
                # Of the rounded numbers, which are what products are taken of.
                entry = np.float64(moved[c, t + j])
                lengths[j] += entry * entry
        half[c] = np.float32(lengths.sum() / 2)
        if unit and half[c] == 0:
            half[c] = FAR / 2  # no direction: nearest to nobody, but before the last one
