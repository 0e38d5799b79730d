"""The metadata of items as columns, so that a filter looks at all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.metadata import look_up
from vwkit.types import Item

__all__ = ["Column", "Columns", "Mask"]

Mask = NDArray[np.bool_]


@dataclass
class Column:
    """One field of all items, by kind.

    Attributes
    ----------
    present : (n,) bool
    numbers : (n,) float64
        NaN where there is no number.
    flags : (n,) int8
        1 true, 0 false, −1 neither.
    is_text, texts : (n,) bool, (n,) object
    is_list, lists : (n,) bool, (n,) object
    """

    present: Mask
    numbers: NDArray[np.float64]
    flags: NDArray[np.int8]
    is_text: Mask
    texts: NDArray[np.object_]
    is_list: Mask
    lists: NDArray[np.object_]

    def kinds(self) -> str:
        """Say what is there."""
        found = [
            name
            for name, there in (
                ("numbers", (~np.isnan(self.numbers)).any()),
                ("text", self.is_text.any()),
                ("true or false", (self.flags >= 0).any()),
                ("lists", self.is_list.any()),
            )
            if there
        ]
        return " and ".join(found) or "nothing that can be compared"


class Columns:
    """The metadata of items, turned into columns when a field is first asked for.

    Parameters
    ----------
    items : sequence of Item
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._made: dict[str, Column | None] = {}

    def __len__(self) -> int:
        return len(self._items)

    def names(self) -> list[str]:
        """Return the fields that items have."""
        found = dict.fromkeys(name for item in self._items for name in item.metadata)
        own = (name for name in _OWN if name not in found)
        return [*found, *(name for name in own if self.column(name) is not None)]

    def column(self, field: str) -> Column | None:
        """Return a column, or None if no item has the field."""
        if field not in self._made:
            self._made[field] = self._make(field)
        return self._made[field]

    def _make(self, field: str) -> Column | None:
        get = _getter(field)
        values = [get(item) for item in self._items]
        if all(value is None for value in values):
            return None
        count = len(values)
        is_text = np.fromiter((isinstance(v, str) for v in values), bool, count)
        is_list = np.fromiter((isinstance(v, list) for v in values), bool, count)
        texts, lists = np.full(count, "", object), np.empty(count, object)
        for rows, array in ((is_text, texts), (is_list, lists)):
            for row in np.flatnonzero(rows):
                array[row] = values[row]
        return Column(
            np.fromiter((v is not None for v in values), bool, count),
            np.fromiter((_number(v) for v in values), np.float64, count),
            np.fromiter((int(v) if isinstance(v, bool) else -1 for v in values), np.int8, count),
            is_text,
            texts,
            is_list,
            lists,
        )


_OWN: dict[str, Callable[[Item], Any]] = {
    "id": lambda item: item.id,
    "width": lambda item: None if item.size is None else item.size[0],
    "height": lambda item: None if item.size is None else item.size[1],
}


def _getter(field: str) -> Callable[[Item], Any]:
    own = _OWN.get(field)

    def get(item: Item) -> Any:
        value = item.metadata.get(field)
        if value is None and "." in field:
            value = look_up(item.metadata, field)
        return own(item) if value is None and own is not None else value

    return get


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
