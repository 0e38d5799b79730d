"""Passes over the rows: block by block, spread over the job's threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError
from vwkit.jobs import Job, job
from vwkit.stream import Stream
from vwkit.types import Array

__all__ = ["Frame", "Lists", "Passes", "Totals", "inner", "padded_lists"]

_MOST_ROWS = (1 << 31) - 2
#: Pieces of work for each thread, so that an uneven one does not keep the others waiting.
_PARTS = 8
_NONE = np.zeros(0, np.int32)


@dataclass(frozen=True)
class Frame:
    """Inner coordinates: x' = (x − shift)·scale, divided by its length if `unit`.

    Rows may be codes: then `book`, (m, ks, d/m), has what they stand for.
    """

    shift: NDArray[np.float32]
    scale: float
    unit: bool
    book: NDArray[np.float32] | None = None

    @property
    def wide(self) -> int:
        """Dimensions, filled up to a multiple of 16."""
        return -(-len(self.shift) // 16) * 16

    @cached_property
    def tables(self) -> NDArray[np.float32]:
        """What codes stand for, in inner coordinates."""
        book = cast("NDArray[np.float32]", self.book)
        shift = self.shift.reshape(len(book), 1, -1)
        return np.ascontiguousarray(((book - shift.astype(np.float64)) * self.scale), np.float32)

    def vectors(self, rows: Array, first: int = 0) -> NDArray[np.float32]:
        """Return what rows stand for, (n, d); `first` is the number of the first one."""
        if self.book is None:
            return np.asarray(rows, np.float32)
        self.check(rows, first)
        parts = [self.book[j].take(rows[:, j], axis=0) for j in range(len(self.book))]
        return np.concatenate(parts, axis=1)

    def check(self, rows: Array, first: int = 0) -> None:
        """Refuse codes that stand for nothing."""
        if self.book is None or np.iinfo(rows.dtype).max < self.book.shape[1]:
            return
        if rows.size and int(rows.max()) >= self.book.shape[1]:
            row, place = (int(one[0]) for one in np.nonzero(rows >= self.book.shape[1]))
            raise DataError(
                f"codes: row {first + row} has the code {int(rows[row, place])} at {place}, and the "
                f"quantizer has {self.book.shape[1]} codewords: give it codes that it made"
            )

    def codes(self, centers: NDArray[np.float32]) -> NDArray[Any]:
        """Return the nearest codes of vectors (n, d), each slice by itself."""
        from vwkit_numba.pq_tables import Table, reach_of
        from vwkit_numba.pq_training import encoded

        book = cast("NDArray[np.float32]", self.book)
        table = Table.of(book, centers.dtype, reach_of(book, centers))
        return encoded(table, centers, book.shape[1], job().threads)

    def placed(self, centers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return centers as they may be: what codes stand for, or of length 1 if `unit`.

        Zeros stay zeros.
        """
        if self.book is not None:
            return self.vectors(self.codes(centers))
        if not self.unit:
            return centers
        wide = centers.astype(np.float64)
        lengths = np.sqrt((wide**2).sum(axis=1, keepdims=True))
        return (wide / np.where(lengths > 0, lengths, 1)).astype(np.float32)


@dataclass(frozen=True)
class Lists:
    """Numbers of centers by group, each list a multiple of four long."""

    numbers: NDArray[np.int32]
    starts: NDArray[np.int64]


@dataclass
class Totals:
    """What is added up over the rows of each cluster, in int64 fixed point.

    Attributes
    ----------
    sums : (k, d) int64
    totals : (k, 4) int64
        Weight, rows, weighted distances, weighted gaps to the second nearest center.
    far_keys, far_rows : (k,)
        A row far from its center, drawn with a preference for the farthest; −1 where none is off.
    """

    sums: NDArray[np.int64]
    totals: NDArray[np.int64]
    far_keys: NDArray[np.float64]
    far_rows: NDArray[np.int64]

    @classmethod
    def zeros(cls, k: int, dim: int) -> Totals:
        """Nothing added yet."""
        return cls(
            np.zeros((k, dim), np.int64),
            np.zeros((k, 4), np.int64),
            np.zeros(k),
            np.full(k, -1, np.int64),
        )

    def clear(self, which: NDArray[np.bool_]) -> None:
        """Forget what was added up for some clusters."""
        self.sums[which] = 0
        self.totals[which] = 0
        self.far_keys[which] = 0
        self.far_rows[which] = -1


