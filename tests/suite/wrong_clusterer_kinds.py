"""Clusterers of codes, or with a tree, with one fault each."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.suite.faults import fault
from tests.suite.right_clusterer import Chain, CodeKMeans
from vwkit.reference import lloyd as reference
from vwkit.reference import pq as pq_reference
from vwkit.reference import pqkmeans as codes_reference
from vwkit.reference.distances import distances
from vwkit.testing import ClustererTests

FAULTS = []
wrong = partial(fault, FAULTS, ClustererTests)


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


@wrong("test_wide_codes", "objective|in the nearest cluster|code")
class NarrowCodes(CodeKMeans):
    """Cuts codes of two bytes to one."""

    def _fit(self, data, weights):
        super()._fit(data.astype(np.uint8), weights)
        self.centers = self.centers.astype(data.dtype)


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
