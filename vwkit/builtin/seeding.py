"""Where k-means starts: k-means++ on a sample of the rows.

Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding": each new center is a
row drawn with probability proportional to its squared distance to the centers so far. Beyond the
first centers they are drawn several at a time, an eighth of those held, as in k-means|| (Bahmani et
al. 2012, "Scalable k-means++"), so that the distances are one matrix product.
"""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from vwkit.hashing import row_uniform, sample_rows
from vwkit.jobs import Job
from vwkit.metrics import squared_norms
from vwkit.stream import Stream, row_spans
from vwkit.types import Array

__all__ = ["CALL_WORK", "draws", "plus_plus", "sample_size", "start_work"]

_SAMPLE_PER_CENTER = 10
_SAMPLE_AT_LEAST = 16_384
# A fixed block: float32 products depend on their shape, and the start must not depend on chunks.
_BLOCK = 4096
#: What a pass over very few rows takes in any case, in the same units: about half a millisecond.
CALL_WORK = 1e7
_WORTH_KEEPING = 1.0  # seconds of work


def sample_size(k: int) -> int:
    """Return how many rows k centers are drawn from, at most."""
    return max(_SAMPLE_PER_CENTER * k, _SAMPLE_AT_LEAST)


def draws(k: int) -> float:
    """Return in how many draws k centers are found, about."""
    return min(k, 8) + math.log(max(k, 8) / 8) / math.log(1.125)


def start_work(rows: int, k: int, dim: int) -> float:
    """Return the work of drawing k centers of a sample, where a product of two numbers is 1."""
    return float(rows * dim * (k + 300 * draws(k))) + draws(k) * CALL_WORK


def plus_plus(
    stream: Stream, k: int, seed: int, weights: NDArray[np.float64] | None, current: Job
) -> NDArray[np.float32]:
    """Draw k rows that are far from each other.

    Parameters
    ----------
    stream : Stream of (n, d)
    k : int
    seed : int
    weights : (n,) float64, optional
    current : Job

    Returns
    -------
    (k, d) float32
    """
    picked = sample_rows(stream.count(), sample_size(k), seed)
    rows = stream.take(picked)
    mass = np.ones(len(rows)) if weights is None else weights[picked]
    if not mass.any():
        mass = np.ones(len(rows))
    ready = _centred(rows)
    current = current.here()  # a sample, looked at a hundred times: not worth sending
    kept = current.within("start")
    draw, chosen, distance = _taken_up(kept, len(rows), k)
    begun = time.monotonic()
    while len(chosen) < k:
        current.check()
        draw += 1
        uniform = row_uniform(seed * 1_000_003 + draw, np.arange(len(rows)))
        share = mass * np.where(np.isinf(distance), 1.0, distance)
        with np.errstate(divide="ignore", over="ignore"):
            # The smallest of exponential variables with these rates: a draw in proportion.
            race = np.where(share > 0, -np.log(uniform) / share, np.inf)
        count = min(max(1, len(chosen) // 8), k - len(chosen))
        order = np.lexsort((np.arange(len(rows)), race))[:count]
        fresh = [int(i) for i in order if np.isfinite(race[i])]
        if not fresh:
            break  # no row lies off the centers: fewer distinct rows than k
        chosen += fresh
        new = ready[fresh]
        parts = current.map(
            _closer, ready, {"centers": new}, aligned={"held": distance}, rows=_BLOCK
        )
        distance = np.concatenate(list(parts))
        distance[fresh] = 0
        if time.monotonic() - begun >= _WORTH_KEEPING:
            kept.checkpoint(draw, {"chosen": np.array(chosen, np.int64), "distance": distance})
    centers = rows[chosen].astype(np.float32)
    if len(chosen) < k:
        centers = np.concatenate([centers, np.repeat(centers[-1:], k - len(chosen), axis=0)])
    return np.ascontiguousarray(centers)


def _taken_up(kept: Job, rows: int, k: int) -> tuple[int, list[int], NDArray[np.float32]]:
    """Return the draws so far, what they chose, and each row's distance to it."""
    saved = kept.resume()
    if saved is not None and saved[1].keys() == {"chosen", "distance"}:
        chosen, distance = saved[1]["chosen"], saved[1]["distance"]
        fits = distance.shape == (rows,) and distance.dtype == np.float32
        if fits and chosen.dtype == np.int64 and chosen.ndim == 1 and 0 < len(chosen) <= k:
            return saved[0], chosen.tolist(), distance
    return 0, [], np.full(rows, np.inf, np.float32)


def _centred(rows: Array) -> NDArray[np.float32]:
    """Return the rows about their mean, in a unit that keeps squares within float32's range."""
    mean = rows.mean(axis=0, dtype=np.float64)
    ready = np.empty(rows.shape, np.float32)
    spans = list(row_spans(len(rows), _BLOCK))
    spread = max(float(np.abs(rows[start:stop] - mean).max()) for start, stop in spans)
    unit = 2.0 ** -math.frexp(spread)[1]  # a power of two rounds nothing
    for start, stop in spans:
        ready[start:stop] = (rows[start:stop] - mean) * unit
    return ready


def _closer(chunk: Array, held: Array, *, centers: Array) -> NDArray[np.float32]:
    """Return the smaller of the held distance and that to the nearest of the new centers."""
    score = chunk @ (-2 * centers.T)
    score += squared_norms(centers).astype(np.float32)
    nearest = score.min(axis=1) + squared_norms(chunk).astype(np.float32)
    closer: NDArray[np.float32] = np.minimum(held, np.maximum(nearest, 0))
    return closer
