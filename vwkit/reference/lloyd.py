"""Exact k-means (Lloyd 1982, "Least squares quantization in PCM") and its seeding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import DataError
from vwkit.reference.distances import distances

__all__ = ["assign", "kmeans_plus_plus", "lloyd", "objective", "reseeds", "update"]


def assign(vectors: ArrayLike, centers: ArrayLike, metric: str = "l2") -> NDArray[np.int32]:
    """Return the nearest center of each row: argmin of the float64 distance, lowest id on ties.

    Parameters
    ----------
    vectors : (n, d) numbers
    centers : (k, d) numbers
    metric : str
        See `vwkit.reference.distances.distances`.

    Returns
    -------
    (n,) int32
    """
    return np.asarray(distances(vectors, centers, metric).argmin(axis=1), np.int32)


def objective(
    vectors: ArrayLike,
    centers: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike | None = None,
    metric: str = "l2",
) -> float:
    """Return Σ wᵢ dist(xᵢ, c_labelᵢ) / Σ wᵢ: for l2 the mean squared distance.

    Parameters
    ----------
    vectors : (n, d) numbers
    centers : (k, d) numbers
    labels : (n,) int
    weights : (n,) numbers or None
        Not negative, not all zero; 1 each by default.
    metric : str
        See `vwkit.reference.distances.distances`.
    """
    own = distances(vectors, centers, metric)[np.arange(np.shape(vectors)[0]), np.asarray(labels)]
    return float(np.average(own, weights=None if weights is None else np.asarray(weights, float)))


def update(
    vectors: ArrayLike,
    labels: ArrayLike,
    k: int,
    weights: ArrayLike | None = None,
    previous: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return the weighted mean of the rows of each label: Σ wᵢ xᵢ / Σ wᵢ over its members.

    Parameters
    ----------
    vectors : (n, d) numbers
    labels : (n,) int
    k : int
    weights : (n,) numbers or None
    previous : (k, d) numbers or None
        Where a cluster without members (or without weight) stays.

    Returns
    -------
    (k, d) float64

    Raises
    ------
    DataError
        A cluster is empty and `previous` was not given.
    """
    x, members_of = np.asarray(vectors, np.float64), np.asarray(labels)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    centers = np.empty((k, x.shape[1]))
    for cluster in range(k):
        members = members_of == cluster
        if w[members].sum() > 0:
            centers[cluster] = np.average(x[members], axis=0, weights=w[members])
        elif previous is None:
            raise DataError(f"cluster {cluster} has no members; pass previous centers to keep it")
        else:
            centers[cluster] = np.asarray(previous)[cluster]
    return centers


def reseeds(
    nearest: NDArray[np.float64],
    labels: NDArray[np.int32],
    k: int,
    weights: NDArray[np.float64],
) -> list[tuple[int, int]]:
    """Say which row each empty cluster's center should move to: pairs (cluster, row).

    The rows are those farthest from their own centers, one per empty cluster, the lowest row first
    on ties. Rows at distance 0 or without weight are of no use, so there may be too few rows.

    Parameters
    ----------
    nearest : (n,) float64
        Distance of each row to its own center.
    labels : (n,) int32
    k : int
    weights : (n,) float64
    """
    held = np.bincount(labels, weights=weights, minlength=k)
    empty = [cluster for cluster in range(k) if held[cluster] == 0]
    far = np.argsort(-nearest, kind="stable")
    useful = [int(row) for row in far if nearest[row] > 0 and weights[row] > 0]
    return list(zip(empty, useful, strict=False))


def _settle(
    x: NDArray[np.float64], centers: NDArray[np.float64], w: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Assign; while a cluster is empty and a row is off its center, move the one to the other.

    Ends, because every round brings one more weighted row to distance 0 and none farther away.
    """
    centers = centers.copy()
    while True:
        labels = assign(x, centers)
        nearest = distances(x, centers, "l2").min(axis=1)
        moves = reseeds(nearest, labels, len(centers), w)
        if not moves:
            return centers, labels
        for cluster, row in moves:
            centers[cluster] = x[row]


def lloyd(
    vectors: ArrayLike,
    initial_centers: ArrayLike,
    iterations: int,
    weights: ArrayLike | None = None,
    tolerance: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.int32], list[float]]:
    """Repeat: each center becomes the mean of its rows, then each row goes to the nearest center.

    Empty clusters are reseeded (see `reseeds`) in every assignment, so none is empty when the data
    hold k distinct rows of positive weight; with fewer, the surplus centers stay where they are.
    A row of weight 0 gets a label and influences nothing.

    Parameters
    ----------
    vectors : (n, d) numbers
    initial_centers : (k, d) numbers
    iterations : int
        Updates at most; with 0 the initial centers are returned, but for the reseeding.
    weights : (n,) numbers or None
    tolerance : float
        Stop when the objective falls by no more than this share of itself.

    Returns
    -------
    centers : (k, d) float64
    labels : (n,) int32
        Those of the returned centers.
    objectives : list of float
        One per assignment; never increases but for rounding; the last belongs to the returned
        centers and labels.
    """
    x = np.asarray(vectors, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    centers, labels = _settle(x, np.asarray(initial_centers, np.float64), w)
    objectives = [objective(x, centers, labels, w)]
    for _ in range(iterations):
        centers = update(x, labels, len(centers), w, previous=centers)
        centers, labels = _settle(x, centers, w)
        objectives.append(objective(x, centers, labels, w))
        if objectives[-2] - objectives[-1] <= tolerance * objectives[-2]:
            break
    return centers, labels, objectives


def kmeans_plus_plus(
    vectors: ArrayLike,
    k: int,
    seed: int | Sequence[int],
    weights: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Draw k rows, each with probability ∝ wᵢ · (squared distance to the nearest drawn so far).

    The first is drawn with probability ∝ wᵢ (Arthur, Vassilvitskii 2007, "k-means++: the advantages
    of careful seeding"). When every weighted row has been drawn, the last one is repeated.

    Parameters
    ----------
    vectors : (n, d) numbers
    k : int
    seed : int or sequence of int
    weights : (n,) numbers or None
        Not negative, not all zero.

    Returns
    -------
    (k, d) float64
        Rows of `vectors`.
    """
    x = np.asarray(vectors, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    rng = np.random.default_rng(seed)
    rows = [int(rng.choice(len(x), p=w / w.sum()))]
    while len(rows) < k:
        chances = w * distances(x, x[rows], "l2").min(axis=1)
        if chances.sum() == 0:
            rows.append(rows[-1])
        else:
            rows.append(int(rng.choice(len(x), p=chances / chances.sum())))
    return x[rows]
