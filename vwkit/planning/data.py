"""What a slot is going to receive, as far as it is known, and rows to try things out on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vwkit.hashing import sample_rows
from vwkit.planning.spent import NOTHING, Spent
from vwkit.sparse import Sparse
from vwkit.stream import Stream
from vwkit.types import Array

__all__ = ["Flowing", "enlarged", "made_rows", "made_sparse", "sampled"]

# No trial looks at more bytes than this.
_MOST_BYTES = 256 << 20


@dataclass
class Flowing:
    """Rows on their way to the next slot.

    Attributes
    ----------
    rows : float or None
    dim : int or None
    dtype : dtype
    mapped : bool
        Whether they are an array in a file, so that they need no memory.
    held : bool
        Whether they are an array in memory; otherwise, and if not mapped, they are computed as read.
    stream : bool
        Whether they come as a Stream, so that what is done to them is done when they are read.
    read : Spent
        What it takes to make or read one row, each time that it is read.
    sparse : float or None
        Entries in a row that are not 0, where the rows are sparse.
    sample : callable
        Returns some rows, at most so many.
    about : plain data
        What the sample depends on; a part of what measurements are remembered by.
    """

    rows: float | None
    dim: int | None
    dtype: np.dtype[Any]
    mapped: bool = False
    held: bool = False
    stream: bool = False
    read: Spent = NOTHING
    sparse: float | None = None
    sample: Callable[[int], Any] | None = None
    about: Any = None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as it comes."""
        return (self.dim or 0) * self.dtype.itemsize

    def some(self, rows: int) -> Any:
        """Return so many rows: of the data where there are enough, else others like them."""
        rows = max(1, rows)
        if self.dim is not None:
            rows = min(rows, max(64, _MOST_BYTES // max(1, self.dim * 4)))
        if self.sparse is not None:
            return made_sparse(rows, self.dim or 1, self.sparse)
        found = self.sample(rows) if self.sample is not None else None
        if found is None or len(found) == 0:
            return made_rows(rows, self.dim or 1, self.dtype)
        return enlarged(found, rows)


def sampled(stream: Stream, rows: int, seed: int = 0) -> Array:
    """Return some rows of a Stream: at random where it can, else the first."""
    if stream.rows is not None and (stream.array is not None or stream._random is not None):
        return np.ascontiguousarray(stream.take(sample_rows(stream.rows, rows, seed)))
    parts: list[Array] = []
    count = 0
    for chunk in stream.chunks():
        parts.append(chunk[: rows - count])
        count += len(parts[-1])
        if count >= rows:
            break
    return np.concatenate(parts) if parts else np.empty((0, stream.dim), stream.dtype)


def enlarged(rows: Array, count: int, seed: int = 0) -> Array:
    """Return `count` rows: these, and if they are too few, others beside them."""
    if len(rows) >= count:
        return np.ascontiguousarray(rows[:count])
    rng = np.random.default_rng(seed)
    more = rng.integers(0, len(rows), count - len(rows))
    spread = rows.astype(np.float64).std(axis=0) * 0.3 + 1e-6
    near = rows[more] + rng.normal(0, 1, (len(more), rows.shape[1])) * spread
    if rows.dtype.kind in "ui":
        limits = np.iinfo(rows.dtype)
        near = np.clip(np.rint(near), max(limits.min, rows.min()), min(limits.max, rows.max()))
    return np.concatenate([rows, near.astype(rows.dtype)])


def made_rows(count: int, dim: int, dtype: np.dtype[Any], seed: int = 0) -> Array:
    """Return rows around a few hundred points."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 200, (256, dim))
    rows = centers[rng.integers(0, 256, count)] + rng.normal(0, 15, (count, dim))
    if dtype.kind in "ui":
        rows = np.clip(np.rint(rows), 0, min(255, np.iinfo(dtype).max))
    return rows.astype(dtype)


def made_sparse(count: int, dim: int, entries: float, seed: int = 0) -> Sparse:
    """Return sparse rows with about so many entries each."""
    rng = np.random.default_rng(seed)
    each = max(1, min(dim, round(entries)))
    columns = np.sort(rng.integers(0, dim, (count, each)), axis=1)
    fresh = np.ones(columns.shape, bool)
    fresh[:, 1:] = columns[:, 1:] != columns[:, :-1]
    indptr = np.concatenate([[0], np.cumsum(fresh.sum(axis=1))]).astype(np.int64)
    indices = columns[fresh].astype(np.int32)
    values = rng.uniform(0.1, 1, len(indices)).astype(np.float32)
    return Sparse(indptr, indices, values, (count, dim))
