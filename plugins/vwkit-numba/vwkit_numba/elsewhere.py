"""Passes over rows whose chunks are computed elsewhere: by other processes, on other machines.

A worker runs the same kernels on a block of rows as would be run here, and sends back what it
changed and what it added up. Nothing of it depends on how the rows are cut: labels and gaps are of
each row by itself, sums are of whole numbers, and of rows drawn by a key the largest is kept. So the
result is that of `vwkit_numba.passes.Passes`, byte for byte.

What travels in a pass of a fit, for n rows, k centers of d dimensions, and κ neighbours:

* to each worker, once: 4·(d + κ) + 14 bytes a center: the centers, their lists, and which of them
  have moved (workers hand it on among themselves, if the executor can);
* to a worker, for each of its rows: 4 bytes, the label; every second time 4 more, the second nearest
  center; 8 for a weight; and 4 more, the gap, once rows are left out because nothing near has moved;
* from it, for each of its rows that was compared: 4 bytes of the gap, and every second time 4 of the
  second nearest center; 4 of a label that changed; and a few bits that say which rows these are;
* between workers and from the last: 8·d + 52 bytes for each cluster that has rows in the block.

Rows themselves travel only where workers cannot read them: those of arrays in memory, and of compressed
files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import Job, job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.frames import Frame
from vwkit_numba.lists import Lists
from vwkit_numba.passes import Groups, Passes, Task
from vwkit_numba.room import readonly
from vwkit_numba.taking import aligned, block_rows
from vwkit_numba.totals import PartTotals, Tally, Totals

__all__ = ["Elsewhere", "passes_of"]

#: From this share of clusters on that change, all are added up in the pass that finds it out.
_MANY = 0.5
# What no row has: it tells that nothing was written.
_UNWRITTEN = -1


def passes_of(
    stream: Stream,
    weights: NDArray[np.float64] | None,
    frame: Frame,
    current: Job,
    seed: int,
    centers: int,
) -> Passes:
    """Return the passes over rows that are computed where the job's chunks are."""
    if not current.distributed:
        return Passes(stream, weights, frame, current, seed)
    found = Elsewhere(stream, weights, frame, current, seed)
    found.block = block_rows(stream, centers)
    return found


# What a worker does -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """A task on a block, and what it needs of the fit."""

    task: Task
    frame: Frame
    seed: int
    scales: NDArray[np.float64]
    weighted: bool
    reads: int
    written: tuple[np.dtype[Any], ...]


@dataclass(frozen=True)
class _Change:
    """What became other numbers among those of the rows of a block.

    Attributes
    ----------
    which : uint8 or None
        Packed bits: for which rows; None for all.
    values
        One for each of these.
    """

    which: NDArray[np.uint8] | None
    values: Array

    @classmethod
    def of(cls, before: Any, after: Array) -> _Change:
        other = before != after
        return cls(None, after) if other.all() else cls(np.packbits(other), after[other])

    def put(self, into: Array) -> None:
        from vwkit_numba import merging

        if self.which is None:
            into[:] = self.values
        else:
            merging.put(readonly(self.which), readonly(self.values), into)


@dataclass(frozen=True)
class _Found:
    """What comes of some blocks: for each its rows and what changed there, and all that adds up."""

    blocks: tuple[tuple[range, list[_Change]], ...]
    tally: Any


def _merged(a: _Found, b: _Found) -> _Found:
    tally = b.tally if a.tally is None else a.tally
    if a.tally is not None and b.tally is not None:
        tally = a.tally.merged(b.tally)
    return _Found(a.blocks + b.blocks, tally)


def _parted(found: _Found) -> tuple[_Found, _Found]:
    return _Found(found.blocks, None), _Found((), found.tally)


def _on_block(
    rows: Array, numbers: range, *given: Array, work: _Work, arrays: dict[str, Any]
) -> _Found:
    """Run a task on a block of rows."""
    weights = _own(given[0]) if work.weighted else None
    read = given[work.weighted : work.weighted + work.reads]
    before = given[work.weighted + work.reads :]
    # Others may hold what was given.
    changed = [np.array(one) for one in before]
    written = [np.full(len(rows), _UNWRITTEN, dtype) for dtype in work.written]
    stream = Stream.from_array(rows)
    passes = Passes(stream, weights, work.frame, job(), work.seed, _own(work.scales), numbers.start)
    try:
        tally = work.task(passes, *map(_own, read), *changed, *written, **arrays)
    finally:
        passes.close()
    changes = [_Change.of(old, new) for old, new in zip(before, changed, strict=True)]
    changes += [_Change.of(_UNWRITTEN, new) for new in written]
    return _Found(((numbers, changes),), tally)


def _own(array: Array) -> Array:
    """Return what compiled code takes for an ordinary array."""
    own: Array = np.require(array, requirements=["C", "W"])
    return own


# Tasks --------------------------------------------------------------------------------------------


def _assigned(
    passes: Passes,
    *state: NDArray[Any],
    named: tuple[str, ...],
    groups: Groups | None,
    group_count: int,
    lists: Lists,
    centers: NDArray[np.float32],
    half: NDArray[np.float32],
    keep: bool,
    draw: int | None = None,
) -> Tally:
    """Label the rows, and with `draw` add all of them up."""
    held = dict(zip(named, state, strict=True))
    touched = np.zeros(len(half) - 1, np.bool_)
    changed = passes.assign(
        held["groups"] if groups is None else groups,
        group_count,
        lists,
        centers,
        half,
        held["labels"],
        held["gaps"],
        held.get("runners"),
        keep=keep,
        touched=touched,
    )
    totals = None
    if draw is not None:
        every = np.arange(len(touched), dtype=np.int32)
        totals = _added(
            passes, held["labels"], held["gaps"], place=every, centers=centers, draw=draw
        )
    return Tally.of(changed, touched, totals)


