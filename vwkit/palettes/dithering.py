"""Dithering: pixels take turns between colours of the palette, so that areas keep theirs."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ParameterError
from vwkit.jobs import job
from vwkit.metrics import squared_norms
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = ["METHODS", "Dither", "blue_noise", "dithered"]

Dither = Literal["none", "floyd-steinberg", "blue-noise"]
METHODS = ("none", "floyd-steinberg", "blue-noise")

_SIDE = 64
_CELLS = 1 << 18
# What a pair of colours costs for being far apart: noise that is seen.
_NOISE = 0.15


def dithered(
    vectors: Array,
    inverse: NDArray[np.int32],
    centers: NDArray[np.float32],
    method: Dither,
    fixed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return the palette's colour of each pixel.

    Parameters
    ----------
    vectors : (m, d)
        The picture's distinct colours in a colour space.
    inverse : (h, w) int32
        Which one each pixel has.
    centers : (k, d) float32
        The palette in the same space.
    method : {"floyd-steinberg", "blue-noise"}
    fixed : (m,) bool, optional
        Colours that are not dithered: they take their nearest and pass nothing on.

    Returns
    -------
    (h, w) int64

    Raises
    ------
    ParameterError
        Unknown method.
    """
    ready = np.asarray(vectors, np.float32)
    held = np.zeros(len(ready), bool) if fixed is None else fixed
    if method == "floyd-steinberg":
        # As one chunk: it runs with one BLAS thread, so products do not depend on their number.
        arrays = {"vectors": ready, "centers": centers, "held": held}
        (found,) = job().map(_diffused, inverse, arrays, rows=len(inverse))
        return np.asarray(found, np.int64)
    if method == "blue-noise":
        return _in_turns(ready, inverse, centers, held)
    raise ParameterError(f"unknown dithering {method!r}; there are {', '.join(METHODS)}")


# Error diffusion ---------------------------------------------------------------------------------


