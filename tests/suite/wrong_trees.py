"""Hierarchical clusterers with one fault each."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.suite.faults import fault
from tests.suite.right_trees import Joined, _quick
from vwkit.reference import agglomerative as reference
from vwkit.testing import ClustererTests

FAULTS = []
wrong = partial(fault, FAULTS, ClustererTests)


@wrong("test_tree_joins_the_nearest", "heights are squared")
class SquaredHeights(Joined):
    """Gives the squares of the distances for heights."""

    def _tree(self, data):
        tree = super()._tree(data)
        tree[:, 2] **= 2
        return tree


@wrong("test_tree_joins_the_nearest", "the two are .* apart|the nearest two were")
class ForgetsSizes(Joined):
    """Says average, and takes both halves for equal."""

    def _tree(self, data):
        return _quick(self._apart(data), "weighted")


@wrong("test_tree_joins_the_nearest", "the two are .* apart|the nearest two were")
class LinksByTheNearest(Joined):
    """Says average, and goes by the nearest rows."""

    def _tree(self, data):
        return _quick(self._apart(data), "single")


@wrong("test_tree_joins_the_nearest", "the two are .* apart|the nearest two were")
class LosesDigits(Joined):
    """Keeps distances in half precision."""

    def _apart(self, data):
        return super()._apart(data).astype(np.float16).astype(np.float64)


@wrong("test_tree_joins_the_nearest", "the nearest two were")
class JoinsInOrder(Joined):
    """Joins row after row to what there is, at the right distances."""

    def _tree(self, data):
        n = len(data)
        tree = np.empty((n - 1, 4))
        for step in range(n - 1):
            left = 0 if step == 0 else n + step - 1
            apart = self._apart(data)[: step + 1, step + 1].mean()
            tree[step] = min(left, step + 1), max(left, step + 1), apart, step + 2
        return tree


@wrong("test_heights_of_a_tree", "lower than what it joins")
class HeightsFall(Joined):
    """Gives the height of each join above what it joins."""

    def _tree(self, data):
        tree = super()._tree(data)
        tree[:, 2] = np.diff(tree[:, 2], prepend=0)
        return tree


@wrong("test_similarity_cuts_where_it_says", "the tree is cut at")
class CutsTheOtherWay(Joined):
    """Takes similarity for a distance."""

    def _height(self):
        return super()._height() / max(1e-9, 1 - self.similarity) * self.similarity


@wrong("test_similarity_cuts_where_it_says", "the tree is cut at")
class SquaredDiameter(Joined):
    """Takes the square of the largest distance for D."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self.diameter **= 2


@wrong("test_similarity_cuts_where_it_says", "the tree is cut at")
class TopForDiameter(Joined):
    """Takes the height of the tree for D, whatever the scale."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self.diameter = float(self.tree[:, 2].max(initial=0))


@wrong("test_few_or_equal_rows_make_a_tree", "equal rows are in no cluster")
class LeavesTheHeightOut(Joined):
    """Joins what is below the cut only, so that equal rows are apart at similarity 1."""

    @property
    def labels(self):
        return reference.cut(self.tree, np.nextafter(self._height(), -1), self.min_size)


@wrong("test_another_cut_is_that_of_a_fresh_fit", "gives other labels than a fresh fit")
class RemembersTheCut(Joined):
    """Cuts once, and keeps the labels."""

    _held = None

    def _fit(self, data, weights):
        super()._fit(data, weights)
        self._held = None

    @property
    def labels(self):
        if self._held is None:
            self._held = super().labels
        return self._held


@wrong("test_another_cut_is_that_of_a_fresh_fit", "after loading, (changes|gives)")
class SavesHalfTheTree(Joined):
    """Saves heights with few digits."""

    def _state(self):
        state = super()._state()
        state["tree"] = np.round(state["tree"], 0)
        return state


@wrong("test_small_groups_are_in_no_cluster", "min_size is|leaves out")
class MoreThanTheLeast(Joined):
    """Leaves out groups of as many rows as the smallest may have."""

    @property
    def labels(self):
        size = self.min_size + (self.min_size > 1)
        return reference.cut(self.tree, self._height(), size)


@wrong("test_small_groups_are_in_no_cluster", "no row has label")
class Gaps(Joined):
    """Numbers clusters before the small ones are left out."""

    @property
    def labels(self):
        groups = reference.cut(self.tree, self._height(), 1)
        small = np.bincount(groups)[groups] < self.min_size
        found = np.where(small, -1, len(groups) - groups)
        return found.astype(np.int32)


@wrong("test_few_or_equal_rows_make_a_tree", "division by zero")
class DividesByTheDiameter(Joined):
    """Fails when all rows are equal."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        if self.diameter == 0:
            raise ZeroDivisionError("division by zero")


@wrong("test_few_or_equal_rows_make_a_tree", "tree of shape")
class OneRowTooMany(Joined):
    """Gives a tree with a row for one row of data."""

    def _fit(self, data, weights):
        super()._fit(data, weights)
        if len(data) == 1:
            self.tree = np.zeros((1, 4))

    @property
    def labels(self):
        found = super().labels
        return found[:1] if len(self.tree) == 1 and not self.tree.any() else found