def inner(centers: Array, frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return centers in inner coordinates with a zero row behind them, and their ‖c‖²/2.

    Returns
    -------
    (k + 1, D) float32, (k + 1,) float32
        The last half norm is so large that no row is nearest to that center.
    """
    from vwkit_numba.kernels import FAR

    moved = np.zeros((len(centers) + 1, frame.wide), np.float32)
    half = np.empty(len(centers) + 1, np.float32)
    step = max(1, (1 << 22) // frame.wide)
    for start in range(0, len(centers), step):
        part = (centers[start : start + step].astype(np.float64) - frame.shift) * frame.scale
        np.clip(part, -1e17, 1e17, out=part)  # as when rows are loaded
        here = slice(start, start + len(part))
        moved[here, : part.shape[1]] = part
        # Of the rounded numbers, which are what products are taken of.
        half[here] = (moved[here].astype(np.float64) ** 2).sum(axis=1) / 2
    if frame.unit:
        half[half == 0] = FAR / 2  # no direction: nearest to nobody, but before the last one
    half[-1] = FAR
    return moved, half


def padded_lists(parts: list[NDArray[Any]], sentinel: int) -> Lists:
    """Join lists of center numbers, each filled up to a multiple of four."""
    starts = np.zeros(len(parts) + 1, np.int64)
    lengths = np.array([-(-len(part) // 4) * 4 for part in parts], np.int64)
    np.cumsum(lengths, out=starts[1:])
    numbers = np.full(int(starts[-1]), sentinel, np.int32)
    for start, part in zip(starts, parts, strict=False):
        numbers[start : start + len(part)] = part
    return Lists(numbers, starts)


@dataclass
class Passes:
    """The rows, and how kernels are run over them."""

    stream: Stream
    weights: NDArray[np.float64] | None
    frame: Frame
    job: Job
    seed: int
    scales: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.stream.count()
        heaviest = 1.0 if self.weights is None else float(self.weights.max())
        # Entries are at most 1 in size, squared distances at most 4·D.
        bits = 61 - math.ceil(math.log2(max(2, self.rows) * heaviest))
        distance_bits = bits - math.ceil(math.log2(8 * self.frame.wide))
        self.scales = np.array([2.0**bits, 2.0**bits, 2.0**distance_bits])
        self._weights = np.zeros(0) if self.weights is None else self.weights

    @property
    def dim(self) -> int:
        """Dimensions of what the rows stand for."""
        return len(self.frame.shift)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what some rows stand for, in any order."""
        order = np.argsort(rows, kind="stable")
        found = np.empty((len(rows), self.dim), np.float32)
        found[order] = self.frame.vectors(self.stream.take(rows[order]))
        return found

    @property
    def pool(self) -> ThreadPoolExecutor:
        """Threads for the kernels, which hold no lock of Python's."""
        if not hasattr(self, "_pool"):
            self._pool = ThreadPoolExecutor(self.job.threads, "vwkit-numba")
        return self._pool

    def close(self) -> None:
        """End the threads."""
        if hasattr(self, "_pool"):
            self._pool.shutdown()

    def over(self, rows: Array) -> Passes:
        """Return the same for some of the rows, on the same threads; without weights."""
        part = replace(self, stream=Stream.from_array(rows), weights=None)
        part._pool = self.pool
        return part

    def spread(self, function: Callable[[int, int], Any], bounds: NDArray[Any]) -> list[Any]:
        """Call ``function(first, last)`` for consecutive bounds, on all threads."""
        self.job.check()
        pairs = [(int(a), int(b)) for a, b in pairwise(bounds) if a < b]
        if self.job.threads == 1 or len(pairs) < 2:
            return [function(a, b) for a, b in pairs]
        return list(self.pool.map(lambda pair: function(*pair), pairs))

    def even(self, count: int) -> NDArray[Any]:
        """Cut 0…count into parts for the threads."""
        parts = min(count, self.job.threads * _PARTS)
        return np.linspace(0, count, parts + 1).astype(np.int64)

    def by_rows(self, starts: NDArray[np.int64]) -> NDArray[Any]:
        """Cut groups into parts of about as many rows."""
        load = starts + 2 * np.arange(len(starts))
        parts = min(len(starts) - 1, self.job.threads * _PARTS)
        bounds = np.searchsorted(load, np.linspace(0, load[-1], parts + 1))
        bounds[0], bounds[-1] = 0, len(starts) - 1
        return bounds

    def parts(self) -> Iterator[tuple[int, Array]]:
        """Yield the rows with the number of the first, in blocks as large as memory allows."""
        if self.stream.array is not None:
            array = self.stream.array
            for start in range(0, self.rows, _MOST_ROWS):
                yield start, array[start : start + _MOST_ROWS]
            return
        row_bytes = self.stream.dim * self.stream.dtype.itemsize + 16
        step = max(1 << 14, min(_MOST_ROWS, self.job.memory // (4 * row_bytes)))
        start = 0
        for block in self.stream.rechunk(step):
            yield start, block
            start += len(block)

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """Yield the same as kernels take it: codes come with their tables."""
        for start, rows in self.parts():
            self.frame.check(rows, start)
            ready = _readonly(rows)
            yield start, ready if self.frame.book is None else (ready, self.frame.tables)

    def assign(
        self,
        groups: NDArray[np.int32],
        group_count: int,
        lists: Lists,
        centers: NDArray[np.float32],
        half: NDArray[np.float32],
        labels: NDArray[np.int32],
        gaps: NDArray[np.float32],
        runners: NDArray[np.int32] | None = None,
        *,
        keep: bool = False,
        touched: NDArray[np.bool_] | None = None,
    ) -> int:
        """Label all rows from their groups' lists; return how many labels changed.

        `groups` may be `labels` or `runners` itself; rows with a negative one are left out.
        `runners` gets a center that is most often the second nearest. With `keep`, a row whose
        label is nearer than its group's list keeps it. `touched` tells which clusters change.
        """
        from vwkit_numba import kernels

        changed = 0
        frame = self.frame
        for start, block in self.blocks():
            here = slice(start, start + _length(block))
            order, starts = self._grouped(groups[here], group_count)
            pieces = kernels.segments(starts)
            block_labels, block_gaps = labels[here], gaps[here]
            block_runners = _NONE if runners is None else runners[here]

            def one(
                first: int,
                last: int,
                block: Any = block,
                order: Any = order,
                pieces: Any = pieces,
                block_labels: Any = block_labels,
                block_gaps: Any = block_gaps,
                block_runners: Any = block_runners,
            ) -> int:
                count: int = kernels.assign(
                    block,
                    frame.shift,
                    np.float32(frame.scale),
                    frame.unit,
                    order,
                    pieces,
                    first,
                    last,
                    lists.numbers,
                    lists.starts,
                    centers,
                    half,
                    keep,
                    block_labels,
                    block_runners,
                    block_gaps,
                    _NONE.view(np.bool_) if touched is None else touched,
                )
                return count

            ends = np.concatenate([[0], np.cumsum(pieces[:, 1] - pieces[:, 0])]).astype(np.int64)
            changed += sum(self.spread(one, self.by_rows(ends) if len(pieces) else ends))
        return changed

    def nearest_groups(
        self, centers: NDArray[np.float32], half: NDArray[np.float32], probes: int
    ) -> NDArray[np.int32]:
        """Return the nearest groups of each row of an array, (n, probes)."""
        from vwkit_numba import graph_kernels

        groups = np.empty((self.rows, probes), np.int32)
        ((_, block),) = self.blocks()
        shift, scale = self.frame.shift, np.float32(self.frame.scale)

        def one(first: int, last: int) -> None:
            graph_kernels.nearest_groups(
                block, shift, scale, self.frame.unit, first, last, centers, half, groups
            )

        self.spread(one, self.even(self.rows))
        return groups

    def accumulate(
        self,
        labels: NDArray[np.int32],
        centers: NDArray[np.float32],
        gaps: NDArray[np.float32],
        totals: Totals,
        active: NDArray[np.bool_],
        draw: int,
    ) -> None:
        """Add up the rows of the active clusters anew."""
        from vwkit_numba import kernels

        totals.clear(active)
        frame = self.frame
        seed = np.uint64((self.seed * 1_000_003 + draw) * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
        for start, block in self.blocks():
            here = slice(start, start + _length(block))
            order, starts = self._grouped(labels[here], len(active))
            weights = self._weights[here] if len(self._weights) else self._weights

            def one(
                first: int,
                last: int,
                start: int = start,
                block: Any = block,
                order: Any = order,
                starts: Any = starts,
                weights: Any = weights,
                here: slice = here,
            ) -> None:
                kernels.accumulate(
                    block,
                    frame.shift,
                    np.float32(frame.scale),
                    frame.unit,
                    weights,
                    order,
                    starts,
                    first,
                    last,
                    active,
                    centers,
                    gaps[here],
                    start,
                    seed,
                    self.scales,
                    totals.sums,
                    totals.totals,
                    totals.far_keys,
                    totals.far_rows,
                )

            self.spread(one, self.by_rows(starts))

    def means(self, totals: Totals, centers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the means of the clusters that have weight; other centers stay."""
        from vwkit_numba import kernels

        fresh = centers.copy()

        def one(a: int, b: int) -> None:
            kernels.means(
                totals.sums[a:b],
                totals.totals[a:b],
                self.scales,
                self.frame.shift,
                self.frame.scale,
                self.frame.unit,
                fresh[a:b],
            )

        self.spread(one, self.even(len(fresh)))
        return fresh

    def objective(self, totals: Totals) -> float:
        """Return the mean weighted distance, in the data's units."""
        # Python's whole numbers: the sum over clusters may need more than 64 bits.
        distance: float = sum(totals.totals[:, 2].tolist()) / float(self.scales[2])
        mass: float = sum(totals.totals[:, 0].tolist()) / float(self.scales[1])
        if self.frame.unit:
            return distance / 2 / mass  # 1 − cos of unit vectors is half their squared distance
        return distance / mass / self.frame.scale**2

    @staticmethod
    def _grouped(labels: NDArray[np.int32], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        from vwkit_numba import kernels

        order = np.empty(len(labels), np.int32)
        starts = np.empty(k + 1, np.int64)
        kernels.group_rows(labels, k, order, starts)
        return order, starts


def _length(block: Any) -> int:
    return len(block[0] if isinstance(block, tuple) else block)


def _readonly(array: Array) -> Array:
    """Return a view that numba sees as one type, whether it is mapped, writable or not."""
    view: Array = np.ascontiguousarray(array).view(np.ndarray)
    view = view[:]
    view.flags.writeable = False
    return view
