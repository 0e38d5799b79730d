"""Pixels as vectors, in three colour spaces, and back.

sRGB: IEC 61966-2-1. CIELAB: CIE 15, white point D65, L from 0 to 100. Oklab: Björn Ottosson 2020,
https://bottosson.github.io/posts/oklab/, L from 0 to 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import DataError, ParameterError

__all__ = ["SPACES", "distances", "floyd_steinberg", "pixels", "to_rgb"]

SPACES = ("rgb", "lab", "oklab")

# Linear sRGB to CIE XYZ (D65), by the primaries and white point of IEC 61966-2-1.
_RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
# The XYZ of RGB white, so that greys have a = b = 0.
_WHITE = _RGB_TO_XYZ.sum(axis=1)
# Linear sRGB to cone responses, and their cube roots to Oklab.
_RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_DELTA = 6 / 29


def pixels(rgb: ArrayLike, space: str) -> NDArray[Any]:
    """Return the pixels of a picture, row by row, as vectors of a colour space.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    space : {"rgb", "lab", "oklab"}

    Returns
    -------
    (h·w, 3)
        uint8 for rgb, as it is; float64 for the others.

    Raises
    ------
    ParameterError
        Unknown space.
    DataError
        Not a (h, w, 3) uint8 picture.
    """
    _check(space)
    picture = np.asarray(rgb)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise DataError(f"a (h, w, 3) uint8 picture is needed; got {picture.shape} {picture.dtype}")
    flat = picture.reshape(-1, 3)
    if space == "rgb":
        return flat
    share = flat / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    if space == "oklab":
        oklab: NDArray[np.float64] = np.cbrt(linear @ _RGB_TO_LMS.T) @ _LMS_TO_OKLAB.T
        return oklab
    t = linear @ _RGB_TO_XYZ.T / _WHITE
    f = np.where(t > _DELTA**3, np.cbrt(t), t / (3 * _DELTA**2) + 4 / 29)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def to_rgb(values: ArrayLike, space: str) -> NDArray[np.uint8]:
    """Return the nearest sRGB colours: the inverse of `pixels`, clipped and rounded half to even.

    Parameters
    ----------
    values : (n, 3) numbers
        rgb from 0 to 255, or what `pixels` gives.
    space : {"rgb", "lab", "oklab"}

    Returns
    -------
    (n, 3) uint8

    Raises
    ------
    ParameterError
        Unknown space.
    """
    _check(space)
    v = np.asarray(values, np.float64)
    if space == "rgb":
        return np.rint(np.clip(v, 0, 255)).astype(np.uint8)
    if space == "oklab":
        lms = np.linalg.solve(_LMS_TO_OKLAB, v.T) ** 3
        linear = np.linalg.solve(_RGB_TO_LMS, lms).T
    else:
        y = (v[:, 0] + 16) / 116
        f = np.stack([y + v[:, 1] / 500, y, y - v[:, 2] / 200], axis=1)
        t = np.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
        linear = np.linalg.solve(_RGB_TO_XYZ, (t * _WHITE).T).T
    linear = np.clip(linear, 0, 1)
    share = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    levels: NDArray[np.float64] = np.rint(255 * share)
    return levels.astype(np.uint8)


def distances(rows: ArrayLike, others: ArrayLike, space: str) -> NDArray[np.float64]:
    """Return the Euclidean distance of every colour to every other in a colour space.

    Parameters
    ----------
    rows : (n, 3) uint8
    others : (m, 3) uint8
    space : {"rgb", "lab", "oklab"}

    Returns
    -------
    (n, m) float64
    """
    first, second = (
        pixels(np.asarray(one)[None], space).astype(np.float64) for one in (rows, others)
    )
    found = np.zeros((len(first), len(second)))
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            found[i, j] = math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))
    return found


def floyd_steinberg(rgb: ArrayLike, palette: ArrayLike) -> NDArray[np.int64]:
    """Return which colour of a palette each pixel takes by error diffusion, a pixel at a time.

    Floyd and Steinberg 1976, "An adaptive algorithm for spatial greyscale". What a pixel should
    be, its neighbours' errors added, is kept within the range of the picture's own colours.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    palette : (k, 3) uint8

    Returns
    -------
    (h, w) int64
    """
    wanted = np.asarray(rgb, np.float64)
    colours = np.asarray(palette, np.float64)
    low, high = wanted.min(axis=(0, 1)), wanted.max(axis=(0, 1))
    h, w = wanted.shape[:2]
    error = np.zeros((h + 1, w + 2, 3))
    found = np.zeros((h, w), np.int64)
    for y in range(h):
        for x in range(w):
            value = np.clip(wanted[y, x] + error[y, x + 1], low, high)
            found[y, x] = ((colours - value) ** 2).sum(axis=1).argmin()
            left = value - colours[found[y, x]]
            error[y, x + 2] += left * 7 / 16
            error[y + 1, x] += left * 3 / 16
            error[y + 1, x + 1] += left * 5 / 16
            error[y + 1, x + 2] += left * 1 / 16
    return found


def _check(space: str) -> None:
    if space not in SPACES:
        raise ParameterError(f"unknown colour space {space!r}; known spaces: {', '.join(SPACES)}")
