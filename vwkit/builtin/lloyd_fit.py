"""One running fit of `lloyd`: passes, exact sums, checkpoints."""

from __future__ import annotations

import math
import operator
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit import kernels
from vwkit.builtin import lloyd_kernels
from vwkit.builtin.seeding import plus_plus
from vwkit.clusterer import warn_few_distinct
from vwkit.data import given_centers
from vwkit.estimates import mapped_from
from vwkit.hashing import sample_rows
from vwkit.jobs import Job
from vwkit.stream import Stream, chunk_rows
from vwkit.types import Array

if TYPE_CHECKING:
    from vwkit.builtin.lloyd import Lloyd

__all__ = ["Fit"]

_RESEED_ROUNDS = 1000
# Below this share of the data's own spread, the short formula of the objective loses digits.
_CANCELLED = 1e-6
_WORTH_KEEPING = 1.0  # seconds of work within a pass
_Begun = tuple[int, int, NDArray[np.int64], NDArray[np.int64]]
# Dtype and dimensions of what a checkpoint holds.
_STATE = {
    "at": ("<i8", 1),
    "measured": ("<f8", 1),
    "counts": ("<i8", 1),
    "sums": ("<i8", 2),
    "centers": ("<f4", 2),
    "shift": ("<f4", 1),
    "pins": ("<i8", 2),
    "labels": ("<i4", 1),
    "objective": ("<f8", 1),
    "changed": ("<i8", 1),
}


