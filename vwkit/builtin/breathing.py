"""K-means for few dimensions and few clusters, close to the best there is."""

from __future__ import annotations

from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from vwkit import kernels
from vwkit.base import Field, backend
from vwkit.clusterer import Clusterer, warn_few_distinct
from vwkit.estimates import Estimate
from vwkit.jobs import job
from vwkit.palettes.breathing import breathing
from vwkit.types import Array, Positive

__all__ = ["BreathingKMeans"]

# Breathing on the summary, as measured: work is in tenths of nanoseconds.
_SUMMARY_WORK = 2e8


@backend("breathing-kmeans")
class BreathingKMeans(Clusterer):
    """K-means that gets out of local minima, for few clusters of vectors of few dimensions.

    Centers are added where the error is largest and taken away where they are missed least (Fritzke
    2020, "The breathing k-means algorithm"), on a summary of the rows; the last iterations look at
    all rows.

    Attributes
    ----------
    centers : (k, d) float32
    labels : (n,) int32
    objective : list of float
        Weighted mean squared distance at each iteration over all rows; the last is of `centers`.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).integers(0, 256, (5000, 3)).astype(np.uint8)
    >>> found = vwkit.create("clusterer", "breathing-kmeans", k=16).fit(rows)
    >>> found.centers.shape, len(np.unique(found.labels))
    ((16, 3), 16)
    """

    choose = "palettes, and other clusters of a few dimensions: better than lloyd, and faster."

    dtypes = ("uint8", "float32")
    supports_weights = True
    deterministic = True

    k: Positive = Field(doc="Number of clusters.")
    iterations: Positive = Field(default=25, doc="At most this many iterations over all rows.")
    tolerance: Annotated[float, annotated_types.Ge(0)] = Field(
        default=1e-4, doc="Stop when the objective improves by less than this share of itself."
    )

    def _fit(self, data: Any, weights: NDArray[np.float64] | None) -> None:
        centers, objective = breathing(
            data,
            weights,
            self.k,
            seed=self.seed,
            iterations=self.iterations,
            tolerance=self.tolerance,
            current=job(),
        )
        if len(centers) < self.k:
            warn_few_distinct(len(centers), self.k)
            again = np.repeat(centers[-1:], self.k - len(centers), axis=0)
            centers, objective = np.concatenate([centers, again]), []
        self.centers, self.labels, closing = _closed(data, weights, centers)
        self.objective = [*(value for value in objective if value >= closing), closing]

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        return Estimate(
            work=_SUMMARY_WORK + rows * dim * 100.0,
            each_pass=rows * self._row_work(dim),
            passes=self.iterations + 1,
            memory=rows * (20.0 * dim + 40.0),
            disk=4 * rows + 4 * self.k * dim,
        )

    def _row_work(self, dim: int) -> float:
        return (self.k + 250.0) * (dim + 1)


def _closed(
    rows: Array, weights: NDArray[np.float64] | None, centers: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int32], float]:
    """Label all rows; a center that is left without rows goes to the row that is worst off."""
    mass = np.ones(len(rows)) if weights is None else weights
    while True:
        labels = kernels.nearest_rows(rows, centers).astype(np.int32)
        distance = mass * kernels.row_distances(rows, labels, centers=centers)
        counts = np.bincount(labels, weights=mass, minlength=len(centers))
        empty = np.flatnonzero(counts == 0)
        order = np.argsort(-distance, kind="stable")[: len(empty)]
        order = order[distance[order] > 0]
        if len(order) == 0:
            return centers, labels, float(distance.sum() / mass.sum())
        centers = centers.copy()
        # One at a time if rows are alike: the next round sees what is left.
        worst = rows[order]
        _, first = np.unique(worst, axis=0, return_index=True)
        centers[empty[: len(first)]] = worst[np.sort(first)]