def _diffused(inverse: Array, *, vectors: Array, centers: Array, held: Array) -> NDArray[np.int64]:
    """Diffuse errors (Floyd and Steinberg 1976), a slanted line of pixels at a time.

    A pixel needs its left neighbour's error and those of three above it. So all pixels with equal
    x + 2·y can be done at once, from the errors of the three lines before.
    """
    h, w = inverse.shape
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    right = (-2 * centers.T).astype(np.float32)
    norms = squared_norms(centers).astype(np.float32)
    d = vectors.shape[1]
    found = np.empty((h, w), np.int64)
    # Errors of the last three lines by row, with a row of zeros above.
    first, second, third = (np.zeros((h + 1, d), np.float32) for _ in range(3))
    for line in range(w + 2 * (h - 1)):
        top, bottom = max(0, (line - w + 2) // 2), min(h - 1, line // 2)
        y = np.arange(top, bottom + 1)
        x = line - 2 * y
        place = inverse[y, x]
        own = vectors[place]
        span, above = slice(top + 1, bottom + 2), slice(top, bottom + 1)
        wanted = own + (
            first[span] * np.float32(7 / 16)
            + first[above] * np.float32(3 / 16)
            + second[above] * np.float32(5 / 16)
            + third[above] * np.float32(1 / 16)
        )
        # Beyond the picture's own colours errors would pile up.
        np.clip(wanted, low, high, out=wanted)
        still = held[place]
        if still.any():
            wanted[still] = own[still]
        nearest = (wanted @ right + norms).argmin(axis=1)
        found[y, x] = nearest
        first, second, third = third, first, second
        first[:] = 0
        error = wanted - centers[nearest]
        error[still] = 0
        first[span] = error
    return found


# Blue noise --------------------------------------------------------------------------------------


def _in_turns(
    vectors: NDArray[np.float32],
    inverse: NDArray[np.int32],
    centers: NDArray[np.float32],
    held: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Let two colours of the palette take turns in the proportion that comes nearest."""
    one, other, share = _pairs(vectors, centers)
    share[held] = 0
    h, w = inverse.shape
    mask = blue_noise()
    across = np.resize(mask, (_SIDE, w)) if w <= _SIDE else np.tile(mask, -(-w // _SIDE))[:, :w]
    found = np.empty((h, w), np.int64)
    for y in range(h):
        place = inverse[y]
        found[y] = np.where(across[y % _SIDE, :w] < share[place], other[place], one[place])
    return found


def _pairs(
    vectors: NDArray[np.float32], centers: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return for each colour its nearest, the one to take turns with, and how often."""
    m, k = len(vectors), len(centers)
    one, other = np.zeros(m, np.int64), np.zeros(m, np.int64)
    share = np.zeros(m, np.float32)
    if k == 1:
        return one, other, share
    cross = centers @ centers.T
    norms = np.diag(cross)
    apart = norms[:, None] + norms[None] - 2 * cross
    for start, stop in row_spans(m, max(1, _CELLS // k)):
        rows = vectors[start:stop]
        product = rows @ centers.T
        line = np.arange(stop - start)
        nearest = (norms - 2 * product).argmin(axis=1)
        near = squared_norms(rows - centers[nearest])
        # How far along the way from the nearest to each other one the colour lies.
        along = product - product[line, nearest][:, None]
        along += norms[nearest][:, None] - cross[nearest]
        length = np.maximum(apart[nearest], 1e-12)
        t = np.clip(along / length, 0, 0.5)
        cost = near[:, None] + t * (t * length - 2 * along) + _NOISE * t * (1 - t) * length
        cost[line, nearest] = np.inf
        best = cost.argmin(axis=1)
        one[start:stop], other[start:stop] = nearest, best
        share[start:stop] = t[line, best]
    return one, other, share


@functools.lru_cache(maxsize=1)
def blue_noise() -> NDArray[np.float32]:
    """Return a mask of thresholds in (0, 1) without structure that the eye sees, (64, 64) float32.

    Void and cluster (Ulichney 1993, "The void-and-cluster method for dither array generation"):
    points are put one after the other where there is most room. It may be laid side by side.
    """
    size = _SIDE * _SIDE
    steps = np.minimum(np.arange(_SIDE), _SIDE - np.arange(_SIDE))
    bump = np.exp(-(steps[:, None] ** 2 + steps[None] ** 2) / (2 * 1.5**2))
    double = np.tile(bump, (2, 2))

    def around(place: int) -> NDArray[np.float64]:
        y, x = divmod(place, _SIDE)
        shifted: NDArray[np.float64] = double[
            _SIDE - y : 2 * _SIDE - y, _SIDE - x : 2 * _SIDE - x
        ].ravel()
        return shifted

    # From a tenth of the points, drawn at random, the tightest moves to the largest gap until it
    # would come back.
    filled = np.zeros(size, bool)
    filled[np.random.default_rng(0).permutation(size)[: size // 10]] = True
    crowd = np.zeros(size)
    for place in np.flatnonzero(filled):
        crowd += around(int(place))
    while True:
        tight = int(np.where(filled, crowd, -np.inf).argmax())
        filled[tight] = False
        crowd -= around(tight)
        gap = int(np.where(filled, np.inf, crowd).argmin())
        filled[gap] = True
        crowd += around(gap)
        if gap == tight:
            break
    rank = np.zeros(size)
    fewer, less = filled.copy(), crowd.copy()
    for number in range(int(filled.sum()) - 1, -1, -1):
        tight = int(np.where(fewer, less, -np.inf).argmax())
        fewer[tight], rank[tight] = False, number
        less -= around(tight)
    for number in range(int(filled.sum()), size):
        gap = int(np.where(filled, np.inf, crowd).argmin())
        filled[gap], rank[gap] = True, number
        crowd += around(gap)
    mask: NDArray[np.float32] = ((rank + 0.5) / size).astype(np.float32).reshape(_SIDE, _SIDE)
    return mask
