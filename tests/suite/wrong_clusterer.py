"""Clusterers with one fault each: wrong answers."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np

from tests.suite.faults import fault
from tests.suite.right_clusterer import Chain, Directions, KMeans
from vwkit.clusterer import warn_few_distinct
from vwkit.reference import lloyd as reference
from vwkit.reference.distances import distances
from vwkit.testing import ClustererTests

FAULTS = []
wrong = partial(fault, FAULTS, ClustererTests)


# Labels, centers, objective --------------------------------------------------------------------


@wrong("test_objective_after_few_iterations", "objective|nearest")
class StaleLabels(KMeans):
    """Moves the centers once more after the last assignment."""

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, weights, centers, objective)
        moved = reference.update(data, self.labels, self.k, weights, self.centers)
        self.centers = moved.astype(np.float32)


@wrong("test_objective_after_few_iterations", r"objective\[-1\] is")
class StaleObjective(KMeans):
    """Gives the objective of the centers before the last ones."""

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, weights, centers, objective)
        self.objective = [objective[0], *objective[:-1]]


@wrong("test_labels_and_centers", "dtype int32")
class WideLabels(KMeans):
    """Gives labels of int64."""

    def _assigned(self, data):
        return super()._assigned(data).astype(np.int64)


@wrong("test_labels_and_centers", "centers of float64, not float32")
class WideCenters(KMeans):
    """Gives centers of float64."""

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, weights, centers, objective)
        self.centers = self.centers.astype(np.float64)


@wrong("test_labels_and_centers", "objective|nearest")
class CutToIntegers(KMeans):
    """Clusters the whole parts of the numbers."""

    def _fit(self, data, weights):
        super()._fit(data.astype(np.int32), weights)


@wrong("test_labels_and_centers", "is below 0")
class LabelsNoise(KMeans):
    """Says of the farthest row that it is in no cluster, with a fixed k."""

    def _assigned(self, data):
        labels = super()._assigned(data)
        labels[distances(data, self.centers, "l2").min(axis=1).argmax()] = -1
        return labels


@wrong("test_labels_and_centers", "its square root was given")
class RootObjective(KMeans):
    """Gives the root of the mean distance."""

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, weights, centers, objective)
        self.objective = list(np.sqrt(self.objective))


@wrong("test_labels_and_centers", "the sum, not the mean")
class SummedObjective(KMeans):
    """Gives the sum of the distances, as some call inertia."""

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, weights, centers, objective)
        self.objective = [len(data) * one for one in self.objective]


@wrong("test_objective_does_not_rise", "goes up")
class CountsUp(KMeans):
    """Adds the objective of all iterations up."""

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, weights, centers, objective)
        self.objective = [
            self.objective[-1] * (i + 1) / len(objective) for i in range(len(objective))
        ]


@wrong("test_objective_does_not_rise", "goes up")
class Overshoots(KMeans):
    """Moves its centers more than twice as far as the mean is away."""

    def _fit(self, data, weights):
        centers, objective = self._start(data, weights), []
        for _ in range(4):
            labels = reference.assign(data, centers)
            objective.append(reference.objective(data, centers, labels, weights))
            means = reference.update(data, labels, self.k, weights, centers)
            centers = centers + 2.2 * (means - centers)
        self._finish(data, weights, centers, [*objective, 0])


@wrong("test_objective_is_near_the_reference", "the reference's")
class StopsAtOnce(KMeans):
    """Never moves its centers."""

    def _fit(self, data, weights):
        picked = np.sort(np.random.default_rng(self.seed).permutation(len(data))[: self.k])
        self._finish(data, weights, data[picked].astype(np.float64), [np.inf])
        self.objective = self.objective[-1:]


@wrong("test_objective_is_near_the_reference", "the reference's")
class FirstRowsOnly(KMeans):
    """Learns from the first third of the rows."""

    def _fit(self, data, weights):
        first = data[: max(self.k, len(data) // 3)]
        start = reference.kmeans_plus_plus(first, self.k, self.seed)
        self._finish(data, weights, *reference.lloyd(first, start, 30)[::2])


@wrong("test_many_fitted_rows", "nearest")
class LeavesTheLastBlock(KMeans):
    """Labels whole blocks of 256 rows, and leaves the rest with label 0."""

    def _assigned(self, data):
        labels = super()._assigned(data)
        if len(data) >= 256:
            labels[len(data) - len(data) % 256 :] = 0
        return labels


@wrong("test_far_from_the_origin", "nearest center's")
class Cancels(KMeans):
    """Expands the square in float32."""

    def _assigned(self, data):
        x, c = data.astype(np.float32), self.centers
        table = (x**2).sum(axis=1)[:, None] - 2 * x @ c.T + (c**2).sum(axis=1)
        return table.argmin(axis=1).astype(np.int32)


@wrong("test_labels_and_centers", "nearest center's|objective")
class WrongMetric(Directions):
    """Says cosine, and labels by squared Euclidean distance."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self.centers = self.centers * np.arange(1, self.k + 1, dtype=np.float32)[:, None]
        self.labels = reference.assign(data, self.centers)


