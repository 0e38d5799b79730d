"""Tests of an index that changes: adding, removing, and searching among some of its vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from vwkit.errors import DataError, ShapeError, UnsupportedError
from vwkit.testing.checks import examples, statistical
from vwkit.testing.index_answers import IndexAnswers, draw_ids
from vwkit.types import Array

__all__ = ["IndexChanges"]

# What was added or removed may cost an approximate index so much of its recall, and no more.
_AFTER_CHANGES = 0.8
_AMONG_ALLOWED = 0.5


class IndexChanges(IndexAnswers, suite=True):
    """The part of `IndexTests` about changes."""

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
        assert len(index) == len(both), f"{len(index)} vectors are held, not {len(both)}"
        self._finds_itself(index, more[:1], len(held))
        ids = draw_ids(self._seed(7), len(held))
        named = self._make().build(held, ids=ids)
        new = draw_ids(self._seed(8), len(more)) + 2**40
        named.add(more, ids=new)
        every = np.concatenate([ids, new])
        self._check(named, both, both[[1, -1, -6, 4]], 5, ids=every)
        with pytest.raises(DataError, match="already"):
            named.add(more[:1], ids=new[:1])
        with self._saved(named) as loaded:
            self._check(loaded, both, both[[1, -1, -6, 4]], 5, ids=every)
            third = self._rows(9, rows=22)
            third.flags.writeable = False  # as a memory map
            newest = new[: len(third)] + 2**41
            loaded.add(third, ids=newest)
            all_rows, all_ids = np.concatenate([both, third]), np.concatenate([every, newest])
            self._check(loaded, all_rows, all_rows[[0, -1]], 5, ids=all_ids)

    def _finds_itself(self, index: Any, vector: Array, name: int) -> None:
        if index.exact and index.metric == "l2" and index.distance_error <= 1e-5:
            found = index.search(vector, 1).ids.tolist()
            assert found == [[name]], f"an added vector, id {name}, is not found: {found}"

    @statistical
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
        self._judge_recall(
            "recall@10 after adding",
            self._recall(index, held, queries),
            self._wanted_recall(index) * (1 if index.exact else _AFTER_CHANGES),
        )

    def test_remove(self) -> None:
        """Removed vectors never come back, also not after adding or loading; else an error.

        If this fails, check that removed rows are filtered before the k nearest are cut off, that
        they are saved as removed, and that their row numbers are not given to others.
        """
        held = self._rows(1)
        ids = draw_ids(self._seed(5), len(held))
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
        for _ in range(2):
            self._check(index, held[left], queries, 6, ids=ids[left])
        self._check(index, held[left], queries, len(held) + 5, ids=ids[left])
        assert len(index) == len(left), f"{len(index)} vectors are held, not {len(left)}"
        with pytest.raises(DataError, match="not in the index"):
            index.remove(ids[:1])
        with self._saved(index) as loaded:
            self._check(loaded, held[left], queries, 6, ids=ids[left])
            assert np.array_equal(loaded.ids, ids[left]), "other ids after loading"
            if loaded.supports_add:
                # The id may be used again; it then means the new vector.
                loaded.add(held[30:31], ids=ids[:1])
                names = np.concatenate([ids[left], ids[:1]])
                rows = np.concatenate([held[left], held[30:31]])
                self._check(loaded, rows, queries, 6, ids=names)

    @statistical
    def test_recall_after_removing(self) -> None:
        """Where a third of the vectors are removed, the others are found as before.

        If this fails, check that removed vectors do not take the places of others among the
        candidates, and that a search finds its way past them.
        """
        index = self._make()
        if not index.supports_remove:
            pytest.skip("it does not declare supports_remove")
        held, queries = self._large(index)
        index.build(held).remove(np.arange(0, len(held), 3))
        left = np.delete(np.arange(len(held)), np.arange(0, len(held), 3))
        self._judge_recall(
            "recall@10 after removing",
            self._recall(index, held[left], queries, ids=left),
            self._wanted_recall(index) * (1 if index.exact else _AFTER_CHANGES),
        )

    def test_compact(self) -> None:
        """`compact` lets go of removed vectors; ids and answers stay, and it can grow again.

        If this fails, check that ``_compact`` numbers the rows that are left anew, in their order.
        """
        held = self._rows(1)
        ids = draw_ids(self._seed(6), len(held))
        index = self._make().build(held, ids=ids)
        assert index.compact() is index, "compact returns the index"
        assert index.dead == 0, f"nothing was removed, but dead is {index.dead}"
        if not index.supports_remove:
            return
        gone = np.arange(1, len(held), 3)
        left = np.delete(np.arange(len(held)), gone)
        index.remove(ids[gone])
        assert index.dead in ((0,) if index.frees_removed else range(1, len(gone) + 1)), (
            f"{len(gone)} were removed, and dead is {index.dead}"
        )
        if index.dead and not index.supports_compact:
            with pytest.raises(UnsupportedError, match="those that are left"):
                index.compact()
            with pytest.raises(ShapeError, match="those of the"):
                index.compact(held)
        queries = held[[0, 1, 20, 21]]
        for _ in range(2):
            index.compact(None if index.supports_compact else held[left])
            assert index.dead == 0, f"{index.dead} are left after compact"
            assert np.array_equal(index.ids, ids[left]), "compact changed the ids"
            self._check(index, held[left], queries, 6, ids=ids[left])
        with self._saved(index) as loaded:
            self._check(loaded, held[left], queries, 6, ids=ids[left])
            loaded.remove(ids[left[:1]])
            self._check(loaded, held[left[1:]], queries, 6, ids=ids[left[1:]])
            if loaded.supports_add:
                loaded.add(held[gone[:1]], ids=ids[gone[:1]])
                every = np.concatenate([left[1:], gone[:1]])
                self._check(loaded, held[every], queries, 6, ids=ids[every])

    @examples(
        10,
        seed=st.integers(0, 2**16 - 1),
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
        held = self._fitting(index, self._numbers(seed, 30, dim, kind))
        ids = draw_ids(seed, len(held))
        index.build(held, ids=ids)
        for turn, step in enumerate(steps):
            if step == "add" and index.supports_add:
                more = self._fitting(index, self._numbers(seed + turn + 1, 21, dim, kind))
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

    def _change(self, loaded: Any) -> None:
        more, ids = self._rows(4, rows=25), loaded.ids
        if loaded.supports_remove:
            loaded.remove(ids[:2])
        if loaded.supports_add:
            loaded.add(more, ids=ids.max() + 1 + np.arange(len(more)))
        loaded.search(more[:3], 2)

    def test_changes_in_every_metric(self) -> None:
        """Adding, removing and `allowed` work in all metrics that are offered, not in the first only.

        If this fails, check that what is added is prepared as what was built, such as normalised.
        """
        for metric in self._metrics()[1:]:
            index = self._make(metric=metric)
            held = self._fitting(index, self._numbers(21, 40, self._dim(), self._kind(index)))
            ids = draw_ids(self._seed(21), len(held))
            index.build(held, ids=ids)
            if index.supports_add:
                more = self._fitting(index, self._numbers(22, 30, self._dim(), self._kind(index)))
                new = ids.max() + 1 + np.arange(len(more))
                index.add(more, ids=new)
                held, ids = np.concatenate([held, more]), np.concatenate([ids, new])
                self._check(index, held, held[[0, -1, -7]], 6, ids=ids)
            if index.supports_remove:
                index.remove(ids[[0, 5, -1]])
                queries = held[[0, 5, -1, 7]]
                held, ids = np.delete(held, [0, 5, -1], axis=0), np.delete(ids, [0, 5, -1])
                self._check(index, held, queries, 6, ids=ids)
                self._check(index, held, queries, len(held) + 4, ids=ids)
            if index.supports_filter:
                self._check(index, held, held[[0, 5, 9]], 6, ids=ids, allowed=ids[1::2])
            with self._saved(index) as loaded:
                self._check(loaded, held, held[[0, -1]], 6, ids=ids)

    def test_building_again_forgets_changes(self) -> None:
        """What was added and removed is forgotten when the index is built again.

        If this fails, check that ``_build`` also empties what ``_add`` and ``_remove`` fill.
        """
        index, second = self._make().build(self._rows(1)), self._rows(2)
        if index.supports_add:
            index.add(self._rows(3, rows=25))
        if index.supports_remove:
            index.remove(np.arange(0, len(second), 2))
        self._use(index, second[:4])
        index.build(second)
        assert len(index) == len(second), f"{len(index)} vectors are held, not {len(second)}"
        assert index.dead == 0, f"nothing was removed, but dead is {index.dead}"
        self._check(index, second, second[[0, 1, -1]], 6)
        self._check(index, second, second[[0, 1, -1]], len(second) + 30)
        if index.supports_add:
            more = self._rows(4, rows=22)
            index.add(more)
            both = np.concatenate([second, more])
            self._check(index, both, both[[0, -1, -9]], 6)

    def test_filter(self) -> None:
        """`allowed` limits the answer to some ids; not declared, it raises `UnsupportedError`.

        If this fails, check that what is not allowed is left out before the k nearest are cut off.
        """
        held = self._rows(1)
        ids = draw_ids(self._seed(3), len(held))
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
        if index.supports_remove:
            index.remove(ids[::2])
            left = np.arange(1, len(held), 2)
            self._check(index, held[left], held[[0, 5, 9]], 6, ids=ids[left], allowed=ids[1:20:2])

    @statistical
    def test_recall_among_the_allowed(self) -> None:
        """Where half of the vectors are allowed, the nearest of these are found.

        If this fails, check that the search goes on until it has k that are allowed.
        """
        index = self._make()
        if not index.supports_filter:
            pytest.skip("it does not declare supports_filter")
        held, queries = self._large(index)
        half = np.arange(0, len(held), 2)
        self._judge_recall(
            "recall@10 among the allowed",
            self._recall(index.build(held), held, queries, allowed=half),
            self._wanted_recall(index) * (1 if index.exact else _AMONG_ALLOWED),
        )
