"""One running fit of a vocabulary tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba import tree_kernels
from vwkit_numba.fitting import _moderate
from vwkit_numba.frames import frame_of
from vwkit_numba.passes import Passes, Totals
from vwkit_numba.room import readonly, room
from vwkit_numba.tree_nodes import Nodes, go_down, parents

if TYPE_CHECKING:
    from vwkit_numba.tree import VocabularyTree

__all__ = ["TreeFit"]

#: A node is split by all its rows, or by a sample of so many for each child.
_PER_CHILD = 256
_SAMPLE = 4096
#: What rows that are read together may take.
_BATCH_BYTES = 32 << 20
_SCRATCH_BYTES = 256 << 20
#: Candidates for each start of a k-means; for many children they would take longer than it.
_TRIALS = 3
_FEW = 64
#: Updates of the words at the end, with rows that a beam of several brings to them.
_ROUNDS = 3
_BITS = (1 << 64) - 1


class TreeFit:
    """The data, the tree so far, and at which of its nodes each row is."""

    def __init__(
        self, params: VocabularyTree, stream: Stream, weights: NDArray[np.float64] | None
    ) -> None:
        self.params, self.stream, self.job = params, stream, job()
        self.rows = stream.count()
        weights = _moderate(weights)
        frame = frame_of(stream, False, weights)
        self.passes = Passes(stream, weights, frame, self.job, params.seed)
        self.weights = np.zeros(0) if weights is None else weights
        self.mass = float(self.rows if weights is None else weights.sum())
        self.seed = params.seed * 0x9E3779B97F4A7C15
        self.nodes = room(self.rows, np.int32, self.job.memory)
        self.first = np.array([1, 1])
        self.centers = np.zeros((1, stream.dim), np.float32)  # of the root, which nobody is near
        self.lowest = 0  # the first node of the last level
        self.objective: list[float] = []

    def run(self) -> None:
        """Fit, and set the backend's attributes."""
        try:
            saved = self.job.resume()
            step = 0
            if saved is not None and self._fits(saved[1]):
                step = self._take_up(*saved)
            while step < self.params.depth and self._grow():
                step += 1
                self._told(step)
                self.job.checkpoint(step, self._state())
            self._hand_over()
        finally:
            self.passes.close()

    # One level

    def _grow(self) -> bool:
        """Split the nodes of the last level; tell whether there were any to split."""
        sizes = np.zeros(len(self.first) - 1, np.int64)
        tree_kernels.count_rows(self.nodes, self.weights, sizes)
        sizes = sizes[self.lowest :]
        centers, counts = self._split(sizes)
        if not len(centers):
            return False
        above = len(self.first) - 1
        self.first[self.lowest :] = above + np.append(0, np.cumsum(counts))
        self.first = np.append(self.first, np.full(len(centers), above + len(centers)))
        self.centers = np.concatenate([self.centers, centers])
        big = np.flatnonzero((sizes > self._sample) & (counts > 0)) + self.lowest
        self.lowest = above
        if len(big):
            self._place()
            self._refine(big)
        self._drop()
        return True

    @property
    def _sample(self) -> int:
        room = _SCRATCH_BYTES // (4 * self.passes.frame.wide)
        branch = self.params.branch
        return max(16 * branch, min(max(_SAMPLE, _PER_CHILD * branch), room))

    def _split(self, sizes: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the centers of all new nodes, and how many of them each node gets."""
        with np.errstate(divide="ignore"):
            limits = np.where(sizes > 1, np.minimum(1.0, self._sample / sizes), 0.0)
        order, starts = self._drawn(limits)
        parts = []
        counts = np.zeros(len(sizes), np.int64)
        for a, b in self._batches(starts):
            self.job.check()
            rows = order[starts[a] : starts[b]]
            block, places, weights = self._read(rows)
            here = starts[a : b + 1] - starts[a]
            slots = np.append(0, np.cumsum(np.minimum(np.diff(here), self.params.branch)))
            found = np.empty((slots[-1], self.stream.dim), np.float32)
            got = np.zeros(b - a, np.int64)
            self._split_batch(block, weights, places, here, self.lowest + a, slots, found, got)
            counts[a:b] = got
            used = np.repeat(slots[:-1] + got, np.diff(slots)) > np.arange(len(found))
            parts.append(found[used])
        return np.concatenate(parts) if parts else np.empty(
            (0, self.stream.dim), np.float32
        ), counts

    def _split_batch(
        self,
        block: Array,
        weights: NDArray[np.float64],
        places: NDArray[Any],
        starts: NDArray[np.int64],
        lowest: int,
        slots: NDArray[np.int64],
        found: NDArray[np.float32],
        counts: NDArray[np.int64],
    ) -> None:
        frame, params = self.passes.frame, self.params

        def one(first: int, last: int) -> None:
            tree_kernels.split(
                block,
                frame.shift,
                np.float32(frame.scale),
                weights,
                places,
                starts,
                first,
                last,
                lowest,
                params.branch,
                params.iterations,
                _TRIALS if params.branch <= _FEW else 1,
                np.uint64(self.seed & _BITS),
                slots,
                found,
                counts,
            )

        self.passes.spread(one, self.passes.by_rows(starts))

    def _drawn(self, limits: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the rows that the last level's nodes are split by, node by node."""
        kind = np.int32 if self.rows < 1 << 31 else np.int64
        kept = np.zeros(len(limits), np.int64)
        seed = np.uint64(self.seed + 1 & _BITS)
        given = self.nodes, self.weights, self.lowest, limits, seed
        tree_kernels.keep_rows(*given, kept, np.empty(0, kind))
        starts = np.append(0, np.cumsum(kept))
        order = np.empty(starts[-1], kind)
        tree_kernels.keep_rows(*given, starts[:-1].copy(), order)
        return order, starts

    def _batches(self, starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Cut the nodes into batches whose rows fit in memory."""
        room = _BATCH_BYTES
        if self.stream.array is None and self.stream._random is None:
            room = max(room, self.job.memory // 4)  # each batch reads the whole stream
        step = max(1, room // (self.stream.dim * self.stream.dtype.itemsize))
        a, last = 0, len(starts) - 1
        while a < last:
            b = max(a + 1, int(np.searchsorted(starts, starts[a] + step, "right")) - 1)
            if starts[b] > starts[a]:
                yield a, b
            a = b

    def _read(self, rows: NDArray[Any]) -> tuple[Array, NDArray[Any], NDArray[np.float64]]:
        """Return some rows, where each of them is, and their weights."""
        array = self.stream.array
        if array is not None and type(array) is np.ndarray:
            return readonly(array), rows, self.weights
        ascending = np.argsort(rows, kind="stable")
        block = self.stream.take(rows[ascending])
        places = np.empty(len(rows), rows.dtype)
        places[ascending] = np.arange(len(rows), dtype=rows.dtype)
        weights = self.weights[rows[ascending]] if len(self.weights) else self.weights
        return readonly(block), places, weights

    def _place(self, levels: int = 1, beam: int = 1) -> float:
        """Take all rows down, and return the mean squared distance to the nodes' centers."""
        passes = self.passes
        self.tree = self._ready()
        units = float(passes.scales[2])
        total = go_down(passes, self.tree, self.nodes, levels, beam, units)
        return float(total) / units / self.mass / passes.frame.scale**2

    def _ready(self) -> Nodes:
        everyone = np.arange(len(self.centers)), self.centers
        return Nodes.of(self.first, [everyone], self.passes.frame)

    def _refine(self, split: NDArray[np.int64]) -> None:
        """Move the children of nodes that were split by a sample to the means of all their rows."""
        above = parents(self.first)
        children = np.flatnonzero(np.isin(above, split))
        children = children[children > 0]
        self._average(children)
        to = np.arange(len(self.centers), dtype=np.int32)
        to[children] = above[children]
        np.take(to, self.nodes, out=self.nodes, mode="clip")

    def _average(self, which: NDArray[np.int64]) -> None:
        """Move the centers of some nodes to the means of the rows that are there."""
        passes = self.passes
        place = np.full(len(self.centers), -1, np.int32)
        place[which] = np.arange(len(which), dtype=np.int32)
        totals = Totals.zeros(len(which), self.stream.dim)
        every = np.ones(len(which), np.bool_)
        # Pages of zeros that are never written take no memory.
        gaps = np.zeros(self.rows, np.float32)
        moved = self.tree.centers[which]
        passes.accumulate(np.take(place, self.nodes), moved, gaps, totals, every, 0)
        self.centers[which] = passes.means(totals, self.centers[which])

    def _drop(self) -> None:
        """Place all rows, without new nodes that no row with weight came to."""
        while True:
            reached = self._place()
            sizes = np.zeros(len(self.centers), np.int64)
            tree_kernels.count_rows(self.nodes, self.weights, sizes)
            kept = (sizes > 0) | (np.arange(len(sizes)) < self.lowest)
            if kept.all():
                self.objective.append(reached)
                return
            above = parents(self.first)
            to = np.cumsum(kept, dtype=np.int32) - np.int32(1)
            to[~kept] = above[~kept]  # its number stays: it is of an older level
            np.take(to, self.nodes, out=self.nodes, mode="clip")
            self.centers = self.centers[kept]
            behind = np.bincount(above[1:][kept[1:]], minlength=len(kept))[kept]
            self.first = np.append(1, 1 + np.cumsum(behind))
            if not len(self.weights):  # nobody was there
                self.objective.append(reached)
                return

    # The end

    def _hand_over(self) -> None:
        params, frame = self.params, self.passes.frame
        self.tree = self._ready()
        if len(self.centers) == 1:
            self._root_alone()
        elif params.beam > 1:
            self._look_wider()
        first = self.first
        leaf = np.diff(first) == 0
        np.take(self.tree.words, self.nodes, out=self.nodes, mode="clip")
        inside = ~leaf
        inside[0] = False
        state: dict[str, Any] = {
            "centers": self.centers[leaf],
            "labels": self.nodes,
            "objective": self.objective,
            "_first": first,
            "_inside": self.centers[inside],
            "_shift": frame.shift,
            "_scale": frame.scale,
            "_ready": self.tree,
        }
        for name, value in state.items():
            setattr(params, name, value)

    def _look_wider(self) -> None:
        """Label the rows by the beam, and make the words the means of what it brings to them."""
        depth, beam = self.params.depth, self.params.beam
        self.nodes[:] = 0
        self.objective[-1] = self._place(depth, beam)
        for _ in range(_ROUNDS):
            self._average(np.flatnonzero(np.diff(self.first) == 0))
            self.nodes[:] = 0
            self.objective.append(self._place(depth, beam))

    def _root_alone(self) -> None:
        """Make the mean of all rows the only word."""
        passes = self.passes
        totals = Totals.zeros(1, self.stream.dim)
        gaps = np.zeros(self.rows, np.float32)
        start = np.zeros((1, passes.frame.wide), np.float32)
        passes.accumulate(self.nodes, start, gaps, totals, np.ones(1, np.bool_), 0)
        self.centers = passes.means(totals, self.centers)
        self.objective = [self._place()]

    # Progress and checkpoints

    def _told(self, step: int) -> None:
        self.job.progress(
            step * self.rows,
            self.params.depth * self.rows,
            "rows",
            level=float(step),
            words=float(np.count_nonzero(np.diff(self.first) == 0)),
            objective=self.objective[-1],
        )

    def _state(self) -> dict[str, Array]:
        return {
            "centers": self.centers,
            "nodes": self.nodes,
            "first": self.first,
            "lowest": np.array(self.lowest),
            "objective": np.array(self.objective),
        }

    def _fits(self, saved: dict[str, Array]) -> bool:
        return (
            saved.keys() == self._state().keys()
            and saved["nodes"].shape == self.nodes.shape
            and saved["centers"].shape == (len(saved["first"]) - 1, self.stream.dim)
        )

    def _take_up(self, step: int, saved: dict[str, Array]) -> int:
        self.nodes[:] = saved["nodes"]
        self.centers, self.first = saved["centers"], saved["first"]
        self.lowest = int(saved["lowest"])
        self.objective = [float(value) for value in saved["objective"]]
        return step
