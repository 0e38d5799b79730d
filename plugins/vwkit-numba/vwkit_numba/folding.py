"""Equal rows as one row with a weight."""

from __future__ import annotations

import logging
import tempfile

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.stream import Stream, row_spans
from vwkit.types import Array

__all__ = ["folded"]

_log = logging.getLogger("vwkit")
_BLOCK = 1 << 18
_MAPPED = 1 << 30
_MULTIPLIER = 0x9E3779B97F4A7C15


def folded(
    stream: Stream, weights: NDArray[np.float64] | None, least: int
) -> tuple[Stream, NDArray[np.float64] | None, NDArray[np.int64] | None]:
    """Return the distinct rows, the weight of each, and which of them each row is.

    Rows are told apart by 64-bit hashes, and compared byte by byte where these agree. Memory:
    24 bytes a row; the distinct rows are copied, above 1 GiB into a file that vanishes.

    Parameters
    ----------
    least : int
        If there are fewer distinct rows, or no duplicates, everything is returned as it was.

    Returns
    -------
    stream, weights
    places : (n,) int64 or None
        None if nothing was folded.
    """
    count = stream.count()
    hashes = np.empty(count, np.uint64)
    start = 0
    for part in job().map(_hashed, stream, rows=_BLOCK):
        hashes[start : start + len(part)] = part
        start += len(part)
    order = np.argsort(hashes, kind="stable")
    equal = hashes[order[1:]] == hashes[order[:-1]]
    # Of each run of equal hashes, the first row, in the order of the data.
    heads = np.concatenate([[True], ~equal])
    first = order[np.maximum.accumulate(np.where(heads, np.arange(count), 0))]
    owner = np.empty(count, np.int64)
    owner[order] = first
    del order, first, heads, equal, hashes
    other = np.flatnonzero(owner != np.arange(count))
    for a, b in row_spans(len(other), _BLOCK):
        rows = other[a:b]
        differ = (stream.take(rows) != _taken(stream, owner[rows])).any(axis=1)
        owner[rows[differ]] = rows[differ]  # two rows with one hash
    kept = np.flatnonzero(owner == np.arange(count))
    if len(kept) == count or len(kept) < least:
        return stream, weights, None
    places = np.searchsorted(kept, owner)
    mass = np.bincount(places, weights=weights, minlength=len(kept)).astype(np.float64)
    _log.info("%d of %d rows are distinct", len(kept), count)
    return Stream.from_array(_copied(stream, kept)), mass, places


def _hashed(block: Array) -> NDArray[np.uint64]:
    """Hash the bytes of rows: a polynomial of their 8-byte words, mixed between them."""
    plain = np.ascontiguousarray(block + np.zeros((), block.dtype))  # −0 becomes 0
    data = plain.view(np.uint8).reshape(len(plain), -1)
    padded = np.zeros((len(data), -(-data.shape[1] // 8) * 8), np.uint8)
    padded[:, : data.shape[1]] = data
    found = np.zeros(len(data), np.uint64)
    for word in padded.view(np.uint64).T:
        found = (found ^ word) * np.uint64(_MULTIPLIER)
        found ^= found >> np.uint64(29)
    return found


def _taken(stream: Stream, rows: NDArray[np.int64]) -> Array:
    """Take rows that are in no order, and some more than once."""
    distinct, places = np.unique(rows, return_inverse=True)
    return stream.take(distinct)[places]


def _copied(stream: Stream, rows: NDArray[np.int64]) -> Array:
    shape = (len(rows), stream.dim)
    if len(rows) * stream.dim * stream.dtype.itemsize <= _MAPPED:
        copy: Array = np.empty(shape, stream.dtype)
    else:
        with tempfile.TemporaryFile() as file:
            copy = np.memmap(file, stream.dtype, "w+", shape=shape)
    for a, b in row_spans(len(rows), _BLOCK):
        copy[a:b] = stream.take(rows[a:b])
    return copy
