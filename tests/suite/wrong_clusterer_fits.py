"""Clusterers with one fault each: what a fit makes of what it is given, and what stays of it."""

from __future__ import annotations

from functools import partial

import numpy as np

import vwkit
from tests.suite.faults import fault
from tests.suite.right_clusterer import Batches, KMeans
from vwkit.reference import lloyd as reference
from vwkit.testing import ClustererTests

FAULTS = []
wrong = partial(fault, FAULTS, ClustererTests)


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
