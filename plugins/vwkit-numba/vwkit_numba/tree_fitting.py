"""One running fit of a vocabulary tree: level by level, and what of it is kept for a resume."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ArtifactError
from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba import tree_kernels
from vwkit_numba.elsewhere import passes_of
from vwkit_numba.fitting import _moderate
from vwkit_numba.frames import frame_of, inner
from vwkit_numba.passes import Totals
from vwkit_numba.room import room
from vwkit_numba.tree_nodes import Nodes, checked_first, parents
from vwkit_numba.tree_passes import added_up, taken_down
from vwkit_numba.tree_splitting import Splitting, drawn, split_nodes

if TYPE_CHECKING:
    from vwkit_numba.tree import VocabularyTree

__all__ = ["TreeFit"]

#: A node is split by all its rows, or by a sample of so many for each child.
_PER_CHILD = 256
_SAMPLE = 4096
#: What the rows of a node that are looked at together may take.
_SCRATCH_BYTES = 256 << 20
#: Updates of the words at the end, with rows that a beam of several brings to them.
_ROUNDS = 3
#: Seconds of work within a pass.
_WORTH_KEEPING = 1.0
#: What a level goes through, and what comes behind the last one; and which share of it is done then.
_SPLIT, _PLACE, _AVERAGE, _SETTLE, _END = range(5)
_SHARES = 0.0, 0.5, 0.65, 0.8, 1.0
# Dtype and dimensions of what a checkpoint holds.
_STATE = {
    "at": ("<i8", 1),
    "centers": ("<f4", 2),
    "nodes": ("<i4", 1),
    "first": ("<i8", 1),
    "sampled": ("<i8", 1),
    "objective": ("<f8", 1),
    "found": ("<f4", 2),
    "counts": ("<i8", 1),
    "sums": ("<i8", 2),
    "masses": ("<i8", 2),
}


class TreeFit:
    """The data, the tree so far, and at which of its nodes each row is."""

    def __init__(
        self, params: VocabularyTree, stream: Stream, weights: NDArray[np.float64] | None
    ) -> None:
        self.params, self.stream, self.job = params, stream, job()
        self.rows = stream.count()
        weights = _moderate(weights)
        frame = frame_of(stream, False, weights)
        self.passes = passes_of(stream, weights, frame, self.job, params.seed, 0)
        self.weights = np.zeros(0) if weights is None else weights
        self.mass = float(self.rows if weights is None else weights.sum())
        self.seed = params.seed * 0x9E3779B97F4A7C15
        self.how = Splitting(frame, params.branch, params.iterations, self.seed)
        self.nodes = room(self.rows, np.int32, self.job.memory)
        self.first = np.array([1, 1])
        self.centers = np.zeros((1, stream.dim), np.float32)  # of the root, which nobody is near
        self.objective: list[float] = []
        # Where the fit is: the level, what is done in it, and the first node of the last level.
        self.level, self.phase, self.lowest = 0, _SPLIT, 0
        #: Nodes of the last level but one that were split by a sample.
        self.sampled = np.zeros(0, np.int64)
        #: Passes done behind the last level.
        self.closed = 0
        #: Nodes that were split or rows that were gone through, and what became of these.
        self.row = self.total = 0
        self.found: list[NDArray[np.float32]] = []
        self.counts: list[NDArray[np.int64]] = []
        self.totals: Totals | None = None
        self.saves = self.told = 0
        self.saved = time.monotonic()

    def run(self) -> None:
        """Fit, and set the backend's attributes."""
        try:
            saved = self.job.resume()
            if saved is not None and self._fits(saved[1]):
                self._take_up(*saved)
            while self.phase != _END and self.level < self.params.depth and self._grow():
                self.level += 1
                self._told(self.level * self.rows)
                self._keep()
            self._close()
            self._hand_over()
        finally:
            self.passes.close()

    # One level

    def _grow(self) -> bool:
        """Split the nodes of the last level; tell whether there were any to split."""
        if self.phase == _SPLIT:
            if not self._split():
                return False
            self.phase = _PLACE if len(self.sampled) else _SETTLE
        if self.phase == _PLACE:
            self._place()
            self.phase = _AVERAGE
        if self.phase == _AVERAGE:
            self._refine()
            self.phase = _SETTLE
        self._settle()
        self.phase = _SPLIT
        return True

    @property
    def _sample(self) -> int:
        room = _SCRATCH_BYTES // (4 * self.passes.frame.wide)
        branch = self.params.branch
        return max(16 * branch, min(max(_SAMPLE, _PER_CHILD * branch), room))

    def _split(self) -> bool:
        """Give the nodes of the last level their children; tell whether there are any."""
        sizes = self._sizes()[self.lowest :]
        with np.errstate(divide="ignore"):
            limits = np.where(sizes > 1, np.minimum(1.0, self._sample / sizes), 0.0)
        rows = drawn(self.nodes, self.weights, self.lowest, limits, self.seed + 1)
        for last, centers, counts in split_nodes(
            self.passes, rows, self.lowest, self.how, self.row
        ):
            self.found.append(centers)
            self.counts.append(counts)
            self.row = last
            self._within(last / len(sizes))
        centers, counts = self._children()
        self._forget()
        if not len(centers):
            return False
        above = len(self.first) - 1
        self.first[self.lowest :] = above + np.append(0, np.cumsum(counts))
        self.first = np.append(self.first, np.full(len(centers), above + len(centers)))
        self.centers = np.concatenate([self.centers, centers])
        self.sampled = np.flatnonzero((sizes > self._sample) & (counts > 0)) + self.lowest
        self.lowest = above
        return True

    def _sizes(self) -> NDArray[np.int64]:
        """Return how many rows with weight each node has."""
        sizes = np.zeros(len(self.first) - 1, np.int64)
        tree_kernels.count_rows(self.nodes, self.weights, sizes)
        return sizes

    def _place(self, levels: int = 1, beam: int = 1) -> float:
        """Take all rows down, and return the mean squared distance to the nodes' centers."""
        passes, units = self.passes, float(self.passes.scales[2])
        way = taken_down(passes, self._tree(), self.nodes, levels, beam, units, self.row)
        for row, distance in way:
            self.row = row
            self.total += distance
            self._within(self.row / self.rows)
        total = self.total
        self._forget()
        return float(total) / units / self.mass / passes.frame.scale**2

    def _tree(self) -> Nodes:
        everyone = np.arange(len(self.centers)), self.centers
        return Nodes.of(self.first, [everyone], self.passes.frame)

    def _refine(self) -> None:
        """Move the children of nodes that were split by a sample to the means of all their rows."""
        above = parents(self.first)
        children = np.flatnonzero(np.isin(above, self.sampled))
        children = children[children > 0]
        self._average(children)
        to = np.arange(len(self.centers), dtype=np.int32)
        to[children] = above[children]
        np.take(to, self.nodes, out=self.nodes, mode="clip")

    def _average(self, which: NDArray[np.int64]) -> None:
        """Move the centers of some nodes to the means of the rows that are there."""
        place = np.full(len(self.centers), -1, np.int32)
        place[which] = np.arange(len(which), dtype=np.int32)
        moved = inner(self.centers[which], self.passes.frame)[0][:-1]
        if self.totals is None or len(self.totals.sums) != len(which):
            self.row, self.totals = 0, Totals.zeros(len(which), self.stream.dim)
        for row, parts in added_up(self.passes, self.nodes, place, moved, self.row):
            self.row = row
            for part in parts:
                self.totals.add(part, part.clusters)
            self._within(self.row / self.rows)
        self.centers[which] = self.passes.means(self.totals, self.centers[which])
        self._forget()

    def _settle(self) -> None:
        """Place all rows, without new nodes that no row with weight came to."""
        while True:
            reached = self._place()
            sizes = self._sizes()
            kept = (sizes > 0) | (np.arange(len(sizes)) < self.lowest)
            if not kept.all():
                above = parents(self.first)
                to = np.cumsum(kept, dtype=np.int32) - np.int32(1)
                to[~kept] = above[~kept]  # its number stays: it is of an older level
                np.take(to, self.nodes, out=self.nodes, mode="clip")
                self.centers = self.centers[kept]
                behind = np.bincount(above[1:][kept[1:]], minlength=len(kept))[kept]
                self.first = np.append(1, 1 + np.cumsum(behind))
            if kept.all() or not len(self.weights):  # nobody was there
                self.objective.append(reached)
                return

    # The end

    def _close(self) -> None:
        """Do what comes behind the last level: rows are brought to the words by the beam."""
        self.phase = _END
        depth, beam = self.params.depth, self.params.beam
        alone = len(self.centers) == 1
        last = 2 if alone else 2 * _ROUNDS + 1 if beam > 1 else 0
        while self.closed < last:
            if self.closed % 2 == (0 if alone else 1):
                self._average(np.flatnonzero(np.diff(self.first) == 0))
            else:
                if self.row == 0:
                    self.nodes[:] = 0
                reached = self._place(depth, beam)
                if self.closed == 0:
                    self.objective.pop()
                self.objective.append(reached)
            self.closed += 1
            self._keep()

    def _hand_over(self) -> None:
        params, frame, tree = self.params, self.passes.frame, self._tree()
        first = self.first
        leaf = np.diff(first) == 0
        np.take(tree.words, self.nodes, out=self.nodes, mode="clip")
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
            "_ready": tree,
        }
        for name, value in state.items():
            setattr(params, name, value)

    # Progress and checkpoints

    def _forget(self) -> None:
        """Forget how far a pass was: it is done."""
        self.row = self.total = 0
        self.found, self.counts, self.totals = [], [], None

    def _children(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the centers found so far in a level, and how many each node has."""
        nothing = np.zeros((0, self.stream.dim), np.float32)
        return (
            np.concatenate([nothing, *self.found]),
            np.concatenate([np.zeros(0, np.int64), *self.counts]),
        )

    def _within(self, share: float) -> None:
        """Tell how far a part of a level is, and keep the state of the fit every so often."""
        if self.phase != _END:
            low, high = _SHARES[self.phase : self.phase + 2]
            done = int((self.level + low + share * (high - low)) * self.rows)
            if self.told < done < (self.level + 1) * self.rows:
                self._told(done)
        if time.monotonic() - self.saved >= _WORTH_KEEPING:
            self._keep()

    def _told(self, done: int) -> None:
        self.told = done
        shown = {"objective": self.objective[-1]} if self.objective else {}
        self.job.progress(
            done,
            self.params.depth * self.rows,
            "rows",
            level=float(self.level),
            words=float(np.count_nonzero(np.diff(self.first) == 0)),
            **shown,
        )

    def _keep(self) -> None:
        self.saves += 1
        found, counts = self._children()
        self.found, self.counts = [found], [counts]
        totals = self.totals or Totals.zeros(0, self.stream.dim)
        at = [self.level, self.phase, self.lowest, self.closed, self.row, self.total]
        state: dict[str, Array] = {
            "at": np.array(at, np.int64),
            "centers": self.centers,
            "nodes": self.nodes,
            "first": self.first,
            "sampled": self.sampled,
            "objective": np.array(self.objective, np.float64),
            "found": found,
            "counts": counts,
            "sums": totals.sums,
            "masses": totals.totals,
        }
        self.job.checkpoint(self.saves, state)
        self.saved = time.monotonic()

    def _fits(self, saved: dict[str, Array]) -> bool:
        """Tell whether a checkpoint is of such a fit at all."""
        form = {name: (array.dtype.str, array.ndim) for name, array in saved.items()}
        if form != _STATE or saved["at"].shape != (6,):
            return False
        try:
            first = checked_first(saved["first"])
        except ArtifactError:
            return False
        level, phase, lowest, closed, row, _ = (int(number) for number in saved["at"])
        count, nodes = len(first) - 1, saved["nodes"]
        fits = (
            nodes.shape == self.nodes.shape
            and 0 <= int(nodes.min()) <= int(nodes.max()) < count
            and saved["centers"].shape == (count, self.stream.dim)
            and saved["found"].shape[1] == saved["sums"].shape[1] == self.stream.dim
            and saved["masses"].shape == (len(saved["sums"]), 4)
            and 0 <= level <= self.params.depth
            and 0 <= phase <= _END
            and 0 <= lowest < count
            and 0 <= closed <= 2 * _ROUNDS + 1
            and 0 <= row < (count - lowest + 1 if phase == _SPLIT else self.rows + 1)
            and len(saved["counts"]) == (row if phase == _SPLIT else 0)
            and len(saved["found"]) == saved["counts"].sum()
            and (saved["counts"] >= 0).all()
            and len(saved["objective"]) >= level
        )
        return bool(fits)

    def _take_up(self, saves: int, saved: dict[str, Array]) -> None:
        self.saves = saves
        at = (int(number) for number in saved["at"])
        self.level, self.phase, self.lowest, self.closed, self.row, self.total = at
        self.nodes[:] = saved["nodes"]
        self.centers, self.first = saved["centers"], saved["first"]
        self.sampled = saved["sampled"]
        self.objective = [float(value) for value in saved["objective"]]
        self.found, self.counts = [saved["found"]], [saved["counts"]]
        masses = saved["masses"]
        if len(masses):
            zeros = Totals.zeros(len(masses), self.stream.dim)
            self.totals = Totals(saved["sums"], masses, zeros.far_keys, zeros.far_rows)
