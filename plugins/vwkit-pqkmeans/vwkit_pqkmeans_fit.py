"""One running PQk-means: rounds, sums, repair and checkpoints are ours, assignment the library's."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vwkit_pqkmeans_library import (
    GROUP,
    Library,
    checked_codes,
    medoids,
    rows_at_a_time,
)

from vwkit import kernels
from vwkit.builtin.seeding import draws
from vwkit.clusterer import warn_few_distinct
from vwkit.data import given_array
from vwkit.errors import ShapeError
from vwkit.hashing import row_uniform, sample_rows
from vwkit.jobs import Job
from vwkit.stream import Stream, row_spans
from vwkit.types import Array

__all__ = [
    "Fit",
    "Settings",
    "given_centers",
    "medoid_work",
    "memory_need",
    "row_work",
    "spare",
    "start_work",
]

_MAPPED_LABELS = 1 << 30
_REPAIR_ROUNDS = 1000
_SAMPLE_PER_CENTER = 10
_SAMPLE_AT_LEAST = 16_384
_CLUSTERS = 512  # whose votes are counted at a time


@dataclass(frozen=True)
class Settings:
    """What a fit needs to know; see the parameters of `vwkit_pqkmeans.PQKMeans`."""

    k: int
    iterations: int
    tolerance: float
    init: str | Path | Array
    seed: int


def memory_need(rows: int, m: int, k: int, ks: int = 256, *, memory: int) -> int:
    """Return the bytes that clustering needs at most, besides the codes themselves.

    Parameters
    ----------
    rows, m : int
        Codes, and bytes of each.
    k : int
        Clusters.
    ks : int
        Codewords per slice.
    memory : int
        The job's budget: a quarter of it may hold votes, which saves passes over the codes.
    """
    labels = 4 * rows if 4 * rows <= _MAPPED_LABELS else 0
    tables = m * ks * ks * (8 + 2 * 4)
    call = (rows_at_a_time(m) + GROUP) * (4 * m + 180)
    sample = min(rows, max(_SAMPLE_PER_CENTER * k, _SAMPLE_AT_LEAST))
    start = sample * (2 * m + 80) + 48 * min(rows, 1 << 20)
    votes = min(k, _clusters_at_a_time(m, ks, memory)) * m * ks * 8 + 16 * 1024 * ks * 2
    return labels + tables + k * (4 * m + 32) + call + max(start, votes) + (16 << 20)


def spare(rows: int, m: int) -> int:
    """Return what `memory_need` counts for calls with more rows than there are, and to be safe."""
    return max(0, rows_at_a_time(m) - rows) * (4 * m + 180) + (16 << 20)


# Work is in lookups of a distance between two codewords, about a nanosecond each.


def row_work(m: int, k: int) -> float:
    """Return the work of finding the nearest of k centers for one code of m numbers."""
    return k * m + 500.0 + 50.0 * m


def medoid_work(m: int, k: int, ks: int) -> float:
    """Return the work of finding the best center of k clusters: a product of matrices."""
    return 0.2 * k * m * ks * ks


def start_work(rows: int, m: int, k: int) -> float:
    """Return the work of k-means++ on a sample: each draw looks at all of it."""
    sample = min(rows, max(_SAMPLE_PER_CENTER * k, _SAMPLE_AT_LEAST))
    return sample * (k * m + draws(k) * (row_work(m, 0) + 500.0))


def _clusters_at_a_time(m: int, ks: int, memory: int) -> int:
    return max(1, max(memory // 4, 16 << 20) // (m * ks * 8))


class Fit:
    """One running fit, and what becomes its result.

    Attributes
    ----------
    centers : (k, m) uint8
    labels : (n,) int32
    objective : list of float
    """

    def __init__(
        self,
        stream: Stream,
        weights: NDArray[np.float64] | None,
        settings: Settings,
        library: Library,
        current: Job,
    ) -> None:
        self.stream = stream
        self.rows = stream.count()
        self.settings = settings
        self.library = library
        self.job = current
        self.labels = _new_labels(self.rows)
        self.objective: list[float] = []
        self.steps = 0
        self.weights: NDArray[np.int64] | None = None
        self.weight_scale = 0
        if weights is not None:
            # Only proportions count; whole numbers add up to the same in any order.
            near_one = np.ldexp(weights, -math.frexp(float(weights.max()))[1])
            self.weight_scale = kernels.fixed_point_scale(self.rows, 1.0)
            self.weights = np.rint(np.ldexp(near_one, self.weight_scale)).astype(np.int64)

    def run(self) -> None:
        """Cluster until little changes."""
        settings = self.settings
        saved = self.job.resume()
        if saved is None or not self._fits(saved[1]):
            self.centers = self._start()
        else:
            self.steps, self.centers = saved[0], saved[1]["centers"]
            self.objective = [float(value) for value in saved[1]["objective"]]
        while True:
            counts = self._assign()
            empty = np.flatnonzero(counts == 0)
            last = self.steps >= settings.iterations or self._converged()
            if last and (not len(empty) or self.steps >= settings.iterations + _REPAIR_ROUNDS):
                break
            moved = self.centers.copy() if last else self._medoids(counts)
            if len(empty):
                spare = self._far_codes(len(empty))
                moved[empty[: len(spare)]] = spare
            if np.array_equal(moved, self.centers):
                break  # and so would be the labels
            self.centers = moved
            self.steps += 1
            self.job.checkpoint(
                self.steps, {"centers": self.centers, "objective": np.array(self.objective)}
            )
        self._compact(counts)

    def _fits(self, saved: dict[str, Array]) -> bool:
        """Tell whether a checkpoint is of such a fit at all."""
        if saved.keys() != {"centers", "objective"}:
            return False
        centers = saved["centers"]
        return (
            centers.shape == (self.settings.k, self.library.m)
            and centers.dtype == np.uint8
            and int(centers.max()) < self.library.ks
        )

    def _chunks(self) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        start = 0
        for chunk in self.stream.rechunk(self.library.rows):
            self.job.check()
            codes = checked_codes(chunk, self.library.codebook, "codes", start)
            yield slice(start, start + len(codes)), codes
            start += len(codes)

    # Start

    def _start(self) -> NDArray[np.uint8]:
        init, k, seed = self.settings.init, self.settings.k, self.settings.seed
        if not isinstance(init, str):
            return given_centers(init, k, self.library.codebook)
        if init == "random":
            return self._sampled(sample_rows(self.rows, k, seed))
        return self._plus_plus()

    def _sampled(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return checked_codes(self.stream.take(rows), self.library.codebook, "codes")

    def _plus_plus(self) -> NDArray[np.uint8]:
        """Draw codes far from each other; `vwkit.builtin.seeding.plus_plus` in symmetric distance."""
        k, seed = self.settings.k, self.settings.seed
        picked = sample_rows(self.rows, max(_SAMPLE_PER_CENTER * k, _SAMPLE_AT_LEAST), seed)
        codes = self._sampled(picked)
        mass = np.ones(len(codes)) if self.weights is None else self.weights[picked].astype(float)
        if not mass.any():
            mass[:] = 1
        distance = np.ones(len(codes))  # any, as long as none is nearer than another
        chosen: list[int] = []
        draw = 0
        while len(chosen) < k:
            draw += 1
            uniform = row_uniform(seed * 1_000_003 + draw, np.arange(len(codes)))
            share = mass * distance
            with np.errstate(divide="ignore", over="ignore"):
                # The smallest of exponential variables with these rates: a draw in proportion.
                race = np.where(share > 0, -np.log(uniform) / share, np.inf)
            count = min(max(1, len(chosen) // 8), k - len(chosen))
            order = np.argsort(race, kind="stable")[:count]
            fresh = order[np.isfinite(race[order])]
            if not len(fresh):
                break  # every code is on a center: fewer distinct ones than k
            new = codes[fresh]
            for start, stop in row_spans(len(codes), self.library.rows):
                self.job.progress(len(chosen), k, "centers")
                found = self.library.nearest(codes[start:stop], new, self.job.threads)[1]
                held = distance[start:stop]
                distance[start:stop] = np.minimum(held, found) if chosen else found
            chosen += fresh.tolist()
        rows = chosen + chosen[-1:] * (k - len(chosen))
        return codes[rows]

    # One round

    def _assign(self) -> NDArray[np.int64]:
        """Label every row, note the objective, and return what each cluster holds."""
        k = self.settings.k
        counts = np.zeros(k, np.int64)
        total = 0
        rounds = self.settings.iterations + 1
        for span, codes in self._chunks():
            labels, distances = self.library.nearest(codes, self.centers, self.job.threads)
            self.labels[span] = labels
            if self.weights is None:
                counts += np.bincount(labels, minlength=k)
            else:
                held = self.weights[span]
                np.add.at(counts, labels, held)
                distances *= np.ldexp(held.astype(float), -self.weight_scale)
            total += kernels.exact_sum(distances)
            shown = {"iteration": float(min(self.steps + 1, self.settings.iterations))}
            if self.objective:
                shown["objective"] = self.objective[-1]
            done = min(rounds * self.rows, self.steps * self.rows + span.stop)
            self.job.progress(done, rounds * self.rows, "rows", **shown)
        mass = math.ldexp(float(int(counts.sum())), -self.weight_scale)
        self.objective.append(float(Fraction(total, 1 << 1126)) / mass)
        return counts

    def _converged(self) -> bool:
        if len(self.objective) < 2:
            return False
        before, now = self.objective[-2:]
        return before - now <= self.settings.tolerance * before

    def _medoids(self, counts: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the best center of each cluster; an empty one keeps its own."""
        library, k = self.library, self.settings.k
        moved = self.centers.copy()
        arrays = {"tables": library.tables}
        step = _clusters_at_a_time(library.m, library.ks, self.job.memory)
        votes = np.empty((min(k, step), library.m * library.ks), np.int64)
        for low, high in row_spans(k, step):
            self._count_votes(low, high, votes)
            full = np.flatnonzero(counts[low:high])
            for start, stop in row_spans(len(full), _CLUSTERS * self.job.threads):
                some = full[start:stop]
                parts = self.job.map(medoids, votes[some], arrays, rows=_CLUSTERS)
                moved[low + some] = np.concatenate(list(parts))
        return moved

    def _count_votes(self, low: int, high: int, votes: NDArray[np.int64]) -> None:
        """Count how often each codeword occurs in each of the clusters `low` to `high`."""
        votes[:] = 0
        flat = votes.reshape(-1)
        for span, codes in self._chunks():
            labels: Array = self.labels[span]
            weights: Any = 1 if self.weights is None else self.weights[span]
            if high - low < self.settings.k:
                inside = np.flatnonzero((labels >= low) & (labels < high))
                codes, labels = codes[inside], labels[inside]
                weights = weights if self.weights is None else weights[inside]
            place = (labels.astype(np.int64) - low) * votes.shape[1]
            for j in range(self.library.m):
                np.add.at(flat, place + codes[:, j], weights)
                place += self.library.ks

    def _far_codes(self, count: int) -> NDArray[np.uint8]:
        """Return up to `count` distinct codes that lie off their centers, the farthest first.

        Of equals the first row; none without weight, since its cluster would stay empty.
        """
        held = np.zeros((0, self.library.m), np.uint8)
        far = np.zeros(0)
        for span, codes in self._chunks():
            distances = self.library.distances(codes, self.centers[self.labels[span]])
            if self.weights is not None:
                distances[self.weights[span] == 0] = 0
            useful = np.flatnonzero(distances > (far[-1] if len(far) == count else 0))
            far = np.concatenate([far, distances[useful]])
            held = np.concatenate([held, codes[useful]])
            order = np.argsort(-far, kind="stable")
            # The first of each kind, in this order.
            _, kept = np.unique(self.library.alike(held[order]), axis=0, return_index=True)
            order = order[np.sort(kept)[:count]]
            far, held = far[order], held[order]
        return held

    # End

    def _compact(self, counts: NDArray[np.int64]) -> None:
        """Put words that stay empty last, as copies of the last used one, which win no tie."""
        full = np.flatnonzero(counts > 0)
        k = self.settings.k
        if len(full) == k:
            return
        self.centers = self.centers[np.concatenate([full, np.flatnonzero(counts == 0)])]
        self.centers[len(full) :] = self.centers[len(full) - 1]
        for span, codes in self._chunks():
            self.labels[span] = self.library.nearest(codes, self.centers, self.job.threads)[0]
        warn_few_distinct(len(full), k)


def given_centers(init: Any, k: int, codebook: Array) -> NDArray[np.uint8]:
    """Return centers that somebody gave, (k, m) uint8: an array, or a .npy file.

    Raises
    ------
    ShapeError, DataError
    """
    centers = checked_codes(given_array(init), codebook, "init")
    if len(centers) != k:
        raise ShapeError(
            f"init: centers of shape ({k}, {codebook.shape[0]}) are needed; got {centers.shape}"
        )
    return centers.copy()


def _new_labels(rows: int) -> NDArray[np.int32]:
    """Return room for labels: in memory, above 1 GiB in a file that vanishes with the array."""
    if rows * 4 <= _MAPPED_LABELS:
        return np.zeros(rows, np.int32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.int32, "w+", shape=(rows,))
