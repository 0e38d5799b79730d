"""The suite of the clusterer role."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from vwkit.errors import DataError, FewDistinctRows, UnsupportedError
from vwkit.stream import Stream
from vwkit.testing.checks import examples, statistical
from vwkit.testing.clusterer_answers import codes_objective, lloyd_objective
from vwkit.testing.clusterer_trees import ClustererTrees
from vwkit.testing.comparing import same_form
from vwkit.testing.data import Rows, cut, layouts
from vwkit.testing.strategies import recipes
from vwkit.testing.vector_suite import takes_floats
from vwkit.types import Array

__all__ = ["ClustererTests"]

_SEEDS = st.integers(0, 2**16 - 1)
# The same numbers as bytes may start from other rows.
_OTHER_START = 1.25
# Rows before the last ones: no number of whole blocks of a common size.
_MANY, _LAST = 4_990, 110
# Stopped before it has settled, a center may be so far from the mean, and cost so much.
_SETTLED, _OFF_THE_MEAN = 1.01, 0.1


class ClustererTests(ClustererTrees, suite=True):
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

    @examples(12, drawn=recipes(rows=(21, 60)), k=st.integers(1, 8))
    def test_labels_and_centers(self, drawn: Rows, k: int) -> None:
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

    @examples(10, drawn=recipes(rows=(21, 60)), seed=_SEEDS, k=st.integers(1, 8))
    def test_predict(self, drawn: Rows, seed: int, k: int) -> None:
        """`predict` gives the nearest center, alone and in a batch, from an array and a Stream.

        Not declared, it raises `UnsupportedError`.

        If this fails, check that the final centers are used, not those of an earlier iteration.
        """
        data = self._drawn(drawn)
        fitted = self._fit(self._with_k(min(k, self._distinct(data))), data)
        wide = 8 if self._domain_is_codes() else data.shape[1]
        rows = self._as_domain(self._numbers(seed, 15, wide))
        if not fitted.supports_predict:
            with pytest.raises(UnsupportedError):
                fitted.predict(rows)
            return
        labels = fitted.predict(rows)
        same_form(np.empty(15, np.int32), labels, "as labels of 15 rows")
        same_form(np.empty(0, np.int32), fitted.predict(rows[:0]), "as labels of no rows")
        if fitted.has_centers and self._agreement(fitted) == 1:
            share = self._nearest_share(fitted, rows, labels)
            assert share == 1, f"only {share:.3f} of the rows get their nearest center"
            share = self._nearest_share(fitted, data, fitted.predict(data))
            assert share == 1, f"only {share:.3f} of the fitted rows get their nearest center"
        alone = np.concatenate([fitted.predict(rows[i : i + 1]) for i in range(len(rows))])
        self._check_equal_but_for_ties(fitted, rows, labels, alone, "by itself")
        stream = fitted.predict(cut(rows, [4, 7], known=False))
        assert isinstance(stream, Stream), f"a Stream is needed; got {type(stream).__name__}"
        assert stream.dim == 1, f"a Stream of labels has 1 column; got {stream.dim}"
        self._check_equal_but_for_ties(
            fitted, rows, labels, stream.toarray()[:, 0], "from a Stream"
        )

    def _check_equal_but_for_ties(
        self, fitted: Any, rows: Array, labels: Array, others: Array, why: str
    ) -> None:
        __tracebackhide__ = True
        differ = labels != others
        if fitted.has_centers and differ.any():
            table = self._table(fitted, rows, fitted.centers)
            line = np.arange(len(rows))
            gap = np.abs(table[line, labels] - table[line, others])
            differ &= gap > self._slack(fitted, rows)[:, 0]
        if differ.any():
            first = int(np.argmax(differ))
            raise AssertionError(
                f"row {first} gets another label {why}: {others[first]}, not {labels[first]}"
            )

    @statistical
    def test_predict_gives_the_labels(self) -> None:
        """On the rows that were fitted, `predict` equals `labels`, for the declared share of rows.

        If this fails, check that `labels` are of the final centers, or declare `label_agreement`.
        """
        for name, data in (
            ("noise", self._noise(3, self._count(300), self._wide()) * 50),
            ("groups", self._blobs(300)),
        ):
            rows = self._as_domain(data)
            fitted = self._fit(self._with_k(min(10, self._distinct(rows))), rows)
            if not fitted.supports_predict:
                return
            self._verify(fitted, rows)
            predicted, wanted = fitted.predict(rows), self._agreement(fitted)
            agree = predicted == fitted.labels
            if fitted.has_centers:
                table = self._table(fitted, rows, fitted.centers)
                line = np.arange(len(rows))
                known = fitted.labels >= 0
                gap = np.abs(table[line, predicted] - table[line, np.maximum(fitted.labels, 0)])
                agree |= (gap <= self._slack(fitted, rows)[:, 0]) & known
                near = self._nearest_share(fitted, rows[known], predicted[known])
                self._judge_share(f"predicted the nearest center, {name}", near, wanted)
            self._judge_share(f"predict equals labels, {name}", float(agree.mean()), wanted)

    @examples(10, drawn=recipes(rows=(21, 60)), k=st.integers(2, 20), many=st.booleans())
    def test_no_cluster_is_empty(self, drawn: Rows, k: int, many: bool) -> None:
        """Every cluster has a row when there are k distinct rows, also when there are no more.

        If this fails, check what becomes of a center that loses its last row: it must move.
        """
        self._need_fixed_k()
        data = self._drawn(drawn)
        distinct = self._distinct(data)
        k = distinct if many else min(k, distinct)
        fitted = self._fit(self._with_k(k), data)
        self._check_form(fitted, data)
        empty = np.flatnonzero(np.bincount(fitted.labels, minlength=k) == 0)
        assert not len(empty), (
            f"{len(empty)} of {k} clusters are empty, {empty[:9].tolist()}, though the {len(data)} "
            f"rows hold {distinct} distinct ones"
        )

    def test_few_distinct_rows(self) -> None:
        """With fewer distinct rows than k, surplus centers repeat and stay empty; one warning.

        If this fails, check divisions by the size of an empty cluster, that `predict` takes the
        lowest of equal centers, and call ``vwkit.clusterer.warn_few_distinct``.
        """
        self._need_fixed_k()
        few = self._as_domain(self._numbers(4, 3, self._wide()))
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
            off = np.flatnonzero(own > self._slack(fitted, data)[:, 0])
            assert not len(off), f"row {off[:1]} is {own[off[:1]]} off its center"
            centers = np.asarray(fitted.centers)
            for j in sorted(set(range(k)) - set(used.tolist())):
                near = np.abs(centers[used].astype(np.float64) - centers[j]).max(axis=1).min()
                assert near < 1e-2, f"surplus center {j} repeats none of the distinct rows"
        if fitted.supports_predict and self._agreement(fitted) == 1:
            words = np.setdiff1d(fitted.predict(data), used)
            assert not len(words), f"predict gives the words {words}, which stay empty"

    def test_more_clusters_than_rows_are_refused(self) -> None:
        """K above the number of rows is a `DataError`.

        If this fails, check that ``fit`` is the inherited one.
        """
        self._need_fixed_k()
        data = self._rows(1)
        with pytest.raises(DataError, match="k = "):
            self._fit(self._with_k(len(data) + 1), data)

    @statistical
    def test_objective_does_not_rise(self) -> None:
        """The objective never goes up from one iteration to the next.

        An approximate clusterer may lose as much as its labels may be off.

        If this fails, check that each entry is measured with the labels of its own centers.
        """
        self._need_centers()
        for name, data in (
            ("noise", self._noise(5, self._count(300), self._wide()) * 50),
            ("groups", self._blobs(200)),
        ):
            rows = self._as_domain(data)
            for k in (3, 12):
                fitted = self._fit(self._with_k(min(k, self._distinct(rows))), rows)
                found = np.asarray(fitted.objective, np.float64)
                loss = float(self._slack(fitted, rows).mean()) * 0.1
                rise = (found[1:] - found[:-1] - loss) / np.maximum(found[:-1], 1e-30)
                self._judge(
                    f"largest rise of the objective, {name}, k = {k}",
                    rise.max(initial=-1.0),
                    at_most=1e-6 + (1 - self._agreement(fitted)),
                    said=f": the objective goes up: {found.tolist()}",
                )

    @statistical
    def test_objective_after_few_iterations(self) -> None:
        """Stopped after one or two iterations, labels and objective still belong to the centers.

        If this fails, check that rows are assigned once more after the last update.
        """
        self._need_centers()
        if not self._offers("iterations"):
            pytest.skip("it has no parameter iterations")
        rows = self._as_domain(self._noise(6, self._count(200), self._wide()) * 50)
        for iterations in (1, 2):
            fitted = self._fit(self._with_k(8, iterations=iterations), rows)
            self._verify(fitted, rows)
            share = self._nearest_share(fitted, rows, fitted.labels)
            what = f"labels of the nearest center, iterations = {iterations}"
            self._judge_share(what, share, self._agreement(fitted))

    @statistical
    def test_objective_is_near_the_reference(self) -> None:
        """The objective, averaged over three seeds, is within a factor of the reference k-means'.

        The rows are sorted by their first number, so that the first ones say little of the last.

        If this fails, check that centers are updated until little changes, and all of them, and
        that all rows are used; or declare `objective_factor`.
        """
        self._need_centers()
        self._need_fixed_k()
        if self._metric(self._make()) != "l2":
            pytest.skip("the reference k-means is for l2")
        own = best = 0.0
        for turn in range(3):
            seed, n = self._seed(turn), self._count(160)
            rows = self._as_domain(self._sorted_noise(turn, n, self._wide()) * 50)
            fitted = self._fit(self._with_k(8, seed=turn + 3 * self.data_seed), rows)
            own += fitted.objective[-1]
            if self._domain_is_codes():
                best += codes_objective(seed, n, self._quantizer())
            else:
                best += lloyd_objective(seed, n, self._wide(), takes_floats(fitted))
        self._judge("objective / the reference's", own / best, at_most=self.objective_factor)

    def test_far_from_the_origin(self) -> None:
        """Rows far from 0 and near each other get their nearest center, where that is promised.

        It is by an exact clusterer (`label_agreement` 1) that declares `deterministic`: its labels
        are those of float64 distances, for any chunk size.

        If this fails, check for ``x² - 2·x·c + c²`` in float32, which loses most digits here:
        subtract first, or look again at all centers that are about as near.
        """
        made = self._with_k(6)
        if self._domain_is_codes() or not takes_floats(made) or not self._is_certain(made):
            pytest.skip("it promises no exact labels of floating-point vectors")
        rows = self._far_away(12, self._count(200), self._wide())
        fitted = self._fit(made, rows)
        self._check_form(fitted, rows)
        if (fitted.labels < 0).any() or not self._fixed_k():
            return
        found = {"labels": fitted.labels}
        if fitted.supports_predict:
            found["predicted"] = fitted.predict(rows)
        for name, labels in found.items():
            share = self._nearest_share(fitted, rows, labels, exact=True)
            assert share == 1, f"only {share:.3f} of the {name} are the nearest center's"
        self._check_objective(fitted, rows, exact=True)

    def test_many_fitted_rows(self) -> None:
        """Every one of thousands of rows gets a label and moves its center, also the last ones.

        If this fails, check work that is done in blocks: the last, shorter block; and a limit on
        the rows that centers are learned from.
        """
        changes = {"iterations": 2} if self._offers("iterations") else {}
        rows = self._as_domain(self._mixture(13, self._count(1100), self._wide(), 6))
        fitted = self._fit(self._with_k(4, **changes), rows)
        self._verify(fitted, rows)
        if not fitted.has_centers or not self._fixed_k():
            return
        if self._agreement(fitted) == 1:
            share = self._nearest_share(fitted, rows, fitted.labels)
            assert share == 1, f"only {share:.3f} of the labels are the nearest center's"
        if self._metric(fitted) == "l2":
            self._check_last_rows()

    def _check_last_rows(self) -> None:
        """Check that the center of a group that stands behind all others is the mean of its rows."""
        __tracebackhide__ = True
        count = max(_MANY, self.min_rows)
        many = self._mixture(14, count + _LAST, self._wide(), 3)
        many[count:] = self._far_from(many[:count])
        rows = self._as_domain(many)
        fitted = self._fit(self._with_k(4), rows)
        moved, label = self._means(fitted, rows), np.bincount(fitted.labels[count:]).argmax()
        held = rows[fitted.labels == label]
        own = self._table(fitted, held, fitted.centers)[:, label]
        best = self._table(fitted, held, moved)[:, label]
        off = self._table(fitted, moved, fitted.centers)[label, label]
        if own.sum() > _SETTLED * best.sum():
            assert off <= _OFF_THE_MEAN * np.median(best), (
                f"the last {_LAST} of {len(rows):,} rows count too little: the center of their cluster "
                f"is {off:.4g} off the mean of its rows (squared), and these are {np.median(best):.4g} "
                "off it"
            )

    def _far_from(self, others: Array) -> Array:
        """Return the group of the last rows."""
        far: Array = 20 * self._noise(15, _LAST, others.shape[1]) + np.abs(others).max(axis=0) + 600
        return far

    @statistical
    def test_bytes_are_taken(self) -> None:
        """uint8 data give centers as good as the same numbers as floats.

        If this fails, check for arithmetic in uint8, which overflows.
        """
        if self._domain_is_codes() or not self._make().has_centers:
            pytest.skip("it clusters codes, or has no centers")
        table = self._numbers(3, self._count(200), self._dim(8), "bytes")
        for name, variant in layouts(table):
            if name == "uint8":
                fitted = self._fit(self._with_k(6), variant)
                self._verify(fitted, variant)
                other = self._fit(self._with_k(6), table)
                ratio = fitted.objective[-1] / max(other.objective[-1], 1e-30)
                what = "objective of uint8 / of the same floats"
                self._judge(what, ratio, at_most=_OTHER_START)
