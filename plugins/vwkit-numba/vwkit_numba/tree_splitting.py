"""How the nodes of a vocabulary tree are split: k-means of the rows of each, here or on workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.row_readers import rows_of
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.elsewhere import Elsewhere
from vwkit_numba.frames import Frame
from vwkit_numba.passes import Passes
from vwkit_numba.room import readonly

__all__ = ["Drawn", "Splitting", "drawn", "split_nodes"]

#: What rows that are read together may take; on workers smaller batches spread better.
_BATCH_BYTES = 32 << 20
_FAR_BYTES = 1 << 20
_FAR_BATCHES = 256
_MOST_FAR_BYTES = 1 << 30
#: Candidates for each start of a k-means; for many children they would take longer than it.
_TRIALS = 3
_FEW = 64
_BITS = (1 << 64) - 1


@dataclass(frozen=True)
class Splitting:
    """What a split depends on beside the rows.

    Attributes
    ----------
    frame : Frame
    branch, iterations : int
    seed : int
        Any whole number.
    """

    frame: Frame
    branch: int
    iterations: int
    seed: int


@dataclass(frozen=True)
class Drawn:
    """The rows that nodes are split by: ``order[starts[i]]`` to ``order[starts[i + 1]]`` for node i."""

    order: NDArray[Any]
    starts: NDArray[np.int64]


def drawn(
    nodes: NDArray[np.int32],
    weights: NDArray[np.float64],
    lowest: int,
    limits: NDArray[np.float64],
    seed: int,
) -> Drawn:
    """Draw a share of each node's rows.

    Parameters
    ----------
    nodes : (n,) int32
        The node of each row.
    weights : (n,) float64, empty for all ones
    lowest : int
        The first node that may be split.
    limits : (m,) float64
        The share of each from there on.
    """
    from vwkit_numba import tree_kernels

    kind = np.int32 if len(nodes) < 1 << 31 else np.int64
    kept = np.zeros(len(limits), np.int64)
    given = nodes, weights, lowest, limits, np.uint64(seed & _BITS)
    tree_kernels.keep_rows(*given, kept, np.empty(0, kind))
    starts = np.append(0, np.cumsum(kept))
    order = np.empty(starts[-1], kind)
    tree_kernels.keep_rows(*given, starts[:-1].copy(), order)
    return Drawn(order, starts)


def split_nodes(
    passes: Passes, rows: Drawn, lowest: int, how: Splitting, first: int = 0
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.int64]]]:
    """Split the nodes of a level from the one numbered ``lowest + first`` on, some at a time.

    Yields
    ------
    last : int
        Up to which node of the level it is done.
    centers : (c, d) float32
        In the data's coordinates.
    counts : (nodes,) int64
        How many of them each of the nodes since the last has; 0 where all rows are equal.
    """
    stream, starts = passes.stream, rows.starts
    weights = np.zeros(0) if passes.weights is None else passes.weights
    away = isinstance(passes, Elsewhere)
    cuts = list(_batches(stream, starts, first, passes.job.memory, away=away))
    if away:
        found = _found_elsewhere(passes, weights, rows, lowest, how, cuts)
        for (_, b), (centers, counts) in zip(cuts, found, strict=True):
            yield b, centers, counts
        return
    for a, b in cuts:
        block, own, places = _read(stream, weights, rows.order[starts[a] : starts[b]])
        here = starts[a : b + 1] - starts[a]
        bounds = passes.by_rows(here)

        def spread(one: Callable[[int, int], None], bounds: Any = bounds) -> None:
            passes.spread(one, bounds)

        yield b, *_split(block, own, places, here, lowest + a, how, spread)


def _batches(
    stream: Stream, starts: NDArray[np.int64], first: int, memory: int, *, away: bool
) -> Iterator[tuple[int, int]]:
    """Cut the nodes into batches whose rows fit in memory."""
    row_bytes = stream.dim * stream.dtype.itemsize
    room = _BATCH_BYTES
    if away:
        share = int(starts[-1]) * row_bytes // _FAR_BATCHES
        room = max(min(_FAR_BYTES, room), min(share, _MOST_FAR_BYTES, memory // 8))
    elif stream.array is None and stream._random is None:
        room = max(room, memory // 4)  # each batch reads the whole stream
    step = max(1, room // row_bytes)
    a, last = first, len(starts) - 1
    while a < last:
        b = max(a + 1, int(np.searchsorted(starts, starts[a] + step, "right")) - 1)
        yield a, b
        a = b


def _read(
    stream: Stream, weights: NDArray[np.float64], rows: NDArray[Any]
) -> tuple[Array, NDArray[np.float64], NDArray[Any]]:
    """Return some rows, their weights, and where each of them is."""
    array = stream.array
    if array is not None and type(array) is np.ndarray:
        return readonly(array), weights, rows
    ascending, places = _ascending(rows)
    own = weights[ascending] if len(weights) else weights
    return readonly(stream.take(ascending)), own, places


def _ascending(rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rows in ascending order, and where each of them is then."""
    order = np.argsort(rows, kind="stable")
    places = np.empty(len(rows), rows.dtype)
    places[order] = np.arange(len(rows), dtype=rows.dtype)
    return rows[order], places


