"""Clusterers with one fault each."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np

import vwkit
from tests.suite.faults import fault
from tests.suite.right_clusterer import (
    Batches,
    Chain,
    CodeKMeans,
    Directions,
    KMeans,
)
from vwkit.clusterer import warn_few_distinct
from vwkit.reference import lloyd as reference
from vwkit.reference import pq as pq_reference
from vwkit.reference import pqkmeans as codes_reference
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


# Weights ---------------------------------------------------------------------------------------


@wrong("test_weights", "heed the weights|objective")
class IgnoresWeights(KMeans):
    """Takes weights and forgets them."""

    def _fit(self, data, weights):
        super()._fit(data, None)


@wrong("test_weights", "do not heed the weights")
class WeighsOnlyTheObjective(KMeans):
    """Weights enter the objective, not the centers."""

    def _fit(self, data, weights):
        super()._fit(data, None)
        self.objective[-1] = reference.objective(data, self.centers, self.labels, weights)


@wrong("test_zero_weights", "weight 0")
class SeedsWithoutWeight(KMeans):
    """Its seeding chooses rows that count nothing, and leaves them chosen."""

    def _fit(self, data, weights):
        self.centers = reference.kmeans_plus_plus(data, self.k, self.seed).astype(np.float32)
        self.labels = reference.assign(data, self.centers)
        self.objective = [reference.objective(data, self.centers, self.labels, weights)]


@wrong("test_weights", "weights are not supported")
class DeclaresWeights(KMeans):
    """Says that it takes weights, and does not."""

    def _fit(self, data, weights):
        if weights is not None:
            raise TypeError("weights are not supported")
        super()._fit(data, weights)


@wrong("test_weights", "DID NOT RAISE", mended=KMeans)
class DropsWeights(KMeans):
    """Does not take weights, and says nothing."""

    supports_weights = False

    def fit(self, data, weights=None, *, quantizer=None):
        return super().fit(data, None, quantizer=quantizer)


# Data, seeds, threads --------------------------------------------------------------------------


@wrong("test_bytes_are_taken", "objective of uint8")
class BytesOverflow(Batches):
    """Sums bytes in a byte."""

    def _sum(self, member, chunk):
        if chunk.dtype != np.uint8:
            return super()._sum(member, chunk)
        return (member.T.astype(np.uint8) @ chunk).astype(np.float64)


@wrong("test_streams", "chunks")
class FirstChunkOnly(Batches):
    """Starts from its first chunk, and moves no center after that."""

    def _fit(self, data, weights):
        rows = vwkit.Stream.from_array(data) if isinstance(data, np.ndarray) else data
        chunks = list(rows)
        first = chunks[0] if len(chunks[0]) >= self.k else np.concatenate(chunks)
        start = reference.kmeans_plus_plus(first, self.k, self.seed)
        self.centers = start.astype(np.float32)
        whole = np.concatenate(chunks)
        self.labels = reference.assign(whole, self.centers)
        self.objective = [reference.objective(whole, self.centers, self.labels)]


@wrong("test_streams", "chunks|objective|shape")
class DropsTheLastChunk(Batches):
    """Forgets the last chunk of each pass but the one that labels."""

    def _sample(self, rows):
        chunks = list(rows)
        return np.concatenate(chunks[:-1] or chunks)


@wrong("test_streams", "chunks|nearest|objective|other")
class ChunkByChunk(Batches):
    """Says that it is deterministic, and starts from the first chunk."""

    deterministic = True

    def _fit(self, data, weights):
        if isinstance(data, vwkit.Stream):
            data = np.concatenate([chunk[::-1] for chunk in data])
        super()._fit(data, weights)
        self.labels = self.labels[::-1].copy()


@wrong("test_same_seed_same_answer", "with the same seed")
class IgnoresTheSeed(KMeans):
    """Draws its start from the system's entropy."""

    deterministic = False

    def _start(self, data, weights):
        picked = np.random.default_rng().permutation(len(data))[: self.k]
        return data[picked]


@wrong("test_another_seed_draws_other_numbers", r"the same answer: numpy.random.default_rng\(0\)")
class AlwaysTheSameSeed(KMeans):
    """Has a seed, and draws with another."""

    def _start(self, data, weights):
        picked = np.random.default_rng(0).permutation(len(data))[: self.k]
        return data[picked]


