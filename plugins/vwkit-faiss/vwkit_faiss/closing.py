"""The last assignment of a clustering: exact, with no cluster left empty.

FAISS splits empty clusters after an update of the centers and does not look again, labels no rows,
and adds in float32. So what it brings is finished here, with the kernels of the core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit import kernels
from vwkit.clusterer import warn_few_distinct
from vwkit.jobs import Job
from vwkit.stream import Stream
from vwkit.types import Array

__all__ = ["Closed", "block_rows", "close", "moderate"]

_BLOCK = 1 << 16
_BLOCK_BYTES = 32 << 20
_ROUNDS = 1000
_MAPPED_LABELS = 1 << 30
# `kernels.exact_sum` counts in this unit.
_UNIT = 1 << 1126


@dataclass
class Closed:
    """Centers, and what belongs to them.

    Attributes
    ----------
    centers : (k, d) float32
    labels : (n,) int32
        Of the nearest center, the lowest on ties.
    objective : float
        Mean (weighted) squared distance.
    """

    centers: NDArray[np.float32]
    labels: NDArray[np.int32]
    objective: float


def close(
    stream: Stream, centers: NDArray[np.float32], weights: NDArray[np.float64] | None, current: Job
) -> Closed:
    """Assign every row to its nearest center, and repair clusters without any weight.

    While a cluster is empty and a row lies off its center, the center moves to the row farthest
    from its own, and the others to the means of their rows, so that the objective falls. With fewer
    distinct rows than centers the surplus ones repeat the last one, and one warning says so.

    Parameters
    ----------
    stream : Stream of (n, d) uint8 or float32
    centers : (k, d) float32
    weights : (n,) float64, optional
    current : Job
    """
    closing = _Closing(stream, centers, weights, current)
    for _ in range(_ROUNDS):
        closing.assign()
        empty = np.flatnonzero(closing.mass == 0)
        if not len(empty) or not closing.repair(empty):
            break
    closing.compact()
    return Closed(closing.centers, closing.labels, closing.objective)


def _new_labels(rows: int) -> NDArray[np.int32]:
    """Return room for labels: in memory, above 1 GiB in a file that vanishes with the array."""
    if rows * 4 <= _MAPPED_LABELS:
        return np.full(rows, -1, np.int32)
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, np.int32, "w+", shape=(rows,))
    mapped[:] = -1
    return mapped


def block_rows(dim: int) -> int:
    """Return the rows of a block; it depends on the data alone, so that results do."""
    return max(1, min(_BLOCK, _BLOCK_BYTES // (4 * dim)))


def moderate(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring weights near 1, for only their proportions count; what is 2^60 times lighter is 0."""
    scaled: NDArray[np.float64] = weights / weights.max()
    scaled[scaled < 2.0**-60] = 0
    return scaled


