"""The clusterer `faiss-superkmeans`: assignment by partial distances, with FAISS's kernel for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit import kernels
from vwkit.builtin.seeding import plus_plus
from vwkit.data import given_centers
from vwkit.errors import DataError, PluginError
from vwkit.hashing import sample_rows
from vwkit.jobs import Job, job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_faiss.closing import block_rows, close, moderate
from vwkit_faiss.kmeans import Tolerance
from vwkit_faiss.library import Frame, load_faiss, omp_threads, told

__all__ = ["FaissSuperKMeans"]

_STATE = {"centers", "labels", "objective", "front"}


@vwkit.backend("faiss-superkmeans")
class FaissSuperKMeans(vwkit.Clusterer):
    """K-means that drops most centers of a row after a few dimensions, by FAISS's SuperKMeans.

    Kuffo et al. 2026, "SuperKMeans"; in FAISS since 1.15. The data are turned at random; the first
    dimensions of all centers are compared by one matrix product, and the others only for centers
    that may still be the nearest, within a chance of one in the dimensions. Below 32 dimensions
    there is nothing to drop, and rows are compared with all centers.

    ``faiss.SuperKMeans`` itself copies all data as floats, cannot be stopped and takes no weights;
    so its assignment (``faiss.super_kmeans_assign_iteration``) runs here block by block, and the
    centers are added up in float64: data may be larger than memory, and uint8 stay uint8. Empty
    clusters move to the rows farthest from their centers.

    Attributes
    ----------
    centers : (k, d) float32
    labels : (n,) int32
        Of the nearest centers: the last assignment is exact.
    objective : list of float
        Mean squared distance at each iteration's assignment; the last is of `centers`.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).normal(size=(500, 40)).astype(np.float32)
    >>> kmeans = vwkit.create("clusterer", "faiss-superkmeans", k=10).fit(rows)
    >>> kmeans.objective[-1] <= kmeans.objective[0]
    True
    """

    library = "faiss-cpu"
    requires = ("faiss",)
    license = "MIT"
    choose = "thousands of clusters of vectors with 100 dimensions or more, if the result shall be all but exact."
    streams = True
    dtypes = ("uint8", "float32")
    supports_weights = True

    k: vwkit.Positive = vwkit.Field(doc="Number of clusters.")
    iterations: vwkit.Positive = vwkit.Field(
        default=25, doc="At most this many updates of the centers."
    )
    tolerance: Tolerance = vwkit.Field(
        default=1e-4, doc="Stop when the objective improves by less than this share of itself."
    )
    init: Literal["random", "k-means++"] | Path | np.ndarray[Any, Any] = vwkit.Field(
        default="random",
        doc="How to start: random rows, k-means++, or given centers (array or .npy file).",
    )

    def _fit(self, data: Any, weights: NDArray[np.float64] | None) -> None:
        faiss = load_faiss("clusterer faiss-superkmeans")
        if not hasattr(faiss, "super_kmeans_assign_iteration"):
            raise PluginError(
                "clusterer faiss-superkmeans: needs faiss-cpu 1.15 or newer; "
                f"{faiss.__version__} is installed"
            )
        current = job()
        stream = data if isinstance(data, Stream) else Stream.from_array(data)
        if weights is not None:
            weights = moderate(weights)
        fit = _Fit(faiss, self, stream, weights, current)
        with (
            omp_threads(faiss, current.threads),
            told(DataError, f"faiss-superkmeans, k = {self.k}"),
        ):
            centers = fit.run()
        closed = close(stream, centers, weights, current)
        self.centers, self.labels = closed.centers, closed.labels
        self.objective = [*fit.objective, closed.objective]


class _Fit:
    """One running fit."""

    def __init__(
        self,
        faiss: Any,
        params: FaissSuperKMeans,
        stream: Stream,
        weights: NDArray[np.float64] | None,
        current: Job,
    ) -> None:
        self.faiss, self.params, self.stream = faiss, params, stream
        self.weights, self.job = weights, current
        self.rows, self.dim, self.k = stream.count(), stream.dim, params.k
        self.block = block_rows(self.dim)
        # As the class itself has it: below this, nothing is dropped.
        self.settings = faiss.SuperKMeansParameters()
        least = self.settings.d_prime_min
        self.partial = self.dim >= 2 * least
        self.front = min(max(least, int(self.dim * self.settings.d_prime_fraction)), self.dim // 2)
        if self.partial:
            chance = self.settings.ad_epsilon_factor / self.dim
            self.limits = faiss.vector_to_array(faiss.precompute_ad_thresholds(self.dim, chance))
        self.turn = faiss.RandomRotationMatrix(self.dim, self.dim)
        self.turn.init(params.seed % (1 << 31))
        self.labels = np.full(self.rows, -1, np.int32)
        self.distance = np.empty(self.rows, np.float32)
        self.objective: list[float] = []

    def run(self) -> NDArray[np.float32]:
        step, centers = self._taken_up()
        # Products are accurate for rows about the origin that are neither huge nor tiny.
        shift = centers.astype(np.float64).mean(axis=0).astype(np.float32)
        largest = float(np.abs(centers.astype(np.float64) - shift).max())
        self.frame = Frame(shift, 2.0 ** -math.frexp(largest)[1] if largest else 1.0)
        while step < self.params.iterations and not self._settled():
            mass, sums = self._assign(centers, step)
            centers = self._moved(centers, mass, sums)
            step += 1
            state: dict[str, Array] = {
                "centers": centers,
                "labels": self.labels,
                "objective": np.array(self.objective, np.float64),
                "front": np.array(self.front),
            }
            self.job.checkpoint(step, state)
        return centers

    def _taken_up(self) -> tuple[int, NDArray[np.float32]]:
        saved = self.job.resume()
        if saved is not None:
            step, state = saved
            if (
                state.keys() == _STATE
                and state["centers"].shape == (self.k, self.dim)
                and state["labels"].shape == (self.rows,)
            ):
                self.labels[:] = state["labels"]
                self.objective = [float(value) for value in state["objective"]]
                self.front = int(state["front"])
                return step, np.ascontiguousarray(state["centers"], np.float32)
        return 0, self._start()

    def _start(self) -> NDArray[np.float32]:
        init = self.params.init
        if isinstance(init, (Path, np.ndarray)):
            return given_centers(init, self.k, self.dim)
        if init == "k-means++":
            return plus_plus(self.stream, self.k, self.params.seed, self.weights, self.job)
        useful = self.rows if self.weights is None else int((self.weights > 0).sum())
        chosen = sample_rows(useful, self.k, self.params.seed)
        if self.weights is not None:
            chosen = np.flatnonzero(self.weights > 0)[chosen]
        centers = self.stream.take(chosen).astype(np.float32)
        repeated = np.repeat(centers[-1:], self.k - len(centers), axis=0)
        return np.ascontiguousarray(np.concatenate([centers, repeated]))

    def _settled(self) -> bool:
        if len(self.objective) < 2:
            return False
        before, now = self.objective[-2:]
        return now == before or before - now < self.params.tolerance * before

    # One iteration

    def _assign(
        self, centers: NDArray[np.float32], step: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Label all rows, beginning with the labels they have; return weights and sums."""
        faiss = self.faiss
        framed = self.frame.into(centers)
        turned = self.turn.apply(framed)
        flat = faiss.IndexFlatL2(self.dim)
        flat.add(framed)
        mass, sums = np.zeros(self.k), np.zeros((self.k, self.dim))
        pairs = dropped = start = 0
        total = 0.0
        for chunk in self.stream.rechunk(self.block):
            stop = start + len(chunk)
            shown = {"iteration": float(step + 1)}
            if self.objective:
                shown["objective"] = self.objective[-1]
            done = step * self.rows + start
            self.job.progress(done, self.params.iterations * self.rows, "rows", **shown)
            rows, labels = self.frame.into(chunk), self.labels[start:stop]
            if step == 0 or not self.partial:
                near, found = flat.search(rows, 1)
                labels[:] = found[:, 0]
                distance = np.ascontiguousarray(near[:, 0])
                lost = np.flatnonzero(labels < 0)  # where squares overflow
                labels[lost] = kernels.nearest_rows(chunk[lost], centers)
            else:
                rows = self.turn.apply(rows)
                distance = _own(rows, turned, labels)
                looked, out = faiss.super_kmeans_assign_iteration(
                    rows, turned, distance, labels, self.front, self.limits, self.settings
                )
                pairs, dropped = pairs + looked, dropped + out
            self.distance[start:stop] = distance
            weights = None if self.weights is None else self.weights[start:stop]
            used, part = _added(chunk, labels, weights)
            sums[used] += part
            mass += np.bincount(labels, weights, self.k)
            wide = distance.astype(np.float64)
            total += float((wide if weights is None else wide * weights).sum())
            start = stop
        self.objective.append(total / self.frame.scale**2 / float(mass.sum()))
        if pairs:
            self._adapt(dropped / pairs)
        return mass, sums

    def _adapt(self, dropped: float) -> None:
        """Keep the share of pairs dropped after the front dimensions in a band, as FAISS does."""
        settings = self.settings
        front = float(self.front)
        if dropped > settings.pruning_target_high:
            front *= 1 - settings.d_prime_adjust
        elif dropped < settings.pruning_target_low:
            front *= 1 + settings.d_prime_adjust
        self.front = int(min(max(settings.d_prime_min, round(front)), self.dim // 2))

    def _moved(
        self,
        centers: NDArray[np.float32],
        mass: NDArray[np.float64],
        sums: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Return the means; empty clusters go to distinct rows far from their centers."""
        moved = centers.copy()
        full = mass > 0
        moved[full] = sums[full] / mass[full, None]
        empty = np.flatnonzero(~full)
        if len(empty):
            far = self.distance if self.weights is None else self.distance * (self.weights > 0)
            wanted = min(4 * len(empty) + 16, self.rows)
            places = np.argpartition(-far, wanted - 1)[:wanted]
            places = np.sort(places[far[places] > 0])
            rows = self.stream.take(places)
            order = np.argsort(-far[places], kind="stable")
            distinct = list({rows[i].tobytes(): i for i in order[::-1]}.values())[::-1]
            chosen = distinct[: len(empty)]
            moved[empty[: len(chosen)]] = rows[chosen]
            self.labels[places[chosen]] = empty[: len(chosen)]
        return moved


def _own(rows: Array, centers: Array, labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the squared distance of each row to the center that it has, (n,) float32."""
    difference = rows - centers[labels]
    own: NDArray[np.float32] = np.einsum("ij,ij->i", difference, difference)
    return own


def _added(
    chunk: Array, labels: NDArray[np.int32], weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the clusters that occur in a block, and the sums of w·x of each."""
    order = np.argsort(labels, kind="stable")
    used, first = np.unique(labels[order], return_index=True)
    wide = chunk[order].astype(np.float64)
    if weights is not None:
        wide *= weights[order, None]
    sums: NDArray[np.float64] = np.add.reduceat(wide, first, axis=0)
    return used, sums
