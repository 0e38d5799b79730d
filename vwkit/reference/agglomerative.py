"""Hierarchical clustering, one join after another (Lance and Williams 1967)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import ParameterError, ShapeError
from vwkit.reference.distances import distances

__all__ = ["LINKAGES", "agglomerative", "cut", "follow", "row_distances"]

LINKAGES = ("single", "complete", "average", "weighted", "ward", "centroid", "median")


def row_distances(rows: ArrayLike, distance: str) -> NDArray[np.float64]:
    """Return the distances of all rows, (n, n) float64.

    Parameters
    ----------
    rows : (n, d) numbers
    distance : str
        ``euclidean``, which is not squared, or ``cosine``: 1 − cos, and 1 to a zero vector.

    Raises
    ------
    ParameterError, ShapeError
    """
    if distance not in ("euclidean", "cosine"):
        raise ParameterError(f"distance is euclidean or cosine; got {distance!r}")
    if distance == "cosine":
        return distances(rows, rows, "cosine")
    return np.sqrt(distances(rows, rows, "l2"))


def agglomerative(
    rows: ArrayLike, linkage: str = "average", distance: str = "euclidean"
) -> NDArray[np.float64]:
    """Return the tree: the nearest two groups are joined until one is left.

    Parameters
    ----------
    rows : (n, d) numbers
    linkage : str
        One of `LINKAGES`.
    distance : str
        See `row_distances`.

    Returns
    -------
    (n − 1, 4) float64
        As SciPy has it: the numbers of the two that are joined (row i is i, the j-th join made
        n + j), the lower first; the height; the number of rows. Of equally near pairs, the one with
        the lowest numbers.

    Raises
    ------
    ParameterError, ShapeError

    Examples
    --------
    >>> agglomerative([[0.0], [1.0], [5.0]], "single")
    array([[0., 1., 1., 2.],
           [2., 3., 4., 3.]])
    """
    table = row_distances(rows, distance)
    n = len(table)
    apart = {(i, j): table[i, j] for i in range(n) for j in range(i + 1, n)}
    sizes = dict.fromkeys(range(n), 1)
    tree = np.empty((max(0, n - 1), 4))
    for step in range(n - 1):
        height, a, b = min((height, a, b) for (a, b), height in apart.items())
        tree[step] = a, b, height, sizes[a] + sizes[b]
        _join(apart, sizes, a, b, n + step, linkage)
    return tree


def follow(
    tree: ArrayLike, rows: ArrayLike, linkage: str = "average", distance: str = "euclidean"
) -> NDArray[np.float64]:
    """Do the joins of a tree one after another, and return what there was to choose from.

    So a tree can be checked when several pairs are equally near, and others than the reference's
    may be joined first.

    Parameters
    ----------
    tree : (n − 1, 4) numbers
    rows : (n, d) numbers
    linkage, distance : str

    Returns
    -------
    (n − 1, 2) float64
        For each join, how far apart the two were, and how far the nearest two of all.

    Raises
    ------
    ParameterError, ShapeError
        The tree is not of these rows.
    """
    table, joins = row_distances(rows, distance), np.asarray(tree, np.float64)
    n = len(table)
    if joins.shape != (n - 1, 4):
        raise ShapeError(f"a tree of {n} rows has shape {(n - 1, 4)}; got {joins.shape}")
    apart = {(i, j): table[i, j] for i in range(n) for j in range(i + 1, n)}
    sizes = dict.fromkeys(range(n), 1)
    found = np.empty((n - 1, 2))
    for step, (left, right) in enumerate(joins[:, :2].astype(int).tolist()):
        a, b = min(left, right), max(left, right)
        found[step] = apart[a, b], min(apart.values())
        _join(apart, sizes, a, b, n + step, linkage)
    return found


def _join(
    apart: dict[tuple[int, int], float],
    sizes: dict[int, int],
    a: int,
    b: int,
    new: int,
    linkage: str,
) -> None:
    """Replace groups a and b by a new one."""
    height = apart.pop((a, b))
    p, q = sizes.pop(a), sizes.pop(b)
    for c, size in sizes.items():
        to_a = apart.pop((min(a, c), max(a, c)))
        to_b = apart.pop((min(b, c), max(b, c)))
        apart[c, new] = _updated(to_a, to_b, height, p, q, size, linkage)
    sizes[new] = p + q


def _updated(
    to_a: float, to_b: float, height: float, p: int, q: int, size: int, linkage: str
) -> float:
    """Return the distance of a third group of `size` rows to the two that were joined."""
    if linkage == "single":
        return min(to_a, to_b)
    if linkage == "complete":
        return max(to_a, to_b)
    if linkage == "average":
        return (p * to_a + q * to_b) / (p + q)
    if linkage == "weighted":
        return (to_a + to_b) / 2
    if linkage == "ward":
        square = (p + size) * to_a**2 + (q + size) * to_b**2 - size * height**2
        square /= p + q + size
    elif linkage == "centroid":
        square = (p * to_a**2 + q * to_b**2) / (p + q) - p * q * height**2 / (p + q) ** 2
    elif linkage == "median":
        square = to_a**2 / 2 + to_b**2 / 2 - height**2 / 4
    else:
        raise ParameterError(f"linkage is one of {', '.join(LINKAGES)}; got {linkage!r}")
    return float(np.sqrt(max(0.0, square)))


def cut(tree: ArrayLike, height: float, min_size: int = 1) -> NDArray[np.int32]:
    """Return the group of each row when what is higher than a height is taken apart.

    A join counts as high as the highest below it.

    Parameters
    ----------
    tree : (n − 1, 4) numbers
    height : float
    min_size : int
        Smaller groups get −1.

    Returns
    -------
    (n,) int32
        The largest group is 0; of equal ones, the one with the first row.

    Examples
    --------
    >>> cut([[0, 1, 1, 2], [2, 3, 4, 3]], 3.0, min_size=2)
    array([ 0,  0, -1], dtype=int32)
    """
    joins = np.asarray(tree, np.float64).reshape(-1, 4)
    n = len(joins) + 1
    below: list[set[int]] = [{row} for row in range(n)]
    highest = [0.0] * n
    groups = {frozenset(one) for one in below}
    for left, right, high, _ in joins.tolist():
        a, b = int(left), int(right)
        below.append(below[a] | below[b])
        highest.append(max(high, highest[a], highest[b]))
        if highest[-1] <= height:
            groups = {one for one in groups if not one <= below[-1]} | {frozenset(below[-1])}
    labels = np.full(n, -1, np.int32)
    kept = sorted((one for one in groups if len(one) >= min_size), key=lambda g: (-len(g), min(g)))
    for number, one in enumerate(kept):
        labels[sorted(one)] = number
    return labels
