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
  and for its block a bit for each cluster that rows left or came to;
* between workers and from the last: 8·d + 52 bytes for each cluster that has rows in the block.

Blocks come back in the order of the rows, but for what is added up, which comes last. So how far a pass
is can be kept while rows are labelled; while they are added up alone it cannot, and that is done again.

Rows themselves travel only where workers cannot read them: those of arrays in memory, and of compressed
files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import Job
from vwkit.row_readers import Behind
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.frames import Frame
from vwkit_numba.lists import Lists
from vwkit_numba.marks import Mark
from vwkit_numba.on_worker import Work, merged, on_block, parted
from vwkit_numba.passes import Groups, Passes, Task
from vwkit_numba.taking import aligned, block_rows
from vwkit_numba.totals import PartTotals, Tally, Totals

__all__ = ["Elsewhere", "passes_of"]

#: From this share of clusters on that change, all are added up in the pass that finds it out.
_MANY = 0.5


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


def _behind(stream: Stream, row: int, block: int) -> Stream:
    """Return the rows from one on; workers can read them if they can read all."""
    rest = stream.from_row(row)
    if rest.reader is None and stream.reader is not None:
        rest.reader, rest.step = Behind(stream.reader, row), block
    return rest


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
        mark: Mark | None = None,
        rows: int = 0,
    ) -> Iterator[Any]:
        """Run a task on all blocks of rows; see `Passes.run`. What is added up comes last."""
        self.job.check()
        mark = mark or Mark()
        done = mark.row
        if done >= self.rows:
            return
        written = tuple(one.dtype for one in write)
        weighted = self.weights is not None
        work = Work(task, self.frame, self.seed, self.scales, weighted, len(read), written)
        # What lies in a file is pickled as an array.
        given = [range(self.rows), *([self.weights] if weighted else []), *read, *change]
        cut = [one if isinstance(one, range) else np.asarray(one) for one in given]
        found = self.job.map(
            on_block,
            _behind(self.stream, done, self.block),
            {"work": work, "arrays": dict(arrays)},
            aligned=aligned(*(one[done:] for one in cut)),
            rows=self.block,
            combine=merged,
            split=parted,
            unit=unit,
        )
        for one in found:
            for numbers, changes in one.blocks:
                for what, target in zip(changes, change + write, strict=True):
                    what.put(target[numbers.start : numbers.stop])
                if numbers.start == done:
                    done = numbers.stop
            if one.tally is not None:
                yield one.tally
            mark.reached(done)

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
        """Label all rows from their groups' lists; see `Passes.assign`."""
        arrays = {
            "group_count": group_count,
            "lists": lists,
            "centers": centers,
            "half": half,
            "keep": keep,
        }
        mark = mark or Mark()
        self._tallied(groups, arrays, labels, gaps, runners, touched, mark, fresh=True)
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
        """Label all rows and perhaps add up the clusters that change; see `Passes.update`."""
        state = labels, gaps, runners
        if mark.row or touched.mean() < _MANY:
            return super().update(
                groups, lists, ready, *state, totals, touched, draw, mark, keep=keep
            )
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
        parts = self._tallied(groups, arrays, *state, touched, mark, fresh=fresh)
        totals.clear(touched)
        for part in parts:
            counted = touched[part.clusters]
            some = PartTotals(part.clusters[counted], part.totals.of(counted))
            totals.add(some, some.clusters)
        return True

    def _tallied(
        self,
        groups: NDArray[np.int32] | Groups,
        arrays: dict[str, Any],
        labels: NDArray[np.int32],
        gaps: NDArray[np.float32],
        runners: NDArray[np.int32] | None,
        touched: NDArray[np.bool_] | None,
        mark: Mark,
        *,
        fresh: bool,
    ) -> list[PartTotals]:
        """Label the rows; return what was added up.

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
        parts = []
        for tally in self.run(
            _assigned,
            given,
            read=tuple(read.values()),
            change=tuple(change.values()),
            write=tuple(write.values()),
            mark=mark,
        ):
            if isinstance(tally, PartTotals):
                parts.append(tally)
                continue
            mark.changed += tally.changed
            if tally.totals is not None:
                parts.append(tally.totals)
            if touched is not None:
                tally.mark(touched)
        return parts

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
        """Add up the rows of the active clusters anew; see `Passes.accumulate`.

        What workers add up comes in the end alone, so that the mark is told of nothing.
        """
        row = 0 if mark is None else mark.row
        if row == 0:
            totals.clear(active)
        which = np.flatnonzero(active)
        if not len(which):
            return
        place = np.full(len(active), -1, np.int32)
        place[which] = np.arange(len(which), dtype=np.int32)
        arrays = {"place": place, "centers": centers[which], "draw": draw}
        for part in self.run(_added, arrays, read=(labels, gaps), mark=Mark(row=row)):
            totals.add(part, which[part.clusters])
