"""Which descriptor of one picture is which of another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError, ShapeError
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = ["match_descriptors"]

_CELLS = 1 << 22  # distances held at once
_EXACT32, _EXACT64 = 1 << 24, 53  # whole numbers that float32 holds; bits of those of float64


def match_descriptors(a: Any, b: Any, *, ratio: float = 0.8) -> NDArray[np.int64]:
    """Pair descriptors of two pictures that are each other's clear choice.

    A row of `a` is paired with its nearest row of `b` (Euclidean distance, the lowest row on ties)
    if that is nearer than `ratio` times the next nearest one (Lowe 2004, section 7.1). Of several
    rows of `a` with the same row of `b` the nearest is kept. Products are taken of whole numbers, so
    that they are exact in any order: the pairs do not depend on threads or blocks. For that,
    descriptors that are no whole numbers are rounded to about seven digits.

    Parameters
    ----------
    a, b : (n, d) and (m, d) arrays
        uint8 or any float; n and m may be 0.
    ratio : float
        In 0…1.

    Returns
    -------
    (p, 2) int64
        Rows of `a` and `b`, clearest first: by the ratio of the two distances, then by row.

    Raises
    ------
    ShapeError
        The descriptors have different dimensions.
    DataError
        NaN or infinity.
    """
    left, right = np.asarray(a), np.asarray(b)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise ShapeError(
            f"descriptors must be (n, d) and (m, d) of the same d; got {left.shape}, {right.shape}"
        )
    if len(left) == 0 or len(right) == 0:
        return np.zeros((0, 2), np.int64)
    left, right = _whole(left, right)
    norms = np.add.reduce(right * right, axis=1)
    own = np.add.reduce(left * left, axis=1)
    nearest = np.empty(len(left), np.int64)
    first = np.empty(len(left), np.float64)
    second = np.full(len(left), np.inf)
    for start, stop in row_spans(len(left), max(1, _CELLS // len(right))):
        distances = left[start:stop] @ (-2 * right.T)
        distances += norms
        lines = np.arange(stop - start)
        column = distances.argmin(axis=1)
        nearest[start:stop] = column
        first[start:stop] = distances[lines, column] + own[start:stop].astype(np.float64)
        if len(right) > 1:
            distances[lines, column] = np.inf
            second[start:stop] = distances.min(axis=1) + own[start:stop].astype(np.float64)
    with np.errstate(invalid="ignore"):
        quotient = np.where(second > 0, first / second, 1.0)
    rows = np.flatnonzero(quotient < ratio * ratio)
    # One row of `a` for each row of `b`: the nearest, then the lowest.
    rows = rows[np.lexsort((rows, first[rows], nearest[rows]))]
    rows = rows[np.r_[True, nearest[rows][1:] != nearest[rows][:-1]][: len(rows)]]
    rows = rows[np.lexsort((rows, quotient[rows]))]
    return np.column_stack([rows, nearest[rows]])


def _whole(left: Array, right: Array) -> tuple[Array, Array]:
    """Return both as floats that hold whole numbers, small enough for exact products."""
    d = left.shape[1]
    if left.dtype == right.dtype == np.uint8:
        # ‖b‖² − 2·a·b and all that it is made of, in the type that holds it exactly.
        dtype = np.float32 if 2 * d * 255**2 < _EXACT32 else np.float64
        return left.astype(dtype), right.astype(dtype)
    left, right = left.astype(np.float64), right.astype(np.float64)
    largest = max(np.abs(left).max(initial=0), np.abs(right).max(initial=0))
    if not np.isfinite(largest):
        raise DataError("descriptors hold NaN or infinity")
    bits = (_EXACT64 - 2 - math.ceil(math.log2(max(2, d)))) // 2
    shift = bits - math.frexp(float(largest))[1]
    return np.rint(np.ldexp(left, shift)), np.rint(np.ldexp(right, shift))