# Empty clusters --------------------------------------------------------------------------------


class Naive(KMeans):
    """Means of whatever rows there are."""

    supports_weights = False

    def _fit(self, data, weights):
        drawn = np.random.default_rng(self.seed).permutation(len(data))[: self.k]
        centers = data[drawn].astype(np.float64)
        objective = []
        for _ in range(self.iterations):
            whole = np.nan_to_num(centers, nan=1e9)
            labels = reference.assign(data, whole)
            objective.append(reference.objective(data, whole, labels))
            centers = self._means(data, labels, centers)
        self.centers = centers.astype(np.float32)
        whole = np.nan_to_num(self.centers, nan=1e9)
        self.labels = reference.assign(data, whole)
        self.objective = [*objective, reference.objective(data, whole, self.labels)]


@wrong("test_few_distinct_rows", "NaN or infinity in the centers", mended=KMeans)
class NaNCenters(Naive):
    """Divides by the size of an empty cluster."""

    def _means(self, data, labels, centers):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return np.stack([data[labels == j].mean(axis=0) for j in range(self.k)])


@wrong("test_no_cluster_is_empty", "clusters are empty", mended=KMeans)
class EmptyClusters(Naive):
    """Leaves empty clusters where they are."""

    def _means(self, data, labels, centers):
        return reference.update(data, labels, self.k, None, centers)


@wrong("test_few_distinct_rows", "one FewDistinctRows warning")
class SaysNothing(KMeans):
    """Does not say that words stay empty."""

    def _warn(self, distinct):
        pass


@wrong("test_few_distinct_rows", "one FewDistinctRows warning")
class SaysItTwice(KMeans):
    """Says it of every iteration."""

    def _warn(self, distinct):
        super()._warn(distinct)
        warn_few_distinct(distinct, self.k)


@wrong("test_few_distinct_rows", "which stay empty")
class HighestOfEqual(KMeans):
    """Predicts the last of equal centers, which holds no row."""

    def _predict(self, data):
        table = distances(data, self.centers, "l2")
        return (self.k - 1 - table[:, ::-1].argmin(axis=1)).astype(np.int32)


@wrong("test_few_distinct_rows", "words are used")
class SplitsEqual(KMeans):
    """Spreads equal rows over equal centers."""

    def _repeat_surplus(self, weights):
        super()._repeat_surplus(weights)
        table = distances(self.centers, self.centers, "l2")
        for label in np.unique(self.labels):
            equal = np.flatnonzero(table[label] == 0)
            rows = np.flatnonzero(self.labels == label)
            self.labels[rows] = equal[np.arange(len(rows)) % len(equal)]


# Predicting ------------------------------------------------------------------------------------


@wrong("test_predict", "nearest center")
class StalePredict(KMeans):
    """Predicts with the centers that it started from."""

    def _start(self, data, weights):
        self._first = super()._start(data, weights)
        return self._first

    def _predict(self, data):
        return reference.assign(data, self._first)


@wrong("test_predict", "by itself|nearest center")
class PredictsByBatch(KMeans):
    """Centres what it predicts by the mean of the batch."""

    def _predict(self, data):
        moved = data - data.mean(axis=0, keepdims=True) if len(data) else data
        return super()._predict(np.ascontiguousarray(moved, np.float32))


@wrong("test_many_rows", "other labels")
class PredictsWholeBlocks(KMeans):
    """Labels whole blocks of 256 rows, and leaves the rest with label 0."""

    def _predict(self, data):
        labels = super()._predict(data)
        if len(data) >= 256:
            labels[len(data) - len(data) % 256 :] = 0
        return labels


@wrong("test_predict_gives_the_labels", "predicted the nearest center, noise is|predict equals")
class PredictsCarelessly(KMeans):
    """Looks at every second center only, and does not declare it."""

    def _predict(self, data):
        return (2 * reference.assign(data, self.centers[::2])).astype(np.int32)


@wrong("test_vocabulary_gives_the_labels", "words of the nearest center")
class PredictsInPublicOnly(KMeans):
    """Labels new rows in the public method, which the core's own parts do not call."""

    def predict(self, data):
        return reference.assign(data, self.centers)

    def _predict(self, data):
        return np.zeros(len(data), np.int32)


@wrong("test_predict", "DID NOT RAISE")
class PredictsUndeclared(Chain):
    """Says that it cannot label new rows, and labels them 0."""

    def predict(self, data):
        return np.zeros(len(data), np.int32)


@wrong("test_unfitted_use_is_refused", "DID NOT RAISE|has no attribute|labels")
class PredictsTooEarly(KMeans):
    """Overrides the public method, and with it the checks."""

    labels = np.zeros(1, np.int32)

    def _need_fitted(self, method="fit"):
        pass
