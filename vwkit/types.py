"""The small values that pass between backends, and the field types of their parameters."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import annotated_types
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Array", "Features", "Fraction", "Item", "Matches", "Positive", "Skipped"]

Array: TypeAlias = NDArray[Any]

Positive: TypeAlias = Annotated[int, annotated_types.Gt(0)]
"""A whole number of at least 1."""

Fraction: TypeAlias = Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)]
"""A number from 0 to 1."""


def in_notebook(what: str, *values: Any) -> str:
    """Return values as a notebook shows them: HTML made by a function of `vwkit.report.notebook`.

    It is imported by name, since pages stand above the values that they show.
    """
    made: str = getattr(importlib.import_module("vwkit.report.notebook"), what)(*values)
    return made


@dataclass(frozen=True)
class Item:
    """One input of a run, and what became of it.

    Attributes
    ----------
    row : int
        Its number among all inputs, from 0.
    id : str
        Its name, unique among those that are ``"ok"``: the path below the source's root, with ``/``, or
        what a metadata file says.
    path : str or None
        The file, where there is one.
    size : (int, int) or None
        Width and height in pixels.
    status : str
        ``"ok"``, ``"skipped"``, or ``"removed"`` since the run was made.
    reason : str or None
        Why it was skipped.
    metadata : dict
        Whatever the source said of it.
    """

    row: int
    id: str
    path: str | None = None
    size: tuple[int, int] | None = None
    status: str = "ok"
    reason: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Matches:
    """The nearest neighbours of some queries, nearest first.

    Attributes
    ----------
    ids : (q, k) int64
        Ids of the neighbours; -1 where there is none.
    distances : (q, k) float32
        In the index's metric, ascending; +inf where there is no neighbour.
    items : list of lists of Item or None
        The same neighbours as items, when a run was searched.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    items: Sequence[Sequence[Item | None]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Any:
        """Unpack as ``ids, distances = matches``."""
        return iter((self.ids, self.distances))

    def _repr_html_(self) -> str:
        return in_notebook("matches_html", self)


@dataclass(frozen=True, eq=False)
class Features:
    """What a featurizer found in one image.

    Attributes
    ----------
    vectors : (n, d) array or Sparse
        Descriptors; n is 1 unless the featurizer is local.
    keypoints : (n, 5) float32 or None
        x, y (pixels of the image as it was given, the first pixel's centre at 0, 0), scale
        (diameter in pixels), angle (degrees, clockwise from the x axis), response.
    size : (int, int) or None
        Width and height of the image in pixels.
    """

    vectors: Any
    keypoints: NDArray[np.float32] | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Skipped:
    """An image that could not be used, and why (one plain sentence)."""

    reason: str
