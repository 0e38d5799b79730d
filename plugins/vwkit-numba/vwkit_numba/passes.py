"""Passes over the rows: block by block, spread over the job's threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import Job
from vwkit.stream import Stream, row_spans
from vwkit.types import Array
from vwkit_numba.frames import Frame, inner
from vwkit_numba.lists import Lists, padded_lists
from vwkit_numba.marks import Mark
from vwkit_numba.room import MOST_ROWS, mapped_from, most_rows, readonly, room
from vwkit_numba.spreading import Spread
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

_NONE = np.zeros(0, np.int32)
_LEAST_ROWS = 1 << 14  # of a stream that are looked at together, however little memory there is

#: Makes the groups of some rows of their labels and runners; it can be pickled.
Groups = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.int32]]
#: Works on rows: a module-level function ``task(passes, *state, **arrays)`` that writes into the state.
Task = Callable[..., Any]


@dataclass
class Passes(Spread):
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

    def over(self, rows: Array, first: int) -> Passes:
        """Return the same for some of the rows, on the same threads; without weights."""
        own = Stream.from_array(rows)
        part = replace(self, stream=own, weights=None, first=self.first + first)
        part._pool = self.pool
        return part

    def parts(self, row: int = 0) -> Iterator[tuple[int, Array]]:
        """Yield the rows from `row` on with the number of the first, in blocks as large as memory allows."""
        if row >= self.rows:
            return
        if self.stream.array is not None:
            array = self.stream.array
            step = most_rows(self.job.memory)
            for start in range(row, self.rows, step):
                yield start, array[start : start + step]
            return
        row_bytes = self.stream.dim * self.stream.dtype.itemsize + 16
        step = max(_LEAST_ROWS, min(MOST_ROWS, self.job.memory // (4 * row_bytes)))
        start = row
        for block in self.stream.from_row(row).rechunk(step):
            yield start, block
            start += len(block)

    def blocks(self, row: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield the same as kernels take it: codes come with their tables."""
        for start, rows in self.parts(row):
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
        mark: Mark | None = None,
    ) -> int:
        """Label all rows from their groups' lists; return how many labels changed.

        `groups` may be `labels` or `runners` itself, or a function that makes those of some rows of
        their labels and runners; rows with a negative one are left out.
        `runners` gets a center that is most often the second nearest. With `keep`, a row whose
        label is nearer than its group's list keeps it. `touched` tells which clusters change.
        `mark` tells where to begin, and is told how far it is.
        """
        from vwkit_numba import kernels

        mark = mark or Mark()
        frame = self.frame
        numbers, firsts = readonly(lists.numbers), readonly(lists.starts)
        centers, half = readonly(centers), readonly(half)
        for start, block in self.blocks(mark.row):
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
            mark.changed += sum(self.spread(one, self.by_rows(ends) if len(pieces) else ends))
            mark.reached(here.stop)
        return mark.changed

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
        mark: Mark,
        *,
        keep: bool,
    ) -> bool:
        """Label all rows as `assign` does; perhaps also add up the clusters that change.

        `touched` has the clusters whose centers moved, and gets those whose rows are others now.
        `mark` counts the labels that change.

        Returns
        -------
        bool
            Whether `totals` and `touched` are already as `accumulate` leaves them.
        """
        centers, half = ready
        state = labels, gaps, runners
        count = len(half) - 1
        self.assign(
            groups, count, lists, centers, half, *state, keep=keep, touched=touched, mark=mark
        )
        return False

    def run(
        self,
        task: Task,
        arrays: Mapping[str, Any],
        *,
        read: tuple[Array, ...] = (),
        change: tuple[Array, ...] = (),
        write: tuple[Array, ...] = (),
        unit: str | None = None,
        mark: Mark | None = None,
        rows: int = 1 << 18,
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
            With it, it is told how far this is.
        mark : Mark, optional
            Tells where to begin, and is told how far it is, behind what is yielded. Then the task
            gets some rows at a time, without weights; else all at once.
        rows : int
            How many that is here.
        """
        state = (*read, *change, *write)
        if mark is None:
            yield task(self, *state, **arrays)
            return
        for start, block in self.parts(mark.row):
            for first, last in row_spans(len(block), rows):
                here = slice(start + first, start + last)
                part = self.over(block[first:last], here.start)
                yield task(part, *(one[here] for one in state), **arrays)
                if unit is not None:
                    self.job.progress(here.stop, self.rows, unit)
                mark.reached(here.stop)

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
        mark: Mark | None = None,
    ) -> None:
        """Add up the rows of the active clusters anew, or those from a mark on."""
        from vwkit_numba import kernels

        mark = mark or Mark()
        if mark.row == 0:
            totals.clear(active)
        frame, centers = self.frame, readonly(centers)
        seed = np.uint64((self.seed * 1_000_003 + draw) * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
        for start, block in self.blocks(mark.row):
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
            mark.reached(here.stop)

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
