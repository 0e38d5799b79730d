"""What saved arrays must be before anything is computed with them.

An artifact may come from anybody: its checksums only say that it is as that person made it. So what a class
takes back is looked at: kernels and libraries follow numbers without looking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vwkit.errors import ArtifactError
from vwkit.types import Array

__all__ = ["about", "check_array", "check_names", "whole"]

_MOST = 1 << 48


def check_array(
    name: str,
    array: Any,
    shape: tuple[int | None, ...],
    dtypes: str,
    *,
    low: float | None = None,
    high: float | None = None,
    finite: bool = False,
    extents: str = "",
) -> None:
    """Refuse an array that is not what it should be.

    Parameters
    ----------
    name : str
        For the message; an underscore at its beginning is left out.
    array : ndarray, or anything else
    shape : tuple of int or None
        None for any extent.
    dtypes : str
        Kinds of numbers as NumPy names them: ``"f"``, ``"iu"``; or one exact type: ``"int32"``.
    low, high : float, optional
        Bounds of every entry.
    finite : bool
        Whether NaN and infinity are refused.
    extents : str
        What the extents are, for the message: ``"(m, ks, d/m)"``.

    Raises
    ------
    ArtifactError
        The text says what is needed and what is there.
    """
    told = name.lstrip("_")
    if not isinstance(array, np.ndarray):
        raise about(name, f"its {told} is missing or no array; damaged, make it again")
    exact = len(dtypes) > 2
    fits = array.dtype == np.dtype(dtypes) if exact else array.dtype.kind in dtypes
    same = array.ndim == len(shape) and all(
        wanted in (None, extent) for wanted, extent in zip(shape, array.shape, strict=True)
    )
    if not fits or not same:
        wanted = ", ".join("any" if one is None else str(one) for one in shape)
        what = dtypes if exact else {"f": "floats", "iu": "whole numbers"}.get(dtypes, "numbers")
        shape_told = f"{extents} = ({wanted})" if extents else f"({wanted})"
        raise about(
            name,
            f"its {told} are {array.dtype} of shape {array.shape}, where {what} of shape {shape_told} "
            "are needed; damaged, make it again",
        )
    if not array.size:
        return
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise about(name, f"its {told} hold NaN or infinity; damaged, make it again")
    if (low is not None and array.min() < low) or (high is not None and array.max() > high):
        raise about(
            name,
            f"its {told} go from {array.min()} to {array.max()}, where {low} to {high} is allowed; "
            "damaged, make it again",
        )


def about(array: str, text: str) -> ArtifactError:
    """Return an error about one of the saved arrays."""
    error = ArtifactError(text)
    error.array = array
    return error


def check_names(cls: type[Any], names: Mapping[str, Array], taken: Any) -> None:
    """Refuse saved arrays that would take the place of a method, a property or a parameter.

    Raises
    ------
    ArtifactError
    """
    for name in names:
        held = getattr(cls, name, None)
        hidden = (
            callable(held) or isinstance(held, property) or (held is not None and name[0] != "_")
        )
        if not name.isidentifier() or name in taken or name.startswith("__") or hidden:
            raise ArtifactError(f"{name!r} is no name of a saved array; damaged, make it again")
        if names[name].dtype.kind not in "biuf":
            raise ArtifactError(f"its {name} is no array of numbers; damaged, make it again")


def whole(name: str, value: Any, low: int = 0, high: int = _MOST) -> int:
    """Return a whole number of a manifest.

    Raises
    ------
    ArtifactError
    """
    if type(value) is not int or not low <= value <= high:
        raise ArtifactError(
            f"its {name} is {str(value)[:40]!r}, no whole number from {low} to {high}; damaged, "
            "make it again"
        )
    return value
