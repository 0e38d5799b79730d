"""One running fit of graph k-means."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.clusterer import warn_few_distinct
from vwkit.jobs import job
from vwkit.stream import Stream, row_spans
from vwkit.types import Array
from vwkit_numba import graph_kernels
from vwkit_numba.coarse import group_centers
from vwkit_numba.compiling import compilation_told
from vwkit_numba.elsewhere import passes_of
from vwkit_numba.frames import given_centers
from vwkit_numba.graph import Graph, build, renew
from vwkit_numba.lists import Moving
from vwkit_numba.passes import Frame, Totals, inner
from vwkit_numba.predicting import everywhere, walk
from vwkit_numba.room import per_row, room
from vwkit_numba.start import start

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
        begun = self.job.within("start")
        for kept in (self.job, begun):
            saved = kept.resume()
            if saved is not None and self._fits(saved[1]):
                step = self._take_up(*saved)
                break
        else:
            self._begin()
            step = 0
            begun.checkpoint(step, self._state())  # the start alone takes a few passes
        while step < self.params.iterations and not self._converged(step):
            self._update(relocate=self._relocating(step))
            self._assign()
            step += 1
            self._told(step)
            self.job.checkpoint(step, self._state())
        self._repair()
        if self.params.finish == "exact" and self.distinct:
            self._assign_exactly()
        self._hand_over()

    # Steps

    def _begin(self) -> None:
        passes, init = self.passes, self.init
        if init is None:
            centers, _ = start(passes, self.k, self.labels, self.gaps)
            self.centers = self._projected(centers)
        else:
            given = given_centers(init, (self.k, passes.stream.dim), passes.frame)
            self.centers = passes.frame.placed(given)
        moved, half = inner(self.centers, passes.frame)
        coarse = group_centers(moved[:-1], self.job, self.params.seed)
        self.graph = build(passes, moved, half, coarse, self._neighbours)
        if init is not None:
            walk(passes, moved, half, coarse, self.graph, self.labels, self.gaps, _PROBES)
        self.ready = moved, half
        self._assign()

    @property
    def _neighbours(self) -> int:
        return -(-self.params.neighbours // 4) * 4

    def _assign(self) -> None:
        """Label the rows by lists of centers, and add them up.

        In turns a row is compared with the list of its center, and with the list of the second
        nearest center found there: a row at the border of its cluster has its nearest center in
        one of the two far more often than in one of them.
        """
        hop = len(self.objective) % 2 == 1
        # What has been compared since anything moved would give the same labels again. While centers
        # move elsewhere the gaps count, too, and are to be those of the last pass.
        still = self.still >= (4 if hop else 3)
        still &= not self._relocating(len(self.objective) - 1)
        changed = self.passes.update(
            Moving(still, self.still >= 2 if hop else None),
            self.graph.as_lists(),
            self.ready,
            self.labels,
            self.gaps,
            self.runners,
            self.totals,
            self.touched,
            len(self.objective),
            keep=hop,
        )
        self.changed.append(changed)
        self.still[self.touched] = 0
        self.touched[:] = False
        self.objective.append(self.passes.objective(self.totals))

    def _accumulate(self) -> None:
        """Add up the clusters whose rows or center are others than before."""
        draw = len(self.objective)  # another draw of far rows each time
        self.passes.accumulate(
            self.labels, self.ready[0], self.gaps, self.totals, self.touched, draw
        )
        self.touched[:] = False

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
        for _ in range(_REPAIRS):
            if self._full():
                return
            before = self.centers
            empty, far = self._spare()
            self.centers = before.copy()
            self.centers[empty] = self.passes.frame.placed(self.passes.take(far))
            self.pairs = np.stack([empty, self.labels[far]], axis=1)
            self._renew(before)
            self._assign()
        self._fill()

    def _fill(self) -> None:
        """Move rows into empty clusters, as long as there are rows away from their centers."""
        while not self._full():
            empty, far = self._spare()
            if not len(far):
                self._exactly()
                return
            # Only these rows change over: to a center that is where they are.
            self.centers[empty] = self.passes.frame.placed(self.passes.take(far))
            self.touched[empty] = self.touched[self.labels[far]] = True
            self.labels[far] = empty
            self.ready = inner(self.centers, self.passes.frame)
            self._accumulate()
            self.objective[-1] = self.passes.objective(self.totals)

    def _assign_exactly(self) -> None:
        self.corrected = everywhere(self.passes, *self.ready, self.labels, self.gaps, self.touched)
        self.touched[:] = True  # a repair may have renumbered everything
        self._accumulate()
        self.objective[-1] = self.passes.objective(self.totals)
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

    def _exactly(self) -> None:
        """Leave data with hardly k distinct rows to exact k-means, which counts them."""
        self.distinct = False
        stream, weights = self.passes.stream, self.passes.weights
        if self.passes.frame.unit or self.passes.frame.book is not None:
            self._surplus()
            return
        lloyd: Any = vwkit.create(
            "clusterer",
            "lloyd",
            k=self.k,
            init=self.centers,
            iterations=5,
            seed=self.params.seed,
        )
        lloyd._fit(stream, weights)
        self.centers, self.labels = lloyd.centers, lloyd.labels
        self.objective[-1] = lloyd.objective[-1]
        self.ready = inner(self.centers, self.passes.frame)

    def _surplus(self) -> None:
        """Put words that stay empty last, as copies of the last used one."""
        full = np.flatnonzero(self.totals.totals[:, 0] > 0)
        order = np.concatenate([full, np.flatnonzero(self.totals.totals[:, 0] == 0)])
        place = np.empty(self.k, np.int32)
        place[order] = np.arange(self.k, dtype=np.int32)
        self.centers = self.centers[order]
        self.centers[len(full) :] = self.centers[len(full) - 1]
        self.labels = np.minimum(place[self.labels], len(full) - 1).astype(np.int32)
        self.ready = inner(self.centers, self.passes.frame)
        warn_few_distinct(len(full), self.k)

    def _hand_over(self) -> None:
        coarse = group_centers(self.ready[0][:-1], self.job, self.params.seed)
        self.params.take_over(self, coarse)

    # Progress and checkpoints

    def _told(self, step: int) -> None:
        self.job.progress(
            step * self.rows,
            self.params.iterations * self.rows,
            "rows",
            iteration=float(step),
            objective=self.objective[-1],
        )

    def _state(self) -> dict[str, Array]:
        return {
            "centers": self.centers,
            "labels": self.labels,
            "runners": self.runners,
            "gaps": self.gaps,
            "still": self.still,
            "far_keys": self.totals.far_keys,
            "worth": self.totals.totals[:, 3],
            "far_rows": self.totals.far_rows,
            "lists": self.graph.lists,
            "near": self.graph.near,
            "objective": np.array(self.objective),
            "changed": np.array(self.changed, np.int64),
            "moved": np.array(self.moved, np.int64),
        }

    def _fits(self, saved: dict[str, Array]) -> bool:
        shapes = {name: array.shape for name, array in saved.items()}
        return (
            shapes.keys()
            == {
                "centers",
                "labels",
                "runners",
                "gaps",
                "still",
                "far_keys",
                "worth",
                "far_rows",
                "lists",
                "near",
                "objective",
                "changed",
                "moved",
            }
            and shapes["centers"] == (self.k, self.passes.dim)
            and shapes["labels"] == (self.rows,)
            and shapes["lists"][1:] == (min(self._neighbours, -(-self.k // 4) * 4),)
        )

    def _take_up(self, step: int, saved: dict[str, Array]) -> int:
        """Go on behind a checkpoint: what is not kept is computed again."""
        self.centers = saved["centers"]
        self.labels[:], self.runners[:] = saved["labels"], saved["runners"]
        self.gaps[:], self.still[:] = saved["gaps"], saved["still"]
        self.graph = Graph(saved["lists"], saved["near"])
        self.objective = [float(value) for value in saved["objective"]]
        self.changed = [int(value) for value in saved["changed"]]
        self.moved = [int(value) for value in saved["moved"]]
        self.ready = inner(self.centers, self.passes.frame)
        last = self.objective.pop()
        self._accumulate()
        self.objective.append(last)
        # Clusters that were left out have kept what was drawn before.
        self.totals.totals[:, 3] = saved["worth"]
        self.totals.far_keys[:], self.totals.far_rows[:] = saved["far_keys"], saved["far_rows"]
        return step


def _as_items(rows: NDArray[np.float32]) -> NDArray[Any]:
    """Return rows as single items that can be compared."""
    plain = np.ascontiguousarray(rows + np.float32(0))  # −0 becomes 0
    return plain.view(np.dtype((np.void, plain.shape[1] * 4))).ravel()


def _moderate(weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Bring weights to at most 1 by a power of two; only their proportions count."""
    if weights is None:
        return None
    return np.ldexp(weights, -math.frexp(float(weights.max()))[1])
