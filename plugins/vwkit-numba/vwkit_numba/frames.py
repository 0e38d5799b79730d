"""Inner coordinates for data, and what a fit starts from in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vwkit import data as core
from vwkit.errors import DataError, ShapeError
from vwkit.hashing import sample_rows
from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.room import readonly
from vwkit_numba.taking import taken

__all__ = ["Frame", "frame_of", "frame_of_book", "given_centers", "inner"]

_SAMPLE = 1 << 16


@dataclass(frozen=True)
class Frame:
    """Inner coordinates: x' = (x − shift)·scale, divided by its length if `unit`.

    Rows may be codes: then `book`, (m, ks, d/m), has what they stand for.
    """

    shift: NDArray[np.float32]
    scale: float
    unit: bool
    book: NDArray[np.float32] | None = None

    @property
    def wide(self) -> int:
        """Dimensions, filled up to a multiple of 16."""
        return -(-len(self.shift) // 16) * 16

    @cached_property
    def tables(self) -> NDArray[np.float32]:
        """What codes stand for, in inner coordinates."""
        book = cast("NDArray[np.float32]", self.book)
        shift = self.shift.reshape(len(book), 1, -1)
        return np.ascontiguousarray(((book - shift.astype(np.float64)) * self.scale), np.float32)

    def vectors(self, rows: Array, first: int = 0) -> NDArray[np.float32]:
        """Return what rows stand for, (n, d); `first` is the number of the first one."""
        if self.book is None:
            return np.asarray(rows, np.float32)
        self.check(rows, first)
        parts = [self.book[j].take(rows[:, j], axis=0) for j in range(len(self.book))]
        return np.concatenate(parts, axis=1)

    def check(self, rows: Array, first: int = 0) -> None:
        """Refuse codes that stand for nothing."""
        if self.book is None or np.iinfo(rows.dtype).max < self.book.shape[1]:
            return
        if rows.size and int(rows.max()) >= self.book.shape[1]:
            row, place = (int(one[0]) for one in np.nonzero(rows >= self.book.shape[1]))
            raise DataError(
                f"codes: row {first + row} has the code {int(rows[row, place])} at {place}, and the "
                f"quantizer has {self.book.shape[1]} codewords: give it codes that it made"
            )

    def codes(self, centers: NDArray[np.float32]) -> NDArray[Any]:
        """Return the nearest codes of vectors (n, d), each slice by itself."""
        from vwkit_numba.pq_tables import Table, reach_of
        from vwkit_numba.pq_training import encoded

        book = cast("NDArray[np.float32]", self.book)
        table = Table.of(book, centers.dtype, reach_of(book, centers))
        return encoded(table, centers, book.shape[1], job().threads)

    def placed(self, centers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return centers as they may be: what codes stand for, or of length 1 if `unit`.

        Zeros stay zeros.
        """
        if self.book is not None:
            return self.vectors(self.codes(centers))
        if not self.unit:
            return centers
        wide = centers.astype(np.float64)
        lengths = np.sqrt((wide**2).sum(axis=1, keepdims=True))
        return (wide / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def inner(centers: Array, frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return centers in inner coordinates with a zero row behind them, and their ‖c‖²/2.

    Returns
    -------
    (k + 1, D) float32, (k + 1,) float32
        The last half norm is so large that no row is nearest to that center.
    """
    from vwkit_numba.kernels import FAR, place

    moved = np.zeros((len(centers) + 1, frame.wide), np.float32)
    half = np.empty(len(centers) + 1, np.float32)
    given = readonly(np.asarray(centers))
    place(given, readonly(frame.shift), float(frame.scale), frame.unit, moved[:-1], half[:-1])
    half[-1] = FAR
    return moved, half


def frame_of(stream: Stream, spherical: bool, weights: NDArray[np.float64] | None) -> Frame:
    """Choose inner coordinates: about the mean of a sample, all entries at most 1 in size."""
    dim = stream.dim
    if spherical:
        return Frame(np.zeros(dim, np.float32), 1.0, True)
    sample = taken(stream, sample_rows(stream.count(), _SAMPLE, 0))
    if stream.dtype == np.uint8:
        # Whole numbers, so that nothing is rounded.
        return Frame(np.rint(sample.mean(axis=0)).astype(np.float32), 2.0**-8, False)
    middle = sample.astype(np.float64).mean(axis=0).astype(np.float32)
    ends = list(job().map(_ends, stream))
    low = np.min([one[0] for one in ends], axis=0)
    high = np.max([one[1] for one in ends], axis=0)
    return Frame(*_between(low, high, middle), False)


def _ends(rows: Array) -> tuple[Array, Array]:
    return rows.min(axis=0), rows.max(axis=0)


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
