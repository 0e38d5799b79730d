"""Tests of an index with more vectors, and with more neighbours, than elsewhere."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from vwkit.testing.index_changes import IndexChanges
from vwkit.types import Array

__all__ = ["IndexSizes"]

# More than lists of fixed length are likely to hold.
_NEIGHBOURS = 1100
# So many of the vectors that were built last are looked for.
_LAST = 50
# Who promises less recall may pass over the last vectors rather than over others.
_MUCH = 0.8


class IndexSizes(IndexChanges, suite=True):
    """The part of `IndexTests` about sizes."""

    many_rows: ClassVar[int] = 5_000

    def test_many_neighbours(self) -> None:
        """A thousand neighbours and more are as right as ten; an exact index finds them all.

        If this fails, check for a list of candidates of a fixed length, and for a parameter of the
        library that must be at least k.
        """
        index = self._make()
        kind = self._kind(index)
        held = self._fitting(index, self._numbers(23, _NEIGHBOURS, self._dim(4), kind))
        index.build(held)
        for k in (len(held) - 1, len(held) + 5):
            self._check(index, held, held[[0, 9]], k)

    def test_many_built_vectors(self) -> None:
        """Thousands of vectors are all taken in, and numbered in their order.

        If this fails, check work that is done in blocks: the last, shorter block; and row numbers
        that are kept in few bytes.
        """
        index = self._make()
        kind = self._kind(index)
        rows, dim = max(self.many_rows, self.min_rows), self._dim(4)
        held = self._fitting(index, self._numbers(24, rows, dim, kind))
        places = np.array([0, rows // 2, rows * 9 // 10, rows - 2, rows - 1])
        self._check(index.build(held), held, held[places], 3)
        assert len(index) == rows, f"{len(index)} vectors are held, not {rows}"
        self._finds_most(index, held)
        if not index.supports_add:
            return
        half = rows // 2
        index.build(held[:half]).add(held[half:])
        self._check(index, held, held[places], 3)
        self._finds_most(index, held)

    def _finds_most(self, index: Any, held: Array) -> None:
        """Check that most of the vectors are found: nearest to one is itself, but for ``ip``.

        Of an index that promises much, most of those that were built last.
        """
        __tracebackhide__ = True
        if index.metric == "ip":
            return
        wanted, count = self._wanted_recall(index), 5
        much = wanted >= _MUCH
        first = len(held) - _LAST if much else 0
        rows = np.linspace(first, len(held) - 1, _LAST).astype(np.int64)
        found = index.search(held[rows], count)
        itself = (found.ids == rows[:, None]).any(axis=1)
        # Bytes repeat, and then others are as near.
        tied = np.isclose(found.distances[:, 0], found.distances[:, -1])
        share = float((itself | tied).mean())
        assert share >= wanted / 2, (
            f"of {'the last' if much else 'any'} {_LAST} of {len(held):,} vectors, {share:.0%} are among "
            f"the {count} nearest to themselves; {wanted / 2:.0%} at least are needed"
        )