class Fit:
    """One running fit: the data, the exact sums, and what becomes the result."""

    def __init__(
        self, stream: Stream, weights: NDArray[np.float64] | None, params: Lloyd, current: Job
    ) -> None:
        self.stream = stream
        self.weights = None if weights is None else _moderate(weights)
        self.params = params
        self.job = current
        self.rows = stream.count()
        self.k = params.k
        row_bytes = stream.dim * stream.dtype.itemsize
        budget = current.memory // (8 * current.threads * (stream.dim + 4) * 8)
        self.chunk = max(1, min(chunk_rows(row_bytes), budget, 1 << 16))
        self.labels = _new_labels(self.rows, current.memory)
        self.objective: list[float] = []
        self.changed: list[int] = []
        self.steps = 0
        self.saves = 0
        self.saved = time.monotonic()
        #: How far a pass was that is gone on with: rows, labels changed, counts and sums.
        self.begun: _Begun | None = None
        # (row, center): rows whose center was just put on them. An exact assignment finds that by
        # itself; an approximate one might leave the center empty for ever.
        self.pins = np.zeros((0, 2), np.int64)

    def run(self) -> None:
        """Fit, from the beginning or from a checkpoint."""
        saved = self.job.resume()
        if saved is None or not self._fits(saved[1]):
            self.centers = self._start()
            self.shift = self.centers.astype(np.float64).mean(axis=0).astype(np.float32)
            if self.stream.dtype == np.uint8 and self.weights is None:
                self.shift = np.zeros_like(self.shift)  # whole numbers throughout
            self._measure()
        else:
            self._take_up(*saved)
        while True:
            counts, sums = self._assign()
            settled = self.steps > 0 and self.changed[-1] == 0
            empty = np.flatnonzero(counts == 0)
            last = settled or self.steps >= self.params.iterations or self._converged()
            if last and (len(empty) == 0 or self.steps >= self.params.iterations + _RESEED_ROUNDS):
                break
            moved = self.centers if last else self._means(counts, sums)
            if not last:
                self.pins = self.pins[:0]  # the pinned centers move too
            if len(empty):
                rows, spare = self._far_rows(len(empty))
                if len(rows) == 0:  # every row sits on its center: no more distinct rows
                    if last:
                        break
                else:
                    moved = moved.copy()
                    moved[empty[: len(rows)]] = spare
                    fresh = np.stack([rows, empty[: len(rows)]], axis=1)
                    self.pins = np.concatenate([self.pins, fresh])
            self.centers = moved
            self.steps += 1
            self._keep(None)
        self._compact(counts)
        self.labels.flags.writeable = True

    # Start

    def _start(self) -> NDArray[np.float32]:
        init = self.params.init
        if isinstance(init, (Path, np.ndarray)):
            return given_centers(init, self.k, self.stream.dim)
        if init == "random":
            wanted = self.stream.take(sample_rows(self.rows, self.k, self.params.seed))
            return wanted.astype(np.float32)
        return plus_plus(self.stream, self.k, self.params.seed, self.weights, self.job)

    def _measure(self) -> None:
        """Choose the fixed-point scales and add up what stays constant."""
        heaviest, largest, farthest = 1.0, 255.0, float(self.stream.dim) * 255.0**2
        if self.stream.dtype == np.uint8 and self.weights is None:
            self.scale = 0
        else:
            found = list(
                self._map(
                    lloyd_kernels.extremes, {"shift": self.shift}, combine=lloyd_kernels.larger
                )
            )
            heaviest, largest, farthest = (max(column) for column in zip(*found, strict=True))
            self.scale = kernels.fixed_point_scale(self.rows, largest)
        self.weight_scale = (
            0 if self.weights is None else kernels.fixed_point_scale(self.rows, heaviest)
        )
        square_scale = kernels.fixed_point_scale(self.rows, farthest)
        arrays = {"shift": self.shift, "scale": square_scale}
        total = sum(self._map(lloyd_kernels.squares, arrays, combine=operator.add))
        self.squares = math.ldexp(float(total), -square_scale)

    # One iteration

    def _assign(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        total_rows = (self.params.iterations + 1) * self.rows
        begun, self.begun = self.begun, None
        if begun is None:
            sums = np.zeros((self.k, self.stream.dim), np.int64)
            begun = 0, 0, np.zeros(self.k, np.int64), sums
        start, changed, counts, sums = begun
        # Elsewhere, labels come before the sums that belong to them.
        whole = not self.job.distributed
        for part in self._partials(start):
            stop = start + len(part.labels)
            changed += int((self.labels[start:stop] != part.labels).sum())
            self.labels[start:stop] = part.labels
            counts[part.used] += part.counts
            sums[part.used] += part.sums
            start = stop
            shown = {"iteration": float(min(self.steps + 1, self.params.iterations))}
            if self.objective:
                shown["objective"] = self.objective[-1]
            done = min(total_rows, self.steps * self.rows + stop)
            if whole and stop < self.rows and time.monotonic() - self.saved >= _WORTH_KEEPING:
                self._keep((stop, changed, counts, sums))
            self.job.progress(done, total_rows, "rows", **shown)
        self.changed.append(changed)
        self.objective.append(self._mean_distance(counts, sums))
        return counts, sums

    def _partials(self, start: int) -> Iterator[kernels.Partial]:
        arrays: dict[str, Any] = {"scale": self.scale, "weight_scale": self.weight_scale}
        index = self.params.assign
        if index is None:
            arrays["centers"] = self.centers
            assign = kernels.assign_and_accumulate
            yield from self._map(assign, arrays, None, kernels.merge, kernels.split, start)
            return
        # The library brings its own threads, so the search is not spread over ours.
        index.build(self.centers)
        if self.job.distributed:
            arrays.update(index=index, centers=self.centers, pins=self.pins)
            places = {"places": np.arange(self.rows)} if len(self.pins) else None
            yield from self._map(
                lloyd_kernels.searched, arrays, places, kernels.merge, kernels.split, start
            )
            return
        for chunk in self.stream.from_row(start).rechunk(self.chunk):
            self.job.check()
            weights = None if self.weights is None else self.weights[start : start + len(chunk)]
            labels = lloyd_kernels.search_labels(index, chunk, self.centers)
            for row, center in self.pins:
                if start <= row < start + len(chunk):
                    labels[row - start] = center
            yield kernels.accumulate(chunk, labels, weights, **arrays)
            start += len(chunk)

    def _mean_distance(self, counts: NDArray[np.int64], sums: NDArray[np.int64]) -> float:
        """Mean of w·‖x − c‖² from the exact sums: Σ‖x‖² − 2 Σ c·S + Σ n‖c‖², all shifted."""
        mass = np.ldexp(counts.astype(np.float64), -self.weight_scale)
        centers = self.centers.astype(np.float64) - self.shift
        added = np.ldexp(sums.astype(np.float64), -self.scale) - mass[:, None] * self.shift
        cross = float((centers * added).sum())
        own = float((mass * (centers * centers).sum(axis=1)).sum())
        total = self.squares - 2 * cross + own
        if total < _CANCELLED * self.squares:
            # Little is left of two large numbers: add up the rows' distances themselves.
            labels = {"labels": self.labels}
            centers = {"centers": self.centers}
            found = self._map(lloyd_kernels.own_distances, centers, labels, combine=operator.add)
            total = float(Fraction(sum(found), 1 << 1126))
        return total / float(mass.sum())

    def _means(self, counts: NDArray[np.int64], sums: NDArray[np.int64]) -> NDArray[np.float32]:
        centers = self.centers.copy()
        full = counts > 0
        mass = np.ldexp(counts[full].astype(np.float64), -self.weight_scale)
        added = np.ldexp(sums[full].astype(np.float64), -self.scale)
        centers[full] = (added / mass[:, None]).astype(np.float32)
        return centers

    def _converged(self) -> bool:
        if len(self.objective) < 2:
            return False
        before, now = self.objective[-2:]
        return before - now < self.params.tolerance * before

    def _far_rows(self, count: int) -> tuple[NDArray[np.int64], Array]:
        """Return up to `count` distinct rows that lie off their centers, the farthest first.

        Rows without weight are of no use: their cluster would stay empty.
        """
        best: list[tuple[float, int, bytes, Array]] = []
        start = 0
        arrays = {"centers": self.centers, "count": 4 * count + 16, "scale": self.weight_scale}
        found = self._map(lloyd_kernels.far, arrays, {"labels": self.labels})
        for distances, places, rows, size in found:
            best += [
                (-distance, start + int(place), row.tobytes(), row)
                for distance, place, row in zip(distances, places, rows, strict=True)
                if distance > 0
            ]
            best.sort(key=lambda one: one[:2])
            seen: set[bytes] = set()
            best = [one for one in best if not (one[2] in seen or seen.add(one[2]))]  # type: ignore[func-returns-value]
            del best[count:]
            start += size
        rows = np.array([one[1] for one in best], np.int64)
        return rows, np.array([one[3] for one in best], np.float32)

    # End

    def _compact(self, counts: NDArray[np.int64]) -> None:
        """Put words that stay empty last, as copies of the last used one.

        The rows' words stay the nearest centers: copies lose every tie. Only rows without weight
        may have had an empty word; they get their nearest.
        """
        full = np.flatnonzero(counts > 0)
        if len(full) == self.k:
            return
        order = np.concatenate([full, np.flatnonzero(counts == 0)])
        place = np.empty(self.k, np.int32)
        place[order] = np.arange(self.k, dtype=np.int32)
        self.centers = self.centers[order]
        self.centers[len(full) :] = self.centers[len(full) - 1]
        self.labels[:] = place[self.labels]
        if self.params.assign is not None:
            self.params.assign.build(self.centers)
        if self.weights is not None:
            start = 0
            used = np.ascontiguousarray(self.centers[: len(full)])
            for chunk in self.stream.rechunk(self.chunk):
                own = self.labels[start : start + len(chunk)]
                lost = np.flatnonzero(own >= len(full))
                own[lost] = kernels.nearest_rows(chunk[lost], used)
                start += len(chunk)
        warn_few_distinct(len(full), self.k)

    def _map(
        self,
        kernel: Any,
        arrays: dict[str, Any],
        aligned: dict[str, Array] | None = None,
        combine: Any = None,
        split: Any = None,
        start: int = 0,
    ) -> Iterator[Any]:
        """Map a kernel over (chunk, *aligned, *weights if there are any), from a row on."""
        aligned = dict(aligned or {})
        if self.weights is not None:
            aligned["weights"] = self.weights
        return self.job.map(
            kernel,
            self.stream.from_row(start),
            arrays,
            aligned={name: array[start:] for name, array in aligned.items()},
            rows=self.chunk,
            combine=combine,
            split=split,
        )

    # Checkpoints

    def _keep(self, begun: _Begun | None) -> None:
        """Offer a checkpoint: between two passes, or within one."""
        row, changed, counts, sums = begun or self._nothing()
        self.saves += 1
        state = {
            "at": np.array([self.steps, row, changed], np.int64),
            "measured": np.array([self.scale, self.weight_scale, self.squares]),
            "counts": counts,
            "sums": sums,
            "centers": self.centers,
            "shift": self.shift,
            "pins": self.pins,
            "labels": self.labels,
            "objective": np.array(self.objective),
            "changed": np.array(self.changed, np.int64),
        }
        self.job.checkpoint(self.saves, state)
        self.saved = time.monotonic()

    def _nothing(self) -> _Begun:
        return 0, 0, np.zeros(0, np.int64), np.zeros((0, self.stream.dim), np.int64)

    def _fits(self, saved: dict[str, Array]) -> bool:
        """Tell whether a checkpoint is of such a fit at all."""
        state = {name: (array.dtype.str, array.ndim) for name, array in saved.items()}
        return (
            state == _STATE
            and saved["centers"].shape == (self.k, self.stream.dim)
            and saved["shift"].shape == saved["centers"].shape[1:]
            and saved["labels"].shape == (self.rows,)
            and saved["at"].shape == saved["measured"].shape == (3,)
            and 0 <= saved["at"][1] < self.rows
            and len(saved["counts"]) in ([0] if saved["at"][1] == 0 else [self.k])
            and saved["sums"].shape == (len(saved["counts"]), self.stream.dim)
        )

    def _take_up(self, saves: int, saved: dict[str, Array]) -> None:
        self.saves = saves
        self.steps, row, changed = (int(number) for number in saved["at"])
        if row:
            self.begun = row, changed, saved["counts"], saved["sums"]
        scale, weight_scale, self.squares = (float(number) for number in saved["measured"])
        self.scale, self.weight_scale = int(scale), int(weight_scale)
        self.centers, self.shift, self.pins = saved["centers"], saved["shift"], saved["pins"]
        self.labels[:] = saved["labels"]
        self.objective = [float(value) for value in saved["objective"]]
        self.changed = [int(value) for value in saved["changed"]]


def _moderate(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring huge or tiny weights near 1 by a power of two; only their proportions count."""
    exponent = math.frexp(float(weights.max()))[1]
    return weights if abs(exponent) < 64 else np.ldexp(weights, -exponent)


def _new_labels(rows: int, memory: int) -> NDArray[np.int32]:
    """Return room for labels: in memory, or if they are many in a file that vanishes with the array."""
    if rows * 4 <= mapped_from(memory):
        return np.full(rows, -1, np.int32)
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, np.int32, "w+", shape=(rows,))
    mapped[:] = -1
    return mapped