@wrong("test_global_random_state_is_left_alone", "NumPy's global")
class DrawsFromNumpy(KMeans):
    """Draws from NumPy's global generator."""

    def _start(self, data, weights):
        np.random.rand()  # noqa: NPY002
        return super()._start(data, weights)


@wrong("test_same_bytes_with_any_threads", "threads")
class DependsOnThreads(KMeans):
    """Lets the number of threads into its sums."""

    def _finish(self, data, weights, centers, objective):
        centers = centers + 1e-3 * vwkit.job().threads
        super()._finish(data, weights, centers, objective)


@wrong("test_inputs_are_left_alone", "data were changed by fitting")
class CentresInPlace(KMeans):
    """Subtracts the mean from the caller's own array."""

    def _fit(self, data, weights):
        mean = data.mean(axis=0)
        data -= mean
        super()._fit(data, weights)
        self.centers = self.centers + mean


@wrong("test_more_clusters_than_rows_are_refused", "DID NOT RAISE|60 distinct rows")
class TakesAnyK(KMeans):
    """Overrides the public method, and with it the checks."""

    def fit(self, data, weights=None, *, quantizer=None):
        rows = np.asarray(data, np.float32)
        self._fit(np.concatenate([rows, rows]), None)
        return self


# Saving ----------------------------------------------------------------------------------------


@wrong("test_save_and_load", "int64 of shape .* int32")
class WidensLabels(KMeans):
    """Brings labels back as int64."""

    def _restore(self, state):
        super()._restore(state)
        self.labels = self.labels.astype(np.int64)


@wrong("test_save_and_load", "after loading")
class RoundsCenters(KMeans):
    """Saves its centers with one digit."""

    def _state(self):
        return {**super()._state(), "centers": np.round(self.centers, 1)}


@wrong("test_save_and_load", "objective")
class LosesTheObjective(KMeans):
    """Saves no objective."""

    def _restore(self, state):
        super()._restore({**state, "objective": state["objective"][:1]})


# Codes -----------------------------------------------------------------------------------------


@wrong("test_predict", "nearest")
class PredictsRawCodes(CodeKMeans):
    """Compares codes as if they were vectors."""

    def _predict(self, data):
        return reference.assign(data, self.centers)


@wrong("test_ties_of_codes", "labels of the lowest nearest center")
class Asymmetric(CodeKMeans):
    """Labels by the distance of a decoded row to the true mean, not to the mean's code."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        rows = self.quantizer.decode(data)
        means = reference.update(
            rows, self.labels, self.k, weights, self.quantizer.decode(self.centers)
        )
        self.labels = reference.assign(rows, means)


@wrong("test_ties_of_codes", "of the lowest nearest center")
class HighestOfTies(CodeKMeans):
    """Takes the highest of equally near centers."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self.labels = self._predict(data)

    def _predict(self, data):
        table = pq_reference.symmetric_distance(data, self.centers, self.quantizer.codebook)
        return (self.k - 1 - table[:, ::-1].argmin(axis=1)).astype(np.int32)


@wrong("test_ties_of_codes", "of the lowest nearest center")
class SumsRoots(CodeKMeans):
    """Sums distances over the slices, not their squares."""

    def _predict(self, data):
        tables = np.sqrt(pq_reference.symmetric_tables(self.quantizer.codebook))
        total = sum(t[data[:, j]][:, self.centers[:, j]] for j, t in enumerate(tables))
        return total.argmin(axis=1).astype(np.int32)


@wrong("test_predict", "nearest")
class OneTable(CodeKMeans):
    """Looks all slices up in the table of the first."""

    def _predict(self, data):
        table = pq_reference.symmetric_tables(self.quantizer.codebook)[0]
        total = sum(table[data[:, j]][:, self.centers[:, j]] for j in range(data.shape[1]))
        return total.argmin(axis=1).astype(np.int32)


@wrong("test_labels_and_centers", "for uint8 codes|columns for")
class DecodedCenters(CodeKMeans):
    """Gives vectors for centers."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self.centers = self.quantizer.decode(self.centers)


@wrong("test_labels_and_centers", "for uint8 codes")
class WideCodes(CodeKMeans):
    """Gives centers of int64."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self.centers = self.centers.astype(np.int64)


