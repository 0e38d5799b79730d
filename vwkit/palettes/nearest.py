"""The nearest colours of a palette, and palettes that hold as many colours as they should."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit import kernels
from vwkit.palettes.colours import as_colours, colour_vectors
from vwkit.types import Array

__all__ = ["colour_distances", "nearest_colours", "repaired"]


def nearest_colours(colours: Array, palette: Array, space: str = "rgb") -> NDArray[np.int64]:
    """Return which colour of a palette is nearest to each colour.

    Parameters
    ----------
    colours : (n, 3) or (n, 4) uint8
        sRGB, with opacity as a fourth number.
    palette : (k, 3) or (k, 4) uint8
    space : {"rgb", "lab", "oklab"}
        Where nearness is measured; see `colour_vectors`.

    Returns
    -------
    (n,) int64
        The lowest on ties.

    Examples
    --------
    >>> import numpy as np
    >>> from vwkit.palettes import nearest_colours
    >>> nearest_colours(np.uint8([[250, 9, 9]]), np.uint8([[0, 0, 0], [255, 0, 0]])).tolist()
    [1]
    """
    rows, centers = _vectors(colours, palette, space)
    return kernels.nearest_rows(rows, np.asarray(centers, np.float32))


def colour_distances(first: Array, second: Array, space: str = "rgb") -> NDArray[np.float64]:
    """Return the Euclidean distance of every colour to every other in a colour space.

    Parameters
    ----------
    first : (n, 3) or (n, 4) uint8
    second : (m, 3) or (m, 4) uint8
    space : {"rgb", "lab", "oklab"}

    Returns
    -------
    (n, m) float64

    Examples
    --------
    >>> import numpy as np
    >>> from vwkit.palettes import colour_distances
    >>> colour_distances(np.uint8([[0, 0, 0]]), np.uint8([[0, 3, 4], [0, 0, 9]])).tolist()
    [[5.0, 9.0]]
    """
    rows, others = (part.astype(np.float64) for part in _vectors(first, second, space))
    distances: NDArray[np.float64] = np.sqrt(((rows[:, None] - others[None]) ** 2).sum(axis=2))
    return distances


def _vectors(first: Array, second: Array, space: str) -> tuple[Array, Array]:
    first, second = as_colours(first), as_colours(second)
    if first.shape[1] != second.shape[1]:
        first, second = opaque(first), opaque(second)
    return colour_vectors(first, space), colour_vectors(second, space)


def opaque(colours: Array) -> NDArray[np.uint8]:
    """Return (n, 4) colours: those without opacity are opaque."""
    if colours.shape[1] == 4:
        return colours
    return np.concatenate([colours, np.full((len(colours), 1), 255, np.uint8)], axis=1)


def repaired(
    palette: Array, colours: Array, counts: NDArray[np.int64], k: int, space: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return a palette of k colours that are all used, and the one nearest to each colour.

    Colours that no pixel is nearest to, and colours that became equal when they were rounded, give
    way to colours of the picture that are worst off, weighted by how many pixels have them.

    Parameters
    ----------
    palette : (j, 3) or (j, 4) uint8
    colours : (m, 3) or (m, 4) uint8
        The distinct colours of the picture, more than k.
    counts : (m,) int64
    k : int
    space : {"rgb", "lab", "oklab"}

    Returns
    -------
    palette : (k, 3) or (k, 4) uint8
    nearest : (m,) int64
    """
    rows = colour_vectors(colours, space)
    held = np.unique(palette, axis=0)[:k]
    while True:
        centers = np.asarray(colour_vectors(held, space), np.float32)
        nearest = kernels.nearest_rows(rows, centers)
        used = np.bincount(nearest, minlength=len(held)) > 0
        missing = k - int(used.sum())
        if missing == 0:
            return held[used], nearest
        # What is nearest to none goes; no other colour's nearest changes by that. A colour of the
        # picture itself is its own nearest and so stays: the rounds come to an end.
        place = np.cumsum(used) - 1
        off = counts * kernels.row_distances(
            rows, place[nearest], centers=np.ascontiguousarray(centers[used])
        )
        worst = np.argsort(-off, kind="stable")
        # Few at a time: the next are worst off only if the first do not stand for them, too.
        fresh = worst[off[worst] > 0][: max(1, missing // 2)]
        held = np.concatenate([held[used], colours[fresh]])
