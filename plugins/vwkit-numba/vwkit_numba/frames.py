"""Inner coordinates for data, and what a fit starts from in them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vwkit import data as core
from vwkit.errors import DataError, ShapeError
from vwkit.hashing import sample_rows
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.passes import Frame

__all__ = ["frame_of", "frame_of_book", "given_centers"]

_SAMPLE = 1 << 16


def frame_of(stream: Stream, spherical: bool, weights: NDArray[np.float64] | None) -> Frame:
    """Choose inner coordinates: about the mean of a sample, all entries at most 1 in size."""
    dim = stream.dim
    if spherical:
        return Frame(np.zeros(dim, np.float32), 1.0, True)
    if stream.dtype == np.uint8:
        sample = stream.take(sample_rows(stream.count(), _SAMPLE, 0))
        # Whole numbers, so that nothing is rounded.
        return Frame(np.rint(sample.mean(axis=0)).astype(np.float32), 2.0**-8, False)
    sample = stream.take(sample_rows(stream.count(), _SAMPLE, 0)).astype(np.float64)
    middle = sample.mean(axis=0).astype(np.float32)
    low = np.full(dim, np.inf, np.float32)
    high = np.full(dim, -np.inf, np.float32)
    for chunk in stream:
        np.minimum(low, chunk.min(axis=0), out=low)
        np.maximum(high, chunk.max(axis=0), out=high)
    return Frame(*_between(low, high, middle), False)


def frame_of_book(codebook: Array) -> Frame:
    """Choose inner coordinates for what codes of a codebook, (m, ks, d/m), stand for."""
    book = np.ascontiguousarray(codebook, np.float32)
    return Frame(*_between(book.min(axis=1).ravel(), book.max(axis=1).ravel()), False, book)


def _between(
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    middle: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], float]:
    """Return the middle, and the power of two that brings all entries to at most 1 in size.

    The mean is the better middle where a few rows lie far off, and half the sum of the ends where
    the mean's distance to them would overflow.
    """
    if middle is None or (high / 2 - low / 2).max() > 2.0**124:
        middle = (low / 2 + high / 2).astype(np.float32)
    widest = float(
        np.maximum(high.astype(np.float64) - middle, middle - low.astype(np.float64)).max()
    )
    exponent = math.frexp(widest)[1] if widest > 0 else 0
    return middle, 2.0 ** -max(-126, min(126, exponent))


def given_centers(init: Path | Array, shape: tuple[int, int], frame: Frame) -> NDArray[np.float32]:
    """Return what a fit is to start from, (k, d): from an array or a .npy file, of codes for codes.

    Raises
    ------
    DataError, ShapeError
    """
    if frame.book is None:
        return core.given_centers(init, *shape)
    array = core.given_array(init)
    if array.shape != shape:
        raise ShapeError(f"init: codes of shape {shape} are needed; got {array.shape}")
    if array.dtype.kind not in "iu" or (array.size and int(array.min()) < 0):
        raise DataError(f"init: codes are whole numbers from 0 on; got dtype {array.dtype}")
    return frame.vectors(array)
