"""Passes over the rows: block by block, spread over the job's threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import Job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.frames import Frame, inner
from vwkit_numba.lists import Lists, padded_lists
from vwkit_numba.room import MOST_ROWS, mapped_from, most_rows, readonly, room
from vwkit_numba.taking import taken
from vwkit_numba.totals import Totals

__all__ = [
    "Frame",
    "Groups",
    "Lists",
    "Passes",
    "Task",
    "Totals",
    "inner",
    "mapped_from",
    "most_rows",
    "padded_lists",
    "room",
]

#: Pieces of work for each thread, so that an uneven one does not keep the others waiting.
_PARTS = 8
_NONE = np.zeros(0, np.int32)

#: Makes the groups of some rows of their labels and runners; it can be pickled.
Groups = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.int32]]
#: Works on rows: a module-level function ``task(passes, *state, **arrays)`` that writes into the state.
Task = Callable[..., Any]


@dataclass
class Passes:
    """The rows, and how kernels are run over them.

    Attributes
    ----------
    scales : (3,) float64
        Units of the fixed point per 1 of a vector's entry, of a weight, of a squared distance.
    first : int
        The number of the first row, where these are some of the rows of a fit.
    """

    stream: Stream
    weights: NDArray[np.float64] | None
    frame: Frame
    job: Job
    seed: int
    scales: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    first: int = 0

    def __post_init__(self) -> None:
        self.rows = self.stream.count()
        self._weights = np.zeros(0) if self.weights is None else self.weights
        self._shift = readonly(self.frame.shift)
        if len(self.scales):
            return
        heaviest = 1.0 if self.weights is None else float(self.weights.max())
        # Entries are at most 1 in size, squared distances at most 4·D.
        bits = 61 - math.ceil(math.log2(max(2, self.rows) * heaviest))
        distance_bits = bits - math.ceil(math.log2(8 * self.frame.wide))
        self.scales = np.array([2.0**bits, 2.0**bits, 2.0**distance_bits])

    @property
    def dim(self) -> int:
        """Dimensions of what the rows stand for."""
        return len(self.frame.shift)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what some rows stand for, in any order."""
        order = np.argsort(rows, kind="stable")
        found = np.empty((len(rows), self.dim), np.float32)
        found[order] = self.frame.vectors(taken(self.stream, rows[order]))
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

    def over(self, rows: Array, first: int) -> Passes:
        """Return the same for some of the rows, on the same threads; without weights."""
        own = Stream.from_array(rows)
        part = replace(self, stream=own, weights=None, first=self.first + first)
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
            step = most_rows(self.job.memory)
            for start in range(0, self.rows, step):
                yield start, array[start : start + step]
            return
        row_bytes = self.stream.dim * self.stream.dtype.itemsize + 16
        step = max(1 << 14, min(MOST_ROWS, self.job.memory // (4 * row_bytes)))
        start = 0
        for block in self.stream.rechunk(step):
            yield start, block
            start += len(block)

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """Yield the same as kernels take it: codes come with their tables."""
        for start, rows in self.parts():
            self.frame.check(rows, self.first + start)
            ready = readonly(rows)
            yield start, ready if self.frame.book is None else (ready, readonly(self.frame.tables))

    def assign(
        self,
        groups: NDArray[np.int32] | Groups,
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

        `groups` may be `labels` or `runners` itself, or a function that makes those of some rows of
        their labels and runners; rows with a negative one are left out.
        `runners` gets a center that is most often the second nearest. With `keep`, a row whose
        label is nearer than its group's list keeps it. `touched` tells which clusters change.
        """
        from vwkit_numba import kernels

        changed = 0
        frame = self.frame
        numbers, firsts = readonly(lists.numbers), readonly(lists.starts)
        centers, half = readonly(centers), readonly(half)
        for start, block in self.blocks():
            here = slice(start, start + _length(block))
            block_labels, block_gaps = labels[here], gaps[here]
            block_runners = _NONE if runners is None else runners[here]
            own = groups(block_labels, block_runners) if callable(groups) else groups[here]
            order, starts = self._grouped(own, group_count)
            pieces = kernels.segments(starts)

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
                    self._shift,
                    np.float32(frame.scale),
                    frame.unit,
                    order,
                    pieces,
                    first,
                    last,
                    numbers,
                    firsts,
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

    def update(
        self,
        groups: Groups,
        lists: Lists,
        ready: tuple[NDArray[np.float32], NDArray[np.float32]],
        labels: NDArray[np.int32],
        gaps: NDArray[np.float32],
        runners: NDArray[np.int32],
        totals: Totals,
        touched: NDArray[np.bool_],
        draw: int,
        *,
        keep: bool,
    ) -> int:
        """Label all rows as `assign` does and add up the clusters that change; return how many labels do.

        `touched` has the clusters whose centers moved, and gets those whose rows are others now.
        """
        centers, half = ready
        changed = self.assign(
            groups,
            len(half) - 1,
            lists,
            centers,
            half,
            labels,
            gaps,
            runners,
            keep=keep,
            touched=touched,
        )
        self.accumulate(labels, centers, gaps, totals, touched, draw)
        return changed

    def run(
        self,
        task: Task,
        arrays: Mapping[str, Any],
        *,
        read: tuple[Array, ...] = (),
        change: tuple[Array, ...] = (),
        write: tuple[Array, ...] = (),
        unit: str | None = None,
    ) -> Iterator[Any]:
        """Run a task on the rows, perhaps on blocks of them; yield what it returns.

        Parameters
        ----------
        task : callable
            ``task(passes, *read, *change, *write, **arrays)``.
        read, change, write : (n,) arrays
            One number for each row: such as the task needs alone, such as it changes, and such as it
            writes without looking at them (nothing below 0).
        unit : str, optional
            With it, who runs the task elsewhere tells how far it is.
        """
        yield task(self, *read, *change, *write, **arrays)

    def nearest_groups(
        self, centers: NDArray[np.float32], half: NDArray[np.float32], probes: int
    ) -> NDArray[np.int32]:
        """Return the nearest groups of each row of an array, (n, probes)."""
        from vwkit_numba import graph_kernels

        groups = np.empty((self.rows, probes), np.int32)
        ((_, block),) = self.blocks()
        shift, scale = self._shift, np.float32(self.frame.scale)

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
        frame, centers = self.frame, readonly(centers)
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
                    self._shift,
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
                    self.first + start,
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
