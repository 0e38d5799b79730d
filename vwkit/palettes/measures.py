"""How far pictures are from each other: PSNR and colour differences."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import DataError, ParameterError, ShapeError
from vwkit.palettes.colours import as_colours, to_cielab
from vwkit.types import Array

__all__ = ["delta_e", "measures", "psnr", "shown_on"]

Formula = Literal["ciede2000", "cie76"]
_BACKGROUNDS = (0, 255)


def psnr(first: ArrayLike, second: ArrayLike) -> float:
    """Return the peak signal-to-noise ratio of two pictures in dB.

    Parameters
    ----------
    first, second : (h, w), (h, w, 3) or (h, w, 4) uint8
        Those with opacity are compared on black and on white: the error is the mean of both.

    Returns
    -------
    float
        Infinite for equal pictures.

    Raises
    ------
    ShapeError, DataError
    """
    a, b = (np.asarray(one) for one in (first, second))
    for one in (a, b):
        if one.dtype != np.uint8 or one.ndim not in (2, 3) or one.size == 0:
            raise DataError(
                f"pictures are (h, w), (h, w, 3) or (h, w, 4) uint8; got {one.shape} {one.dtype}"
            )
    if a.shape != b.shape:
        raise ShapeError(f"two pictures of equal shape are needed; got {a.shape} and {b.shape}")
    total = 0.0
    for top in range(0, len(a), 256):
        rows = [one[top : top + 256].reshape(-1, *one.shape[2:]) for one in (a, b)]
        if a.ndim == 3 and a.shape[2] == 4:
            total += sum(
                float(_squares(*(shown_on(part, back) for part in rows)).sum())
                for back in _BACKGROUNDS
            ) / len(_BACKGROUNDS)
        else:
            total += float(_squares(*rows).sum())
    values = a.size * 3 // 4 if a.ndim == 3 and a.shape[2] == 4 else a.size
    return _decibels(total / values)


def _decibels(error: float) -> float:
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _squares(first: Array, second: Array) -> NDArray[np.int64]:
    return (first.astype(np.int64) - second) ** 2


def delta_e(
    first: ArrayLike, second: ArrayLike, formula: Formula = "ciede2000"
) -> NDArray[np.float64]:
    """Return the colour differences of pairs of sRGB colours; about 1 is just noticed.

    Parameters
    ----------
    first, second : (n, 3) uint8
    formula : {"ciede2000", "cie76"}
        CIEDE2000 (ISO/CIE 11664-6; Sharma, Wu, Dalal 2005) or the Euclidean distance in CIELAB.

    Returns
    -------
    (n,) float64

    Raises
    ------
    ParameterError, DataError, ShapeError

    Examples
    --------
    >>> import numpy as np
    >>> from vwkit.palettes import delta_e
    >>> black, white = np.uint8([[0, 0, 0]]), np.uint8([[255, 255, 255]])
    >>> float(delta_e(black, white, "cie76")[0])
    100.0
    """
    if formula not in ("ciede2000", "cie76"):
        raise ParameterError(f"unknown colour difference {formula!r}; there are ciede2000, cie76")
    a, b = as_colours(first), as_colours(second)
    if a.shape != b.shape or a.shape[1] != 3:
        raise ShapeError(f"pairs of (n, 3) colours are needed; got {a.shape} and {b.shape}")
    lab, other = to_cielab(a), to_cielab(b)
    if formula == "cie76":
        plain: NDArray[np.float64] = np.sqrt(((lab - other) ** 2).sum(axis=1))
        return plain
    return ciede2000(lab, other)


def ciede2000(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the CIEDE2000 differences of pairs of CIELAB colours, (n, 3) each, (n,) float64."""
    l1, a1, b1 = first.T
    l2, a2, b2 = second.T
    mean = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1 + 0.5 * (1 - np.sqrt(mean / (mean + 25.0**7)))
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a * stretch)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = np.where(c1 * c2 == 0, 0.0, (h2 - h1 + 180) % 360 - 180)
    # Opposite hues turn by +180, not −180.
    turn = np.where((turn == -180) & (h2 > h1), 180.0, turn)
    lightness, chroma = l2 - l1, c2 - c1
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    light, c = (l1 + l2) / 2, (c1 + c2) / 2
    apart = np.abs(h1 - h2) > 180
    h = np.where(c1 * c2 == 0, h1 + h2, (h1 + h2 + np.where(apart, 360, 0)) / 2)
    h = np.where((c1 * c2 != 0) & apart & (h1 + h2 >= 360), h - 360, h)
    t = (
        1
        - 0.17 * np.cos(np.radians(h - 30))
        + 0.24 * np.cos(np.radians(2 * h))
        + 0.32 * np.cos(np.radians(3 * h + 6))
        - 0.20 * np.cos(np.radians(4 * h - 63))
    )
    s_l = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    s_c, s_h = 1 + 0.045 * c, 1 + 0.015 * c * t
    bend = 60 * np.exp(-(((h - 275) / 25) ** 2))
    r_t = -np.sin(np.radians(bend)) * 2 * np.sqrt(c**7 / (c**7 + 25.0**7))
    x, y, z = lightness / s_l, chroma / s_c, hue / s_h
    found: NDArray[np.float64] = np.sqrt(np.maximum(0, x * x + y * y + z * z + r_t * y * z))
    return found


def shown_on(colours: Array, background: int) -> NDArray[np.uint8]:
    """Return colours (n, 3|4) shown on a grey background, (n, 3) uint8."""
    if colours.shape[1] == 3:
        return colours
    alpha = colours[:, 3:].astype(np.uint32)
    mixed = (colours[:, :3] * alpha + background * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def measures(first: Array, second: Array, counts: NDArray[np.int64]) -> dict[str, float | None]:
    """Compare colours with those that stand for them.

    Parameters
    ----------
    first, second : (n, 3) or (n, 4) uint8
        With opacity they are compared on black and on white; all numbers are means over both.
    counts : (n,) int64
        How many pixels are such a pair.

    Returns
    -------
    dict
        ``psnr`` in dB (None for equal colours), ``delta_e_76`` and ``delta_e_2000`` (means over the
        pixels).
    """
    backgrounds = _BACKGROUNDS if 4 in (first.shape[1], second.shape[1]) else (0,)
    weight = float(counts.sum() * len(backgrounds))
    error = plain = fine = 0.0
    for background in backgrounds:
        for start in range(0, len(first), 1 << 18):
            part = slice(start, start + (1 << 18))
            a, b = (shown_on(one[part], background) for one in (first, second))
            many = counts[part]
            lab, other = to_cielab(a), to_cielab(b)
            error += float(many @ _squares(a, b).sum(axis=1))
            plain += float(many @ np.sqrt(((lab - other) ** 2).sum(axis=1)))
            fine += float(many @ ciede2000(lab, other))
    return {
        "psnr": None if error == 0 else _decibels(error / (3 * weight)),
        "delta_e_76": plain / weight,
        "delta_e_2000": fine / weight,
    }
