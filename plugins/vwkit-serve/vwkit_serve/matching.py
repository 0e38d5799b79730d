"""Which points of two pictures show the same, and whether they agree on one view of it.

Pairs share a visual word, or are each other's nearest descriptors. One pair of keypoints with scale
and angle fixes a similarity; the one that most pairs agree with is refined to an affine map
(Philbin et al. 2007, "Object retrieval with large vocabularies and fast spatial matching"). It counts
if so many would hardly agree by chance (Moisan and Stival 2004, "A probabilistic criterion to detect
rigid point matches").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vwkit.types import Array

__all__ = ["Correspondences", "agreeing", "pairs_by_descriptor", "pairs_by_word"]

#: A word that both pictures are full of says nothing about where.
_AMBIGUOUS = 36
_PAIRS = 4000
_HYPOTHESES = 400
_POINTS = 3000
#: Of the picture's diagonal: how far from its place a point may be.
_TOLERANCE = 0.02
_SCALES = 8.0
_CHANCE = 0.01
_RATIO = 0.9


@dataclass(frozen=True)
class Correspondences:
    """Points of two pictures that belong together.

    Attributes
    ----------
    pairs : (n, 2) int64
        Rows of the first and of the second picture's keypoints, the surest first.
    verified : bool
        Whether they agree on one view; otherwise they are pairs that only look alike.
    candidates : int
        Pairs that looked alike.
    """

    pairs: NDArray[np.int64]
    verified: bool
    candidates: int


def pairs_by_word(first: Array, second: Array) -> NDArray[np.int64]:
    """Return the rows of two pictures that hold the same word, (n, 2), rare words first.

    Parameters
    ----------
    first, second : (n,) and (m,) integers
        Words; a negative one is none.
    """
    first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
    shared = np.intersect1d(first[first >= 0], second[second >= 0])
    order_a, order_b = np.argsort(first, kind="stable"), np.argsort(second, kind="stable")
    bounds_a = (
        np.searchsorted(first[order_a], shared),
        np.searchsorted(first[order_a], shared, side="right"),
    )
    bounds_b = (
        np.searchsorted(second[order_b], shared),
        np.searchsorted(second[order_b], shared, side="right"),
    )
    times = (bounds_a[1] - bounds_a[0]) * (bounds_b[1] - bounds_b[0])
    parts = []
    total = 0
    for i in np.argsort(times, kind="stable").tolist():
        if times[i] > _AMBIGUOUS or total + times[i] > _PAIRS:
            break
        rows_a = order_a[bounds_a[0][i] : bounds_a[1][i]]
        rows_b = order_b[bounds_b[0][i] : bounds_b[1][i]]
        parts.append(
            np.stack([np.repeat(rows_a, len(rows_b)), np.tile(rows_b, len(rows_a))], axis=1)
        )
        total += int(times[i])
    return np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)


def pairs_by_descriptor(
    first: Array, second: Array, first_strength: Array, second_strength: Array
) -> NDArray[np.int64]:
    """Return the rows of two pictures that are each other's nearest, (n, 2), the clearest first.

    Parameters
    ----------
    first, second : (n, d) and (m, d)
    first_strength, second_strength : (n,) and (m,)
        Of pictures with very many points, only the strongest are compared.
    """
    rows_a, rows_b = _strongest(first_strength), _strongest(second_strength)
    if len(rows_a) < 2 or len(rows_b) < 2:
        return np.zeros((0, 2), np.int64)
    a, b = np.asarray(first[rows_a], np.float32), np.asarray(second[rows_b], np.float32)
    squared = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * (a @ b.T)
    np.maximum(squared, 0, out=squared)
    nearest = squared.argmin(axis=1)
    mutual = np.flatnonzero(squared.argmin(axis=0)[nearest] == np.arange(len(a)))
    two = np.partition(squared[mutual], 1, axis=1)[:, :2]
    ratio = np.sqrt(two[:, 0] / np.maximum(two[:, 1], 1e-12))
    clear = ratio < _RATIO
    order = np.argsort(ratio[clear], kind="stable")
    chosen = mutual[clear][order]
    return np.stack([rows_a[chosen], rows_b[nearest[chosen]]], axis=1)


def _strongest(strength: Array) -> NDArray[np.int64]:
    rows = np.arange(len(strength))
    if len(rows) <= _POINTS:
        return rows
    return np.sort(np.argpartition(-np.nan_to_num(strength), _POINTS)[:_POINTS])


def agreeing(
    pairs: NDArray[np.int64], first: Array, second: Array, size: tuple[int, int]
) -> Correspondences:
    """Choose the pairs that agree on one view, or all if too few do.

    Parameters
    ----------
    pairs : (n, 2) int64
        Rows of keypoints, the surest first.
    first, second : (n, 5) and (m, 5) float32
        Keypoints: x, y, scale, angle, response.
    size : (int, int)
        Width and height of the second picture.
    """
    a, b = np.asarray(first, np.float64)[pairs[:, 0]], np.asarray(second, np.float64)[pairs[:, 1]]
    whole = np.isfinite(a[:, :4]).all(axis=1) & np.isfinite(b[:, :4]).all(axis=1)
    pairs, a, b = pairs[whole], a[whole], b[whole]
    width, height = max(1, size[0]), max(1, size[1])
    tolerance = _TOLERANCE * math.hypot(width, height)
    inside = _best_view(a, b, tolerance)
    if inside is not None and len(inside):
        chance = math.pi * tolerance**2 / (width * height) * len(pairs)
        found = _one_to_one(pairs[inside])
        # The pair that proposed the view agrees with itself, whatever it is.
        if len(found) - 1 >= _unlikely(chance):
            return Correspondences(found, True, len(pairs))
    return Correspondences(_one_to_one(pairs), False, len(pairs))


def _best_view(
    a: NDArray[np.float64], b: NDArray[np.float64], tolerance: float
) -> NDArray[np.int64] | None:
    """Return the pairs that agree with the best map, those with the smallest error first."""
    if len(a) < 3:
        return None
    # A similarity is one complex number for turning and scaling, and one for moving.
    p, q = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    scale = np.where((a[:, 2] > 0) & (b[:, 2] > 0), b[:, 2] / np.maximum(a[:, 2], 1e-12), 1.0)
    turn = scale * np.exp(1j * np.radians(b[:, 3] - a[:, 3]))
    tried = np.flatnonzero((scale <= _SCALES) & (scale >= 1 / _SCALES))[:_HYPOTHESES]
    if len(tried) == 0:
        return None
    move = q[tried] - turn[tried] * p[tried]
    error = np.abs(turn[tried, None] * p[None, :] + move[:, None] - q[None, :])
    best = int((error <= tolerance).sum(axis=1).argmax())
    errors = error[best]
    inside = np.flatnonzero(errors <= tolerance)
    for _ in range(4):
        if len(inside) < 6:
            break
        design = np.column_stack([a[:, :2], np.ones(len(a))])
        affine, *_ = np.linalg.lstsq(design[inside], b[inside, :2], rcond=None)
        fitted = np.linalg.norm(design @ affine - b[:, :2], axis=1)
        refined = np.flatnonzero(fitted <= tolerance)
        if len(refined) < len(inside) or abs(np.linalg.det(affine[:2])) < _SCALES**-2:
            break
        same = len(refined) == len(inside)
        errors, inside = fitted, refined
        if same:
            break
    order: NDArray[np.int64] = inside[np.argsort(errors[inside], kind="stable")]
    return order


def _one_to_one(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep the first pair of each point."""
    used_a: set[int] = set()
    used_b: set[int] = set()
    kept = []
    for i, (row_a, row_b) in enumerate(pairs.tolist()):
        if row_a not in used_a and row_b not in used_b:
            used_a.add(row_a)
            used_b.add(row_b)
            kept.append(i)
    return pairs[kept]


def _unlikely(expected: float) -> int:
    """Return how many agree by chance in less than one of 100 pictures, at least 4."""
    # The tail of a Poisson distribution, for the best of all hypotheses.
    term = math.exp(-expected)
    left, count = 1.0 - term, 1
    while left * _HYPOTHESES >= _CHANCE and count < 500:
        term *= expected / count
        left -= term
        count += 1
    return max(4, count)
