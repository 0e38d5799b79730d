"""Indexes with one fault each that shows in many vectors, in other metrics, or in a second build."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.suite.faults import fault
from tests.suite.right_index import Narrowed, Plain
from vwkit.testing import IndexTests

FAULTS = []
wrong = partial(fault, FAULTS, IndexTests)


# Many ------------------------------------------------------------------------------------------


@wrong("test_many_neighbours", "the 1099 nearest have the distances")
class ListOfFixedLength(Plain):
    """Keeps at most 64 candidates."""

    def _search(self, queries, k, **options):
        return super()._search(queries, min(k, 64), **options)


@wrong("test_many_built_vectors", "nearest have|are among the 5")
class DropsLastBlock(Plain):
    """Takes vectors in by blocks, and forgets those behind the last whole one."""

    def _build(self, vectors):
        super()._build(vectors)
        whole = len(vectors) // 4096 * 4096
        if whole:
            self._alive[whole:] = False


@wrong("test_many_built_vectors", "was returned with distance")
class FewBits(Plain):
    """Keeps row numbers in twelve bits."""

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        return rows % 4096, found


@wrong("test_many_built_vectors", "was returned with distance|nearest have|are among the 5")
class AddsByThreads(Plain):
    """Adds large parts by several threads, in the order in which they come."""

    def _add(self, vectors):
        half = len(vectors) // 2
        large = len(vectors) > 1000
        super()._add(np.concatenate([vectors[half:], vectors[:half]]) if large else vectors)


# Other metrics than the first --------------------------------------------------------------------


@wrong("test_changes_in_every_metric", "or was removed")
class ForgetsByZeros(Plain):
    """Sets removed vectors to zero, which is far from everything in l2 only."""

    def _remove(self, rows):
        if self.metric != "ip":
            return super()._remove(rows)
        self._vectors[rows] = 0
        return None


@wrong("test_changes_in_every_metric", "ip distance is|nearest have")
class NormalisesAdded(Plain):
    """Normalises what is added, whatever the metric."""

    def _add(self, vectors):
        length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        super()._add(vectors / length if self.metric == "ip" else vectors)


@wrong("test_changes_in_every_metric", "which was not allowed")
class FiltersOneMetric(Plain):
    """Filters only in the path that it has for l2."""

    def _search(self, queries, k, *, allowed=None):
        return super()._search(queries, k, allowed=allowed if self.metric == "l2" else None)


# Built again -------------------------------------------------------------------------------------


@wrong("test_building_again_forgets_changes", "nearest have")
class StillRemoved(Plain):
    """Keeps its list of removed rows when it is built again."""

    def _build(self, vectors):
        gone = np.flatnonzero(~self._alive) if hasattr(self, "_alive") else []
        super()._build(vectors)
        self._alive[[row for row in gone if row < len(vectors)]] = False


@wrong("test_building_again_forgets_changes", "was returned with distance|nearest have")
class StillAdded(Plain):
    """Keeps what was added in a buffer that a new build does not empty."""

    def _add(self, vectors):
        width = vectors.shape[1]
        buffer = self.__dict__.get("_buffer", vectors[:0])
        buffer = buffer if buffer.shape[1] == width else vectors[:0]
        self._buffer = np.concatenate([buffer, vectors])
        super()._add(self._buffer[: len(vectors)])


@wrong("test_second_fit_replaces_the_first", "was returned with distance|other ids fitted twice")
class TableOfThePast(Plain):
    """Keeps the distances to queries that it has seen, by their bytes."""

    def _table(self, queries):
        seen = self.__dict__.setdefault("_seen", {})
        key = queries.tobytes(), len(self._vectors), self.metric
        if key not in seen:
            seen[key] = super()._table(queries)
        return seen[key].copy()

    def _state(self):
        return {"_vectors": self._vectors, "_alive": self._alive}


# What is given -----------------------------------------------------------------------------------


@wrong("test_add", "read-only")
class AddsIntoWritable(Plain):
    """Needs added vectors that can be written to, as compiled code often does."""

    def _add(self, vectors):
        if not vectors.flags.writeable:
            raise ValueError("buffer source array is read-only")
        super()._add(vectors)


@wrong("test_late_parameters_of_a_search", "after one with share")
class RemembersShare(Narrowed):
    """Keeps a late parameter of one search for all that come after."""

    late = frozenset({"share"})

    def _build(self, vectors):
        super()._build(vectors)
        self._kept = np.ones(1)

    def _looked_at(self):
        self._kept[0] = min(self._kept[0], self.share)
        return float(self._kept[0])
