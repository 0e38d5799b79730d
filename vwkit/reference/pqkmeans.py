"""k-means of product-quantized codes whose centers are codes too.

Matsui, Ogaki, Yamasaki, Aizawa 2017, "PQk-means: Billion-scale Clustering for Product-quantized
Codes". The distance is the symmetric one of `vwkit.reference.pq.symmetric_distance`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.reference import pq
from vwkit.reference.lloyd import reseeds

__all__ = ["assign", "objective", "pqkmeans", "update"]


def assign(codes: ArrayLike, center_codes: ArrayLike, codebook: ArrayLike) -> NDArray[np.int32]:
    """Return the nearest center code of each code in symmetric distance, lowest id on ties.

    Parameters
    ----------
    codes : (n, m) int
    center_codes : (k, m) int
    codebook : (m, ks, d/m) numbers

    Returns
    -------
    (n,) int32
    """
    table = pq.symmetric_distance(codes, center_codes, codebook)
    return np.asarray(table.argmin(axis=1), np.int32)


def objective(
    codes: ArrayLike,
    center_codes: ArrayLike,
    labels: ArrayLike,
    codebook: ArrayLike,
    weights: ArrayLike | None = None,
) -> float:
    """Return the weighted mean symmetric distance of each code to the center of its label.

    Parameters
    ----------
    codes : (n, m) int
    center_codes : (k, m) int
    labels : (n,) int
    codebook : (m, ks, d/m) numbers
    weights : (n,) numbers or None
        Not negative, not all zero; 1 each by default.
    """
    table = pq.symmetric_distance(codes, center_codes, codebook)
    own = table[np.arange(len(table)), np.asarray(labels)]
    return float(np.average(own, weights=None if weights is None else np.asarray(weights, float)))


def update(
    codes: ArrayLike,
    labels: ArrayLike,
    previous: ArrayLike,
    codebook: ArrayLike,
    weights: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Return, for each cluster and subspace, the codeword nearest to the members in sum.

    With h the histogram of the members' codewords in a subspace and D its table of squared
    distances, that is argmin over c of Σⱼ h[j]·D[c, j], lowest c on ties (the paper's sparse
    voting). Subspaces add up, so this is the best center code there is.

    Parameters
    ----------
    codes : (n, m) int
    labels : (n,) int
    previous : (k, m) int
        The centers so far; a cluster without members (or without weight) keeps its own.
    codebook : (m, ks, d/m) numbers
    weights : (n,) numbers or None

    Returns
    -------
    (k, m) int64
    """
    c, members_of, centers = np.asarray(codes), np.asarray(labels), np.array(previous, np.int64)
    w = np.ones(len(c)) if weights is None else np.asarray(weights, np.float64)
    for part, table in enumerate(pq.symmetric_tables(codebook)):
        for cluster in range(len(centers)):
            members = members_of == cluster
            votes = np.bincount(c[members, part], weights=w[members], minlength=len(table))
            if votes.sum() > 0:
                centers[cluster, part] = (table * votes).sum(axis=1).argmin()
    return centers


def _settle(
    c: NDArray[np.int64],
    centers: NDArray[np.int64],
    codebook: ArrayLike,
    w: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Assign; while a cluster is empty and a code is off its center, move the one to the other."""
    centers = centers.copy()
    while True:
        labels = assign(c, centers, codebook)
        nearest = pq.symmetric_distance(c, centers, codebook).min(axis=1)
        moves = reseeds(nearest, labels, len(centers), w)
        if not moves:
            return centers, labels
        for cluster, row in moves:
            centers[cluster] = c[row]


def pqkmeans(
    codes: ArrayLike,
    codebook: ArrayLike,
    initial_center_codes: ArrayLike,
    iterations: int,
    weights: ArrayLike | None = None,
    tolerance: float = 0.0,
) -> tuple[NDArray[np.uint8 | np.uint16], NDArray[np.int32], list[float]]:
    """Repeat `update` and `assign`, as `vwkit.reference.lloyd.lloyd` does for vectors.

    Empty clusters, stopping and weights are as there.

    Parameters
    ----------
    codes : (n, m) int
    codebook : (m, ks, d/m) numbers
    initial_center_codes : (k, m) int
    iterations : int
        Updates at most.
    weights : (n,) numbers or None
    tolerance : float
        Stop when the objective falls by no more than this share of itself.

    Returns
    -------
    center_codes : (k, m) uint8 or uint16
    labels : (n,) int32
        Those of the returned centers.
    objectives : list of float
        One per assignment; the last belongs to the returned centers and labels.
    """
    c = np.asarray(codes, np.int64)
    w = np.ones(len(c)) if weights is None else np.asarray(weights, np.float64)
    centers, labels = _settle(c, np.asarray(initial_center_codes, np.int64), codebook, w)
    objectives = [objective(c, centers, labels, codebook, w)]
    for _ in range(iterations):
        centers = update(c, labels, centers, codebook, w)
        centers, labels = _settle(c, centers, codebook, w)
        objectives.append(objective(c, centers, labels, codebook, w))
        if objectives[-2] - objectives[-1] <= tolerance * objectives[-2]:
            break
    return centers.astype(pq.code_dtype(np.shape(codebook)[1])), labels, objectives
