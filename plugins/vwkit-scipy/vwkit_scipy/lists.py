"""The nearest rows of every row, and the two rows that are farthest apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.stream import row_spans
from vwkit.types import Array
from vwkit_scipy.distances import Prepared, pair_distances
from vwkit_scipy.neighbours import candidates

__all__ = ["Lists", "exact_lists", "extra", "nearest_lists"]

_FARTHEST = 256  # rows that are looked at again for the largest distance
_CELLS = 1 << 22  # float64 distances held at once


@dataclass
class Lists:
    """The nearest of each row.

    Attributes
    ----------
    near : (n, k) int64
    far : (n, k) float64
        Distances, before scaling; +inf where there is none.
    bound : (n,) float64
        No row that is not in the list is nearer.
    """

    near: NDArray[np.int64]
    far: NDArray[np.float64]
    bound: NDArray[np.float64]


def nearest_lists(
    ready: Prepared,
    k: int,
    asked: NDArray[np.int64] | None = None,
    labels: NDArray[np.int64] | None = None,
    dtype: Any = np.float32,
) -> tuple[Lists, float]:
    """Return the lists of all rows (or of some), and the largest distance of two rows.

    Parameters
    ----------
    ready : Prepared
    k : int
    asked : (q,) int64, optional
        Whose lists.
    labels : (n,) int64, optional
        Rows of the same label are not neighbours.
    dtype : dtype
        Of the products.

    Returns
    -------
    Lists
    largest : float
        Of all distances, if all rows were asked; before scaling.
    """
    everything = np.arange(len(ready.rows))
    lines = everything if asked is None else asked
    unit = "rows" if asked is None else None
    found = candidates(lines, ready.rows, extra(ready), None, k, labels, dtype, unit)
    known = found.rows >= 0
    near = np.where(known, found.rows, 0)
    far = pair_distances(ready, np.repeat(lines, near.shape[1]), near.ravel()).reshape(near.shape)
    far[~known] = np.inf
    bound = np.maximum(found.bound, 0)
    lists = Lists(near, far, bound / 2 if ready.cosine else np.sqrt(bound))
    # Products may be off by this part of what they are made of.
    farthest = np.flatnonzero(found.largest >= found.largest.max(initial=0) * (1 - 1e-4))
    order = np.argsort(-found.largest[farthest], kind="stable")[:_FARTHEST]
    return lists, _largest(ready, lines[farthest[order]]) if asked is None else 0.0


def extra(ready: Prepared) -> NDArray[np.float64]:
    """Return e: ‖u − v‖² + e + e is 2·(1 − u·v) of unit vectors, and of zero vectors too."""
    return ready.zero.astype(np.float64)


def exact_lists(
    ready: Prepared, asked: NDArray[np.int64], k: int, labels: NDArray[np.int64] | None = None
) -> Lists:
    """Return lists by float64 alone, for where products cannot tell."""
    n = len(ready.rows)
    k = min(k, n - 1)
    near, far = np.zeros((len(asked), k), np.int64), np.full((len(asked), k), np.inf)
    bound = np.full(len(asked), np.inf)
    everything = np.arange(n)
    for line, row in enumerate(asked.tolist()):
        apart = pair_distances(ready, np.full(n, row), everything)
        apart[row] = np.inf
        if labels is not None:
            apart[labels == labels[row]] = np.inf
        order = np.argsort(apart, kind="stable")[: k + 1]
        near[line], far[line] = order[:k], apart[order[:k]]
        bound[line] = apart[order[k]] if len(order) > k else np.inf
    return Lists(near, far, bound)


def _largest(ready: Prepared, lines: Array) -> float:
    """Return the largest distance from some rows to any."""
    rows, most = ready.rows, 0.0
    norms = np.einsum("ij,ij->i", rows, rows)
    for start, stop in row_spans(len(lines), max(1, _CELLS // len(rows))):
        some = lines[start:stop]
        table = rows[some] @ rows.T
        table *= -1 if ready.cosine else -2
        if not ready.cosine:
            table += norms
        farthest = table.argmax(axis=1)
        most = max(most, float(pair_distances(ready, some, farthest).max(initial=0.0)))
    return most
