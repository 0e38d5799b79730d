"""One running fit of graph k-means."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.stream import Stream, row_spans
from vwkit.types import Array
from vwkit_numba import few_rows, graph_kernels
from vwkit_numba.coarse import group_centers
from vwkit_numba.compiling import compilation_told
from vwkit_numba.elsewhere import passes_of
from vwkit_numba.frames import given_centers
from vwkit_numba.graph import Graph, build, renew
from vwkit_numba.keeping import Keeper, fingerprint
from vwkit_numba.lists import Moving
from vwkit_numba.marks import Doing, Mark, Phase
from vwkit_numba.passes import Frame, Totals, inner
from vwkit_numba.predicting import everywhere, walk
from vwkit_numba.room import per_row, room
from vwkit_numba.start import Sketch, start

if TYPE_CHECKING:
    from vwkit_numba.graph_kmeans import GraphClusterer

__all__ = ["Fit", "per_row"]

_SPAN = 1 << 20
# The share of a cluster's error that a split of it saves, as measured on SIFT.
_GAIN = 0.1
# How far the two halves of a cluster start from its center: towards a drawn row, and away from it, as
# shares of the distance to it. The code away from a row may be nowhere near any other row.
_SPLIT = 0.3, 0.3
_CODE_SPLIT = 0.5, 0.0
_REPAIRS = 3
_PROBES = 2  # groups at the start from given centers; the graph does the rest
_NO_PAIRS = np.zeros((0, 2), np.int64)


class Fit:
    """The data, the running state, and what becomes the result."""

    def __init__(
        self,
        params: GraphClusterer,
        stream: Stream,
        weights: NDArray[np.float64] | None,
        frame: Frame,
        init: Path | Array | None,
    ) -> None:
        self.params, self.init = params, init
        self.job = job()
        self.rows, self.k = stream.count(), params.k
        self.passes = passes_of(stream, _moderate(weights), frame, self.job, params.seed, self.k)
        memory = self.job.memory
        self.labels = room(self.rows, np.int32, memory)
        self.runners = room(self.rows, np.int32, memory)
        self.gaps = room(self.rows, np.float32, memory)
        self.totals = Totals.zeros(self.k, self.passes.dim)
        self.centers = np.zeros((0, self.passes.dim), np.float32)
        self.sketch = Sketch(self.runners, self.centers, np.zeros(0, np.int64))
        self.mark = Mark(told=self._reached)
        self.keeper = Keeper(self.job, fingerprint(params, self.passes, given=init is not None))
        self.objective: list[float] = []
        self.changed: list[int] = []
        self.moved: list[int] = []
        self.corrected = 0
        self.distinct = True  # as far as is known, at least k rows
        self.pairs = _NO_PAIRS
        self.touched = np.ones(self.k, np.bool_)
        self.still = np.zeros(self.k, np.int8)
        self.graph = Graph(np.zeros((0, 4), np.int32), np.zeros((0, 3), np.int32))

    def run(self) -> None:
        """Fit, and set the backend's attributes."""
        try:
            with compilation_told(f"clusterer {self.params.name}"):
                self._run()
        finally:
            self.passes.close()

    def _run(self) -> None:
        """Go from the mark, at first the beginning, to the end."""
        self.keeper.take_up(self)
        mark = self.mark
        if not self.objective:
            self._begin()
            self.keeper.keep(self, begun=False)  # it takes a few passes
        while mark.phase == Phase.ITERATE and (mark.doing or self._goes_on()):
            if not mark.doing:
                self._update(relocate=self._relocating(len(self.moved)))
            self._assign()
            self._told(len(self.moved))
            self.keeper.keep(self, begun=True)
        if mark.phase <= Phase.REPAIR:
            self._repair()
        if mark.phase == Phase.FILL:
            self._fill()
        if self.params.finish == "exact" and self.distinct:
            self._assign_exactly()
        self._hand_over()

    # Steps

    def _begin(self) -> None:
        passes, init, mark = self.passes, self.init, self.mark
        coarse = None
        if mark.doing < Doing.WALK:
            if init is None:
                found = start(
                    passes, self.k, self.sketch, self.labels, self.gaps, self.totals, mark
                )
                self.centers = self._projected(found)
            else:
                given = given_centers(init, (self.k, passes.stream.dim), passes.frame)
                self.centers = passes.frame.placed(given)
            self.ready = inner(self.centers, passes.frame)
            coarse = group_centers(self.ready[0][:-1], self.job, self.params.seed)
            self.graph = build(passes, *self.ready, coarse, self.width)
        if init is not None and mark.upto(Doing.WALK):
            coarse = coarse or group_centers(self.ready[0][:-1], self.job, self.params.seed)
            walk(passes, *self.ready, coarse, self.graph, self.labels, self.gaps, _PROBES, mark)
        self._assign()

    @property
    def width(self) -> int:
        """Entries of a list of neighbours: a multiple of four."""
        return -(-min(self.params.neighbours, self.k) // 4) * 4

    def _assign(self) -> None:
        """Label the rows by lists of centers, and add them up.

        In turns a row is compared with the list of its center, and with the list of the second
        nearest center found there: a row at the border of its cluster has its nearest center in
        one of the two far more often than in one of them.
        """
        mark, added = self.mark, False
        if mark.doing != Doing.ADD:
            mark.enter(Doing.ASSIGN)
            added = self._compare()
            self.changed.append(mark.changed)
            mark.enter(Doing.ADD)
        if not added:
            self._add()
        mark.leave()
        self.still[self.touched] = 0
        self.touched[:] = False
        self.objective.append(self.passes.objective(self.totals))

    def _compare(self) -> bool:
        """Label the rows; tell whether they are also added up."""
        hop = len(self.objective) % 2 == 1
        # What has been compared since anything moved would give the same labels again. While centers
        # move elsewhere the gaps count, too, and are to be those of the last pass.
        still = self.still >= (4 if hop else 3)
        if self._relocating(len(self.objective) - 1):
            still[:] = False
            # Whoever was near may have gone: gaps are others, and so is what they add up to.
            self.touched[:] = True
        return self.passes.update(
            Moving(still, self.still >= 2 if hop else None),
            self.graph.as_lists(),
            self.ready,
            self.labels,
            self.gaps,
            self.runners,
            self.totals,
            self.touched,
            len(self.objective),
            self.mark,
            keep=hop,
        )

    def _add(self) -> None:
        draw = len(self.objective)  # another draw of far rows each time
        state = self.labels, self.ready[0], self.gaps, self.totals, self.touched
        self.passes.accumulate(*state, draw, self.mark)

    def _accumulate(self) -> None:
        """Add up the clusters whose rows or center are others than before: the objective, too."""
        self.mark.enter(Doing.ADD)
        self._add()
        self.mark.leave()
        self.touched[:] = False
        self.objective[-1] = self.passes.objective(self.totals)

    def _update(self, *, relocate: bool) -> None:
        """Move the centers to their means, some of them elsewhere, and renew the graph."""
        passes, before = self.passes, self.centers
        self.centers = self._projected(passes.means(self.totals, before))
        self.pairs = self._pairs(relocate)
        if len(self.pairs):
            self._move(self.pairs)
        self.moved.append(len(self.pairs))
        self._renew(before)

    def _projected(self, means: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the best centers that there are: the code nearest to the mean, for codes.

        The distances of rows to a code sum to those to the mean, and the mean's to the code for
        each of them: the nearest code is the best.
        """
        frame = self.passes.frame
        return means if frame.book is None else frame.placed(means)

    def _renew(self, before: NDArray[np.float32]) -> None:
        """Renew the graph, and count for how long nothing in a center's list has moved."""
        passes = self.passes
        moving = np.empty(self.k + 1, np.bool_)
        moving[-1] = False

        def differs(a: int, b: int) -> None:
            moving[a:b] = (self.centers[a:b] != before[a:b]).any(axis=1)

        passes.spread(differs, passes.even(self.k))
        self.touched |= moving[:-1]
        self.ready = inner(self.centers, passes.frame)
        lists = self.graph.lists
        which = np.full(self.k, len(self.pairs) > 0 or len(self.objective) % 2 == 0)
        which[self.pairs] = True
        self.graph = renew(passes, self.graph, *self.ready, self.pairs, which)

        def count(a: int, b: int) -> None:
            other = (self.graph.lists[a:b] != lists[a:b]).any(axis=1)
            other |= moving[self.graph.lists[a:b]].any(axis=1)
            other |= self.touched[a:b]
            self.still[a:b] = np.where(other, 0, np.minimum(self.still[a:b] + 1, 100))

        passes.spread(count, passes.even(self.k))

    def _pairs(self, relocate: bool) -> NDArray[np.int64]:
        totals = self.totals.totals
        empty = np.flatnonzero(totals[:, 0] == 0)
        most = max(len(empty), int(self.params.relocate * self.k) if relocate else 0)
        if most == 0:
            return _NO_PAIRS
        cost = np.where(totals[:, 0] == 0, -1, totals[:, 3])
        donors = np.argsort(cost, kind="stable")[:most]
        error = np.where(self.totals.far_rows >= 0, totals[:, 2], 0)
        victims = np.argsort(-error, kind="stable")[:most]
        victims = victims[error[victims] > 0]
        found: NDArray[np.int64] = graph_kernels.pair_donors(
            totals, self.graph.near, donors, victims, _GAIN, 1
        )
        return found

    def _move(self, pairs: NDArray[np.int64]) -> None:
        """Put each donor beside its victim; the donor's rows go to its neighbour."""
        donors, victims = pairs[:, 0], pairs[:, 1]
        far = self.passes.frame.placed(self.passes.take(self.totals.far_rows[victims]))
        old = self.centers[victims]
        ahead, back = _CODE_SPLIT if self.passes.frame.book is not None else _SPLIT
        self.centers[donors] = self.passes.frame.placed(old + (far - old) * np.float32(ahead))
        self.centers[victims] = self.passes.frame.placed(old - (far - old) * np.float32(back))
        to = np.arange(self.k, dtype=np.int32)
        to[donors] = self.graph.near[donors, 0]
        self.touched[donors] = self.touched[to[donors]] = True
        for first, last in row_spans(self.rows, _SPAN):
            self.labels[first:last] = to[self.labels[first:last]]

    def _relocating(self, step: int) -> bool:
        return self.params.relocate > 0 and step < self.params.iterations // 2

    def _goes_on(self) -> bool:
        step = len(self.moved)
        return step < self.params.iterations and not self._converged(step)

    def _converged(self, step: int) -> bool:
        if step < 2 or self._relocating(step) or self.moved[-1]:
            return False
        if self.changed[-1] == 0:
            return True
        before, now = self.objective[-2:]
        return before - now < self.params.tolerance * before

    # The end

    def _repair(self) -> None:
        """Fill clusters that are empty after the last assignment."""
        mark = self.mark
        while mark.doing or (mark.repairs < _REPAIRS and not self._full()):
            if not mark.doing:
                mark.phase = Phase.REPAIR
                mark.repairs += 1
                before = self.centers
                empty, far = self._spare()
                self.centers = before.copy()
                self.centers[empty] = self.passes.frame.placed(self.passes.take(far))
                self.pairs = np.stack([empty, self.labels[far]], axis=1)
                self._renew(before)
            self._assign()
        mark.phase = Phase.FILL

    def _fill(self) -> None:
        """Move rows into empty clusters, as long as there are rows away from their centers."""
        mark = self.mark
        while mark.doing or not self._full():
            if not mark.doing:
                empty, far = self._spare()
                if not len(far):
                    few_rows.counted(self)
                    return
                # Only these rows change over: to a center that is where they are.
                self.centers[empty] = self.passes.frame.placed(self.passes.take(far))
                self.touched[empty] = self.touched[self.labels[far]] = True
                self.labels[far] = empty
                self.ready = inner(self.centers, self.passes.frame)
            self._accumulate()

    def _assign_exactly(self) -> None:
        mark = self.mark
        if mark.phase < Phase.REFILL:
            mark.phase = Phase.EXACT
            if mark.doing != Doing.ADD:
                mark.enter(Doing.COMPARE)
                self.corrected = everywhere(
                    self.passes, *self.ready, self.labels, self.gaps, self.touched, mark
                )
                self.touched[:] = True  # a repair may have renumbered everything
            self._accumulate()
            mark.phase = Phase.REFILL
        if self.distinct:
            self._fill()

    def _full(self) -> bool:
        return bool((self.totals.totals[:, 0] > 0).all())

    def _spare(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return empty clusters, and for each a row that is far from its center: the worst first."""
        totals = self.totals.totals
        empty = np.flatnonzero(totals[:, 0] == 0)
        able = np.flatnonzero((self.totals.far_rows >= 0) & (totals[:, 2] > 0) & (totals[:, 1] > 1))
        able = able[np.argsort(-totals[able, 2], kind="stable")]
        far = self.totals.far_rows[able]
        places = _as_items(self.passes.take(far))
        # Two centers in one place would be one: none where another one lies, and one for each place.
        _, first = np.unique(places, return_index=True)
        fresh = np.zeros(len(far), np.bool_)
        fresh[first] = True
        far = far[fresh & ~np.isin(places, _as_items(self.centers))]
        return empty[: len(far)], far[: len(empty)]

    def _hand_over(self) -> None:
        coarse = group_centers(self.ready[0][:-1], self.job, self.params.seed)
        self.params.take_over(self, coarse)

    # Progress and checkpoints

    def _told(self, step: int, row: int = 0) -> None:
        self.job.progress(
            step * self.rows + row,
            self.params.iterations * self.rows,
            "rows",
            iteration=float(step),
            objective=self.objective[-1],
        )

    def _reached(self) -> None:
        """Tell how far a pass is, and keep that if it is worth it."""
        mark = self.mark
        iterating = mark.phase == Phase.ITERATE and len(self.moved) > 0
        if iterating and mark.doing == Doing.ASSIGN and mark.row < self.rows:
            self._told(len(self.moved) - 1, mark.row)
        if self.keeper.due and not (mark.doing == Doing.ADD and mark.row == self.rows):
            self.keeper.keep(self, begun=len(self.objective) > 0)


def _as_items(rows: NDArray[np.float32]) -> NDArray[Any]:
    """Return rows as single items that can be compared."""
    plain = np.ascontiguousarray(rows + np.float32(0))  # −0 becomes 0
    return plain.view(np.dtype((np.void, plain.shape[1] * 4))).ravel()


def _moderate(weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Bring weights to at most 1 by a power of two; only their proportions count."""
    if weights is None:
        return None
    return np.ldexp(weights, -math.frexp(float(weights.max()))[1])
