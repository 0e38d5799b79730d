"""The suite of the index role."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import vwkit
from vwkit.errors import DataError, ParameterError, ShapeError, UnsupportedError
from vwkit.metrics import METRICS
from vwkit.testing.checks import examples, statistical
from vwkit.testing.data import KINDS, Rows, cut, layouts
from vwkit.testing.every_role import other_values
from vwkit.testing.index_answers import ROWS, draw_ids
from vwkit.testing.index_sizes import IndexSizes
from vwkit.testing.strategies import recipes
from vwkit.testing.vector_suite import takes_floats

__all__ = ["IndexTests"]

_SEEDS = st.integers(0, 2**16 - 1)
_K = st.integers(1, 25)
# What is loaded may build its structure anew, with other random numbers.
_LOST_BY_LOADING = 0.05


class IndexTests(IndexSizes, suite=True):
    """The conformance suite of an index; see `vwkit.testing`.

    Attributes
    ----------
    min_recall : float
        Recall@10 on 1,000 x 16 normally distributed vectors, averaged over 100 queries; by default
        1 for an exact index and 0.9 for an approximate one.
    dim_step : int
        Every dimension in the tests is a multiple of it (1).
    min_rows : int
        Rows that these parameters need (1).
    many_rows : int
        Rows of the largest index that is built (5,000); 70,000 show numbers of two bytes.

    Examples
    --------
    >>> from vwkit.builtin.exact import Exact
    >>> from vwkit.testing import IndexTests
    >>> class TestExact(IndexTests):
    ...     backend = Exact
    """

    def test_abilities_of_an_index(self) -> None:
        """`metrics` and `distance_error` are what the core expects.

        If this fails, check the class attributes.
        """
        index, metrics = self._make(), self.backend.metrics
        assert metrics, "an index offers at least one metric"
        assert set(metrics) <= set(METRICS), (
            f"metrics are some of {', '.join(METRICS)}; got {', '.join(sorted(metrics))}"
        )
        assert index.metric in metrics, f"metric {index.metric} is not in metrics"
        assert index.distance_error >= 0, f"distance_error is {index.distance_error}"
        for name in ("exact", "supports_add", "supports_remove", "supports_filter"):
            value = getattr(index, name)
            assert isinstance(value, bool), f"{name} is True or False; got {value!r}"

    def test_other_metrics_are_refused(self) -> None:
        """A metric that is not in `metrics` is a `ParameterError`.

        If this fails, check for a ``metric`` field of your own; the core adds it.
        """
        for metric in sorted({*METRICS, "euclidian"} - self.backend.metrics):
            with pytest.raises(ParameterError, match="metric"):
                self._make(metric=metric)

    @examples(12, drawn=recipes(rows=ROWS), seed=_SEEDS, k=_K)
    def test_distances_and_neighbours(self, drawn: Rows, seed: int, k: int) -> None:
        """Returned distances are those of the returned ids, ascending; exact means nearest.

        In every metric that is offered. ``l2`` is squared, ``ip`` is 1 - dot, ``cosine`` is 1 - cos
        and 1 to a zero vector.

        If this fails, check that l2 distances are squared, that a similarity is turned into a
        distance, that rows and distances are sorted together, and that nothing from the search
        before is returned. Less exact storage declares a larger ``distance_error``.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            held = self._fitting(index, drawn)
            queries = self._queries(index, seed, 4, held.shape[1], float(np.abs(held).max()))
            queries[0] = held[seed % len(held)]
            kept = held.copy()
            self._check(index.build(held), held, queries, k)
            assert np.array_equal(held, kept), f"{metric}: the vectors were changed"

    @statistical
    def test_recall(self) -> None:
        """Recall@10 on a fixed set of 1,000 vectors reaches the declared figure, loaded or not.

        Other metrics than the one under test must reach half of it.

        If this fails, check that the search looks at enough candidates, and that ``_load`` gives
        the library all parameters of a search; or declare `min_recall`.
        """
        for position, metric in enumerate(self._metrics()):
            index = self._make(metric=metric)
            held, queries = self._large(index)
            found = self._recall(index.build(held), held, queries)
            wanted = self._wanted_recall(index) * (1.0 if position == 0 else 0.5)
            self._judge_recall(f"recall@10, {metric}", found, wanted)
            with self._saved(index) as loaded:
                again = self._recall(loaded, held, queries)
            self._judge_recall(f"recall@10, {metric}, loaded", again, wanted)
            said = ": a loaded index finds less than the one that was saved"
            what = f"recall@10, {metric}, lost by loading"
            self._judge(what, found - again, at_most=_LOST_BY_LOADING, said=said)

    def test_numbers_of_every_kind(self) -> None:
        """Fractions, whole numbers, ties, repeats and zero vectors, small and large, all work.

        If this fails, check storage in a narrow type, and divisions by the length of a vector.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            for kind in KINDS:
                for scale in (1.0, 1000.0):
                    held = self._fitting(index, self._numbers(14, 40, self._dim(5), kind, scale))
                    queries = np.concatenate([held[[0, 7]], held[:1] * 0])
                    self._check(index.build(held), held, queries, 6)

    def test_many_dimensions(self) -> None:
        """Vectors of many numbers, and of no round number of them, work.

        If this fails, check sums in a narrow type, and the last numbers of a row where several are
        handled at a time.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            held = self._fitting(index, self._numbers(15, 40, self._dim(131), self._kind(index)))
            self._check(index.build(held), held, held[[0, 7, 9]], 6)

    def test_far_from_the_origin(self) -> None:
        """Vectors that lie far from 0 and near each other have distances within `distance_error`.

        If this fails, check for ``q² - 2·q·x + x²``, which loses most digits here: subtract first,
        declare a larger ``distance_error``, and let no distance fall below 0.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            if not takes_floats(index):
                continue
            held = self._far_away(16, self._count(40), self._dim(5))
            queries = np.concatenate([held[:8], self._far_away(17, 3, held.shape[1])])
            self._check(index.build(held), held, queries, 6)

    @examples(8, drawn=recipes(rows=ROWS, dim=(1, 4)), seed=_SEEDS)
    def test_own_ids(self, drawn: Rows, seed: int) -> None:
        """The user's ids come back, however large and in whatever order.

        If this fails, check that ``_search`` returns row numbers, in the order of building, and
        that nothing of the core's own state is left out when it is saved.
        """
        index = self._make()
        held = self._fitting(index, drawn)
        ids = draw_ids(seed, len(held))
        queries = self._queries(index, seed, 4, held.shape[1], float(np.abs(held).max()))
        queries[:2] = held[:2]
        index.build(held, ids=ids)
        self._check(index, held, queries, 5, ids=ids)
        assert np.array_equal(index.ids, ids), "the index names other ids than it was built with"
        assert len(index) == len(held), f"{len(index)} vectors are held, not {len(held)}"
        with self._saved(index) as loaded:
            assert np.array_equal(loaded.ids, ids), "the ids were lost by saving"
            self._check(loaded, held, queries, 5, ids=ids)

    def test_bad_ids_are_refused(self) -> None:
        """Repeated, negative, fractional or too few ids are refused.

        If this fails, check that ``build`` is the inherited one.
        """
        held = self._rows(1)
        good = np.arange(len(held))
        for bad in (np.zeros_like(good), good - 1, good + 0.5):
            with pytest.raises(DataError):
                self._make().build(held, ids=bad)
        with pytest.raises(ShapeError):
            self._make().build(held, ids=good[:-1])

    def test_every_metric_is_saved(self) -> None:
        """A loaded index answers in the metric that it was built with.

        If this fails, check that ``_load`` gives the metric to the library.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            held = self._fitting(index, self._numbers(11, 40, self._dim(5), self._kind(index)))
            queries = self._queries(index, 12, 5, held.shape[1], 50.0)
            with self._saved(index.build(held)) as loaded:
                assert loaded.metric == metric, f"saved with {metric}, loaded with {loaded.metric}"
                self._check(loaded, held, queries, 6)

    def test_more_neighbours_than_vectors(self) -> None:
        """Beyond the vectors held, ids are -1 and distances +inf.

        If this fails, check that ``_search`` may return fewer than k columns, and what the library
        puts where it found nothing.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            held = self._fitting(index, self._numbers(3, 25, self._dim(4), self._kind(index)))
            queries = self._queries(index, 4, 5, held.shape[1], 50.0)
            self._check(index.build(held), held, queries, len(held) + 15)

    def test_duplicate_vectors(self) -> None:
        """Equal vectors are all held, and each id is returned once.

        If this fails, check whether the library merges equal vectors, or loops among them.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            few = self._numbers(6, 4, self._dim(4), self._kind(index))
            held = self._fitting(index, np.repeat(few, 10, axis=0))
            queries = np.concatenate([held[::10], held[:1]])
            self._check(index.build(held), held, queries, 12)
            repeated = np.repeat(held[:1], self._count(30), axis=0)
            self._check(self._make(metric=metric).build(repeated), repeated, held[:2], 5)

    def test_one_vector(self) -> None:
        """An index of a single vector finds it.

        If this fails, check for trees, graphs or k-means that need more rows than there are.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            floats = takes_floats(index)
            held = self._numbers(2, 1, self._dim(4), "uniform" if floats else "bytes")
            held = held if floats else held.astype(np.uint8)
            if self.min_rows > 1:
                with pytest.raises(DataError, match="row"):
                    index.build(held)
                continue
            index.build(held)
            for queries in (held, (held + 1).astype(held.dtype)):
                self._check(index, held, queries, 3)
                found = index.search(queries, 3).ids.tolist()
                assert found == [[0, -1, -1]], f"{metric}: [[0, -1, -1]] is right; got {found}"

    def test_one_dimension(self) -> None:
        """Vectors of a single number work (of `dim_step` numbers, where that is declared).

        If this fails, check for squeezed axes and for cuts along half of the dimensions.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            held = self._fitting(index, self._numbers(2, 40, self._step(), self._kind(index)))
            queries = self._queries(index, 3, 5, held.shape[1], 100.0)
            self._check(index.build(held), held, queries, 6)

    def test_no_queries(self) -> None:
        """No queries give no rows: ids and distances of shape (0, k).

        If this fails, check that ``search`` is the inherited one.
        """
        held = self._rows(1)
        index = self._make().build(held)
        found = index.search(held[:0], 4)
        for part, dtype in ((found.ids, np.int64), (found.distances, np.float32)):
            assert part.shape == (0, 4), f"shape (0, 4) is needed; got {part.shape}"
            assert part.dtype == dtype, f"{np.dtype(dtype)} is needed; got {part.dtype}"
        self._check(index, held, held[:3], 4)

    def test_wrong_k_is_refused(self) -> None:
        """K is a whole number of at least 1.

        If this fails, check that ``search`` is the inherited one.
        """
        held = self._rows(1)
        index = self._make().build(held)
        for k in (0, -1, 2.5, True, "3"):
            with pytest.raises(ParameterError, match="k must be"):
                index.search(held[:2], k)
        self._check(index, held, held[:3], np.int64(4))  # type: ignore[arg-type]

    def test_queries_of_any_layout(self) -> None:
        """Queries as float64, uint8, Fortran-ordered, strided or a Stream give the same answer.

        If this fails, check ``dtypes``: it names only what ``_search`` really takes.
        """
        for kind in ("normal", "bytes"):
            index = self._make()
            if kind == "normal" and not takes_floats(index):
                continue
            held = self._numbers(1, self._count(), self._dim(), kind)
            held = held if takes_floats(index) else held.astype(np.uint8)
            index.build(held)
            queries = held[5:14]
            self._check(index, held, queries, 7)
            expected = self._use(index, queries)
            for name, variant in layouts(queries):
                why = f"for {name} queries"
                self._assert_same(expected, self._use(index, variant), False, why)
            stream = cut(queries, [4], known=False)
            self._assert_same(expected, self._use(index, stream), False, "for a Stream")

    def test_answers_do_not_depend_on_other_queries(self) -> None:
        """A query alone gets the answer that it gets among others.

        If this fails, check for buffers that are kept from one search to the next, and for a
        search that treats its batch as a whole.
        """
        held = self._rows(1)
        index = self._make().build(held)
        queries = self._rows(2, rows=9)
        every = self._use(index, queries)
        for i in (0, 4, 8):
            alone = self._use(index, queries[i : i + 1])
            among = tuple(part[i : i + 1] for part in every)
            self._assert_same(among, alone, False, f"for query {i} by itself")

    def test_sparse(self) -> None:
        """Sparse vectors give the answers of the same dense ones, where they are declared.

        If this fails, check rows without entries, and that queries may be sparse too.
        """
        index = self._make()
        held = self._rows(1)
        if not index.supports_sparse:
            with pytest.raises(UnsupportedError, match="sparse"):
                index.build(held).search(vwkit.Sparse.from_dense(held[:2].astype(np.float32)), 2)
            return
        for seed in range(4):
            held = self._numbers(seed, 40, self._dim(8), "zeros")
            index = self._make().build(vwkit.Sparse.from_dense(held))
            self._check(index, held, held[10:16], 8, sparse=True)
            self._check(index, held, held[10:16], 8)
            with self._saved(index) as loaded:
                self._check(loaded, held, held[10:16], 8, sparse=True)

    def test_late_parameters_of_a_search(self) -> None:
        """Late parameters may be given to one search, and leave the index as it was.

        If this fails, check that they are read from ``self`` inside ``_search``.
        """
        held = self._rows(1)
        index = self._make().build(held)
        before, params = self._use(index, held[:6]), index.params()
        for name in sorted(index.late):
            value = getattr(index, name)
            for other in (value, *other_values(value)):
                late: dict[str, Any] = {name: other}
                if self._make_or_none(**late) is None:
                    continue
                self._check(index, held, held[:6], 5, **late)
            now = index.params()
            assert now == params, f"searching with {name} changed the index: {params} is now {now}"
            self._assert_same(before, self._use(index, held[:6]), False, f"after one with {name}")
        for wrong in [*sorted(set(index.parameters()) - index.late), "no_such_parameter"]:
            with pytest.raises(ParameterError, match="late parameters"):
                index.search(held[:2], 3, **{wrong: 1})

    def test_searches_at_the_same_time(self) -> None:
        """Searches in several threads at once give the answers of searches one by one.

        If this fails, check for work space on ``self``, or do not declare ``thread_safe``.
        """
        held, queries = self._large(self._make(), 300)
        index = self._make().build(held)
        parts = [np.ascontiguousarray(queries[i::8]) for i in range(8)] * 3
        expected = [self._use(index, part) for part in parts]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda part: self._use(index, part), parts))
        for one, other in zip(expected, found, strict=True):
            self._assert_same(one, other, False, "when several threads search")
