"""Brute-force nearest neighbours, and how many of them somebody else found."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.reference.distances import distances

__all__ = ["recall", "search"]


def search(
    queries: ArrayLike,
    vectors: ArrayLike,
    k: int,
    metric: str,
    ids: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k nearest vectors of each query, nearest first, the lower row first on ties.

    Parameters
    ----------
    queries : (q, d) numbers
    vectors : (n, d) numbers
    k : int
        Neighbours per query; may be above n.
    metric : str
        See `vwkit.reference.distances.distances`.
    ids : (n,) int or None
        What to call each row; its number from 0 by default.
    allowed : (a,) int or None
        The ids that may be returned; all by default. Ids that no row has are ignored.

    Returns
    -------
    ids : (q, k) int64
        -1 where there is no neighbour.
    distances : (q, k) float64
        +inf where there is no neighbour.
    """
    table = distances(queries, vectors, metric)
    n = table.shape[1]
    names = np.arange(n) if ids is None else np.asarray(ids, np.int64)
    permitted = np.ones(n, bool) if allowed is None else np.isin(names, allowed)
    found_ids = np.full((len(table), k), -1, np.int64)
    found = np.full((len(table), k), np.inf)
    for query, row in enumerate(table):
        order = np.argsort(row, kind="stable")
        order = order[permitted[order]][:k]
        found_ids[query, : len(order)] = names[order]
        found[query, : len(order)] = row[order]
    return found_ids, found


def recall(
    found_ids: ArrayLike,
    queries: ArrayLike,
    vectors: ArrayLike,
    metric: str,
    ids: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
    tolerance: float = 1e-6,
) -> float:
    """Return the mean recall@k of somebody's answer, where ties may be broken either way.

    With t the distance of the true k-th neighbour, a returned id counts when it is allowed and its
    true distance is at most t + tolerance·(1 + |t|); each id counts once. A query's recall is that
    count divided by k, or by the number of allowed rows where there are fewer. So an id tied with
    the k-th neighbour is right whichever of them the list of true ids happens to name
    (Aumüller, Bernhardsson, Faithfull 2020, "ANN-Benchmarks", define recall by distance too).

    Parameters
    ----------
    found_ids : (q, k) int
        -1 where nothing was found.
    queries, vectors, metric, ids, allowed
        As for `search`.
    tolerance : float
        Forgives float32 distances.

    Returns
    -------
    float
        From 0 to 1; 1 when there is nothing to find.
    """
    answers = np.asarray(found_ids, np.int64)
    k = answers.shape[1]
    # Every allowed row's id and true distance, nearest first.
    true_ids, true = search(queries, vectors, np.shape(vectors)[0], metric, ids, allowed)
    shares = []
    for answer, row_ids, row in zip(answers, true_ids, true, strict=True):
        wanted = min(k, int(np.isfinite(row).sum()))
        if wanted == 0:
            continue
        limit = row[wanted - 1] + tolerance * (1 + abs(row[wanted - 1]))
        right = row_ids[row <= limit]
        hits = len(set(answer.tolist()) & set(right.tolist()))
        shares.append(min(hits, wanted) / wanted)
    return float(np.mean(shares)) if shares else 1.0
