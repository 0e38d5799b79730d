"""What the core does around every index: ids, checks, padding, late parameters, the lock."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from vwkit import reference
from vwkit.plugins import registered

ROWS = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


@vwkit.backend("fake-full")
class Full(vwkit.Index):
    """Does all that an index may, by the book."""

    metrics = frozenset({"l2", "cosine"})
    supports_add = True
    supports_remove = True
    supports_filter = True
    late = frozenset({"ef", "boost"})
    ef: vwkit.Positive = 10
    boost: float = 1.0

    def _build(self, vectors):
        self._rows_held = vectors
        self._gone = np.zeros(0, np.int64)

    def _add(self, vectors):
        self._rows_held = np.concatenate([self._rows_held, vectors])

    def _remove(self, rows):
        assert np.array_equal(rows, np.sort(rows))
        self._gone = np.union1d(self._gone, rows)

    def _search(self, queries, k, *, allowed=None):
        assert queries.flags.c_contiguous
        assert queries.dtype == np.float32
        mask = np.ones(len(self._rows_held), bool) if allowed is None else allowed.copy()
        assert mask.shape == (len(self._rows_held),)
        mask[self._gone] = False
        assert k <= mask.sum()
        rows, distances = reference.search.search(
            queries, self._rows_held, k, self.metric, allowed=np.flatnonzero(mask)
        )
        return rows, distances.astype(np.float32) * np.float32(self.boost)


@vwkit.backend("fake-plain")
class Plain(vwkit.Index):
    """Can only build and search, with whatever answer it was told to give."""

    metrics = frozenset({"ip"})

    def _build(self, vectors):
        self._n = len(vectors)

    def _search(self, queries, k):
        return self._answer(len(queries), k)

    @staticmethod
    def _answer(q, k):
        return np.zeros((q, k), np.int64), np.zeros((q, k), np.float32)


class Model:
    """What an index should hold: ids in row order, and their vectors."""

    def __init__(self):
        self.ids, self.rows, self.seen, self.total = [], [], [], 0

    def add(self, rows, ids):
        if ids is None:
            first = max([self.total, *(one + 1 for one in self.seen)])
            ids = list(range(first, first + len(rows)))
        self.seen += ids
        self.ids += ids
        self.rows += list(rows)
        self.total += len(rows)

    def remove(self, ids):
        kept = [i for i, one in enumerate(self.ids) if one not in ids]
        self.ids, self.rows = [self.ids[i] for i in kept], [self.rows[i] for i in kept]


class TestIds:
    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_any_sequence_of_changes(self, tmp_path_factory, data):
        index, model = Full(), Model()
        rng = np.random.default_rng(data.draw(st.integers(0, 999)))
        free = st.lists(st.integers(0, 60), min_size=1, max_size=5, unique=True)
        for step in range(data.draw(st.integers(1, 7))):
            ids = data.draw(st.one_of(st.none(), free))
            if ids is not None:
                ids = [one for one in ids if one not in model.ids] or None
            rows = rng.normal(size=(len(ids) if ids else 3, 2)).astype(np.float32)
            if step == 0:
                index.build(rows, ids)
            else:
                index.add(rows, ids)
            model.add(rows, ids)
            gone = data.draw(st.lists(st.sampled_from(model.ids), max_size=3, unique=True))
            if len(gone) < len(model.ids):
                index.remove(gone)
                model.remove(gone)
            if data.draw(st.integers(0, 5)) == 5:
                folder = tmp_path_factory.mktemp("index") / "saved"
                index.save(folder)
                with registered(Full):
                    index = vwkit.load(folder)
            assert len(index) == len(model.ids)
            assert index.ids.tolist() == model.ids
            k = data.draw(st.integers(1, 12))
            allowed = data.draw(
                st.one_of(st.none(), st.lists(st.sampled_from(model.ids), unique=True))
            )
            found = index.search(rows[:2], k, allowed=allowed)
            true_ids, true = reference.search.search(
                rows[:2], np.array(model.rows), k, "l2", ids=model.ids, allowed=allowed
            )
            assert found.ids.tolist() == true_ids.tolist()
            np.testing.assert_allclose(found.distances, true, rtol=1e-6)

    def test_results_have_the_promised_types(self):
        found = Full().build(ROWS, np.arange(10, dtype=np.uint8)).search(ROWS[:2], 12)
        ids, distances = found
        assert (ids.dtype, distances.dtype) == (np.int64, np.float32)
        assert ids.shape == distances.shape == (2, 12)
        assert (ids[:, 10:] == -1).all()
        assert np.isposinf(distances[:, 10:]).all()
        assert len(found) == 2
        assert found.items is None

    def test_a_removed_id_may_come_again_and_its_row_not(self):
        index = Full().build(ROWS[:3], [5, 6, 7]).remove([6]).add(ROWS[3:4], [6])
        assert index.ids.tolist() == [5, 7, 6]
        assert index.search(ROWS[1:2], 3).ids[0].tolist() != [6, 6, 6]
        assert index.search(ROWS[3:4], 1).ids.tolist() == [[6]]

    def test_default_ids_go_on_behind_the_largest(self):
        assert Full().build(ROWS[:2]).add(ROWS[:1]).ids.tolist() == [0, 1, 2]
        assert Full().build(ROWS[:2], [50, 3]).add(ROWS[:2]).ids.tolist() == [50, 3, 51, 52]
        assert Full().build(ROWS[:3]).remove([2]).add(ROWS[:1]).ids.tolist() == [0, 1, 3]
        assert Full().build(ROWS[:2]).add(ROWS[:1], [9]).ids.tolist() == [0, 1, 9]
        index = Full().build(ROWS[:2], [2**63 - 1, 3])
        with pytest.raises(vwkit.DataError, match="no ids are left"):
            index.add(ROWS[:1])
        assert len(index) == 2

    def test_a_second_build_replaces_the_first(self):
        index = Full().build(ROWS, np.arange(10) + 100).remove([103])
        index.build(ROWS[:2, :2])
        assert index.ids.tolist() == [0, 1]
        assert index.dim == 2

    @pytest.mark.parametrize(
        ("ids", "error", "message"),
        [
            ([1, 2], vwkit.ShapeError, r"shape \(3,\); got \(2,\)"),
            ([[1], [2], [3]], vwkit.ShapeError, r"got \(3, 1\)"),
            (5, vwkit.ShapeError, r"got \(\)"),
            ([1, 2, 1], vwkit.DataError, "1 is given more than once"),
            ([1, 2, -3], vwkit.DataError, "from 0 to .*got -3"),
            (np.array([1, 2, 2**63], np.uint64), vwkit.DataError, "got 9223372036854775808"),
            ([1, 2, 2**64], vwkit.DataError, "whole numbers"),
            ([1.0, 2.0, 3.0], vwkit.DataError, "whole numbers; got dtype float64"),
            (["a", "b", "c"], vwkit.DataError, "whole numbers; got dtype <U1"),
            ([True, False, True], vwkit.DataError, "whole numbers; got dtype bool"),
            ([None, 1, 2], vwkit.DataError, "whole numbers; got dtype object"),
            ([[1], [2, 3], 4], vwkit.DataError, "cannot be read as an array"),
        ],
    )
    def test_wrong_ids(self, ids, error, message):
        with pytest.raises(error, match=message):
            Full().build(ROWS[:3], ids)
        index = Full().build(ROWS, np.arange(10) + 100)
        with pytest.raises(error, match=message):
            index.add(ROWS[:3], ids)
        assert len(index) == 10

    @pytest.mark.parametrize(
        "ids", [[99], [-1], [2**63 + 5], [0, 99], ["a"], [None], [0.5], [[1], [2, 3]]]
    )
    @pytest.mark.parametrize("named", [False, True])
    def test_ids_that_are_not_held(self, ids, named):
        index = Full().build(ROWS, np.arange(10)[::-1] if named else None)
        for call in (index.remove, lambda ids: index.search(ROWS, 2, allowed=ids)):
            with pytest.raises(vwkit.DataError, match="is not in the index|whole numbers|array"):
                call(ids)
        index.remove([3])
        with pytest.raises(vwkit.DataError, match="id 3 is not in the index"):
            index.remove([3])
        with pytest.raises(vwkit.DataError, match="id 3 is not in the index"):
            index.search(ROWS, 2, allowed=[3])
        assert len(index) == 9

    def test_an_id_twice_in_one_call(self):
        index = Full().build(ROWS)
        with pytest.raises(vwkit.DataError, match="4 is in the index already"):
            index.add(ROWS[:1], [4])
        assert index.remove([1, 1, 1]).ids.tolist() == [0, *range(2, 10)]
        assert index.search(ROWS[:1], 9, allowed=[2, 2]).ids[0].tolist() == [2] + [-1] * 8

    def test_an_index_is_never_emptied(self):
        index = Full().build(ROWS[:2])
        with pytest.raises(vwkit.DataError, match="empty index; build a new one"):
            index.remove([0, 1])
        assert index.remove([]).ids.tolist() == [0, 1]

    def test_nothing_allowed_finds_nothing(self):
        found = Full().build(ROWS).search(ROWS[:2], 3, allowed=[])
        assert (found.ids == -1).all()
        assert np.isposinf(found.distances).all()


class TestChecks:
    @pytest.mark.parametrize("k", [0, -1, 2.0, "3", None, True])
    def test_k(self, k):
        with pytest.raises(vwkit.ParameterError, match="at least 1; got"):
            Full().build(ROWS).search(ROWS, k)
        assert Full().build(ROWS).search(ROWS, np.int64(2)).ids.shape == (10, 2)

    def test_before_build(self):
        index = Full()
        assert len(index) == 0
        for call in (
            lambda: index.search(ROWS),
            lambda: index.add(ROWS),
            lambda: index.remove([1]),
            lambda: index.ids,
            lambda: index.dim,
            lambda: index.save("nowhere"),
        ):
            with pytest.raises(vwkit.NotFittedError, match="not fitted yet: call"):
                call()

    def test_what_is_not_declared(self):
        index = Plain().build(ROWS)
        for call in (
            lambda: index.add(ROWS),
            lambda: index.remove([1]),
            lambda: index.search(ROWS, allowed=[1]),
            lambda: index.build(vwkit.Sparse.from_dense(ROWS)),
        ):
            with pytest.raises(vwkit.UnsupportedError, match="fake-plain"):
                call()
        with pytest.raises(vwkit.ParameterError, match="metric"):
            Plain(metric="l2")
        assert Plain().metric == "ip"
        assert Full().metric == "l2"

    def test_a_failed_build_leaves_nothing_half_built(self):
        class Failing(Full):
            def _build(self, vectors):
                raise MemoryError

        index = vwkit.backend("fake-failing")(Failing)()
        with pytest.raises(MemoryError):
            index.build(ROWS)
        with pytest.raises(vwkit.NotFittedError):
            index.search(ROWS)

    def test_queries_may_come_as_a_stream(self):
        index = Full().build(ROWS)
        stream = vwkit.Stream(
            lambda: np.array_split(ROWS.astype(np.float64), 3), dim=3, dtype=float
        )
        assert index.search(stream, 2).ids.tolist() == index.search(ROWS, 2).ids.tolist()
        assert Full().build(stream).ids.tolist() == list(range(10))

    @pytest.mark.parametrize(
        "answer",
        [
            lambda q, k: (np.zeros((q, k), np.int64), np.zeros((q, k - 1), np.float32)),
            lambda q, k: (np.zeros((q, k + 1), np.int64), np.zeros((q, k + 1), np.float32)),
            lambda q, k: (np.zeros((q - 1, k), np.int64), np.zeros((q - 1, k), np.float32)),
            lambda q, k: (np.zeros((q, k)), np.zeros((q, k), np.float32)),
            lambda q, k: ([[0] * k] * q, [[0.0] * k] * q),
            lambda q, k: (np.full((q, k), 10), np.zeros((q, k), np.float32)),
            lambda q, k: (np.full((q, k), -2), np.zeros((q, k), np.float32)),
            lambda q, k: (np.zeros(q, np.int64), np.zeros(q, np.float32)),
        ],
    )
    def test_answers_that_break_the_contract(self, answer, monkeypatch):
        monkeypatch.setattr(Plain, "_answer", staticmethod(answer))
        with pytest.raises(vwkit.BackendError, match=r"fake-plain\._search"):
            Plain().build(ROWS).search(ROWS, 3)

    def test_fewer_answers_are_filled_up(self, monkeypatch):
        def answer(q, k):
            return np.array([[4, -1]] * q), np.array([[0.5, 0.7]] * q, np.float32)

        monkeypatch.setattr(Plain, "_answer", staticmethod(answer))
        found = Plain().build(ROWS, np.arange(10) + 20).search(ROWS[:1], 4)
        assert found.ids.tolist() == [[24, -1, -1, -1]]
        assert found.distances.tolist() == [[0.5, np.inf, np.inf, np.inf]]


class TestLate:
    def test_at_search_time_for_this_search_only(self):
        index = Full().build(ROWS)
        plain = index.search(ROWS, 2).distances
        assert np.array_equal(index.search(ROWS, 2, boost=3.0).distances, plain * np.float32(3))
        assert index.boost == 1.0
        assert np.array_equal(index.search(ROWS, 2).distances, plain)

    def test_as_an_attribute_and_after_load(self, tmp_path):
        index = Full(boost=2.0).build(ROWS)
        index.ef = 7
        index.save(tmp_path / "a")
        with registered(Full):
            again = vwkit.load(tmp_path / "a")
        assert (again.ef, again.boost) == (7, 2.0)
        again.boost = 5.0
        assert again.search(ROWS, 1, boost=1.0).distances.max() < 1e-6

    def test_they_are_checked_like_all_parameters(self):
        index = Full().build(ROWS)
        for call in (
            lambda: index.search(ROWS, 2, ef=0),
            lambda: index.search(ROWS, 2, ef="many"),
            lambda: setattr(index, "ef", 0),
            lambda: index.search(ROWS[:0], 2, ef=0),
        ):
            with pytest.raises(vwkit.ParameterError, match="ef"):
                call()
        with pytest.raises(vwkit.ParameterError, match="late parameters: boost, ef"):
            index.search(ROWS, 2, fe=3)
        with pytest.raises(vwkit.ParameterError, match="cannot change after it was fitted"):
            index.metric = "cosine"
        assert index.ef == 10


class TestThreads:
    @pytest.mark.parametrize("safe", [False, True])
    def test_the_lock_is_held_only_for_who_needs_it(self, safe):
        inside = []
        most = []

        class Counting(Full):
            thread_safe = safe

            def _search(self, queries, k, *, allowed=None):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.02)
                inside.pop()
                return super()._search(queries, k, allowed=allowed)

        index = vwkit.backend("fake-counting")(Counting)().build(ROWS)
        threads = [
            threading.Thread(target=index.search, args=(ROWS, 2), kwargs={"boost": float(i + 1)})
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (max(most) > 1) == safe

    def test_who_adds_at_the_same_time_gets_ids_of_their_own(self):
        together = threading.Barrier(4)

        class Slow(Full):
            def _add(self, vectors):
                time.sleep(0.02)
                super()._add(vectors)

        index = vwkit.backend("fake-slow")(Slow)().build(ROWS)

        def add():
            together.wait()
            index.add(ROWS[:1])

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert index.ids.tolist() == list(range(len(ROWS) + 4))

    def test_the_lock_is_not_saved(self, tmp_path):
        index = Full().build(ROWS)
        index.search(ROWS)
        index.save(tmp_path / "a")
        assert not [path for path in (tmp_path / "a").iterdir() if "lock" in path.name]


class TestExact:
    @settings(max_examples=60, deadline=None)
    @given(
        metric=st.sampled_from(["l2", "cosine", "ip", "hamming"]),
        n=st.integers(1, 40),
        d=st.integers(1, 4),
        k=st.integers(1, 45),
        seed=st.integers(0, 999),
        threads=st.integers(1, 2),
    )
    def test_it_is_the_reference(self, metric, n, d, k, seed, threads):
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, 3, (n, d)).astype(np.uint8)
        queries = rng.integers(0, 3, (300, d)).astype(np.uint8)
        index = vwkit.create("index", "exact", metric=metric)
        with vwkit.use_job(vwkit.Job(threads=threads)):
            found = index.build(rows, np.arange(n) * 2).search(queries, k)
        true_ids, true = reference.search.search(queries, rows, k, metric, ids=np.arange(n) * 2)
        if metric != "cosine":  # whose near ties hang on the last bit
            assert found.ids.tolist() == true_ids.tolist()
        np.testing.assert_allclose(found.distances, true, rtol=1e-6, atol=1e-6)
