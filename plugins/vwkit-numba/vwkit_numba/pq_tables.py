"""Codebooks made ready for the kernels of product quantization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.types import Array

__all__ = ["RoughTable", "Table", "reach_of", "rounding_of"]

_TILE = 8  # as pq_lanes.TILE, which would import numba
_FAR = np.int32((1 << 31) - 1)
_LONGEST = 32_000.0
_WORD = 32_766.0
_BYTE = 127
_SEEN = 256


@dataclass(frozen=True)
class Table:
    """Codewords as int16, with what bounds the error of that.

    A row x becomes X = (x − shift)·scale, rounded; a codeword c becomes C = (c − shift)·s, rounded.
    Their score ‖C‖²/2·scale/s − X·C is smallest for the nearest codeword.

    Attributes
    ----------
    shifts : (m, w) int16 for uint8 rows, else float32
        w is the width, filled up to a multiple of eight.
    bounds : (m, 4) float64
        The scale, a power of two; the largest ‖X‖² whose score int32 holds; and how far apart two
        scores must be at least to say which codeword is nearer, a part for each 1 of ‖X‖ and a
        constant part.
    words : (m, count, steps) int32
        −C, two int16 each; `count` is ks, filled up to a multiple of eight.
    starts : (m, count) int32
    plain : (m, width, ks) float32
        The codewords as they are.
    """

    shifts: NDArray[Any]
    bounds: NDArray[np.float64]
    words: NDArray[np.int32]
    starts: NDArray[np.int32]
    plain: NDArray[np.float32]

    @classmethod
    def of(cls, codebook: NDArray[np.float32], dtype: Any, reach: tuple[int, ...]) -> Table:
        """Make the table of a codebook (m, ks, width) for rows of a dtype.

        Parameters
        ----------
        reach : (m,) int
            The rows of each slice are mostly within 2^reach of its codewords' mean, see `reach_of`.
            A wrong one makes the kernels slow, not their answers wrong.
        """
        m, ks, width = codebook.shape
        steps, count = -(-width // 2), -(-ks // _TILE) * _TILE
        shifts = shifts_of(codebook, dtype)
        bounds = np.empty((m, 4))
        words = np.zeros((m, count, 2 * steps), np.int16)
        starts = np.full((m, count), _FAR)
        for j in range(m):
            moved = codebook[j].astype(np.float64) - shifts[j]
            radius = float(np.sqrt((moved**2).sum(axis=1).max())) or 1.0
            if dtype == np.uint8:
                # Whole numbers already: nothing is lost by rounding the rows.
                scale, off = 1.0, 0.0
                longest = float(np.sqrt((np.maximum(shifts[j], 255 - shifts[j]) ** 2.0).sum()))
            else:
                exponent = max(reach[j], math.frexp(radius)[1])
                # Not beyond what float32 has for the scale.
                scale = 2.0 ** max(-126, min(126, math.floor(math.log2(_LONGEST)) - exponent))
                longest, off = _LONGEST, 0.51 * math.sqrt(width)
            # Products up to 2^30, half lengths up to 2^29.
            unit = min(_WORD / radius, 2.0**30 / (longest * radius), 2.0**30 / scale / radius**2)
            large = moved * unit
            whole = np.rint(large)
            lost = float(np.sqrt(((large - whole) ** 2).sum(axis=1).max()))
            words[j, :ks, :width] = -whole
            starts[j, :ks] = np.rint((large**2).sum(axis=1) * (scale / unit / 2))
            constant = 2 * (0.5 + off * radius * unit) + 1
            bounds[j] = scale, 1.001 * longest**2, 2.01 * lost, 1.001 * constant
        kind = np.int16 if dtype == np.uint8 else np.float32
        taken = np.zeros((m, -(-width // 8) * 8), kind)
        taken[:, :width] = shifts
        plain = np.ascontiguousarray(codebook.transpose(0, 2, 1))
        return cls(taken, bounds, words.view(np.int32), starts, plain)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays in the order of the kernels' parameters."""
        return self.shifts, self.bounds, self.words, self.starts, self.plain


def shifts_of(codebook: NDArray[np.float32], dtype: Any) -> NDArray[np.float32]:
    """Return the mean of each slice's codewords, (m, width); whole numbers for uint8 rows."""
    mean: NDArray[np.float64] = codebook.mean(axis=1, dtype=np.float64)
    if dtype == np.uint8:
        mean = np.clip(np.rint(mean), 0, 255)
    shifts: NDArray[np.float32] = mean.astype(np.float32)
    return shifts


def reach_of(codebook: NDArray[np.float32], rows: Array) -> tuple[int, ...]:
    """Return how far some of the rows are from each slice's mean codeword, as a power of two."""
    m, _, width = codebook.shape
    if rows.dtype == np.uint8 or len(rows) == 0:
        return tuple(0 for _ in range(m))
    few = rows[:: -(-len(rows) // _SEEN)].astype(np.float64).reshape(-1, m, width)
    farthest = np.sqrt(((few - shifts_of(codebook, rows.dtype)) ** 2).sum(axis=2).max(axis=0))
    # A little more, for the rows that were not looked at.
    reach: tuple[int, ...] = tuple(math.frexp(1.25 * one)[1] for one in farthest.tolist())
    return reach


def rounding_of(words: NDArray[np.float32]) -> float:
    """Return the mean squared error of one slice's codewords (ks, width) in a `RoughTable`."""
    step = float(np.ptp(words, axis=0).max()) / (2 * _BYTE)
    return float(words.shape[1] * step**2 / 12)


@dataclass(frozen=True)
class RoughTable:
    """Codewords rounded to a byte for each number, for rows that are bytes too.

    Attributes
    ----------
    words : (m, count, steps) int32
        Four int8 each.
    starts : (m, count) int32
    """

    words: NDArray[np.int32]
    starts: NDArray[np.int32]

    @classmethod
    def of(cls, codebook: NDArray[Any]) -> RoughTable:
        """Make the table of a codebook (m, ks, width) for rows of 0…255."""
        m, ks, width = codebook.shape
        steps, count = -(-width // 4), -(-ks // _TILE) * _TILE
        words = np.zeros((m, count, 4 * steps), np.int8)
        starts = np.full((m, count), _FAR)
        for j in range(m):
            wide = codebook[j].astype(np.float64)
            middle = (wide.min(axis=0) + wide.max(axis=0)) / 2
            apart = wide - middle
            unit = _BYTE / (float(np.abs(apart).max()) or 1.0)
            whole = np.rint(apart * unit)
            words[j, :ks, :width] = -whole
            # What is lost by rounding is made good for a row in the middle.
            starts[j, :ks] = np.rint((apart**2).sum(axis=1) * unit / 2 + whole @ middle)
        return cls(words.view(np.int32), starts)
