"""Where graph k-means starts: two levels of small clusterings, cheap for any n and k.

The rows are split into about √k groups; each group gets centers in proportion to its rows, drawn
from them, and a few rounds of k-means of its own. A row is compared with 2·√k centers, not with k.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vwkit.hashing import row_hash, sample_rows
from vwkit.stream import Stream, row_spans
from vwkit_numba.passes import Passes, Totals, inner, padded_lists, room
from vwkit_numba.taking import taken

__all__ = ["shares", "start"]

_ROWS_PER_GROUP = 60
_GROUP_ITERATIONS = 5
_ITERATIONS = 2
_SPAN = 1 << 20


def start(
    passes: Passes, k: int, labels: NDArray[np.int32], gaps: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return k centers (k, d), and label the rows by those that they are means of.

    Returns
    -------
    centers, compared
        The means of the rows with each label, and the centers that gave the labels.
    """
    groups = _split(passes, max(1, round(math.sqrt(k))), gaps)
    mass: NDArray[np.float64]
    count = int(groups.max()) + 1
    if passes.weights is None:
        able = _sizes(groups, count)
        mass = np.asarray(able, np.float64)
        useful = None
    else:
        mass = np.asarray(np.bincount(groups, weights=passes.weights, minlength=count), np.float64)
        useful = passes.weights > 0
        able = np.bincount(groups[useful], minlength=count)
    wanted = shares(mass, able, k)
    centers = _drawn(passes, groups, wanted, useful)
    members = np.split(np.arange(len(centers), dtype=np.int32), np.cumsum(wanted)[:-1])
    if len(centers) < k:  # so few rows have weight
        centers = np.concatenate([centers, np.repeat(centers[-1:], k - len(centers), axis=0)])
    lists = padded_lists(members, k)
    totals = Totals.zeros(k, passes.dim)
    every = np.ones(k, np.bool_)
    for step in range(_ITERATIONS):
        compared, half = inner(centers, passes.frame)
        passes.assign(groups, count, lists, compared, half, labels, gaps)
        if step < _ITERATIONS - 1:
            passes.accumulate(labels, compared, gaps, totals, every, step)
            centers = passes.means(totals, centers)
    return centers, compared


def _split(passes: Passes, count: int, gaps: NDArray[np.float32]) -> NDArray[np.int32]:
    """Label the rows by a k-means of a sample."""
    picked = sample_rows(passes.rows, max(_ROWS_PER_GROUP * count, 1 << 14), passes.seed)
    sample = taken(passes.stream, picked)
    weights = None if passes.weights is None else passes.weights[picked]
    useful = np.arange(len(sample)) if weights is None else np.flatnonzero(weights > 0)
    if count == 1 or len(useful) == 0:
        return np.zeros(passes.rows, np.int32)
    inside = Passes(Stream.from_array(sample), weights, passes.frame, passes.job, passes.seed)
    try:
        order = np.argsort(row_hash(passes.seed + 1, useful), kind="stable")
        centers = passes.frame.placed(passes.frame.vectors(sample[useful[order[:count]]]))
        count = len(centers)
        own = np.zeros(len(sample), np.int32)
        nobody = np.zeros(len(sample), np.int32)
        own_gaps = np.empty(len(sample), np.float32)
        totals = Totals.zeros(count, passes.dim)
        every = np.ones(count, np.bool_)
        everyone = padded_lists([np.arange(count)], count)
        for step in range(_GROUP_ITERATIONS):
            compared, half = inner(centers, passes.frame)
            inside.assign(nobody, 1, everyone, compared, half, own, own_gaps)
            inside.accumulate(own, compared, own_gaps, totals, every, step)
            centers = inside.means(totals, centers)
    finally:
        inside.close()
    compared, half = inner(centers, passes.frame)
    groups: NDArray[np.int32] = room(passes.rows, np.int32, passes.job.memory)
    passes.assign(_alike, 1, everyone, compared, half, groups, gaps)
    return groups


def _alike(labels: NDArray[np.int32], _: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.zeros(len(labels), np.int32)


def _sizes(groups: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Count the rows of each group; NumPy would make wide numbers of all rows at once."""
    found = np.zeros(count, np.int64)
    for first, last in row_spans(len(groups), _SPAN):
        found += np.bincount(groups[first:last], minlength=count)
    return found


def shares(mass: NDArray[np.float64], able: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Share k centers out in proportion to `mass`, at least one and at most `able` each.

    Largest remainders; what a group cannot take goes to the others. There are no more groups than
    centers.
    """
    given = (able > 0).astype(np.int64)
    open_ = given < able
    while (left := k - int(given.sum())) > 0 and open_.any():
        part = np.where(open_, mass, 0.0)
        if part.sum() <= 0:
            part = open_.astype(np.float64)
        ideal = part / part.sum() * left
        more = np.minimum(np.floor(ideal).astype(np.int64), able - given)
        short = left - int(more.sum())
        order = np.lexsort((np.arange(len(mass)), -(ideal - more)))
        order = order[open_[order] & ((given + more)[order] < able[order])][:short]
        more[order] += 1
        given += more
        open_ = given < able
    return given


def _drawn(
    passes: Passes,
    groups: NDArray[np.int32],
    wanted: NDArray[np.int64],
    useful: NDArray[np.bool_] | None,
) -> NDArray[np.float32]:
    """Draw as many rows of each group as it is to have centers, and return them, group by group."""
    size = _sizes(groups, len(wanted))
    # Only rows with small hashes can be among the first of their group: look at those alone.
    limits = np.minimum(1.0, (1.5 * wanted + 64) / np.maximum(size, 1))
    near, hashes = _small_hashes(passes, groups, limits, useful)
    few = np.bincount(groups[near], minlength=len(wanted)) < wanted
    if few.any():
        near, hashes = _small_hashes(passes, groups, np.where(few, 1.0, limits), useful)
    order = near[np.lexsort((hashes, groups[near]))]
    firsts = np.searchsorted(groups[order], np.arange(len(wanted)))
    places = np.concatenate(
        [np.arange(first, first + count) for first, count in zip(firsts, wanted, strict=True)]
    )
    return passes.frame.placed(passes.take(order[places]))


def _small_hashes(
    passes: Passes,
    groups: NDArray[np.int32],
    limits: NDArray[np.float64],
    useful: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the rows whose hash is below their group's share of the largest, and their hashes."""
    most = (np.minimum(limits, 0.999) * 2.0**64).astype(np.uint64)
    most[limits >= 1] = np.iinfo(np.uint64).max
    tasks = (
        (range(first, last), groups[first:last], None if useful is None else useful[first:last])
        for first, last in row_spans(passes.rows, _SPAN)
    )
    shared = {"most": most, "seed": passes.seed + 2}
    rows, found = zip(*passes.job.each(_hashes_of, tasks, shared), strict=True)
    return np.concatenate(rows), np.concatenate(found)


def _hashes_of(
    rows: range,
    groups: NDArray[np.int32],
    useful: NDArray[np.bool_] | None,
    *,
    most: NDArray[np.uint64],
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    numbers = np.arange(rows.start, rows.stop, dtype=np.int64)
    hashes = row_hash(seed, numbers)
    kept = hashes <= most[groups]
    if useful is not None:
        kept &= useful
    return numbers[kept], hashes[kept]
