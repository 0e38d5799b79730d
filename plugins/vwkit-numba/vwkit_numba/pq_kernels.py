"""The compiled kernels of product quantization.

A row's codes are the nearest codewords by float64 distance, lowest code on ties. They are looked
for in whole numbers, which is several times as fast: rows and codewords are rounded to int16, the
error that this can make is bounded for each row, and where two codewords are nearer to each other
than that, all distances are taken again in float64.

Importing this module imports numba. Every function is compiled when it is first called and kept in
numba's cache on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from vwkit_numba.pq_lanes import GROUP, nearest_bytes, nearest_pairs, rounded, side_by_side

__all__ = ["encode", "learn", "learn_roughly", "plus_plus", "to_bytes", "turn"]

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
# Rows that are labelled before they are added up: they stay in the cache.
_BLOCK = 1024


@_compiled
def _settle(x: Any, row: int, column: int, plain: Any, distances: Any) -> int:
    """Return the nearest codeword of a row by float64 distances."""
    distances[:] = 0.0
    for t in range(plain.shape[0]):
        value = np.float64(x[row, column + t])
        for c in range(len(distances)):
            apart = value - np.float64(plain[t, c])
            distances[c] += apart * apart
    best = 0
    for c in range(1, len(distances)):
        if distances[c] < distances[best]:
            best = c
    return best


@_compiled
def _label(
    x: Any,
    first: int,
    last: int,
    column: int,
    shift: Any,
    bounds: Any,
    words: Any,
    start: Any,
    plain: Any,
    labels: Any,
) -> None:
    """Write the codes of one slice of the rows `first` to `last`.

    Parameters
    ----------
    x : (n, d) uint8 or float32
    shift, bounds : see `pq_tables.Table`
    words : (count, steps) int32; start : (count,) int32; plain : (width, ks) float32
    labels : (last − first,) of any whole type, written
    """
    steps, width = words.shape[1], len(plain)
    copied = np.zeros((GROUP, len(shift)), x.dtype)
    rows = np.empty((len(shift) // 2, GROUP), np.int32)
    lengths = np.empty(GROUP, np.float32)
    found = np.empty(3 * GROUP, np.int32)
    distances = np.empty(plain.shape[1], np.float64)
    scale, longest = np.float32(bounds[0]), bounds[1]
    # So far apart, scores need no look at the row's length.
    most = bounds[2] * np.sqrt(longest) + bounds[3]
    for begin in range(first, last, GROUP):
        held = min(GROUP, last - begin)
        if width == len(shift) and begin + GROUP <= len(x):
            rounded(x, begin, column, shift, scale, rows, lengths)
        else:
            for i in range(held):
                for t in range(width):
                    copied[i, t] = x[begin + i, column + t]
            rounded(copied, 0, 0, shift, scale, rows, lengths)
        nearest_pairs(rows, steps, words, start, len(start), found)
        for i in range(held):
            label = found[2 * GROUP + i]
            gap = np.float64(found[GROUP + i]) - np.float64(found[i])
            length = np.float64(lengths[i])
            if (
                not (gap > most or gap > bounds[2] * np.sqrt(length) + bounds[3])
                or length > longest
            ):
                label = _settle(x, begin + i, column, plain, distances)
            labels[begin - first + i] = label


@_compiled
def _label_roughly(
    x: Any, first: int, last: int, column: int, width: int, words: Any, start: Any, labels: Any
) -> None:
    """Write the codes of uint8 rows by codewords that are rounded to a byte for each number."""
    steps = words.shape[1]
    quarters = (width + 15) // 16
    lines = np.zeros((GROUP, 16 * quarters), np.uint8)
    rows = np.empty((4 * quarters, GROUP), np.int32)
    found = np.empty(3 * GROUP, np.int32)
    for begin in range(first, last, GROUP):
        held = min(GROUP, last - begin)
        # What is read behind a slice meets codewords of zeros; it must only be there.
        end = (begin + GROUP - 1) * x.shape[1] + column + 16 * quarters
        if end <= x.size:
            side_by_side(x, begin, column, quarters, rows)
        else:
            for i in range(held):
                lines[i, :width] = x[begin + i, column : column + width]
            side_by_side(lines, 0, 0, quarters, rows)
        nearest_bytes(rows, steps, words, start, len(start), found)
        labels[begin - first : begin - first + held] = found[2 * GROUP : 2 * GROUP + held]


@_compiled
def encode(
    x: Any,
    first: int,
    last: int,
    shifts: Any,
    bounds: Any,
    words: Any,
    starts: Any,
    plain: Any,
    codes: Any,
) -> None:
    """Write the codes of the rows `first` to `last`; arrays as for `_label`, one for each slice.

    Parameters
    ----------
    x : (n, d) uint8 or float32
    codes : (n, m) uint8 or uint16, written
    """
    width = plain.shape[1]
    labels = np.empty(_BLOCK, np.int32)
    for begin in range(first, last, _BLOCK):
        end = min(last, begin + _BLOCK)
        for j in range(len(words)):
            _label(
                x,
                begin,
                end,
                j * width,
                shifts[j],
                bounds[j],
                words[j],
                starts[j],
                plain[j],
                labels,
            )
            for i in range(begin, end):
                codes[i, j] = labels[i - begin]


@_compiled
def _add(
    x: Any,
    first: int,
    last: int,
    column: int,
    origin: Any,
    unit: float,
    labels: Any,
    sums: Any,
    counts: Any,
) -> None:
    """Add the rows to the sums of their codewords, in whole multiples of 1 / unit."""
    part = x[first:last, column : column + len(origin)]
    for i in range(len(part)):
        label = labels[i]
        counts[label] += 1
        for t in range(part.shape[1]):
            sums[label, t] += np.int64(np.rint((np.float64(part[i, t]) - origin[t]) * unit))


@_compiled
def _add_bytes(
    x: Any, first: int, last: int, column: int, width: int, labels: Any, sums: Any, counts: Any
) -> None:
    part = x[first:last, column : column + width]
    for i in range(len(part)):
        label = labels[i]
        counts[label] += 1
        for t in range(part.shape[1]):
            sums[label, t] += np.int64(part[i, t])


@_compiled
def learn(
    x: Any,
    first: int,
    last: int,
    active: Any,
    shifts: Any,
    bounds: Any,
    words: Any,
    starts: Any,
    plain: Any,
    origins: Any,
    unit: float,
    sums: Any,
    counts: Any,
) -> None:
    """Find the nearest codewords of the rows `first` to `last` and add the rows up.

    Parameters
    ----------
    x : (n, d) uint8 or float32
    active : slice numbers
    origins : (m, width) float64
        What is taken from a row of floats before it is added up, in whole multiples of 1 / unit.
    sums : (m, ks, width) int64 and counts : (m, ks) int64, added to
    """
    width = plain.shape[1]
    labels = np.empty(_BLOCK, np.int32)
    for begin in range(first, last, _BLOCK):
        end = min(last, begin + _BLOCK)
        for j in active:
            column = j * width
            _label(
                x,
                begin,
                end,
                column,
                shifts[j],
                bounds[j],
                words[j],
                starts[j],
                plain[j],
                labels,
            )
            if x.itemsize == 1:
                _add_bytes(x, begin, end, column, width, labels, sums[j], counts[j])
            else:
                _add(x, begin, end, column, origins[j], unit, labels, sums[j], counts[j])


@_compiled
def learn_roughly(
    x: Any,
    first: int,
    last: int,
    active: Any,
    small: Any,
    words: Any,
    starts: Any,
    origins: Any,
    unit: float,
    sums: Any,
    counts: Any,
) -> None:
    """Do as `learn` does, by rounded rows and codewords: near ties may go either way.

    Parameters
    ----------
    small : (n, d) uint8
        The rows `x`, rounded if they are floats; what is added up are the rows themselves.
    words : (m, count, steps) int32; starts : (m, count) int32
    """
    width = origins.shape[1]
    labels = np.empty(_BLOCK, np.int32)
    for begin in range(first, last, _BLOCK):
        end = min(last, begin + _BLOCK)
        for j in active:
            column = j * width
            _label_roughly(small, begin, end, column, width, words[j], starts[j], labels)
            if x.itemsize == 1:
                _add_bytes(x, begin, end, column, width, labels, sums[j], counts[j])
            else:
                _add(x, begin, end, column, origins[j], unit, labels, sums[j], counts[j])


@_compiled
def turn(x: Any, first: int, last: int, matrix: Any, out: Any) -> None:
    """Write x @ matrix for the rows `first` to `last`, each row as if it came alone.

    Parameters
    ----------
    x : (n, d) uint8 or float32; matrix : (d, e) float32; out : (n, e) float32, written
    """
    dim, wide = matrix.shape
    sums = np.empty((4, wide), np.float32)
    for begin in range(first, last, 4):
        # The last rows are computed twice rather than in another loop.
        a = max(first, min(begin, last - 4))
        b, c, d = min(a + 1, last - 1), min(a + 2, last - 1), min(a + 3, last - 1)
        sums[:] = 0
        for s in range(dim):
            p, q = np.float32(x[a, s]), np.float32(x[b, s])
            v, w = np.float32(x[c, s]), np.float32(x[d, s])
            for t in range(wide):
                value = matrix[s, t]
                sums[0, t] += p * value
                sums[1, t] += q * value
                sums[2, t] += v * value
                sums[3, t] += w * value
        for t in range(wide):
            out[a, t] = sums[0, t]
            out[b, t] = sums[1, t]
            out[c, t] = sums[2, t]
            out[d, t] = sums[3, t]


@_compiled
def to_bytes(x: Any, first: int, last: int, low: Any, scale: Any, small: Any) -> None:
    """Write the rows `first` to `last` of floats as uint8: (x − low)·scale, rounded."""
    rows, out = x[first:last], small[first:last]
    for i in range(len(rows)):
        for t in range(len(low)):
            value = np.rint((rows[i, t] - low[t]) * scale[t])
            out[i, t] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))


@_compiled
def plus_plus(rows: Any, uniform: Any, chosen: Any) -> int:
    """Draw rows, each in proportion to its squared distance to the nearest one drawn before.

    Parameters
    ----------
    rows : (width, n) float32
    uniform : (ks,) float64 in (0, 1)
    chosen : (ks,) int64, written

    Returns
    -------
    int
        How many were drawn: fewer than ks if no row lies off those.
    """
    n = rows.shape[1]
    apart = np.full(n, np.float32(np.inf), np.float32)
    fresh = np.empty(n, np.float32)
    chosen[0] = min(n - 1, int(uniform[0] * n))
    for held in range(1, len(chosen)):
        last = chosen[held - 1]
        fresh[:] = 0
        for t in range(rows.shape[0]):
            here = rows[t, last]
            for i in range(n):
                step = rows[t, i] - here
                fresh[i] += step * step
        total = 0.0
        for i in range(n):
            apart[i] = min(apart[i], fresh[i])
            total += apart[i]
        if not total > 0:
            return held
        left = uniform[held] * total
        pick = -1
        for i in range(n):
            if apart[i] > 0:
                pick = i
                left -= apart[i]
                if left <= 0:
                    break
        chosen[held] = pick
    return len(chosen)