def _split(
    block: Array,
    weights: NDArray[np.float64],
    places: NDArray[Any],
    starts: NDArray[np.int64],
    lowest: int,
    how: Splitting,
    spread: Callable[[Callable[[int, int], None]], None],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Split some nodes: rows ``places[starts[i]]`` to ``places[starts[i + 1]]`` are of node i."""
    from vwkit_numba import tree_kernels

    slots = np.append(0, np.cumsum(np.minimum(np.diff(starts), how.branch)))
    found = np.empty((slots[-1], block.shape[1]), np.float32)
    counts = np.zeros(len(starts) - 1, np.int64)
    weights, places, starts = readonly(weights), readonly(places), readonly(starts)
    shift = readonly(how.frame.shift)

    def one(first: int, last: int) -> None:
        tree_kernels.split(
            block,
            shift,
            np.float32(how.frame.scale),
            weights,
            places,
            starts,
            first,
            last,
            lowest,
            how.branch,
            how.iterations,
            _TRIALS if how.branch <= _FEW else 1,
            np.uint64(how.seed & _BITS),
            slots,
            found,
            counts,
        )

    spread(one)
    used = np.repeat(slots[:-1] + counts, np.diff(slots)) > np.arange(len(found))
    return found[used], counts


# On workers ---------------------------------------------------------------------------------------


def _found_elsewhere(
    passes: Passes,
    weights: NDArray[np.float64],
    rows: Drawn,
    lowest: int,
    how: Splitting,
    cuts: list[tuple[int, int]],
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Let workers split the nodes between some cuts; they read the rows where they can."""
    stream, starts = passes.stream, rows.starts
    reads = stream.reader is not None and stream.step is not None

    def tasks() -> Iterator[tuple[Any, ...]]:
        for a, b in cuts:
            wanted = rows.order[starts[a] : starts[b]]
            own = weights[wanted] if len(weights) else weights
            what = wanted if reads else _taken(stream.take, wanted)
            yield what, own, starts[a : b + 1] - starts[a], lowest + a

    shared: dict[str, Any] = {"how": how}
    if reads:
        shared |= {"reader": stream.reader, "step": stream.step, "count": passes.rows}
    return passes.job.each(_split_elsewhere, tasks(), shared)


def _split_elsewhere(
    what: Array,
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    lowest: int,
    *,
    how: Splitting,
    reader: Any = None,
    step: int = 0,
    count: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Split some nodes by their rows, node by node, or by the numbers of rows that are read here."""
    if starts[-1] == 0:
        return np.empty((0, len(how.frame.shift)), np.float32), np.zeros(len(starts) - 1, np.int64)

    def take(wanted: NDArray[Any]) -> Array:
        return rows_of(reader, wanted, step, count)

    block = what if reader is None else _taken(take, what)
    places = np.arange(len(block), dtype=np.int32)

    def spread(one: Callable[[int, int], None]) -> None:
        one(0, len(starts) - 1)

    return _split(readonly(block), weights, places, starts, lowest, how, spread)


def _taken(take: Callable[[NDArray[Any]], Array], rows: NDArray[Any]) -> Array:
    """Return rows that are in no order."""
    ascending, places = _ascending(rows)
    found: Array = take(ascending)[places]
    return found
