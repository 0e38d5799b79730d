"""K-means for few dimensions and few clusters, close to the best there is.

Lloyd's iterations end in the nearest local minimum. Breathing k-means (Fritzke 2020, "The breathing
k-means algorithm", https://arxiv.org/abs/2006.15666) gets out of it: some centers are added where the
error is largest, all move, and as many are taken away where they are missed least; what is not better is
dropped, and fewer breathe the next time. It starts from boxes that are cut across their longest axis
where that gains most (Wu 1991, "Efficient statistical computations for optimal color quantization"),
and, where k is small and a bad start costs most, also from random rows.

All this happens on a summary of the rows, some thousand means of the cells of a grid, finer where many
rows are; only the last iterations look at every row.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vwkit.hashing import row_uniform
from vwkit.jobs import Job
from vwkit.metrics import squared_norms
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = ["Fit", "breathing"]

# The grid: cells in all for its coarse and its fine half, and up to which dimension there is one.
_COARSE, _FINE, _GRID_DIMS = 1 << 15, 1 << 18, 4
# A coarse cell is cut finer if it holds this share of what a center holds on average.
_HEAVY = 1 / 8
# Fewer cells than this for a center would not tell good centers from bad ones.
_CELLS_PER_CENTER = 4
# Lloyd's iterations after each breath, and breaths in all.
_SETTLE, _BREATHS = 3, 8
_SETTLED = 1e-3
_BETTER = 1e-5
# Below this many centers a second start and more are worth their time.
_FEW, _STARTS = 32, 2
# Scores of one block of products: 1 MiB, and rows of a block when all rows are looked at.
_CELLS, _BLOCK = 1 << 18, 1 << 14


class Fit(NamedTuple):
    """What was found.

    Attributes
    ----------
    centers : (k', d) float32
        k, or as many as there are distinct rows if these are fewer.
    objective : list of float
        Weighted mean squared distance at each iteration over all rows; the centers are those after
        the last one.
    """

    centers: NDArray[np.float32]
    objective: list[float]


def breathing(
    rows: Array,
    weights: NDArray[np.float64] | None,
    k: int,
    *,
    seed: int,
    iterations: int,
    tolerance: float,
    current: Job,
) -> Fit:
    """Cluster rows.

    Parameters
    ----------
    rows : (n, d) uint8 or float32
    weights : (n,) float64, optional
        How often each row counts.
    k : int
    seed : int
        Decides the random starts; there are some only for small k.
    iterations : int
        At most this many iterations over all rows.
    tolerance : float
        They end when the objective improves by less than this share of itself.
    current : Job
    """
    mass = np.ones(len(rows)) if weights is None else weights / weights.max()
    held = np.flatnonzero(mass > 0)
    if len(held) < len(rows):
        rows, mass = rows[held], mass[held]
    middle = (mass @ rows) / mass.sum()
    unit = 2.0 ** -math.frexp(float(np.abs(rows - middle).max()))[1]  # rounds nothing
    ready = ((rows - middle) * unit).astype(np.float32)
    points, share = _summary(ready, mass, k)
    first = cut(points, share, k)
    if len(first) < k and len(points) < len(ready):
        points, share = ready, mass
        first = cut(points, share, k)
    if len(first) < k:  # these are all the distinct rows there are
        order = np.lexsort(ready.T[::-1])
        own = np.flatnonzero(np.r_[True, (np.diff(ready[order], axis=0) != 0).any(axis=1)])
        return Fit(rows[order[own]].astype(np.float32), [0.0])
    starts = np.arange(_STARTS if k <= _FEW else 1)[:, None]
    arrays = {"points": points, "weights": share, "first": first, "seed": seed}
    kept = _kept(current, k, rows.shape[1])
    if kept is None:
        found = list(current.map(_breathed, starts, arrays, rows=1))
        kept = min(found, key=lambda one: one[0])[1], []
    centers, objective = kept
    while len(objective) < iterations:
        # The first one keeps what has taken longest: the centers of the summary.
        state = {"centers": centers, "objective": np.array(objective)}
        current.checkpoint(len(objective), state)
        error, sums, counts = 0.0, np.zeros(centers.shape), np.zeros(k)
        parts = current.map(
            _sums, ready, {"centers": centers}, aligned={"weights": mass}, rows=_BLOCK
        )
        for part in parts:  # in their order, so that the sum is always the same
            error, sums, counts = error + part[0], sums + part[1], counts + part[2]
        objective.append(max(0.0, error / counts.sum() / unit**2))
        centers = _moved(centers, sums, counts)
        if len(objective) > 1 and objective[-2] - objective[-1] < tolerance * objective[-2]:
            break
    return Fit((centers / unit + middle).astype(np.float32), objective)


def _kept(current: Job, k: int, dim: int) -> tuple[NDArray[np.float32], list[float]] | None:
    """Return the centers and objectives that a killed process left, or None."""
    saved = current.resume()
    if saved is None or saved[1].keys() != {"centers", "objective"}:
        return None
    centers, objective = saved[1]["centers"], saved[1]["objective"]
    if centers.dtype != np.float32 or objective.dtype != np.float64:
        return None
    if centers.shape != (k, dim) or objective.shape != (saved[0],):
        return None
    done = objective.tolist()
    return centers, done


# The summary -------------------------------------------------------------------------------------


def _summary(
    rows: NDArray[np.float32], weights: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return means of near rows and their weights; the rows themselves where they are few."""
    d = rows.shape[1]
    if d > _GRID_DIMS or len(rows) <= _CELLS_PER_CENTER * k:
        return rows, weights
    low = rows.min(axis=0)
    spread = (rows.max(axis=0) - low).astype(np.float64)
    coarse, wide = _cells(rows, low, spread, _COARSE)
    fine, narrow = _cells(rows, low, spread, _FINE)
    heavy = np.bincount(coarse, weights=weights, minlength=wide) > weights.sum() * _HEAVY / k
    key = np.where(heavy[coarse], fine + wide, coarse)
    mass = np.bincount(key, weights=weights, minlength=wide + narrow)
    used = np.flatnonzero(mass)
    if len(used) <= _CELLS_PER_CENTER * k:
        return rows, weights
    points = np.empty((len(used), d), np.float32)
    for j in range(d):
        points[:, j] = np.bincount(key, weights=weights * rows[:, j], minlength=len(mass))[used]
        points[:, j] /= mass[used]
    return points, np.asarray(mass[used], np.float64)


def _cells(
    rows: NDArray[np.float32], low: Array, spread: NDArray[np.float64], wanted: int
) -> tuple[NDArray[np.int64], int]:
    """Return each row's cell in a grid of equal steps, and how many cells the grid has."""
    open_dims = spread > 0
    step = float(np.prod(spread[open_dims]) / wanted) ** (1 / max(1, open_dims.sum()))
    key, size = np.zeros(len(rows), np.int64), 1
    for j in np.flatnonzero(open_dims):
        steps = min(wanted // size, max(1, round(spread[j] / step)))
        place = ((rows[:, j] - low[j]) * (steps / spread[j])).astype(np.int64)
        key = key * steps + np.minimum(place, steps - 1)
        size *= steps
    return key, size


# Starts ------------------------------------------------------------------------------------------


def cut(points: Array, weights: NDArray[np.float64], k: int) -> NDArray[np.float32]:
    """Cut the points into k boxes, always the one that gains most; return the boxes' means.

    Fewer, if all boxes hold but one distinct point each.
    """
    boxes = [np.arange(len(points))]
    splits = [_split(points, weights, boxes[0])]
    while len(boxes) < k:
        best = max(range(len(boxes)), key=lambda i: splits[i][0])
        gain, *halves = splits[best]
        if gain <= 0:
            break
        for place, half in zip((best, len(boxes)), halves, strict=True):
            box, split = half, _split(points, weights, half)
            if place == best:
                boxes[best], splits[best] = box, split
            else:
                boxes.append(box)
                splits.append(split)
    means = [weights[box] @ points[box] / weights[box].sum() for box in boxes]
    return np.array(means, np.float32)


def _split(
    points: Array, weights: NDArray[np.float64], box: NDArray[np.int64]
) -> tuple[float, NDArray[np.int64], NDArray[np.int64]]:
    """Return what the best cut across the longest axis gains, and both halves."""
    inside, mass = points[box].astype(np.float64), weights[box]
    if len(box) < 2 or (inside == inside[0]).all():
        return 0.0, box, box[:0]
    inside -= mass @ inside / mass.sum()
    axis = np.linalg.eigh((inside * mass[:, None]).T @ inside)[1][:, -1]
    along = inside @ axis
    order = np.argsort(along, kind="stable")
    left = np.cumsum(mass[order])[:-1]
    moment = np.cumsum(mass[order] * along[order])[:-1]
    gains = moment**2 * (1 / left + 1 / np.maximum(mass.sum() - left, 1e-300))
    # Equal points stay together.
    gains[np.diff(along[order]) <= 0] = -1
    place = int(gains.argmax())
    if gains[place] <= 0:  # too near for the numbers, and yet different
        place = len(box) // 2 - 1
    cut_at = place + 1
    return max(float(gains[place]), 1e-300), box[order[:cut_at]], box[order[cut_at:]]


def _drawn(points: Array, weights: NDArray[np.float64], k: int, seed: int) -> NDArray[np.float32]:
    """Draw k points far from each other (k-means++, Arthur and Vassilvitskii 2007)."""
    distance = np.full(len(points), np.inf)
    chosen: list[int] = []
    for draw in range(k):
        near = weights * np.where(np.isinf(distance), 1.0, distance)
        summed = np.cumsum(near)
        uniform = float(row_uniform(seed, np.array([draw]))[0])
        place = int(np.searchsorted(summed, uniform * summed[-1], side="right"))
        chosen.append(min(place, len(points) - 1))
        distance = np.minimum(distance, squared_norms(points - points[chosen[-1]]))
    return np.array(points[chosen], np.float32)


# Breathing ---------------------------------------------------------------------------------------


class _Points:
    """Points made ready for products: a 1 behind each, so that one product gives ‖c‖² − 2·x·c."""

    def __init__(self, points: NDArray[np.float32], weights: NDArray[np.float64]) -> None:
        self.points, self.weights = points, weights
        self.left = np.ones((len(points), points.shape[1] + 1), np.float32)
        self.left[:, :-1] = points
        self.heavy = points * weights[:, None]
        self.own = weights @ squared_norms(points)

    def assign(self, centers: NDArray[np.float32], second: bool = False) -> _Assigned:
        """Return the nearest center of each point, and the second nearest if asked."""
        right = np.empty((centers.shape[1] + 1, len(centers)), np.float32)
        np.multiply(centers.T, -2, out=right[:-1])
        right[-1] = squared_norms(centers)
        n = len(self.points)
        found = _Assigned(np.empty(n, np.int64), np.empty(n, np.float32))
        if second:
            found.other, found.far = np.empty(n, np.int64), np.empty(n, np.float32)
        step = max(256, _CELLS // len(centers))
        lines = np.arange(min(n, step))
        for start, stop in row_spans(n, step):
            score = self.left[start:stop] @ right
            line = lines[: stop - start]
            nearest = score.argmin(axis=1)
            found.label[start:stop] = nearest
            found.near[start:stop] = score[line, nearest]
            if second:
                score[line, nearest] = np.inf
                nearest = score.argmin(axis=1)
                found.other[start:stop] = nearest
                found.far[start:stop] = score[line, nearest]
        return found

    def error(self, found: _Assigned) -> float:
        """Return the weighted sum of squared distances."""
        return float(self.weights @ found.near + self.own)

    def binned(self, label: NDArray[np.int64], values: Array, k: int) -> NDArray[np.float64]:
        """Add up values by label."""
        return np.bincount(label, weights=values, minlength=k).astype(np.float64, copy=False)

    def sums(self, found: _Assigned, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sums of each center's points, and their weights."""
        columns = [self.binned(found.label, column, k) for column in self.heavy.T]
        return np.stack(columns, axis=1), self.binned(found.label, self.weights, k)

    def settled(self, centers: NDArray[np.float32], iterations: int) -> NDArray[np.float32]:
        """Return centers after some of Lloyd's iterations."""
        before = math.inf
        for _ in range(iterations):
            found = self.assign(centers)
            centers = _moved(centers, *self.sums(found, len(centers)))
            error = self.error(found)
            if before - error < _SETTLED * error:
                break
            before = error
        return centers


class _Assigned:
    """Nearest centers, (n,) `label`; `near` is the distance but for ‖x‖²; `other`, `far`: the second."""

    __slots__ = ("far", "label", "near", "other")

    def __init__(self, label: NDArray[np.int64], near: NDArray[np.float32]) -> None:
        self.label, self.near = label, near
        self.other, self.far = label, near


def _moved(
    centers: NDArray[np.float32], sums: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the means; a center without points stays."""
    full = counts > 0
    moved = centers.copy()
    moved[full] = sums[full] / counts[full, None]
    return moved


def _breathed(
    start: Array, *, points: Array, weights: Array, first: Array, seed: int
) -> tuple[float, NDArray[np.float32]]:
    """Breathe from one start, the boxes' means or random points; return error and centers."""
    number, k = int(start[0, 0]), len(first)
    data = _Points(points, weights)
    centers = first if number == 0 else _drawn(points, weights, k, seed * 1_000_003 + number)
    centers = data.settled(centers, 2 * _SETTLE)
    found = data.assign(centers, second=True)
    best, many = data.error(found), min(k // 2, max(5, k // 8))
    for _ in range(_BREATHS):
        if many == 0 or best <= 0:
            break
        fuller = data.settled(_inhaled(data, centers, found, many), _SETTLE)
        fewer = data.settled(_exhaled(data, fuller, many), _SETTLE)
        again = data.assign(fewer, second=True)
        error = data.error(again)
        if error < best * (1 - _BETTER):
            best, centers, found = error, fewer, again
        else:
            many = many - 1 if many <= 5 else many // 2
    return best, centers


def _inhaled(
    data: _Points, centers: NDArray[np.float32], found: _Assigned, many: int
) -> NDArray[np.float32]:
    """Put two centers in the place of those that gain most by it, along their longest axes."""
    k, d = centers.shape
    off = data.points - centers[found.label]
    spread = np.empty((k, d, d))
    for i in range(d):
        heavy = data.weights * off[:, i]
        for j in range(i, d):
            spread[:, i, j] = spread[:, j, i] = data.binned(found.label, heavy * off[:, j], k)
    axis = np.linalg.eigh(spread)[1][:, :, -1]
    along = np.einsum("ij,ij->i", off, axis[found.label])
    half = 2 * found.label + (along > 0)
    mass = data.binned(half, data.weights, 2 * k).reshape(k, 2)
    moment = data.binned(half, data.weights * along, 2 * k).reshape(k, 2)
    shift = moment / np.where(mass > 0, mass, 1)
    most = np.argsort(-(mass * shift**2).sum(axis=1), kind="stable")[:many]
    fuller = np.concatenate([centers, centers[most] + axis[most] * shift[most, 1:]])
    fuller[most] += axis[most] * shift[most, :1]
    return fuller.astype(np.float32)


def _exhaled(data: _Points, centers: NDArray[np.float32], many: int) -> NDArray[np.float32]:
    """Take away the centers that are missed least, but not two that would stand in for each other."""
    k = len(centers)
    found = data.assign(centers, second=True)
    missed = data.binned(found.label, data.weights * (found.far - found.near), k)
    heir = np.zeros((k, k), bool)
    heir[found.label, found.other] = True
    gone: list[int] = []
    needed = np.zeros(k, bool)
    for strict in (True, False):
        for center in np.argsort(missed, kind="stable").tolist():
            if len(gone) == many:
                break
            if center not in gone and not (strict and needed[center]):
                gone.append(center)
                if k > 4 * many:
                    needed |= heir[center]
    return np.delete(centers, gone, axis=0)


def _sums(
    chunk: Array, weights: Array, *, centers: Array
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return the error, the sums and the weights of a chunk's nearest centers."""
    data = _Points(chunk, weights)
    found = data.assign(centers)
    return data.error(found), *data.sums(found, len(centers))
