"""Cutting a tree into clusters, and checking that it is one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ArtifactError
from vwkit.types import Array

__all__ = ["by_count", "by_height", "check_tree", "numbered"]


def check_tree(tree: Array, rows: int) -> NDArray[np.float64]:
    """Return a saved tree if it is a linkage of so many rows.

    SciPy's functions walk along the numbers in it, so they are looked at before it sees them.

    Raises
    ------
    ArtifactError
    """

    def need(fine: bool, what: str) -> None:
        if not fine:
            raise ArtifactError(f"the saved tree is damaged: {what}; make it again")

    need(
        tree.shape == (rows - 1, 4) and tree.dtype == np.float64,
        f"{tree.dtype} of shape {tree.shape}, where {rows} rows make float64 of {(rows - 1, 4)}",
    )
    whole = np.array(tree, order="C")
    if rows == 1:  # there is nothing to join
        return whole
    need(bool(np.isfinite(whole).all()), "it holds NaN or infinity")
    need(bool((whole[:, 2] >= 0).all()), "a height is negative")
    joined = whole[:, :2]
    limit = rows + np.arange(rows - 1)
    fine = (joined >= 0) & (joined < limit[:, None]) & (joined == np.floor(joined))
    need(bool(fine.all()), f"row {int(np.argmin(fine.all(axis=1)))} joins what is not there")
    parts = joined.astype(np.int64)
    need(len(np.unique(parts)) == parts.size, "something is joined twice")
    sizes = np.concatenate([np.ones(rows), whole[:, 3]])
    need(bool((sizes[parts].sum(axis=1) == whole[:, 3]).all()), "its sizes do not add up")
    return whole


def by_height(tree: NDArray[np.float64], height: float) -> NDArray[np.int32]:
    """Return the group of each row when all is joined whose heights are at most `height`.

    A join above a higher one (an inversion, with centroid and median) counts as that one.
    """
    return _cut(tree, height, "distance")


def by_count(tree: NDArray[np.float64], most: int) -> NDArray[np.int32]:
    """Return the group of each row at the lowest height that leaves at most so many groups."""
    return _cut(tree, most, "maxclust")


def _cut(tree: NDArray[np.float64], t: float, criterion: str) -> NDArray[np.int32]:
    if len(tree) == 0:
        return np.zeros(1, np.int32)
    from scipy.cluster.hierarchy import fcluster

    groups: NDArray[np.int32] = fcluster(tree, t, criterion=criterion)
    return groups - 1


def numbered(groups: NDArray[np.int32], min_size: int) -> NDArray[np.int32]:
    """Number groups by size, the largest first, then by their first row; small ones are −1."""
    _, first, group, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order))
    number[sizes < min_size] = -1
    labels: NDArray[np.int32] = number[group]
    return labels
