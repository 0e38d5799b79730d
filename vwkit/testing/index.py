"""The suite of the index role."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

import vwkit
from vwkit.errors import DataError, ParameterError, ShapeError, UnsupportedError
from vwkit.index import Index
from vwkit.metrics import METRICS
from vwkit.reference import search as reference
from vwkit.reference.distances import distances
from vwkit.testing.data import KINDS, cut, layouts, noise, numbers
from vwkit.testing.strategies import vectors
from vwkit.testing.suite import Answer, VectorSuite, _takes_floats, examples
from vwkit.types import Array, Matches

__all__ = ["IndexTests"]

_SEEDS = st.integers(0, 2**16 - 1)
_K = st.integers(1, 25)
# Every test builds more rows than a library might treat as a special case, unless it is about that.
_ROWS = (21, 60)


class IndexTests(VectorSuite, suite=True):
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

    Examples
    --------
    >>> from vwkit.builtin.exact import Exact
    >>> from vwkit.testing import IndexTests
    >>> class TestExact(IndexTests):
    ...     backend = Exact
    """

    role = Index
    _first_call = "build"

    min_recall: ClassVar[float | None] = None

    # What the tests are made of

    def _metrics(self) -> list[str]:
        """Return the metrics that these parameters allow."""
        if "metric" in self.params:
            return [self.params["metric"]]
        found = [self._make().metric]
        for metric in sorted(self.backend.metrics - set(found)):
            try:
                self._make(metric=metric)
            except ParameterError:
                continue  # other parameters rule it out
            found.append(metric)
        return found

    def _kind(self, index: Any) -> str:
        return "normal" if _takes_floats(index) else "bytes"

    def _fitting(self, index: Any, drawn: NDArray[np.float32]) -> Array:
        """Turn drawn numbers into what the index takes: floats, or bytes."""
        drawn = _stretched(self._enough(drawn), self._step())
        if _takes_floats(index):
            return drawn
        whole: Array = np.clip(np.floor(np.abs(drawn) * 7), 0, 255).astype(np.uint8)
        return whole

    def _enough(self, drawn: NDArray[np.float32]) -> NDArray[np.float32]:
        missing = self.min_rows - len(drawn)
        if missing <= 0:
            return drawn
        return np.concatenate([drawn, numbers(5, missing, drawn.shape[1])])

    def _rows(self, seed: int = 0, rows: int | None = None, dim: int | None = None) -> Array:
        found = super()._rows(seed, rows, dim)
        return found if _takes_floats(self._make()) else found.astype(np.uint8)

    def _queries(self, index: Any, seed: int, count: int, dim: int, scale: float) -> Array:
        found = numbers(seed, count, dim, self._kind(index), max(scale, 1e-3))
        return found if _takes_floats(index) else found.astype(np.uint8)

    def _fit(self, backend: Any, data: Any) -> Any:
        return backend.build(data)

    def _use(self, fitted: Any, data: Any) -> Answer:
        found = fitted.search(data, 7)
        return found.ids, found.distances

    def _verify(self, fitted: Any, data: Array) -> None:
        scale = float(np.abs(data).max())
        queries = self._queries(fitted, 8, 6, data.shape[1], scale)
        queries[:3] = data[:3]
        self._check(fitted, _plain(fitted, data), queries, 7)

    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        for before, after in zip(first, second, strict=True):
            assert before.dtype == after.dtype
            assert before.shape == after.shape
        if exact:
            assert np.array_equal(first[0], second[0]), f"other ids {why}"
            assert np.array_equal(first[1], second[1]), f"other distances {why}"
            return
        assert np.array_equal(first[0] < 0, second[0] < 0), f"more or fewer neighbours {why}"
        with np.errstate(invalid="ignore"):
            largest = np.abs(first[1][first[0] >= 0]).max(initial=1)
            slack = 1e-5 * np.abs(first[1]) + 8 * self._make().distance_error * largest
            near = (first[1] == second[1]) | (np.abs(first[1] - second[1]) <= slack)
        assert near.all(), (
            f"other distances {why}: {first[1][~near][:3]} and {second[1][~near][:3]}"
        )

    def _trial(self) -> Answer:
        # Small data are searched without a mistake, whatever the seed.
        index = self._make(**self._on_one_thread())
        held, queries = self._large(index)
        return self._use(index.build(held), queries)

    # Checking an answer

    def _check(
        self,
        index: Any,
        held: Array,
        queries: Array,
        k: int,
        *,
        ids: NDArray[np.int64] | None = None,
        allowed: NDArray[np.int64] | None = None,
        sparse: bool = False,
        **late: Any,
    ) -> None:
        """Search twice, with different queries of equal shape, and compare with the reference."""
        queries = np.ascontiguousarray(queries)
        bits = queries.dtype == np.uint8
        others = np.ascontiguousarray(255 - queries[::-1] if bits else -queries[::-1])
        options: dict[str, Any] = dict(late)
        if allowed is not None:
            options["allowed"] = allowed
        kept = queries.copy()
        give = vwkit.Sparse.from_dense if sparse else np.asarray
        found = [index.search(give(asked), k, **options) for asked in (queries, others)]
        assert np.array_equal(queries, kept), "search changed the queries"
        for matches, asked in zip(found, (queries, others), strict=True):
            self._check_matches(index, held, asked, matches, k, ids, allowed)

    def _check_matches(
        self,
        index: Any,
        held: Array,
        queries: Array,
        matches: Matches,
        k: int,
        ids: NDArray[np.int64] | None,
        allowed: NDArray[np.int64] | None,
    ) -> None:
        names = np.arange(len(held)) if ids is None else ids
        assert matches.ids.shape == matches.distances.shape == (len(queries), k)
        assert matches.ids.dtype == np.int64
        assert matches.distances.dtype == np.float32
        table = distances(queries, held, index.metric)
        slack = _slack(index, queries, held, table)
        permitted = np.ones(len(held), bool) if allowed is None else np.isin(names, allowed)
        place = {int(name): row for row, name in enumerate(names)}
        for i in range(len(queries)):
            given = matches.ids[i].tolist()
            count = sum(name != -1 for name in given)
            found, far = given[:count], matches.distances[i]
            assert -1 not in found, (
                f"query {i}: neighbours stand behind places without one: {given}"
            )
            assert (far[count:] == np.inf).all(), f"query {i}: no neighbour has distance +inf"
            assert np.isfinite(far[:count]).all(), f"query {i}: distances {far[:count]}"
            assert len(set(found)) == count, f"query {i}: an id is listed twice: {found}"
            strangers = [name for name in found if name not in place]
            assert not strangers, (
                f"query {i}: {strangers[0]} is no id of the index (or was removed)"
            )
            rows = [place[name] for name in found]
            assert permitted[rows].all(), (
                f"query {i}: an id that was not allowed is listed: {found}"
            )
            assert (np.diff(far[:count]) >= 0).all(), f"query {i}: not ascending: {far[:count]}"
            wrong = np.abs(far[:count] - table[i, rows]) > slack[i, rows]
            if wrong.any():
                j = int(np.flatnonzero(wrong)[0])
                pytest.fail(
                    f"query {i}: id {found[j]} was returned with distance {far[j]}, but its "
                    f"{index.metric} distance is {table[i, rows[j]]}"
                )
            if index.exact:
                self._check_nearest(
                    index, held, queries[i], far[:count], k, table[i], slack[i], permitted
                )

    def _check_nearest(
        self,
        index: Any,
        held: Array,
        query: Array,
        far: Array,
        k: int,
        true: NDArray[np.float64],
        slack: NDArray[np.float64],
        permitted: NDArray[np.bool_],
    ) -> None:
        """Check that an exact index found the nearest ones; ties may be broken either way."""
        choices = [permitted]
        if index.supports_sparse:
            # An index of words need not list what shares no word with the query.
            choices.append(permitted & ((held != 0) & (query != 0)).any(axis=1))
        for choice in choices:
            best = np.sort(true[choice])[:k]
            limit = slack[choice].max(initial=0.0)
            if len(best) == len(far) and (np.abs(best - far) <= limit).all():
                return
        best = np.sort(true[permitted])[:k]
        pytest.fail(f"the {len(best)} nearest have the distances {best}; returned were {far}")

    def _recall(
        self,
        index: Any,
        held: Array,
        queries: Array,
        ids: NDArray[np.int64] | None = None,
        allowed: NDArray[np.int64] | None = None,
    ) -> float:
        options = {} if allowed is None else {"allowed": allowed}
        found = index.search(queries, 10, **options).ids
        table = distances(queries[:1], held, index.metric)
        near = 1e-6
        if index.exact:
            near += 2 * float(_slack(index, queries[:1], held, table).max())
        return reference.recall(found, queries, held, index.metric, ids, allowed, near)

    def _wanted_recall(self, index: Any) -> float:
        if self.min_recall is not None:
            return self.min_recall
        return 1.0 if index.exact else 0.9

    def _large(self, index: Any, rows: int = 1000) -> tuple[Array, Array]:
        """Return the fixed seeded set: 1,000 vectors and 100 queries of 16 dimensions."""
        dim = -(-16 // self._step()) * self._step()
        every = noise(20, self._count(rows) + 100, dim)
        if not _takes_floats(index):
            every = np.random.default_rng(20).integers(0, 256, every.shape).astype(np.uint8)
        return every[:-100], every[-100:]

    # Tests

    def test_abilities_of_an_index(self) -> None:
        """`metrics` and `distance_error` are what the core expects.

        If this fails, check the class attributes.
        """
        index, metrics = self._make(), self.backend.metrics
        assert metrics, "an index offers at least one metric"
        assert set(metrics) <= set(METRICS), f"metrics are some of {', '.join(METRICS)}"
        assert index.metric in metrics
        assert index.distance_error >= 0
        for name in ("exact", "supports_add", "supports_remove", "supports_filter"):
            assert isinstance(getattr(index, name), bool), f"{name} is True or False"

    def test_other_metrics_are_refused(self) -> None:
        """A metric that is not in `metrics` is a `ParameterError`.

        If this fails, check for a ``metric`` field of your own; the core adds it.
        """
        for metric in sorted({*METRICS, "euclidian"} - self.backend.metrics):
            with pytest.raises(ParameterError, match="metric"):
                self._make(metric=metric)

    @examples(12, drawn=vectors(rows=_ROWS), seed=_SEEDS, k=_K)
    def test_distances_and_neighbours(self, drawn: NDArray[np.float32], seed: int, k: int) -> None:
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

    def test_recall(self) -> None:
        """Recall@10 on a fixed set of 1,000 vectors reaches the declared figure.

        Other metrics than the one under test must reach half of it.

        If this fails, check that the search looks at enough candidates, or declare `min_recall`.
        """
        for position, metric in enumerate(self._metrics()):
            index = self._make(metric=metric)
            held, queries = self._large(index)
            found = self._recall(index.build(held), held, queries)
            wanted = self._wanted_recall(index) * (1.0 if position == 0 else 0.5)
            assert found >= wanted - 1e-9, (
                f"{metric}: recall@10 is {found:.3f}, {wanted} was declared"
            )

    def test_numbers_of_every_kind(self) -> None:
        """Fractions, whole numbers, ties, repeats and zero vectors, small and large, all work.

        If this fails, check storage in a narrow type, and divisions by the length of a vector.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            for kind in KINDS:
                for scale in (1.0, 1000.0):
                    held = self._fitting(index, numbers(14, 40, self._dim(5), kind, scale))
                    queries = np.concatenate([held[[0, 7]], held[:1] * 0])
                    self._check(index.build(held), held, queries, 6)

    @examples(8, drawn=vectors(rows=_ROWS, dim=(1, 4)), seed=_SEEDS)
    def test_own_ids(self, drawn: NDArray[np.float32], seed: int) -> None:
        """The user's ids come back, however large and in whatever order.

        If this fails, check that ``_search`` returns row numbers, in the order of building.
        """
        index = self._make()
        held = self._fitting(index, drawn)
        ids = _draw_ids(seed, len(held))
        queries = self._queries(index, seed, 4, held.shape[1], float(np.abs(held).max()))
        queries[:2] = held[:2]
        index.build(held, ids=ids)
        self._check(index, held, queries, 5, ids=ids)
        assert np.array_equal(index.ids, ids)
        assert len(index) == len(held)
        with self._saved(index) as loaded:
            self._check(loaded, held, queries, 5, ids=ids)
            assert np.array_equal(loaded.ids, ids), "the ids were lost by saving"

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
            held = self._fitting(index, numbers(11, 40, self._dim(5), self._kind(index)))
            queries = self._queries(index, 12, 5, held.shape[1], 50.0)
            with self._saved(index.build(held)) as loaded:
                assert loaded.metric == metric
                self._check(loaded, held, queries, 6)

    def test_more_neighbours_than_vectors(self) -> None:
        """Beyond the vectors held, ids are -1 and distances +inf.

        If this fails, check that ``_search`` may return fewer than k columns, and what the library
        puts where it found nothing.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            held = self._fitting(index, numbers(3, 25, self._dim(4), self._kind(index)))
            queries = self._queries(index, 4, 5, held.shape[1], 50.0)
            self._check(index.build(held), held, queries, len(held) + 15)

    def test_duplicate_vectors(self) -> None:
        """Equal vectors are all held, and each id is returned once.

        If this fails, check whether the library merges equal vectors, or loops among them.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            few = numbers(6, 4, self._dim(4), self._kind(index))
            held = self._fitting(index, np.repeat(few, 10, axis=0))
            queries = np.concatenate([held[::10], held[:1]])
            self._check(index.build(held), held, queries, 12)
            same = self._make(metric=metric).build(np.repeat(held[:1], self._count(30), axis=0))
            repeated = np.repeat(held[:1], self._count(30), axis=0)
            self._check(same, repeated, held[:2], 5)

    def test_one_vector(self) -> None:
        """An index of a single vector finds it.

        If this fails, check for trees, graphs or k-means that need more rows than there are.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            held = numbers(2, 1, self._dim(4), "uniform" if _takes_floats(index) else "bytes")
            held = held if _takes_floats(index) else held.astype(np.uint8)
            if self.min_rows > 1:
                with pytest.raises(DataError, match="row"):
                    index.build(held)
                continue
            index.build(held)
            for queries in (held, (held + 1).astype(held.dtype)):
                self._check(index, held, queries, 3)
                assert index.search(queries, 3).ids.tolist() == [[0, -1, -1]]

    def test_one_dimension(self) -> None:
        """Vectors of a single number work (of `dim_step` numbers, where that is declared).

        If this fails, check for squeezed axes and for cuts along half of the dimensions.
        """
        for metric in self._metrics():
            index = self._make(metric=metric)
            held = self._fitting(index, numbers(2, 40, self._step(), self._kind(index)))
            queries = self._queries(index, 3, 5, held.shape[1], 100.0)
            self._check(index.build(held), held, queries, 6)

    def test_no_queries(self) -> None:
        """No queries give no rows: ids and distances of shape (0, k).

        If this fails, check that ``search`` is the inherited one.
        """
        held = self._rows(1)
        index = self._make().build(held)
        found = index.search(held[:0], 4)
        assert found.ids.shape == found.distances.shape == (0, 4)
        assert found.ids.dtype == np.int64
        assert found.distances.dtype == np.float32
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
            if kind == "normal" and not _takes_floats(index):
                continue
            held = numbers(1, self._count(), self._dim(), kind)
            held = held if _takes_floats(index) else held.astype(np.uint8)
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

    def test_add(self) -> None:
        """Vectors that are added are found under the right ids; else `UnsupportedError`.

        If this fails, check that new rows are numbered on from those held, and that a structure
        made for searching is made again after adding.
        """
        held = self._rows(1)
        index = self._make().build(held)
        more = self._rows(4, rows=25)
        if not index.supports_add:
            with pytest.raises(UnsupportedError, match="supports_add"):
                index.add(more)
            return
        self._check(index, held, more[:3], 4)
        kept, both = more.copy(), np.concatenate([held, more])
        assert index.add(more) is index, "add returns the index"
        assert np.array_equal(more, kept), "the added vectors were changed"
        assert np.array_equal(held, both[: len(held)]), "the vectors were changed by adding"
        self._check(index, both, both[[0, -1, -5, 3]], 4)
        assert len(index) == len(both)
        self._finds_itself(index, more[:1], len(held))
        ids = _draw_ids(7, len(held))
        named = self._make().build(held, ids=ids)
        new = _draw_ids(8, len(more)) + 2**40
        named.add(more, ids=new)
        every = np.concatenate([ids, new])
        self._check(named, both, both[[1, -1, -6, 4]], 5, ids=every)
        with pytest.raises(DataError, match="already"):
            named.add(more[:1], ids=new[:1])
        with self._saved(named) as loaded:
            self._check(loaded, both, both[[1, -1, -6, 4]], 5, ids=every)
            third = self._rows(9, rows=22)
            newest = new[: len(third)] + 2**41
            loaded.add(third, ids=newest)
            all_rows, all_ids = np.concatenate([both, third]), np.concatenate([every, newest])
            self._check(loaded, all_rows, all_rows[[0, -1]], 5, ids=all_ids)

    def _finds_itself(self, index: Any, vector: Array, name: int) -> None:
        if index.exact and index.metric == "l2" and index.distance_error <= 1e-5:
            assert index.search(vector, 1).ids.tolist() == [[name]], "an added vector is not found"

    def test_recall_after_adding(self) -> None:
        """What was added is found as well as what was built.

        If this fails, check that added vectors take part in the search.
        """
        index = self._make()
        if not index.supports_add:
            pytest.skip("it does not declare supports_add")
        held, queries = self._large(index, 600)
        half = max(len(held) // 2, self.min_rows)
        index.build(held[:half]).add(held[half:])
        found, wanted = self._recall(index, held, queries), self._wanted_recall(index)
        wanted = wanted if index.exact else 0.8 * wanted
        assert found >= wanted - 1e-9, f"recall@10 after adding is {found:.3f}; {wanted} is needed"

    def test_remove(self) -> None:
        """Removed vectors never come back, also not after adding or loading; else an error.

        If this fails, check that removed rows are filtered before the k nearest are cut off, and
        that their row numbers are not given to others.
        """
        held = self._rows(1)
        ids = _draw_ids(5, len(held))
        index = self._make().build(held, ids=ids)
        if not index.supports_remove:
            with pytest.raises(UnsupportedError, match="supports_remove"):
                index.remove(ids[:2])
            return
        queries, kept = held[[0, 1, 20, 21]], held.copy()
        self._check(index, held, queries, 6, ids=ids)
        assert index.remove(ids[[0, 20, 7]]) is index, "remove returns the index"
        assert np.array_equal(held, kept), "the vectors were changed by removing"
        left = np.delete(np.arange(len(held)), [0, 20, 7])
        self._check(index, held[left], queries, 6, ids=ids[left])
        self._check(index, held[left], queries, len(held) + 5, ids=ids[left])
        assert len(index) == len(left)
        with pytest.raises(DataError, match="not in the index"):
            index.remove(ids[:1])
        with self._saved(index) as loaded:
            self._check(loaded, held[left], queries, 6, ids=ids[left])
            assert np.array_equal(loaded.ids, ids[left])
            if loaded.supports_add:
                # The id may be used again; it then means the new vector.
                loaded.add(held[30:31], ids=ids[:1])
                names = np.concatenate([ids[left], ids[:1]])
                rows = np.concatenate([held[left], held[30:31]])
                self._check(loaded, rows, queries, 6, ids=names)

    @examples(
        10,
        seed=_SEEDS,
        steps=st.lists(
            st.sampled_from(["add", "add", "remove", "search", "save"]), min_size=1, max_size=6
        ),
    )
    def test_changes_in_any_order(self, seed: int, steps: list[str]) -> None:
        """After any sequence of adding, removing, saving and searching the answers are right.

        If this fails, check what the failing step leaves behind: row numbers, caches, counts.
        """
        rng = np.random.default_rng(seed)
        index = self._make()
        dim = self._dim(3)
        kind = ("normal", "grid", "repeats")[seed % 3]
        held = self._fitting(index, numbers(seed, 30, dim, kind))
        ids = _draw_ids(seed, len(held))
        index.build(held, ids=ids)
        for turn, step in enumerate(steps):
            if step == "add" and index.supports_add:
                more = self._fitting(index, numbers(seed + turn + 1, 21, dim, kind))
                new = int(ids.max()) + 1 + rng.permutation(len(more))
                index.add(more, ids=new)
                held, ids = np.concatenate([held, more]), np.concatenate([ids, new])
            elif step == "remove" and index.supports_remove and len(held) > 24:
                gone = rng.choice(len(held), 3, replace=False)
                index.remove(ids[gone])
                held, ids = np.delete(held, gone, axis=0), np.delete(ids, gone)
            elif step == "save":
                with self._saved(index) as loaded:
                    self._check(loaded, held, held[[0, -1]], 4, ids=ids)
            queries = self._queries(index, seed + turn, 3, dim, 50.0)
            queries[0] = held[-1]
            self._check(index, held, queries, 5, ids=ids)

    def test_filter(self) -> None:
        """`allowed` limits the answer to some ids; not declared, it raises `UnsupportedError`.

        If this fails, check that what is not allowed is left out before the k nearest are cut off.
        """
        held = self._rows(1)
        ids = _draw_ids(3, len(held))
        index = self._make().build(held, ids=ids)
        if not index.supports_filter:
            with pytest.raises(UnsupportedError, match="supports_filter"):
                index.search(held[:2], 3, allowed=ids[:4])
            return
        for few in (ids[::2], ids[[5]], ids[:3], ids[:0]):
            self._check(index, held, held[[0, 5, 9]], 6, ids=ids, allowed=few)
        self._check(index, held, held[[0, 5, 9]], 6, ids=ids)
        with pytest.raises(DataError, match="not in the index"):
            index.search(held[:2], 3, allowed=[int(ids.max()) + 1])
        large, queries = self._large(index)
        index = self._make().build(large)
        half = np.arange(0, len(large), 2)
        found, wanted = (
            self._recall(index, large, queries, allowed=half),
            self._wanted_recall(index),
        )
        wanted = wanted if index.exact else 0.5 * wanted
        assert found >= wanted - 1e-9, f"recall@10 among the allowed is {found:.3f}, not {wanted}"

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
            held = numbers(seed, 40, self._dim(8), "zeros")
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
            for other in {value, value * 2} if isinstance(value, int) and value > 0 else {value}:
                late: dict[str, Any] = {name: other}
                self._check(index, held, held[:6], 5, **late)
            assert index.params() == params, f"searching with {name} changed the index"
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


def _draw_ids(seed: int, count: int) -> NDArray[np.int64]:
    """Return unique ids in no order, some of them near the largest there can be."""
    rng = np.random.default_rng([seed, count])
    small = rng.permutation(4 * count)[:count].astype(np.int64)
    return np.where(rng.random(count) < 0.3, small + (2**62 - 4 * count), small)


def _stretched(rows: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Cut or repeat columns, so that their number is a multiple of `step`."""
    wanted = max(1, rows.shape[1] // step) * step
    return np.ascontiguousarray(np.tile(rows, (1, -(-wanted // rows.shape[1])))[:, :wanted])


def _plain(index: Any, data: Array) -> Array:
    """Return data as the reference takes them: bytes for hamming and for indexes of bytes."""
    return data if _takes_floats(index) else data.astype(np.uint8)


def _slack(
    index: Any, queries: Array, held: Array, table: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far each distance may be off: distance_error·(‖q‖² + ‖x‖²), and float32 itself.

    Of the normalised vectors for cosine, of the bits for hamming: these do not grow with the norms.
    """
    if index.metric == "cosine":
        size: Any = 2.0
    elif index.metric == "hamming":
        size = 8.0 * held.shape[1]
    else:
        q, x = queries.astype(np.float64), held.astype(np.float64)
        size = (q * q).sum(axis=1)[:, None] + (x * x).sum(axis=1)[None]
    slack: NDArray[np.float64] = index.distance_error * size + 2.0**-21 * np.maximum(
        1, np.abs(table)
    )
    return slack if index.metric != "l2" else index.distance_error * size + 2.0**-21 * np.abs(table)
