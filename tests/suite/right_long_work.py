"""A clusterer that is right and heeds its job: progress, interruption, checkpoints, an estimate."""

from __future__ import annotations

import numpy as np

import vwkit
from tests.suite.right_clusterer import KMeans
from vwkit.estimates import Estimate
from vwkit.reference import lloyd as reference


@vwkit.backend("patient")
class Patient(KMeans):
    """K-means that can be stopped behind every iteration and goes on there."""

    def _fit(self, data, weights):
        job, first = vwkit.job(), 0
        wide = data.astype(np.float64)
        self._tell(job, 0)
        centers, objective = np.asarray(self._start(data, weights), np.float64), []
        kept = job.resume()
        if kept is not None and self._fits(kept[1], centers):
            first, state = kept
            centers, objective = np.array(state["centers"]), state["objective"].tolist()
        for turn in range(first, self.iterations):
            labels = reference.assign(wide, centers)
            objective.append(reference.objective(wide, centers, labels, weights))
            centers = reference.update(wide, labels, self.k, weights, centers)
            job.checkpoint(turn + 1, self._kept(centers, objective))
            self._tell(job, turn + 1)
        self._finish(data, weights, centers, [*objective, 0.0])

    def _tell(self, job, done):
        job.progress(done, self.iterations, "iterations")

    def _kept(self, centers, objective):
        return {"centers": centers, "objective": np.array(objective)}

    def _fits(self, state, centers):
        alike = "centers" in state and "objective" in state
        return alike and state["centers"].shape == centers.shape

    def _estimate(self, rows, dim, itemsize):
        return Estimate(
            each_pass=rows * dim * self.k,
            passes=self.iterations + 1,
            memory=16 * rows * (dim + self.k) + (1 << 20),
            least=8 * rows * dim,
            disk=4 * (self.k * dim + rows),
        )