class _Closing:
    def __init__(
        self,
        stream: Stream,
        centers: NDArray[np.float32],
        weights: NDArray[np.float64] | None,
        current: Job,
    ) -> None:
        self.stream, self.centers = stream, centers
        self.weights, self.job = weights, current
        self.rows = block_rows(stream.dim)
        self.labels = _new_labels(stream.count())
        self.mass = np.zeros(len(centers))
        self.objective = 0.0

    def assign(self) -> None:
        self.mass = np.zeros(len(self.centers))
        start = total = 0
        for part in self._map(_assigned, {"centers": self.centers}):
            labels, distance, used, mass = part
            self.labels[start : start + len(labels)] = labels
            self.mass[used] += mass
            total += distance
            start += len(labels)
            self.job.check()
        self.objective = float(Fraction(total, _UNIT)) / float(self.mass.sum())

    def repair(self, empty: NDArray[np.int64]) -> bool:
        """Move empty clusters to far rows, the others to their means; False if no row is far."""
        rows = self._far_rows(len(empty))
        if not len(rows):
            return False
        sums = np.zeros(self.centers.shape)
        for used, part in self._map(_sums, {}, {"labels": self.labels}):
            sums[used] += part
        centers = self.centers.copy()
        full = self.mass > 0
        centers[full] = sums[full] / self.mass[full, None]
        centers[empty[: len(rows)]] = rows
        self.centers = centers
        return True

    def _far_rows(self, count: int) -> Array:
        """Return up to `count` distinct rows that lie off their centers, the farthest first."""
        best: list[tuple[float, int, bytes, Array]] = []
        start = 0
        arrays = {"centers": self.centers, "count": 4 * count + 16}
        for distances, places, rows, size in self._map(_far, arrays, {"labels": self.labels}):
            best += [
                (-distance, start + int(place), row.tobytes(), row)
                for distance, place, row in zip(distances, places, rows, strict=True)
                if distance > 0
            ]
            best.sort(key=lambda one: one[:2])
            best = list({one[2]: one for one in reversed(best)}.values())
            best.sort(key=lambda one: one[:2])
            del best[count:]
            start += size
        return np.array([one[3] for one in best], np.float32).reshape(-1, self.stream.dim)

    def compact(self) -> None:
        """Put words that stay empty last, as copies of the last used one.

        Copies lose every tie, so the rows' words stay the nearest centers. Rows without weight may
        have had an empty word; they get their nearest.
        """
        full = np.flatnonzero(self.mass > 0)
        if len(full) == len(self.centers):
            return
        order = np.concatenate([full, np.flatnonzero(self.mass == 0)])
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        self.centers = self.centers[order]
        self.centers[len(full) :] = self.centers[len(full) - 1]
        self.labels[:] = place[self.labels]
        if self.weights is not None:
            start = 0
            for chunk in self.stream.rechunk(self.rows):
                own = self.labels[start : start + len(chunk)]
                lost = np.flatnonzero(own >= len(full))
                own[lost] = kernels.nearest_rows(chunk[lost], self.centers[: len(full)])
                start += len(chunk)
        warn_few_distinct(len(full), len(self.centers))

    def _map(
        self, kernel: Any, arrays: dict[str, Any], aligned: dict[str, Array] | None = None
    ) -> Iterator[Any]:
        """Map a kernel over (chunk, *aligned, *weights if there are any)."""
        aligned = dict(aligned or {})
        if self.weights is not None:
            aligned["weights"] = self.weights
        return self.job.map(kernel, self.stream, arrays, aligned=aligned, rows=self.rows)


# Kernels: module-level functions of arrays ------------------------------------------------------


def _assigned(
    chunk: Array, *weights: Array, centers: Array
) -> tuple[NDArray[np.int32], int, NDArray[np.int32], NDArray[np.float64]]:
    """Return labels, the exact sum of w·‖x − c‖², and the weight of each cluster that occurs."""
    labels = kernels.nearest_rows(chunk, centers).astype(np.int32)
    distances = kernels.row_distances(chunk, labels, centers=centers)
    used, place = np.unique(labels, return_inverse=True)
    mass = np.bincount(place, weights[0] if weights else None, len(used)).astype(np.float64)
    total = kernels.exact_sum(distances * weights[0] if weights else distances)
    return labels, total, used, mass


def _sums(
    chunk: Array, labels: Array, *weights: Array
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the clusters that occur and the sums of w·x of each, (u, d)."""
    used, place = np.unique(labels, return_inverse=True)
    sums = np.empty((len(used), chunk.shape[1]))
    for j in range(chunk.shape[1]):
        column = chunk[:, j].astype(np.float64)
        if weights:
            column *= weights[0]
        sums[:, j] = np.bincount(place, column, len(used))
    return used, sums


def _far(
    chunk: Array, labels: Array, *weights: Array, centers: Array, count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], Array, int]:
    """Return distances, places and rows of those farthest from their centers, and the chunk's size."""
    useful = np.flatnonzero(weights[0] > 0) if weights else np.arange(len(chunk))
    distances, places = kernels.farthest_rows(
        chunk[useful], labels[useful], centers=centers, count=count
    )
    places = useful[places]
    return distances, places, chunk[places], len(chunk)
