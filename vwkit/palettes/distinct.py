"""Each colour of a picture once, with how often it occurs.

A photograph of 24 million pixels has some hundred thousand colours: a palette that is made of these,
weighted, is the same as one made of all pixels, at a hundredth of the work.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError
from vwkit.image import Image, open_image
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = [
    "Counter",
    "Distinct",
    "codes_of",
    "colours_of",
    "distinct_colours",
    "packed",
    "places_of",
    "spread_over",
]

# Pixels that are sorted at once: 16 MiB of codes.
_CHUNK = 1 << 22
_OPAQUE = np.uint32(0xFF000000)
_RGB = 1 << 24
_CLEAR = np.uint32(1 << 24)  # codes below have no opacity


class Distinct(NamedTuple):
    """The distinct colours of a picture.

    Attributes
    ----------
    colours : (m, 3) or (m, 4) uint8
        sRGB, with opacity where the picture has any transparency. Ascending (as numbers: opacity
        first, then red, green, blue).
    counts : (m,) int64
        How many pixels have each.
    inverse : (h, w) int32
        Which colour each pixel has.
    """

    colours: NDArray[np.uint8]
    counts: NDArray[np.int64]
    inverse: NDArray[np.int32]


def distinct_colours(image: Any) -> Distinct:
    """Count each colour of a picture once.

    Parameters
    ----------
    image : path, PIL image or (h, w[, 3|4]) array
        What is fully transparent is one colour, whatever hides in it.

    Returns
    -------
    Distinct
        ``colours, counts, inverse``.

    Raises
    ------
    ImageError
        Not a picture.

    Examples
    --------
    >>> import numpy as np
    >>> from vwkit.palettes import distinct_colours
    >>> picture = np.array([[[9, 9, 9], [0, 0, 255], [9, 9, 9]]], np.uint8)
    >>> colours, counts, inverse = distinct_colours(picture)
    >>> colours.tolist(), counts.tolist(), inverse.tolist()
    ([[0, 0, 255], [9, 9, 9]], [1, 2], [[1, 0, 1]])
    """
    opened = open_image(image)
    codes = codes_of(opened)
    counter = Counter()
    counter.add(codes)
    found, counts = counter.result()
    width, height = opened.size
    inverse = places_of(codes, found).reshape(height, width)
    return Distinct(colours_of(found), counts, inverse)


def codes_of(image: Image) -> NDArray[np.uint32]:
    """Return each pixel's colour as one number, (h·w,) uint32: opacity, red, green, blue from the top."""
    plain = image.rgb if image.alpha is None else image.rgba[:, :, :3]
    rgb = plain.reshape(-1, 3)
    codes = np.empty(len(rgb), np.uint32)
    for start, stop in row_spans(len(rgb), _CHUNK):
        part = rgb[start:stop].astype(np.uint32)
        codes[start:stop] = part[:, 0] << 16 | part[:, 1] << 8 | part[:, 2]
    if image.alpha is None:
        codes |= _OPAQUE
        return codes
    alpha = image.alpha.reshape(-1)
    codes |= alpha.astype(np.uint32) << 24
    codes[alpha == 0] = 0
    return codes


def colours_of(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the colours that codes stand for: (m, 3) uint8 if all are opaque, else (m, 4)."""
    shifts = (16, 8, 0) if (codes >= _OPAQUE).all() else (16, 8, 0, 24)
    return np.stack([(codes >> shift & 255).astype(np.uint8) for shift in shifts], axis=1)


class Counter:
    """Counts colours of any number of pictures; memory grows with the distinct ones alone."""

    def __init__(self) -> None:
        self._codes: list[NDArray[np.uint32]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._pending = 0

    def add(self, codes: NDArray[np.uint32], counts: NDArray[np.int64] | None = None) -> None:
        """Count pixels, or colours that were counted before."""
        if counts is not None:
            self._keep(codes, counts)
            return
        for start, stop in row_spans(len(codes), _CHUNK):
            self._keep(*_runs(np.sort(codes[start:stop]), None))

    def _keep(self, codes: NDArray[np.uint32], counts: NDArray[np.int64]) -> None:
        self._codes.append(codes)
        self._counts.append(counts)
        self._pending += len(codes)
        # The first one is what was merged before; merging doubles it at most.
        if len(self._codes) > 1 and self._pending - len(self._codes[0]) > max(
            _CHUNK, len(self._codes[0])
        ):
            self._merge()

    def _merge(self) -> None:
        if len(self._codes) > 1:
            codes, counts = np.concatenate(self._codes), np.concatenate(self._counts)
            order = np.argsort(codes, kind="stable")
            merged = _runs(codes[order], counts[order])
            self._codes, self._counts = [merged[0]], [merged[1]]
        self._pending = sum(len(codes) for codes in self._codes)

    def result(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return the distinct codes, ascending, and how often each occurs.

        Raises
        ------
        DataError
            Nothing was counted.
        """
        if not self._codes:
            raise DataError("there is no pixel to count")
        self._merge()
        return self._codes[0], self._counts[0]


def _runs(
    codes: NDArray[np.uint32], counts: NDArray[np.int64] | None
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return each of sorted codes once, and how often it occurs."""
    first = np.empty(len(codes), bool)
    first[:1] = True
    np.not_equal(codes[1:], codes[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    if counts is None:
        return codes[starts], np.diff(starts, append=len(codes))
    return codes[starts], np.add.reduceat(counts, starts)


def places_of(codes: NDArray[np.uint32], distinct: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Return where each code stands among the distinct ones, (n,) int32."""
    return spread_over(codes, distinct, np.arange(len(distinct), dtype=np.int32))


def spread_over(codes: NDArray[np.uint32], distinct: NDArray[np.uint32], values: Array) -> Array:
    """Return for each code what belongs to it: `values` (m,) are those of the distinct codes."""
    if len(codes) < 1 << 14 or distinct[0] < _OPAQUE:
        found = np.empty(len(codes), values.dtype)
        for start, stop in row_spans(len(codes), _CHUNK):
            found[start:stop] = values[np.searchsorted(distinct, codes[start:stop])]
        return found
    # A table of all opaque colours; what is not asked for is never touched.
    table = np.empty(_RGB, values.dtype)
    table[distinct & 0xFFFFFF] = values
    taken: Array = table[codes & 0xFFFFFF]
    return taken


def packed(colours: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the codes of colours (m, 3) or (m, 4), (m,) uint32."""
    part = colours.astype(np.uint32)
    alpha = part[:, 3] if colours.shape[1] == 4 else np.uint32(255)
    codes = np.asarray(alpha << 24 | part[:, 0] << 16 | part[:, 1] << 8 | part[:, 2], np.uint32)
    codes[codes < _CLEAR] = 0
    return codes
