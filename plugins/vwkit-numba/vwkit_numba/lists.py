"""Lists of centers that the rows of each group are compared with, and which rows are in none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lists", "Moving", "padded_lists"]


@dataclass(frozen=True)
class Lists:
    """Numbers of centers by group, each list a multiple of four long."""

    numbers: NDArray[np.int32]
    starts: NDArray[np.int64]


def padded_lists(parts: list[NDArray[Any]], sentinel: int) -> Lists:
    """Join lists of center numbers, each filled up to a multiple of four."""
    starts = np.zeros(len(parts) + 1, np.int64)
    lengths = np.array([-(-len(part) // 4) * 4 for part in parts], np.int64)
    np.cumsum(lengths, out=starts[1:])
    numbers = np.full(int(starts[-1]), sentinel, np.int32)
    for start, part in zip(starts, parts, strict=False):
        numbers[start : start + len(part)] = part
    return Lists(numbers, starts)


@dataclass(frozen=True)
class Moving:
    """The groups of rows in a pass: their labels' lists, or their runners' where `runners` is given.

    Attributes
    ----------
    labels, runners : (k,) bool
        Where nothing has moved: rows with such a label, and such a runner, are left out.
    """

    labels: NDArray[np.bool_]
    runners: NDArray[np.bool_] | None

    @property
    def some(self) -> bool:
        """Whether rows may be left out."""
        return bool(self.labels.any())

    def __call__(self, labels: NDArray[np.int32], runners: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the groups; −1 for rows that are left out."""
        left: NDArray[np.bool_] = self.labels[labels]
        if self.runners is None:
            return np.where(left, np.int32(-1), labels)
        left &= self.runners[runners]
        return np.where(left, np.int32(-1), runners)
