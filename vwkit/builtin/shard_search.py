"""Searching shards: each by itself, and their answers put together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.builtin.shelf import Shard, Shelf
from vwkit.index import Index
from vwkit.jobs import Job, use_job
from vwkit.types import Array

__all__ = ["merged", "search_shard"]

_LAST = np.iinfo(np.int64).max


def search_shard(
    shard: Shard,
    start: int,
    inside: NDArray[np.int64] | None,
    *,
    shelf: Shelf,
    like: Index,
    queries: Any,
    k: int,
    within: Job,
) -> tuple[Array, Array]:
    """Search one shard; rows are those of the whole index."""
    with use_job(within):
        index = shelf.opened(shard)
        late = {name: getattr(like, name) for name in like.late}
        other = {name: value for name, value in late.items() if getattr(index, name) != value}
        found = index.search(queries, k, allowed=inside, **other)
    rows = np.where(found.ids < 0, -1, found.ids + start)
    return rows, found.distances


def merged(
    one: tuple[Array, Array], other: tuple[Array, Array], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the k nearest of two answers; of equally near ones, those of the lowest rows."""
    rows = np.concatenate([one[0], other[0]], axis=1)
    distances = np.concatenate([one[1], other[1]], axis=1)
    # What stands for "none" comes behind everything, also behind what is infinitely far.
    order = np.lexsort((np.where(rows < 0, _LAST, rows), distances), axis=1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(distances, order, axis=1)