def _added(
    passes: Passes,
    labels: NDArray[np.int32],
    gaps: NDArray[np.float32],
    *,
    place: NDArray[np.int32],
    centers: NDArray[np.float32],
    draw: int,
) -> PartTotals:
    """Add up the rows of some clusters: `place` tells which they are, −1 for the others."""
    own = place[labels]
    present = np.flatnonzero(np.bincount(own[own >= 0], minlength=len(centers)))
    to = np.full(len(centers) + 1, -1, np.int32)  # the last for those that are left out
    to[present] = np.arange(len(present), dtype=np.int32)
    totals = Totals.zeros(len(present), passes.dim)
    active = np.ones(len(present), np.bool_)
    passes.accumulate(to[own], centers[present], gaps, totals, active, draw)
    return PartTotals(present.astype(np.int32), totals)


# Here ---------------------------------------------------------------------------------------------


class Elsewhere(Passes):
    """The same passes, each block of rows on a worker.

    Attributes
    ----------
    block : int
        Rows of a block.
    """

    block: int

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
        """Run a task on all blocks of rows; see `Passes.run`."""
        self.job.check()
        written = tuple(one.dtype for one in write)
        weighted = self.weights is not None
        work = _Work(task, self.frame, self.seed, self.scales, weighted, len(read), written)
        # What lies in a file is pickled as an array.
        cut = map(np.asarray, [*([self.weights] if weighted else []), *read, *change])
        found = self.job.map(
            _on_block,
            self.stream,
            {"work": work, "arrays": dict(arrays)},
            aligned=aligned(range(self.rows), *cut),
            rows=self.block,
            combine=_merged,
            split=_parted,
            unit=unit,
        )
        for one in found:
            for numbers, changes in one.blocks:
                for what, target in zip(changes, change + write, strict=True):
                    what.put(target[numbers.start : numbers.stop])
            if one.tally is not None:
                yield one.tally

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
        """Label all rows from their groups' lists; see `Passes.assign`."""
        arrays = {
            "group_count": group_count,
            "lists": lists,
            "centers": centers,
            "half": half,
            "keep": keep,
        }
        return self._tallied(groups, arrays, labels, gaps, runners, touched, fresh=True)[0]

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
        """Label all rows and add up the clusters that change; see `Passes.update`."""
        state = labels, gaps, runners
        if touched.mean() < _MANY:
            return super().update(groups, lists, ready, *state, totals, touched, draw, keep=keep)
        centers, half = ready
        arrays = {
            "group_count": len(half) - 1,
            "lists": lists,
            "centers": centers,
            "half": half,
            "keep": keep,
            "draw": draw,
        }
        # Rows that are left out have their gaps from before.
        fresh = not getattr(groups, "some", True)
        changed, parts = self._tallied(groups, arrays, *state, touched, fresh=fresh)
        totals.clear(touched)
        for part in parts:
            counted = touched[part.clusters]
            some = PartTotals(part.clusters[counted], part.totals.of(counted))
            totals.add(some, some.clusters)
        return changed

    def _tallied(
        self,
        groups: NDArray[np.int32] | Groups,
        arrays: dict[str, Any],
        labels: NDArray[np.int32],
        gaps: NDArray[np.float32],
        runners: NDArray[np.int32] | None,
        touched: NDArray[np.bool_] | None,
        *,
        fresh: bool,
    ) -> tuple[int, list[PartTotals]]:
        """Label the rows; return how many changed, and what was added up.

        With `fresh` no task needs the gaps from before.
        """
        read: dict[str, Array] = {}
        change: dict[str, Array] = {"labels": labels}
        write: dict[str, Array] = {}
        (write if fresh else change)["gaps"] = gaps
        if runners is not None:
            (read if arrays["keep"] else write)["runners"] = runners
        if not callable(groups):
            read["groups"] = groups
        given = {
            "named": (*read, *change, *write),
            "groups": groups if callable(groups) else None,
            **arrays,
        }
        changed, parts = 0, []
        for tally in self.run(
            _assigned,
            given,
            read=tuple(read.values()),
            change=tuple(change.values()),
            write=tuple(write.values()),
        ):
            changed += tally.changed
            if tally.totals is not None:
                parts.append(tally.totals)
            if touched is not None:
                tally.mark(touched)
        return changed, parts

    def accumulate(
        self,
        labels: NDArray[np.int32],
        centers: NDArray[np.float32],
        gaps: NDArray[np.float32],
        totals: Totals,
        active: NDArray[np.bool_],
        draw: int,
    ) -> None:
        """Add up the rows of the active clusters anew; see `Passes.accumulate`."""
        totals.clear(active)
        which = np.flatnonzero(active)
        if not len(which):
            return
        place = np.full(len(active), -1, np.int32)
        place[which] = np.arange(len(which), dtype=np.int32)
        arrays = {"place": place, "centers": centers[which], "draw": draw}
        for part in self.run(_added, arrays, read=(labels, gaps)):
            totals.add(part, which[part.clusters])
