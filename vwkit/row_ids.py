"""Ids of an index: which id each row has, and which rows are gone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError, ShapeError
from vwkit.types import Array

__all__ = ["RowIds"]

_LARGEST = int(np.iinfo(np.int64).max)


class RowIds:
    """Which id each row has, and which rows are gone; it is not changed, others are made of it.

    Parameters
    ----------
    total : int
        Rows, those that are gone included.
    ids : (total,) int64, optional
        Unique ids ≥ 0; the row numbers by default.
    dead : int64, optional
        The rows that are gone, ascending.

    Raises
    ------
    DataError, ShapeError
        Ids that repeat or do not fit.
    """

    def __init__(self, total: int, ids: Any = None, dead: NDArray[np.int64] | None = None) -> None:
        self.total = total
        self.ids: NDArray[np.int64] | None = None
        self.dead = dead
        self._order: NDArray[np.int64] | None = None
        if ids is not None:
            self.ids = _checked_ids(ids, total)
            self._refuse_repeats()

    @property
    def alive(self) -> int:
        """How many rows are not gone."""
        return self.total - (0 if self.dead is None else len(self.dead))

    def living(self) -> NDArray[np.int64]:
        """Return the ids of the rows that are not gone, in row order."""
        every = np.arange(self.total) if self.ids is None else np.asarray(self.ids)
        return every if self.dead is None else np.delete(every, self.dead)

    def living_rows(self) -> NDArray[np.int64]:
        """Return the rows that are not gone."""
        every = np.arange(self.total)
        return every if self.dead is None else np.delete(every, self.dead)

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the ids of some rows."""
        return rows.astype(np.int64, copy=False) if self.ids is None else self.ids[rows]

    def rows(self, ids: Any) -> NDArray[np.int64]:
        """Return the living rows of some ids, sorted; refuse an id that is not held."""
        wanted = np.unique(_whole(np.atleast_1d(_as_array(ids))))
        rows, found = self._lookup(wanted.astype(np.int64))
        found &= wanted <= _LARGEST  # uint64 may have wrapped round
        if not found.all():
            raise DataError(f"id {int(wanted[~found][0])} is not in the index")
        return np.sort(rows)

    def mask(self, ids: Any) -> NDArray[np.bool_]:
        """Tell for each row whether it has one of some ids; refuse an id that is not held."""
        mask = np.zeros(self.total, bool)
        mask[self.rows(ids)] = True
        return mask

    def with_more(self, count: int, ids: Any) -> RowIds:
        """Return the same with more rows behind, by default with ids that go on."""
        if ids is None and self.ids is None:
            return RowIds(self.total + count, None, self.dead)
        held = np.arange(self.total) if self.ids is None else np.asarray(self.ids)
        if ids is None:
            first = max(int(held.max()) + 1, self.total)
            if first + count > _LARGEST:
                raise DataError(f"no ids are left above {first - 1}; pass ids")
            more = np.arange(first, first + count, dtype=np.int64)
        else:
            more = _checked_ids(ids, count)
            _, found = self._lookup(np.unique(more))
            if found.any():
                raise DataError(f"id {int(np.unique(more)[found][0])} is in the index already")
        merged = RowIds(self.total + count, None, self.dead)
        merged.ids = np.concatenate([held, more])
        merged._refuse_repeats()
        return merged

    def without(self, rows: NDArray[np.int64]) -> RowIds:
        """Return the same without some rows."""
        dead = rows if self.dead is None else np.union1d(self.dead, rows)
        other = RowIds(self.total, None, np.asarray(dead, np.int64))
        other.ids = self.ids
        return other

    def _lookup(self, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the row of each id, and whether it is held and alive."""
        if self.ids is None:
            rows = wanted
            found = (wanted >= 0) & (wanted < self.total)
            if self.dead is not None:
                found &= ~np.isin(wanted, self.dead)
            return rows, found
        if self._order is None:
            living = np.arange(self.total)
            if self.dead is not None:
                living = np.delete(living, self.dead)
            self._order = living[np.argsort(self.ids[living], kind="stable")]
        # Not `sorter=`: that one refuses an order that leaves removed rows out.
        places = np.searchsorted(self.ids[self._order], wanted)
        rows = self._order[np.minimum(places, len(self._order) - 1)]
        return rows, self.ids[rows] == wanted

    def _refuse_repeats(self) -> None:
        living = np.sort(self.living())
        repeats = living[1:][living[1:] == living[:-1]]
        if len(repeats):
            raise DataError(f"ids must be unique; {int(repeats[0])} is given more than once")


def _as_array(ids: Any) -> Array:
    try:
        array: Array = np.asarray(ids)
    except (ValueError, TypeError) as error:
        raise DataError(f"ids: cannot be read as an array: {error}") from None
    return array


def _whole(array: Array) -> Array:
    if array.size and array.dtype.kind not in "iu":
        raise DataError(f"ids must be whole numbers; got dtype {array.dtype}")
    return array if array.size else array.astype(np.int64)


def _checked_ids(ids: Any, count: int) -> NDArray[np.int64]:
    array = _as_array(ids)
    if array.shape != (count,):
        raise ShapeError(f"ids: one per vector, shape ({count},); got {array.shape}")
    low, high = (int(_whole(array).min()), int(array.max())) if count else (0, 0)
    if low < 0 or high > _LARGEST:
        raise DataError(f"ids must be from 0 to 2^63 − 1; got {low if low < 0 else high}")
    return array.astype(np.int64)
