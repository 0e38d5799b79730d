"""Rows by number, and the blocks of rows that workers get."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit.types import Array

__all__ = ["aligned", "block_rows", "taken"]

#: Of what size blocks are: so many rows at least, so many bytes at most, and about so many blocks; or
#: a quarter as many where more rows for each center make a block cheaper.
_LEAST_ROWS = 1 << 16
_MOST_BYTES = 1 << 30
_BLOCKS = 1024
_FEW_BLOCKS = 256
_ROWS_PER_CENTER = 4


def block_rows(stream: Stream, centers: int = 0) -> int:
    """Return how many rows a worker gets at once: few enough blocks, and each fits in memory.

    Rows of one center are compared with its list four at a time, so a block is to have as many.
    """
    rows = stream.count()
    row_bytes = stream.dim * stream.dtype.itemsize + 16
    wanted = max(rows // _BLOCKS, min(_ROWS_PER_CENTER * centers, rows // _FEW_BLOCKS))
    most = max(1 << 10, min(_MOST_BYTES, job().memory // 8) // row_bytes)
    return min(max(_LEAST_ROWS, wanted), most)


def aligned(*values: Any) -> dict[str, Any]:
    """Name what is cut like the rows, in this order; a range of row numbers is cut like an array."""
    return {str(number): value for number, value in enumerate(values)}


def taken(stream: Stream, rows: NDArray[np.int64]) -> Array:
    """Return some rows, in ascending order; workers make them, where all are to be made for it."""
    current = job()
    anywhere = stream.array is not None or stream._random is not None
    if anywhere or not current.distributed or stream.reader is None:
        return stream.take(rows)
    numbers = aligned(range(stream.count()))
    size = block_rows(stream)
    found = current.map(_picked, stream, {"wanted": rows}, aligned=numbers, rows=size)
    parts = [part for part in found if len(part)]
    return np.concatenate(parts) if parts else np.empty((0, stream.dim), stream.dtype)


def _picked(rows: Array, numbers: range, *, wanted: NDArray[np.int64]) -> Array:
    first, last = np.searchsorted(wanted, [numbers.start, numbers.stop])
    picked: Array = rows[wanted[first:last] - numbers.start]
    return picked
