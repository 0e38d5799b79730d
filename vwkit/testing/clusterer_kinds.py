"""Tests of what some clusterers do: weights, codes, trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vwkit
from vwkit.errors import DataError, ShapeError, UnsupportedError, VwkitError
from vwkit.quantizer import Quantizer
from vwkit.reference import lloyd, pqkmeans
from vwkit.testing.checks import statistical
from vwkit.testing.clusterer_answers import ClustererAnswers, grid_quantizer, wide_quantizer
from vwkit.testing.comparing import all_finite
from vwkit.testing.data import cut
from vwkit.types import Array

__all__ = ["ClustererKinds"]

# Stopped before it has settled, a k-means may be so far from the best centers for its labels. One draw
# of 200 takes a tree with four rounds a level further; so it is the median of some that counts.
_SETTLED, _DRAWS = 1.05, 3


class ClustererKinds(ClustererAnswers, suite=True):
    """The part of `ClustererTests` about abilities that not all have."""

    def _weighted(self, draw: int) -> tuple[Array, NDArray[np.float64]]:
        rows = self._as_domain(self._noise(7 + draw, self._count(80), self._wide()) * 50)
        rng = np.random.default_rng(self._seed(2 + draw))
        return rows, np.exp(rng.normal(0, 2, len(rows)))

    def _off_weighted_means(
        self, k: int, rows: Array, weights: NDArray[np.float64], scale: float
    ) -> float | None:
        """Return the objective over that of the best centers for its labels, None without centers."""
        scaled = weights * scale
        fitted = self._fit_weighted(self._with_k(k), rows, scaled)
        assert np.array_equal(scaled, weights * scale), "the weights were changed"
        self._check_form(fitted, rows)
        if not fitted.has_centers:
            return None
        self._check_objective(fitted, rows, scaled)
        ratio: float = fitted.objective[-1] / max(
            self._best_for_labels(fitted, rows, scaled), 1e-30
        )
        return ratio

    @statistical
    def test_weights(self) -> None:
        """A weight counts a row as often as it says; not declared, it raises `UnsupportedError`.

        If this fails, check that weights enter the sums, the counts and the objective.
        """
        rows, weights = self._weighted(0)
        if not self._make().supports_weights:
            with pytest.raises(UnsupportedError, match="weights"):
                self._fit_weighted(self._make(), rows, weights)
            return
        # Only their proportions count.
        for k, scale in ((1, 1.0), (4, 1.0), (4, 2.0**-20), (4, 2.0**20)):
            draws = (self._weighted(draw) for draw in range(_DRAWS))
            found = [self._off_weighted_means(k, *draw, scale) for draw in draws]
            ratios = [ratio for ratio in found if ratio is not None]
            largest = "" if scale == 1 else f", weights times {scale:.2g}"
            if ratios:
                self._judge(
                    f"objective / that of weighted means, k = {k}{largest}",
                    float(np.median(ratios)),
                    at_most=_SETTLED,
                    said=": the centers do not heed the weights",
                )
        weights.flags.writeable = False
        heavy = np.ones(len(rows))
        heavy[: len(rows) // 4] = 3
        one = self._fit_weighted(self._with_k(1), rows, heavy)
        repeats = np.repeat(rows, heavy.astype(int), axis=0)
        two = self._fit(self._with_k(1), np.ascontiguousarray(repeats))
        if one.has_centers:
            found, wanted = one.objective[-1], two.objective[-1]
            assert abs(found - wanted) <= 1e-4 * wanted, (
                f"with weight 3 for some rows the objective is {found}; with these rows three "
                f"times it is {wanted}"
            )
        if one.deterministic:
            streamed = self._fit_weighted(self._with_k(4), cut(rows, [7]), weights)
            fresh = self._fit_weighted(self._with_k(4), rows, weights)
            self._assert_same(
                self._use(fresh, rows), self._use(streamed, rows), True, "for a weighted Stream"
            )

    def _best_for_labels(self, fitted: Any, rows: Array, weights: Array) -> float:
        """Return the objective of the best centers for the labels that were found."""
        labels, moved = fitted.labels, self._means(fitted, rows, weights)
        if self._domain_is_codes():
            return pqkmeans.objective(rows, moved, labels, fitted.quantizer.codebook, weights)
        return lloyd.objective(rows, moved, labels, weights, self._metric(fitted))

    def test_zero_weights(self) -> None:
        """A row of weight 0 gets a label and influences nothing.

        If this fails, check the seeding and the repair of empty clusters: neither may choose it.
        """
        if not self._make().supports_weights:
            pytest.skip("it takes no weights")
        inner = self._numbers(8, self._count(60), self._wide(), "uniform", 50.0)
        far = np.full((6, self._wide()), 900, np.float32) - self._numbers(9, 6, self._wide())
        data = np.concatenate([far, inner])
        weights = np.concatenate([np.zeros(6), np.ones(len(inner))])
        rows = self._as_domain(data)
        for k in (1, 5):
            fitted = self._fit_weighted(self._with_k(k), rows, weights)
            self._check_form(fitted, rows)
            if not fitted.has_centers:
                continue
            self._check_objective(fitted, rows, weights)
            if not self._domain_is_codes():
                most = float(np.abs(fitted.centers).max())
                assert most <= 51, f"a center at {most} was drawn by rows of weight 0"
            if self._fixed_k():
                counts = np.bincount(fitted.labels, weights, minlength=k)
                alone = np.flatnonzero(counts == 0).tolist()
                assert not alone, f"the clusters {alone} hold rows of weight 0 only"

    def test_bad_weights_are_refused(self) -> None:
        """Weights of a wrong shape, negative, NaN or all zero are refused.

        If this fails, check that ``fit`` is the inherited one.
        """
        if not self._make().supports_weights:
            pytest.skip("it takes no weights")
        rows = self._rows(1)
        ones = np.ones(len(rows))
        with pytest.raises(ShapeError):
            self._fit_weighted(self._make(), rows, ones[:-1])
        for bad in (ones * 0, ones * np.nan, -ones):
            with pytest.raises(DataError, match="weights"):
                self._fit_weighted(self._make(), rows, bad)

    def test_wide_codes(self) -> None:
        """Codes of two bytes, of more than 256 codewords, are clustered as well, or refused.

        If this fails, check for codes that are cut to one byte: take those of ``data.dtype``.
        """
        if not self._domain_is_codes():
            pytest.skip("it clusters vectors")
        wide = wide_quantizer(self._seed(11))
        codes = wide.encode(self._noise(11, self._count(700), 4))
        try:
            fitted = self._with_k(5).fit(codes, quantizer=wide)
        except VwkitError:
            return
        self._verify(fitted, codes)
        if fitted.has_centers:
            share = self._nearest_share(fitted, codes, fitted.labels)
            assert share >= min(0.9, self._agreement(fitted)), (
                f"of codes of two bytes only {share:.3f} are in the nearest cluster"
            )

    @statistical
    def test_vocabulary_gives_the_labels(self) -> None:
        """A vocabulary of the centers gives the fitted rows their labels.

        If this fails, check ``_predict``; with codes, that rows and centers are both codes when
        they are compared (symmetric distance), and that ties go to the lowest center.
        """
        self._need_centers()
        if not self._make().supports_predict:
            pytest.skip("it cannot label new rows")
        vectors = self._noise(9, self._count(120), self._wide()) * 50
        rows = self._as_domain(vectors)
        fitted = self._fit(self._with_k(6), rows)
        vocabulary = vwkit.create("quantizer", "vocabulary", clusterer=fitted)
        assert isinstance(vocabulary, Quantizer)
        words = vocabulary.encode(vectors if self._domain_is_codes() else rows)
        assert words.shape == (len(rows), 1), f"words of shape {words.shape}"
        near = self._nearest_share(fitted, rows, words[:, 0].astype(np.int32))
        self._judge_share("words of the nearest center", near, self._agreement(fitted))

    @statistical
    def test_ties_of_codes(self) -> None:
        """Of centers equally near to a code, the one with the lowest number takes it.

        If this fails, check that distances are looked up between codewords of one slice and summed
        over the slices, not rooted, and that the lowest number wins among equals.
        """
        if not self._domain_is_codes():
            pytest.skip("it clusters vectors")
        grid = grid_quantizer()
        seed = self._seed(10)
        codes = np.random.default_rng(seed).integers(0, 16, (self._count(200), 4)).astype(np.uint8)
        fitted = self._with_k(min(9, len(codes))).fit(codes, quantizer=grid)
        if not fitted.has_centers:
            return
        wanted = self._table(fitted, codes, fitted.centers).argmin(axis=1)
        found = {"labels": fitted.labels}
        if fitted.supports_predict:
            found["predict"] = fitted.predict(codes)
        for name, labels in found.items():
            share = float((labels == wanted).mean())
            what = f"{name} of the lowest nearest center"
            self._judge_share(what, share, self._agreement(fitted))

    def test_codes_need_their_quantizer(self) -> None:
        """Codes come with the product quantizer that made them, which is kept and saved.

        If this fails, check that ``fit`` is the inherited one.
        """
        rows = self._rows(1)
        if not self._domain_is_codes():
            with pytest.raises(UnsupportedError, match="quantizer"):
                self._make().fit(rows, quantizer=self._quantizer())
            return
        with pytest.raises(UnsupportedError, match="quantizer"):
            self._make().fit(rows)
        fitted = self._fit(self._make(), rows)
        assert fitted.quantizer is self._quantizer(), "another quantizer is kept than was given"
        with self._saved(fitted) as loaded:
            same = np.array_equal(loaded.quantizer.codebook, fitted.quantizer.codebook)
            assert same, "another quantizer is loaded than was saved"
            self._verify(loaded, rows)

    def test_tree(self) -> None:
        """A hierarchical clusterer's `tree` is an (n - 1, 4) linkage, and its labels cut it.

        If this fails, check that row i makes cluster n + i, from two clusters that exist and are
        not part of another yet, at a finite height, with their number of rows; and that the rows
        of a label are all those below one row of the tree.
        """
        if not self._make().hierarchical:
            pytest.skip("it is not hierarchical")
        rows = self._rows(1)
        fitted = self._fit(self._make(), rows)
        tree, n = np.asarray(fitted.tree), len(rows)
        assert tree.shape == (n - 1, 4), f"a tree of shape {tree.shape}, not {(n - 1, 4)}"
        all_finite(tree, "tree")
        lowest = tree[:, 2].min(initial=0)
        assert lowest >= 0, f"heights are not negative; got {lowest}"
        below = [frozenset([row]) for row in range(n)]
        used: set[int] = set()
        for i, (left, right, _, size) in enumerate(tree):
            pair = {int(left), int(right)}
            assert len(pair) == 2, f"row {i} joins cluster {int(left)} with itself"
            assert max(pair) < n + i, f"row {i} joins a cluster that is not there yet: {max(pair)}"
            assert not pair & used, (
                f"row {i} joins a cluster that is part of another: {pair & used}"
            )
            used |= pair
            below.append(below[int(left)] | below[int(right)])
            assert size == len(below[-1]), f"row {i} counts {size:g} rows, not {len(below[-1])}"
        self._check_cut(fitted, set(below))
        with self._saved(fitted) as loaded:
            assert np.array_equal(loaded.tree, tree), "another tree after loading"
            self._check_cut(loaded, set(below))

    def _check_cut(self, fitted: Any, below: set[frozenset[int]]) -> None:
        __tracebackhide__ = True
        labels = np.asarray(fitted.labels)
        for label in np.unique(labels[labels >= 0]):
            rows = frozenset(np.flatnonzero(labels == label).tolist())
            assert rows in below, (
                f"label {label} has the rows {sorted(rows)[:8]}…, {len(rows)} in all, but no row "
                "of the tree joins exactly these"
            )
