"""Where what is known of each row is kept, and how many rows are looked at together."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.types import Array

__all__ = ["MOST_ROWS", "mapped_from", "most_rows", "per_row", "readonly", "room"]

#: Row numbers within a block are int32.
MOST_ROWS = (1 << 31) - 2
# More would not make a pass faster.
_AT_ONCE = 1 << 24
_MAPPED = 1 << 30


def most_rows(memory: int) -> int:
    """Return how many rows of an array are looked at together: each takes some 16 bytes meanwhile."""
    return max(1 << 22, min(_AT_ONCE, memory // 128))


def mapped_from(memory: int) -> int:
    """Return from how many bytes on one number for each row goes to a file."""
    return min(_MAPPED, memory // 128)


def room(rows: int, dtype: Any, memory: int) -> NDArray[Any]:
    """Return zeros: in memory, or if they are many in a file that vanishes with the array."""
    if rows * np.dtype(dtype).itemsize <= mapped_from(memory):
        return np.zeros(rows, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=(rows,))


def per_row(rows: int) -> float:
    """Return the bytes that a fit holds for its rows: what is known of each, and of those at hand."""
    memory = job().memory
    kept = 0 if 4 * rows > mapped_from(memory) else 12 * rows
    return kept + 16.0 * min(rows, most_rows(memory))


def readonly(array: Array) -> Array:
    """Return a view that numba sees as one type, whether it is mapped, writable or not."""
    view: Array = np.ascontiguousarray(array).view(np.ndarray)
    view = view[:]
    view.flags.writeable = False
    return view
