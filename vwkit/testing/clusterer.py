"""The suite of the clusterer role."""

from __future__ import annotations

import functools
import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

import vwkit
from vwkit.clusterer import Clusterer
from vwkit.errors import DataError, FewDistinctRows, ShapeError, UnsupportedError
from vwkit.quantizer import Quantizer
from vwkit.reference import lloyd, pq, pqkmeans
from vwkit.reference.distances import METRICS, distances
from vwkit.stream import Stream
from vwkit.testing.data import cut, layouts, mixture, noise, numbers
from vwkit.testing.strategies import vectors
from vwkit.testing.suite import Answer, VectorSuite, _takes_floats, examples
from vwkit.types import Array

__all__ = ["ClustererTests"]

_SEEDS = st.integers(0, 2**16 - 1)
_M, _KS = 4, 16


class ClustererTests(VectorSuite, suite=True):
    """The conformance suite of a clusterer; see `vwkit.testing`.

    Attributes
    ----------
    label_agreement : float
        Share of rows whose label must be that of the nearest center; by default what the class
        declares.
    objective_factor : float
        The objective may be this many times that of the reference k-means, averaged over three
        seeds (1.2).
    dim_step, min_rows : int
        As for `vwkit.testing.IndexTests`.

    Notes
    -----
    A parameter ``k`` is set by the tests. A clusterer that consumes codes gets those of a ``pq`` with
    4 codes of 16 codewords.

    Examples
    --------
    >>> from vwkit.builtin.lloyd import Lloyd
    >>> from vwkit.testing import ClustererTests
    >>> class TestLloyd(ClustererTests):
    ...     backend = Lloyd
    """

    role = Clusterer

    label_agreement: ClassVar[float | None] = None
    objective_factor: ClassVar[float] = 1.2

    # What the tests are made of

    def _with_k(self, k: int, **changes: Any) -> Any:
        return self._make(**({"k": k} if self._offers("k") else {}), **changes)

    def _domain_is_codes(self) -> bool:
        return bool(self._make().consumes == "codes")

    def _fixed_k(self) -> bool:
        return bool(self._make().fixed_k and self._offers("k"))

    def _agreement(self, clusterer: Any) -> float:
        return clusterer.label_agreement if self.label_agreement is None else self.label_agreement

    def _as_domain(self, rows: Array) -> Array:
        """Return rows as the clusterer takes them: as they are, or as codes."""
        if not self._domain_is_codes():
            return rows if _takes_floats(self._make()) else np.clip(np.abs(np.floor(rows)), 0, 255)
        codes: Array = _quantizer(rows.shape[1]).encode(np.asarray(rows, np.float32))
        return codes

    def _rows(self, seed: int = 0, rows: int | None = None, dim: int | None = None) -> Array:
        if not self._domain_is_codes():
            return super()._rows(seed, rows, dim)
        width = _M * max(1, -(-(dim or self._dim()) // _M))
        return self._as_domain(numbers(seed, rows or self._count(), width))

    def _fit(self, backend: Any, data: Any) -> Any:
        if not self._domain_is_codes():
            return backend.fit(data)
        return backend.fit(data, quantizer=_quantizer(8))

    def _fit_weighted(self, backend: Any, data: Any, weights: Any) -> Any:
        if not self._domain_is_codes():
            return backend.fit(data, weights)
        return backend.fit(data, weights, quantizer=_quantizer(8))

    def _usable(self, fitted: Any) -> bool:
        return bool(fitted.supports_predict)

    def _use(self, fitted: Any, data: Any) -> Answer:
        predicted = []
        if fitted.supports_predict:
            labels = fitted.predict(data)
            predicted = [labels.toarray()[:, 0] if isinstance(labels, Stream) else labels]
        fitted._need_fitted()
        state = [np.asarray(fitted.labels)]
        if fitted.has_centers:
            state += [np.asarray(fitted.centers), np.asarray(fitted.objective)]
        return (*state, *predicted)

    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        assert len(first) == len(second)
        for name, before, after in zip(
            ("labels", "centers", "objective", "predicted"), first, second, strict=False
        ):
            assert before.dtype == after.dtype, f"{name}: another dtype {why}"
            if exact:
                assert np.array_equal(before, after), f"other {name} {why}"
            elif before.dtype.kind == "f":
                assert before.shape == after.shape, f"{name}: another shape {why}"
                limit = 1e-4 * max(1.0, float(np.abs(before).max(initial=0)))
                assert np.abs(before - after).max(initial=0) <= limit, f"other {name} {why}"
            else:
                # Rounding may turn the label of a row between two centers.
                assert before.shape == after.shape, f"{name}: another shape {why}"
                assert (before == after).mean() >= 0.95, f"other {name} {why}"

    # The reference

    def _distinct(self, rows: Array) -> int:
        """Return the number of rows that differ, for cosine in direction; at least 1."""
        if not self._domain_is_codes() and self._metric(self._make()) == "cosine":
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            rows = np.round(rows[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0], 4) + 0.0
        return max(1, len(np.unique(rows, axis=0)))

    def _metric(self, clusterer: Any) -> str:
        metric = getattr(clusterer, "metric", "l2")
        return metric if metric in METRICS else "l2"

    def _table(self, clusterer: Any, data: Array, centers: Any) -> NDArray[np.float64]:
        """Return the distance of every row to every center, (n, k), by the reference."""
        if self._domain_is_codes():
            return pq.symmetric_distance(data, centers, clusterer.quantizer.codebook)
        return distances(np.asarray(data, np.float64), centers, self._metric(clusterer))

    def _slack(self, clusterer: Any, data: Array) -> NDArray[np.float64]:
        """Return how far float32 distances of each row may be off, (n, 1)."""
        if self._domain_is_codes():
            rows, book = clusterer.quantizer.decode(data), clusterer.quantizer.codebook
            most = float((book.astype(np.float64) ** 2).sum(axis=2).max(axis=1).sum())
        elif self._metric(clusterer) == "cosine":
            return np.full((len(data), 1), 2e-5)
        else:
            rows = np.asarray(data, np.float64)
            most = float((np.asarray(clusterer.centers, np.float64) ** 2).sum(axis=1).max())
        size = (rows.astype(np.float64) ** 2).sum(axis=1) + most
        slack: NDArray[np.float64] = 1e-5 * size[:, None]
        return slack

    def _nearest_share(self, clusterer: Any, data: Array, labels: Array) -> float:
        """Return the share of rows whose label is that of a nearest center, ties aside."""
        table = self._table(clusterer, data, clusterer.centers)
        own = table[np.arange(len(data)), labels]
        best = table.min(axis=1, initial=np.inf)
        return float((own <= best + self._slack(clusterer, data)[:, 0]).mean())

    def _verify(self, fitted: Any, data: Array) -> None:
        self._check_form(fitted, data)
        if fitted.has_centers and not (fitted.labels < 0).any():
            self._check_objective(fitted, data)

    def _check_form(self, fitted: Any, data: Array) -> None:
        labels = fitted.labels
        assert labels.shape == (len(data),)
        assert labels.dtype == np.int32
        lowest = 0 if self._fixed_k() else -1
        assert labels.min() >= lowest, f"label {labels.min()} is below {lowest}"
        if not fitted.has_centers:
            return
        centers = np.asarray(fitted.centers)
        wide = data.shape[1]
        assert centers.ndim == 2
        assert centers.shape[1] == wide, f"centers of {centers.shape[1]} columns for {wide}"
        if self._domain_is_codes():
            assert centers.dtype == data.dtype, f"centers of {centers.dtype} for {data.dtype} codes"
            assert int(centers.max()) < fitted.quantizer.codebook.shape[1], "a center is no code"
        else:
            assert centers.dtype == np.float32, f"centers of {centers.dtype}, not float32"
            assert np.isfinite(centers).all(), "NaN or infinity in the centers"
        if self._fixed_k():
            assert len(centers) == fitted.k, f"{len(centers)} centers for k = {fitted.k}"
        assert labels.max() < len(centers), f"label {labels.max()} of {len(centers)} centers"
        assert len(fitted.objective) > 0, "objective holds one number per iteration, at least one"
        assert np.isfinite(fitted.objective).all(), f"objective {list(fitted.objective)}"

    def _check_objective(
        self, fitted: Any, data: Array, weights: NDArray[np.float64] | None = None
    ) -> None:
        table = self._table(fitted, data, fitted.centers)
        own = table[np.arange(len(data)), fitted.labels]
        true = float(np.average(own, weights=weights))
        limit = 1e-5 * true + float(self._slack(fitted, data).mean())
        assert abs(fitted.objective[-1] - true) <= limit, (
            f"objective[-1] is {fitted.objective[-1]}, but the mean distance of the rows to the "
            f"centers of their labels is {true}"
        )

    def _need_centers(self) -> None:
        if not self._make().has_centers:
            pytest.skip("it has no centers")

    def _need_fixed_k(self) -> None:
        if not self._fixed_k():
            pytest.skip("its number of clusters is not fixed")

    # Tests

    @examples(12, drawn=vectors(rows=(21, 60)), seed=_SEEDS, k=st.integers(1, 8))
    def test_labels_and_centers(self, drawn: NDArray[np.float32], seed: int, k: int) -> None:
        """Labels, centers and objective belong together and are finite.

        The last objective is the mean distance of the rows to the centers of their labels; each
        label is the nearest center's.

        If this fails, check that rows are assigned once more after the last update of the centers.
        """
        data = self._drawn(drawn)
        k = min(k, self._distinct(data))
        fitted = self._fit(self._with_k(k), data)
        self._verify(fitted, data)
        if fitted.has_centers and self._agreement(fitted) == 1 and self._fixed_k():
            share = self._nearest_share(fitted, data, fitted.labels)
            assert share == 1, f"only {share:.3f} of the labels are the nearest center's"

    def _drawn(self, drawn: NDArray[np.float32]) -> Array:
        columns = -(-drawn.shape[1] // self._step()) * self._step()
        if self._domain_is_codes():
            columns = 8
        times = -(-self._count(len(drawn)) // len(drawn)), -(-columns // drawn.shape[1])
        return self._as_domain(np.ascontiguousarray(np.tile(drawn, times)[:, :columns]))

    @examples(10, drawn=vectors(rows=(21, 60)), seed=_SEEDS, k=st.integers(1, 8))
    def test_predict(self, drawn: NDArray[np.float32], seed: int, k: int) -> None:
        """`predict` gives the nearest center, alone and in a batch, from an array and a Stream.

        Not declared, it raises `UnsupportedError`.

        If this fails, check that the final centers are used, not those of an earlier iteration.
        """
        data = self._drawn(drawn)
        fitted = self._fit(self._with_k(min(k, self._distinct(data))), data)
        rows = self._as_domain(numbers(seed, 15, 8 if self._domain_is_codes() else data.shape[1]))
        if not fitted.supports_predict:
            with pytest.raises(UnsupportedError):
                fitted.predict(rows)
            return
        labels = fitted.predict(rows)
        assert labels.shape == (15,)
        assert labels.dtype == np.int32
        assert fitted.predict(rows[:0]).shape == (0,)
        if fitted.has_centers and self._agreement(fitted) == 1:
            share = self._nearest_share(fitted, rows, labels)
            assert share == 1, f"only {share:.3f} of the rows get their nearest center"
            share = self._nearest_share(fitted, data, fitted.predict(data))
            assert share == 1, f"only {share:.3f} of the fitted rows get their nearest center"
        alone = np.concatenate([fitted.predict(rows[i : i + 1]) for i in range(len(rows))])
        self._check_equal_but_for_ties(fitted, rows, labels, alone, "by itself")
        stream = fitted.predict(cut(rows, [4, 7], known=False))
        assert isinstance(stream, Stream)
        assert stream.dim == 1
        self._check_equal_but_for_ties(
            fitted, rows, labels, stream.toarray()[:, 0], "from a Stream"
        )

    def _check_equal_but_for_ties(
        self, fitted: Any, rows: Array, labels: Array, others: Array, why: str
    ) -> None:
        differ = labels != others
        if fitted.has_centers and differ.any():
            table = self._table(fitted, rows, fitted.centers)
            line = np.arange(len(rows))
            gap = np.abs(table[line, labels] - table[line, others])
            differ &= gap > self._slack(fitted, rows)[:, 0]
        assert not differ.any(), f"row {int(np.argmax(differ))} gets another label {why}"

    def test_predict_gives_the_labels(self) -> None:
        """On the rows that were fitted, `predict` equals `labels`, for the declared share of rows.

        If this fails, check that `labels` are of the final centers, or declare `label_agreement`.
        """
        for data in (noise(3, self._count(300), self._wide()) * 50, self._blobs(300)):
            rows = self._as_domain(data)
            fitted = self._fit(self._with_k(min(10, self._distinct(rows))), rows)
            if not fitted.supports_predict:
                return
            self._verify(fitted, rows)
            predicted, wanted = fitted.predict(rows), self._agreement(fitted)
            if fitted.has_centers:
                table = self._table(fitted, rows, fitted.centers)
                line = np.arange(len(rows))
                known = fitted.labels >= 0
                gap = np.abs(table[line, predicted] - table[line, np.maximum(fitted.labels, 0)])
                agree = (gap <= self._slack(fitted, rows)[:, 0]) & known
                agree |= predicted == fitted.labels
                near = self._nearest_share(fitted, rows[known], predicted[known])
                assert near >= wanted, (
                    f"{near:.3f} of the rows get their nearest center, not {wanted}"
                )
            else:
                agree = predicted == fitted.labels
            share = float(agree.mean())
            assert share >= wanted, (
                f"predict equals labels for {share:.3f} of the rows, not {wanted}"
            )

    def _wide(self) -> int:
        return 8 if self._domain_is_codes() else self._dim(4)

    def _blobs(self, rows: int, groups: int = 10, seed: int = 1) -> NDArray[np.float32]:
        return mixture(seed, self._count(rows), self._wide(), groups)

    @examples(10, drawn=vectors(rows=(21, 60)), k=st.integers(2, 20), many=st.booleans())
    def test_no_cluster_is_empty(self, drawn: NDArray[np.float32], k: int, many: bool) -> None:
        """Every cluster has a row when there are k distinct rows, also when there are no more.

        If this fails, check what becomes of a center that loses its last row: it must move.
        """
        self._need_fixed_k()
        data = self._drawn(drawn)
        distinct = self._distinct(data)
        k = distinct if many else min(k, distinct)
        fitted = self._fit(self._with_k(k), data)
        self._check_form(fitted, data)
        counts = np.bincount(fitted.labels, minlength=k)
        assert counts.min() > 0, f"{int((counts == 0).sum())} of {k} clusters are empty"

    def test_few_distinct_rows(self) -> None:
        """With fewer distinct rows than k, surplus centers repeat and stay empty; one warning.

        If this fails, check divisions by the size of an empty cluster, and call
        ``vwkit.clusterer.warn_few_distinct``.
        """
        self._need_fixed_k()
        few = self._as_domain(numbers(4, 3, self._wide()))
        data = np.ascontiguousarray(np.repeat(few, self._count(10), axis=0))
        k = 7
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = self._fit(self._with_k(k), data)
        self._verify(fitted, data)
        distinct = self._distinct(data)
        used = np.unique(fitted.labels)
        assert len(used) == distinct, f"{len(used)} words are used for {distinct} distinct rows"
        ours = [one for one in caught if issubclass(one.category, FewDistinctRows)]
        assert len(ours) == 1, f"one FewDistinctRows warning is needed; there were {len(ours)}"
        text = str(ours[0].message)
        assert str(k - distinct) in text or str(distinct) in text, (
            f"it does not say how many: {text}"
        )
        if fitted.has_centers:
            own = self._table(fitted, data, fitted.centers)[np.arange(len(data)), fitted.labels]
            assert (own <= self._slack(fitted, data)[:, 0]).all(), "a row is off its center"
            centers = np.asarray(fitted.centers)
            for j in sorted(set(range(k)) - set(used.tolist())):
                repeats = (np.abs(centers[used].astype(np.float64) - centers[j]) < 1e-2).all(axis=1)
                assert repeats.any(), f"surplus center {j} repeats none of the distinct rows"

    def test_more_clusters_than_rows_are_refused(self) -> None:
        """K above the number of rows is a `DataError`.

        If this fails, check that ``fit`` is the inherited one.
        """
        self._need_fixed_k()
        data = self._rows(1)
        with pytest.raises(DataError, match="k = "):
            self._fit(self._with_k(len(data) + 1), data)

    def test_objective_does_not_rise(self) -> None:
        """The objective never goes up from one iteration to the next.

        An approximate clusterer may lose as much as its labels may be off.

        If this fails, check that each entry is measured with the labels of its own centers.
        """
        self._need_centers()
        for data in (noise(5, self._count(300), self._wide()) * 50, self._blobs(200)):
            rows = self._as_domain(data)
            for k in (3, 12):
                fitted = self._fit(self._with_k(min(k, self._distinct(rows))), rows)
                found = np.asarray(fitted.objective, np.float64)
                rise = 1e-6 + (1 - self._agreement(fitted))
                limit = found[:-1] * (1 + rise) + float(self._slack(fitted, rows).mean()) * 0.1
                assert (found[1:] <= limit).all(), f"the objective goes up: {found.tolist()}"

    def test_objective_after_few_iterations(self) -> None:
        """Stopped after one or two iterations, labels and objective still belong to the centers.

        If this fails, check that rows are assigned once more after the last update.
        """
        self._need_centers()
        if not self._offers("iterations"):
            pytest.skip("it has no parameter iterations")
        rows = self._as_domain(noise(6, self._count(200), self._wide()) * 50)
        for iterations in (1, 2):
            fitted = self._fit(self._with_k(8, iterations=iterations), rows)
            self._verify(fitted, rows)
            share = self._nearest_share(fitted, rows, fitted.labels)
            wanted = self._agreement(fitted)
            assert share >= wanted, (
                f"{share:.3f} of the labels are the nearest center's, not {wanted}"
            )

    def test_objective_is_near_the_reference(self) -> None:
        """The objective, averaged over three seeds, is within a factor of the reference k-means'.

        If this fails, check that centers are updated until little changes, and all of them.
        """
        self._need_centers()
        self._need_fixed_k()
        if self._metric(self._make()) != "l2":
            pytest.skip("the reference k-means is for l2")
        own = best = 0.0
        for seed in range(3):
            rows = self._as_domain(noise(seed, self._count(160), self._wide()) * 50)
            fitted = self._fit(self._with_k(8, seed=seed), rows)
            own += fitted.objective[-1]
            if self._domain_is_codes():
                best += _codes_objective(seed, len(rows))
            else:
                best += _lloyd_objective(seed, len(rows), self._wide(), _takes_floats(fitted))
        limit = self.objective_factor * best
        assert own <= limit, f"the objective is {own / best:.3f} times the reference's"

    def test_weights(self) -> None:
        """A weight counts a row as often as it says; not declared, it raises `UnsupportedError`.

        If this fails, check that weights enter the sums, the counts and the objective.
        """
        rng = np.random.default_rng(2)
        rows = self._as_domain(noise(7, self._count(80), self._wide()) * 50)
        weights = np.exp(rng.normal(0, 2, len(rows)))
        if not self._make().supports_weights:
            with pytest.raises(UnsupportedError, match="weights"):
                self._fit_weighted(self._make(), rows, weights)
            return
        for k in (1, 4):
            # Enough rounds to settle, so that each center is the mean of its rows.
            fitted = self._fit_weighted(self._with_k(k), rows, weights)
            self._check_form(fitted, rows)
            if not fitted.has_centers:
                continue
            self._check_objective(fitted, rows, weights)
            best = self._best_for_labels(fitted, rows, weights)
            found = fitted.objective[-1]
            assert found <= 1.05 * best, (
                f"k = {k}: centers that heed the weights would reach {best}; the objective is {found}"
            )
        heavy = np.ones(len(rows))
        heavy[: len(rows) // 4] = 3
        one = self._fit_weighted(self._with_k(1), rows, heavy)
        repeats = np.repeat(rows, heavy.astype(int), axis=0)
        two = self._fit(self._with_k(1), np.ascontiguousarray(repeats))
        if one.has_centers:
            assert abs(one.objective[-1] - two.objective[-1]) <= 1e-4 * two.objective[-1]
        if one.deterministic:
            streamed = self._fit_weighted(self._with_k(4), cut(rows, [7]), weights)
            fresh = self._fit_weighted(self._with_k(4), rows, weights)
            self._assert_same(
                self._use(fresh, rows), self._use(streamed, rows), True, "for a weighted Stream"
            )

    def _best_for_labels(self, fitted: Any, rows: Array, weights: Array) -> float:
        """Return the objective of the best centers for the labels that were found."""
        labels, centers = fitted.labels, fitted.centers
        if self._domain_is_codes():
            book = fitted.quantizer.codebook
            moved = pqkmeans.update(rows, labels, centers, book, weights)
            return pqkmeans.objective(rows, moved, labels, book, weights)
        metric = self._metric(fitted)
        means = lloyd.update(rows, labels, len(centers), weights, centers)
        return lloyd.objective(rows, means, labels, weights, metric)

    def test_zero_weights(self) -> None:
        """A row of weight 0 gets a label and influences nothing.

        If this fails, check the seeding and the repair of empty clusters: neither may choose it.
        """
        if not self._make().supports_weights:
            pytest.skip("it takes no weights")
        inner = numbers(8, self._count(60), self._wide(), "uniform", 50.0)
        far = np.full((6, self._wide()), 900, np.float32) - numbers(9, 6, self._wide())
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
                assert (counts > 0).all(), "a cluster holds rows of weight 0 only"

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

    def test_vocabulary_gives_the_labels(self) -> None:
        """A vocabulary of the centers gives the fitted rows their labels.

        If this fails, check ``_predict``; with codes, that ties go to the lowest center.
        """
        self._need_centers()
        if not self._make().supports_predict:
            pytest.skip("it cannot label new rows")
        vectors = noise(9, self._count(120), self._wide()) * 50
        rows = self._as_domain(vectors)
        fitted = self._fit(self._with_k(6), rows)
        vocabulary = vwkit.create("quantizer", "vocabulary", clusterer=fitted)
        assert isinstance(vocabulary, Quantizer)
        words = vocabulary.encode(vectors if self._domain_is_codes() else rows)
        assert words.shape == (len(rows), 1)
        near = self._nearest_share(fitted, rows, words[:, 0].astype(np.int32))
        assert near >= self._agreement(fitted), f"{near:.3f} of the words are the nearest center"

    def test_codes_need_their_quantizer(self) -> None:
        """Codes come with the product quantizer that made them, which is kept and saved.

        If this fails, check that ``fit`` is the inherited one.
        """
        rows = self._rows(1)
        if not self._domain_is_codes():
            with pytest.raises(UnsupportedError, match="quantizer"):
                self._make().fit(rows, quantizer=_quantizer(8))
            return
        with pytest.raises(UnsupportedError, match="quantizer"):
            self._make().fit(rows)
        fitted = self._fit(self._make(), rows)
        assert fitted.quantizer is _quantizer(8)
        with self._saved(fitted) as loaded:
            assert np.array_equal(loaded.quantizer.codebook, fitted.quantizer.codebook)
            self._verify(loaded, rows)

    def test_tree(self) -> None:
        """A hierarchical clusterer's `tree` is an (n - 1, 4) linkage.

        If this fails, check that row i makes cluster n + i, from two clusters that exist and are
        not part of another yet, at a finite height, with their number of rows.
        """
        if not self._make().hierarchical:
            pytest.skip("it is not hierarchical")
        rows = self._rows(1)
        fitted = self._fit(self._make(), rows)
        tree, n = np.asarray(fitted.tree), len(rows)
        assert tree.shape == (n - 1, 4)
        assert np.isfinite(tree).all()
        assert (tree[:, 2] >= 0).all(), "heights are not negative"
        sizes = np.ones(2 * n - 1)
        used: set[int] = set()
        for i, (left, right, _, size) in enumerate(tree):
            pair = {int(left), int(right)}
            assert len(pair) == 2, f"row {i} joins a cluster with itself"
            assert max(pair) < n + i, f"row {i} joins a cluster that is not there yet"
            assert not pair & used, f"row {i} joins a cluster that is part of another"
            used |= pair
            sizes[n + i] = sum(sizes[part] for part in pair)
            assert size == sizes[n + i], f"row {i} counts {size} rows, not {sizes[n + i]}"
        with self._saved(fitted) as loaded:
            assert np.array_equal(loaded.tree, tree)

    def test_bytes_are_taken(self) -> None:
        """uint8 data give centers as good as the same numbers as floats.

        If this fails, check for arithmetic in uint8, which overflows.
        """
        if self._domain_is_codes() or not self._make().has_centers:
            pytest.skip("it clusters codes, or has no centers")
        table = numbers(3, self._count(200), self._dim(8), "bytes")
        for name, variant in layouts(table):
            if name == "uint8":
                fitted = self._fit(self._with_k(6), variant)
                self._verify(fitted, variant)
                other = self._fit(self._with_k(6), table)
                best = other.objective[-1]
                assert fitted.objective[-1] <= 1.25 * best, "uint8 data give worse centers"


@functools.cache
def _quantizer(dim: int) -> Quantizer:
    """Return a fitted product quantizer that makes the codes of the tests."""
    made = vwkit.create("quantizer", "pq", m=_M, ks=_KS, seed=1)
    assert isinstance(made, Quantizer)
    spread = np.concatenate([numbers(0, 400, dim), noise(1, 400, dim) * 50])
    return made.fit(spread)


@functools.cache
def _lloyd_objective(seed: int, rows: int, dim: int, floats: bool) -> float:
    data = noise(seed, rows, dim) * 50
    if not floats:
        data = np.clip(np.abs(np.floor(data)), 0, 255)
    start = lloyd.kmeans_plus_plus(data, 8, seed)
    return lloyd.lloyd(data, start, 12)[2][-1]


@functools.cache
def _codes_objective(seed: int, rows: int) -> float:
    quantizer = _quantizer(8)
    codes = quantizer.encode(noise(seed, rows, 8) * 50)
    start = np.unique(codes, axis=0)
    start = start[np.random.default_rng(seed).permutation(len(start))[:8]]
    return pqkmeans.pqkmeans(codes, quantizer.codebook, start, 12)[2][-1]
