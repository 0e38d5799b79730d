"""Comparisons of arrays that say what was given and what was got."""

from __future__ import annotations

import numpy as np

from vwkit.types import Array

__all__ = ["all_finite", "same_form", "same_numbers"]


def same_form(first: Array, second: Array, why: str) -> None:
    """Check that the second array has the dtype and the shape of the first."""
    __tracebackhide__ = True
    forms = [f"{one.dtype} of shape {one.shape}" for one in (first, second)]
    if forms[0] != forms[1]:
        raise AssertionError(f"{forms[1]} instead of {forms[0]} {why}")


def same_numbers(first: Array, second: Array, limit: float, why: str) -> None:
    """Check that two arrays of one shape differ nowhere by more than a limit."""
    __tracebackhide__ = True
    differ = first != second
    if limit > 0:
        # As floats: a difference of unsigned numbers would not be one. NaN is no small difference.
        differ = ~(np.abs(first.astype(np.float64) - second) <= limit)
    if differ.any():
        place = tuple(int(i) for i in np.argwhere(differ)[0])
        raise AssertionError(
            f"{why}: {int(np.count_nonzero(differ))} of {differ.size} numbers differ, first at "
            f"{place[0] if len(place) == 1 else place}: {first[place]} and {second[place]}"
        )


def all_finite(array: Array, what: str) -> None:
    """Check that there is neither NaN nor infinity."""
    __tracebackhide__ = True
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        raise AssertionError(
            f"NaN or infinity in the {what}: {array[place]} at "
            f"{place[0] if len(place) == 1 else place}, {len(bad)} of {array.size} numbers"
        )
