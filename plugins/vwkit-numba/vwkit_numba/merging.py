"""The compiled kernels that put together what workers send."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

__all__ = ["add_rows", "put"]

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def add_rows(more: Any, place: Any, into: Any) -> None:
    """Add each row of `more`, (a, d), to the row of `into` that `place`, (a,), says."""
    for i in range(len(place)):
        at = place[i]
        for t in range(more.shape[1]):
            into[at, t] += more[i, t]


@_compiled
def put(bits: Any, values: Any, into: Any) -> None:
    """Write values where a bit is set, in order; bits are packed as `numpy.packbits` does."""
    taken = 0
    for i in range(len(into)):
        if bits[i >> 3] & np.uint8(128 >> (i & 7)):
            into[i] = values[taken]
            taken += 1