@wrong("test_weights", "heed the weights|objective")
class UnweightedVotes(CodeKMeans):
    """Every code has one vote for the center, whatever its weight."""

    def _fit(self, data, weights):
        super()._fit(data, None)
        book = self.quantizer.codebook
        self.objective[-1] = codes_reference.objective(
            data, self.centers, self.labels, book, weights
        )


# Trees -----------------------------------------------------------------------------------------


@wrong("test_tree", "counts")
class MiscountsTheTree(Chain):
    """Counts the rows of a cluster wrongly."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self.tree[:, 3] = 2


@wrong("test_tree", "row 1 counts 3 rows, not 2")
class NumbersFromZero(Chain):
    """Numbers joined clusters from 0, not from n."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        n = len(data)
        joined = self.tree[:, :2] >= n
        self.tree[:, :2][joined] -= n


@wrong("test_tree", "no row of the tree joins exactly these")
class CutsByNeighbours(Chain):
    """Puts a row into the cluster of its nearest neighbour, whatever the tree says."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        table = distances(data, data, "l2")
        np.fill_diagonal(table, np.inf)
        self._nearest = table.argmin(axis=1)

    @property
    def labels(self):
        group = np.maximum(self._cut(self.height), 0)
        return group[self._nearest].astype(np.int32)


@wrong("test_late_parameters", "is set after the fit instead of before")
class CutsOnce(Chain):
    """Cuts its tree when it is fitted, though the height may change later."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self._labels = self._cut(self.height)

    @property
    def labels(self):
        return self._labels


# Many rows, many weights, several fits ------------------------------------------------------------


@wrong("test_many_fitted_rows", "count too little")
class LearnsFromTheFirst(KMeans):
    """Learns centers from the first 2,000 rows."""

    def _fit(self, data, weights):
        some = data[:2000]
        start = self._start(some, None if weights is None else weights[:2000])
        centers, _, objective = reference.lloyd(some, start, self.iterations, None)
        self._finish(data, weights, centers, objective)


@wrong("test_many_fitted_rows", "count too little")
class LearnsFromWholeBlocks(KMeans):
    """Leaves out the rows behind the last whole block of 512."""

    def _fit(self, data, weights):
        weights = np.ones(len(data)) if weights is None else weights.copy()
        whole = len(data) // 512 * 512
        if whole:
            weights[whole:] = 1e-6
        super()._fit(data, weights)

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, None, centers, objective)


@wrong("test_weights", "weights times 9.5e-07 is .* do not heed the weights")
class WholeWeights(KMeans):
    """Counts rows in whole numbers."""

    def _fit(self, data, weights):
        self._weights = weights
        whole = None if weights is None else np.maximum(np.ceil(weights), weights > 0)
        super()._fit(data, weights if whole is None or weights.max() > 1 else whole)

    def _finish(self, data, weights, centers, objective):
        super()._finish(data, self.__dict__.pop("_weights"), centers, objective)


@wrong("test_weights", "the weights were changed")
class ScalesWeights(KMeans):
    """Divides the caller's own weights by the largest."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        if weights is not None:
            weights /= weights.max()


@wrong("test_second_fit_replaces_the_first", "fitted twice")
class StartsWhereItWas(KMeans):
    """Starts from the centers of the fit before, where they fit."""

    def _start(self, data, weights):
        start = super()._start(data, weights)
        before = self.__dict__.get("centers")
        return start if before is None or before.shape != start.shape else before


@wrong("test_instances_are_independent", "already given, when another one was fitted")
class OneBuffer(KMeans):
    """Keeps labels in one array for all instances."""

    _buffer = np.zeros(100_000, np.int32)

    def _assigned(self, data):
        found = self._buffer[: len(data)]
        found[:] = super()._assigned(data)
        return found

    def _predict(self, data):
        return reference.assign(data, self.centers)


@wrong("test_wide_codes", "objective|in the nearest cluster|code")
class NarrowCodes(CodeKMeans):
    """Cuts codes of two bytes to one."""

    def _fit(self, data, weights):
        super()._fit(data.astype(np.uint8), weights)
        self.centers = self.centers.astype(data.dtype)
