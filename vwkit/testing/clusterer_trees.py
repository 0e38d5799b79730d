"""Tests of hierarchical clusterers: what is joined, at which height, and where the tree is cut.

Of trees in general, and of clusterers with the parameters that `agglomerative` has: ``linkage``,
``distance``, ``similarity``, ``scale``, ``height``, ``clusters``, ``min_size``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from vwkit.reference import agglomerative as reference
from vwkit.testing.checks import examples
from vwkit.testing.clusterer_kinds import ClustererKinds
from vwkit.testing.data import Rows
from vwkit.testing.strategies import recipes
from vwkit.types import Array

__all__ = ["ClustererTrees"]

# So much of the largest distance may be lost to rounding in float32.
_ROUNDED = 1e-4
_INVERSIONS = ("centroid", "median")
_OTHERS = {
    "similarity": (0.0, 0.2, 0.7, 0.95),
    "height": (0.0, 50.0),
    "clusters": (1, 3),
    "min_size": (1, 3, 1000),
}


class ClustererTrees(ClustererKinds, suite=True):
    """The part of `ClustererTests` about trees."""

    @examples(8, drawn=recipes(rows=(21, 40)))
    def test_heights_of_a_tree(self, drawn: Rows) -> None:
        """No join is lower than the joins below it, but with linkage centroid or median.

        If this fails, check that the nearest two are joined next, and that joins are sorted by
        height before they are numbered.
        """
        made = self._hierarchical()
        if getattr(made, "linkage", None) in _INVERSIONS:
            pytest.skip("its heights may fall")
        data = self._drawn(drawn)
        tree = np.asarray(self._fit(made, data).tree)
        below = np.concatenate([np.zeros(len(data)), tree[:, 2]])
        falls = below[tree[:, :2].astype(int)].max(axis=1) - tree[:, 2]
        slack = 1e-6 * tree[:, 2].max(initial=0.0)
        assert falls.max(initial=0.0) <= slack, (
            f"row {int(falls.argmax())} of the tree is {falls.max()} lower than what it joins"
        )

    @examples(8, drawn=recipes(rows=(21, 40)))
    def test_tree_joins_the_nearest(self, drawn: Rows) -> None:
        """Each join is of the nearest two groups, at their distance, as its linkage has it.

        Of equally near ones, any may be first.

        If this fails, check for squared distances, and how the distance to a joined group follows
        from those to its parts: by their numbers of rows for average, by halves for weighted.
        """
        made = self._hierarchical()
        linkage, distance = self._way(made)
        if linkage is None:
            pytest.skip("it names no linkage that the reference knows")
        data = self._drawn(drawn)
        tree = np.asarray(self._fit(made, data).tree)
        found = reference.follow(tree, data, linkage, distance)
        slack = _ROUNDED * max(float(found.max(initial=0.0)), self._size(data, distance))
        off = np.abs(found[:, 0] - tree[:, 2])
        assert off.max(initial=0.0) <= slack, (
            f"row {int(off.argmax())} of the tree has height {tree[off.argmax(), 2]:.6g}; "
            f"the two are {found[off.argmax(), 0]:.6g} apart{_guess(found[:, 0], tree[:, 2])}"
        )
        late = found[:, 0] - found[:, 1]
        assert late.max(initial=0.0) <= slack, (
            f"row {int(late.argmax())} of the tree joins two that are {found[late.argmax(), 0]:.6g} "
            f"apart; the nearest two were {found[late.argmax(), 1]:.6g} apart"
        )

    @examples(8, drawn=recipes(rows=(21, 40)), part=st.integers(0, 20))
    def test_similarity_cuts_where_it_says(self, drawn: Rows, part: int) -> None:
        """Labels are what is joined up to (1 - similarity)·D, without groups below `min_size`.

        D is the largest distance of two rows, or with ``scale: root`` the height of the tree.

        If this fails, check D (is it squared, or that of the means?), that a join at that very
        height counts, and that 0 puts all together and 1 only what is equal.
        """
        self._need_similarity()
        data = self._drawn(drawn)
        similarity = part / 20
        for scale in ("diameter", "root") if self._offers("scale") else (None,):
            change = {"similarity": similarity, **({"scale": scale} if scale else {})}
            made = self._make_or_none(**change)
            if made is None:
                pytest.skip("other parameters say where it is cut")
            fitted = self._fit(made, data)
            tree = np.asarray(fitted.tree, np.float64)
            distance = self._way(fitted)[1]
            largest = tree[:, 2].max(initial=0.0)
            if scale != "root":
                largest = reference.row_distances(data, distance).max()
            # Where a join is that near to the cut, rounding decides.
            cut, near = (1 - similarity) * largest, _ROUNDED * largest + 1e-30
            wanted = [
                reference.cut(tree, height, self._min_size(fitted))
                for height in (cut - near, cut, cut + near)
            ]
            found = np.asarray(fitted.labels)
            assert any(_same_groups(found, one) for one in wanted), (
                f"with similarity = {similarity} and scale = {scale} the tree is cut at {cut:.6g}, "
                f"into {wanted[1].max() + 1} clusters; there are {_clusters(found)}: "
                f"{found[:12].tolist()}…"
            )

    def test_another_cut_is_that_of_a_fresh_fit(self) -> None:
        """Late parameters of the cut, set after fitting or loading, give a fresh fit's labels.

        The tree stays as it is.

        If this fails, check that labels are worked out when they are asked for, from the tree that
        was saved, and that nothing of an earlier cut is kept.
        """
        made = self._hierarchical()
        rows = self._rows(1)
        fitted = self._fit(made, rows)
        tree = np.array(fitted.tree)
        for name, values in _OTHERS.items():
            if name not in fitted.late:
                continue
            for value in values:
                fresh = self._make_or_none(**{name: value})
                if fresh is None:
                    continue
                wanted = np.asarray(self._fit(fresh, rows).labels)
                again = self._fit(self._make(), rows)
                np.asarray(again.labels)
                setattr(again, name, value)
                with self._saved(self._fit(self._make(), rows)) as loaded:
                    np.asarray(loaded.labels)
                    setattr(loaded, name, value)
                    ways = {
                        "set after the fit": again,
                        "set after loading": loaded,
                        "for one use": fitted.with_late({name: value}),
                    }
                    for way, one in ways.items():
                        assert np.array_equal(one.labels, wanted), (
                            f"{name} = {value}, {way}, gives other labels than a fresh fit"
                        )
                        assert np.array_equal(one.tree, tree), (
                            f"{name} = {value}, {way}, changes the tree"
                        )

    def test_small_groups_are_in_no_cluster(self) -> None:
        """Clusters are numbered from 0 without gaps; with `min_size`, none has fewer rows.

        If this fails, check that groups are counted after the cut, that as many as `min_size` are
        enough, and that the others get -1.
        """
        self._hierarchical()
        if not self._offers("min_size"):
            pytest.skip("it has no parameter min_size")
        several = self._numbers(4, 5, self._wide())
        rows = self._as_domain(np.repeat(several, [1, 2, 3, 5, 6 + self.min_rows], axis=0))
        where = {"similarity": 1.0} if self._make_or_none(similarity=1.0) is not None else {}
        alone = np.asarray(self._fit(self._make(min_size=1, **where), rows).labels)
        assert alone.min() >= 0, "with min_size = 1 each row is in a cluster"
        for size in (1, 2, 5):
            labels = np.asarray(self._fit(self._make(min_size=size, **where), rows).labels)
            counts = np.bincount(labels[labels >= 0])
            assert (counts > 0).all(), f"no row has label {int(np.argmin(counts))}"
            assert counts.min(initial=size) >= size, (
                f"cluster {int(counts.argmin())} has {counts.min()} rows; min_size is {size}"
            )
            whole = np.bincount(alone)[alone]
            assert ((labels >= 0) == (whole >= size)).all(), (
                f"min_size = {size} leaves out {int((labels < 0).sum())} rows; "
                f"{int((whole < size).sum())} are in smaller groups"
            )

    def test_few_or_equal_rows_make_a_tree(self) -> None:
        """One row, two rows, and rows that are all equal make a tree too.

        If this fails, check for a division by a largest distance of 0, that one row gives a
        tree of shape (0, 4), and that a join at the very height of the cut counts.
        """
        made = self._hierarchical()
        if self.min_rows > 1:
            pytest.skip("its parameters need more rows")
        row = self._rows(1)[:1]
        for many in (1, 2, 30):
            fitted = self._fit(made, np.ascontiguousarray(np.repeat(row, many, axis=0)))
            tree, labels = np.asarray(fitted.tree), np.asarray(fitted.labels)
            assert tree.shape == (many - 1, 4), f"a tree of shape {tree.shape} of {many} rows"
            assert not tree[:, 2].any(), f"equal rows are joined at 0, not {tree[:, 2].max()}"
            assert len(np.unique(labels)) == 1, f"equal rows get the labels {np.unique(labels)}"
            if many > 1:
                assert tree[-1, 3] == many, f"the last join has {tree[-1, 3]:g} rows of {many}"
        assert labels[0] >= 0, f"{many} equal rows are in no cluster"

    # Helpers

    def _hierarchical(self) -> Any:
        made = self._make()
        if not made.hierarchical:
            pytest.skip("it is not hierarchical")
        return made

    def _need_similarity(self) -> None:
        self._hierarchical()
        if not self._offers("similarity"):
            pytest.skip("it has no parameter similarity")

    def _way(self, made: Any) -> tuple[str | None, str]:
        """Return linkage and distance, as the reference names them."""
        linkage = getattr(made, "linkage", None)
        distance = getattr(made, "distance", "euclidean")
        return linkage if linkage in reference.LINKAGES else None, distance

    def _min_size(self, fitted: Any) -> int:
        size: int = getattr(fitted, "min_size", 1)
        return size

    def _size(self, data: Array, distance: str) -> float:
        """Return how large numbers are whose digits rounding takes."""
        if distance == "cosine":
            return 1.0
        return float(np.sqrt(np.square(data.astype(np.float64)).sum(axis=1)).max())


def _guess(true: NDArray[np.float64], found: NDArray[np.float64]) -> str:
    """Say what wrong heights may be instead."""
    if np.allclose(found, true**2, rtol=1e-3):
        return " (heights are squared)"
    return ""


def _same_groups(found: Array, wanted: NDArray[np.int32]) -> bool:
    """Tell whether the same rows are together, whatever their numbers, and the same ones alone."""
    pairs = np.unique(np.stack([found, wanted]), axis=1)
    together = pairs.shape[1] == len(np.unique(found)) == len(np.unique(wanted))
    return bool(together and np.array_equal(found < 0, wanted < 0))


def _clusters(labels: Array) -> int:
    return len(np.unique(labels[labels >= 0]))
