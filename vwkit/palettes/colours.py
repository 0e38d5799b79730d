"""Colours as vectors of a colour space, and back.

sRGB: IEC 61966-2-1. CIELAB: CIE 15, white point D65, L from 0 to 100. Oklab: Björn Ottosson 2020, "A
perceptual color space for image processing", https://bottosson.github.io/posts/oklab/, L from 0 to 1.

Colours with opacity become vectors of four numbers, ``(a·(c − grey), a·unit)``: a is the opacity from 0
to 1, c the colour, `grey` half way between black and white, and `unit` half their distance. The
squared distance of two such vectors is the mean of the squared distances of the two colours shown on
black and on white (mixed in the space itself, as is usual for sRGB). So all fully transparent colours
are one vector, whatever colour hides in them; a faint colour counts as much as it is seen; and between
opaque colours the distance is that of the space.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import DataError, ParameterError
from vwkit.types import Array

__all__ = ["SPACES", "as_colours", "colour_vectors", "to_cielab", "to_oklab", "vector_colours"]

SPACES = ("rgb", "lab", "oklab")

# sRGB to linear light, one entry per 8-bit value.
_STEPS = np.arange(256) / 255.0
_LINEAR = np.where(_STEPS <= 0.04045, _STEPS / 12.92, ((_STEPS + 0.055) / 1.055) ** 2.4)

# Linear sRGB → LMS → Oklab.
_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Linear sRGB → CIE XYZ, D65 (IEC 61966-2-1), and the white point that belongs to it.
_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _XYZ.sum(axis=1)
_DELTA = 6 / 29

# Half way from black to white in each space.
_GREYS = {"rgb": (127.5, 127.5, 127.5), "lab": (50.0, 0.0, 0.0), "oklab": (0.5, 0.0, 0.0)}
# Half the distance of black and white.
_UNITS = {"rgb": 127.5 * 3**0.5, "lab": 50.0, "oklab": 0.5}


def to_oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert (n, 3) uint8 sRGB to Oklab, (n, 3) float64."""
    lab: NDArray[np.float64] = np.cbrt(_LINEAR[rgb] @ _LMS.T) @ _OKLAB.T
    return lab


def to_cielab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert (n, 3) uint8 sRGB to CIELAB (D65), (n, 3) float64."""
    ratio = (_LINEAR[rgb] @ _XYZ.T) / _WHITE
    curve = np.where(ratio > _DELTA**3, np.cbrt(ratio), ratio / (3 * _DELTA**2) + 4 / 29)
    x, y, z = curve.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def colour_vectors(colours: ArrayLike, space: str = "rgb") -> Array:
    """Return colours as vectors whose squared distances say how different they look.

    Parameters
    ----------
    colours : (n, 3) or (n, 4) uint8
        sRGB, with opacity as a fourth number.
    space : {"rgb", "lab", "oklab"}

    Returns
    -------
    (n, 3) or (n, 4)
        float32; for rgb without opacity the colours themselves, uint8. With opacity see the module.

    Raises
    ------
    ParameterError
        Unknown space.
    DataError
        Not such colours.
    """
    check_space(space)
    given = as_colours(colours)
    plain = _plain(given[:, :3], space)
    if given.shape[1] == 3:
        return given if space == "rgb" else plain.astype(np.float32)
    opacity = given[:, 3:] / 255
    vectors = np.empty((len(given), 4), np.float32)
    vectors[:, :3] = opacity * (plain - np.array(_GREYS[space]))
    vectors[:, 3:] = opacity * _UNITS[space]
    return vectors


def vector_colours(vectors: ArrayLike, space: str = "rgb") -> NDArray[np.uint8]:
    """Return the sRGB colours nearest to vectors: the inverse of `colour_vectors`.

    Parameters
    ----------
    vectors : (n, 3) or (n, 4) numbers
    space : {"rgb", "lab", "oklab"}

    Returns
    -------
    (n, 3) or (n, 4) uint8
        What sRGB does not hold is clipped; what is fully transparent is black.

    Raises
    ------
    ParameterError
        Unknown space.
    DataError
        Not such vectors.
    """
    check_space(space)
    given = np.asarray(vectors, np.float64)
    if given.ndim != 2 or given.shape[1] not in (3, 4):
        raise DataError(f"colour vectors are (n, 3) or (n, 4); got shape {given.shape}")
    if given.shape[1] == 3:
        return _back(given, space)
    opacity = np.clip(given[:, 3] / _UNITS[space], 0, 1)
    seen = np.rint(255 * opacity) > 0
    colours = np.zeros((len(given), 4), np.uint8)
    grey = np.array(_GREYS[space])
    colours[seen, :3] = _back(given[seen, :3] / opacity[seen, None] + grey, space)
    colours[seen, 3] = np.rint(255 * opacity[seen])
    return colours


def _plain(rgb: NDArray[np.uint8], space: str) -> NDArray[np.float64]:
    if space == "rgb":
        return rgb.astype(np.float64)
    return to_oklab(rgb) if space == "oklab" else to_cielab(rgb)


def _back(values: NDArray[np.float64], space: str) -> NDArray[np.uint8]:
    if space == "rgb":
        return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    if space == "oklab":
        lms = (values @ np.linalg.inv(_OKLAB).T) ** 3
        linear = lms @ np.linalg.inv(_LMS).T
    else:
        y = (values[:, 0] + 16) / 116
        curve = np.stack([y + values[:, 1] / 500, y, y - values[:, 2] / 200], axis=1)
        ratio = np.where(curve > _DELTA, curve**3, 3 * _DELTA**2 * (curve - 4 / 29))
        linear = (ratio * _WHITE) @ np.linalg.inv(_XYZ).T
    linear = np.clip(linear, 0, 1)
    share = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    levels: NDArray[np.uint8] = np.rint(255 * share).astype(np.uint8)
    return levels


def as_colours(colours: ArrayLike) -> NDArray[np.uint8]:
    """Check colours: (n, 3) or (n, 4) uint8.

    Raises
    ------
    DataError
    """
    given = np.asarray(colours)
    if given.ndim != 2 or given.shape[1] not in (3, 4) or given.dtype != np.uint8:
        raise DataError(
            f"colours are (n, 3) or (n, 4) uint8; got shape {given.shape} {given.dtype}"
        )
    return given


def check_space(space: str) -> None:
    """Refuse an unknown colour space."""
    if space not in SPACES:
        raise ParameterError(f"unknown colour space {space!r}; there are {', '.join(SPACES)}")
