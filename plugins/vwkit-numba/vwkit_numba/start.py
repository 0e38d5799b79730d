"""Where graph k-means starts: two levels of small clusterings, cheap for any n and k.

The rows are split into about √k groups; each group gets centers in proportion to its rows, drawn
from them, and a few rounds of k-means of its own. A row is compared with 2·√k centers, not with k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vwkit.hashing import row_hash, sample_rows
from vwkit.stream import Stream, row_spans
from vwkit_numba.marks import Doing, Mark
from vwkit_numba.passes import Passes, Totals, inner, padded_lists
from vwkit_numba.taking import taken

__all__ = ["Sketch", "shares", "start"]

_ROWS_PER_GROUP = 60
_GROUP_ITERATIONS = 5
_SPAN = 1 << 20


@dataclass
class Sketch:
    """What a start has so far.

    Attributes
    ----------
    groups : (n,) int32
        The group of each row.
    centers : (·, d) float32
        Of the groups, then those that are drawn in them.
    wanted : (g,) int64
        How many centers each group gets.
    """

    groups: NDArray[np.int32]
    centers: NDArray[np.float32]
    wanted: NDArray[np.int64]


def start(
    passes: Passes,
    k: int,
    sketch: Sketch,
    labels: NDArray[np.int32],
    gaps: NDArray[np.float32],
    totals: Totals,
    mark: Mark,
) -> NDArray[np.float32]:
    """Return k centers (k, d), and label the rows by those that they are means of.

    Parameters
    ----------
    sketch
        Empty, or of a start that is gone on with from `mark`.
    labels, gaps, totals
        Written.
    """
    groups = sketch.groups
    if mark.upto(Doing.SPLIT):
        _split(passes, max(1, round(math.sqrt(k))), sketch, gaps, mark)
        sketch.centers, sketch.wanted = _spread_out(passes, groups, k)
    wanted, centers = sketch.wanted, sketch.centers
    members = np.split(np.arange(int(wanted.sum()), dtype=np.int32), np.cumsum(wanted)[:-1])
    lists, count = padded_lists(members, k), len(wanted)
    compared, half = inner(centers, passes.frame)
    if mark.upto(Doing.FIRST):
        passes.assign(groups, count, lists, compared, half, labels, gaps, mark=mark)
    if mark.upto(Doing.MEANS):
        every = np.ones(k, np.bool_)
        passes.accumulate(labels, compared, gaps, totals, every, 0, mark)
        sketch.centers = centers = passes.means(totals, centers)
        compared, half = inner(centers, passes.frame)
    mark.enter(Doing.SECOND)
    passes.assign(groups, count, lists, compared, half, labels, gaps, mark=mark)
    return centers


def _spread_out(
    passes: Passes, groups: NDArray[np.int32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw k centers from the groups in proportion to their rows; return them, and how many each got."""
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
    if len(centers) < k:  # so few rows have weight
        centers = np.concatenate([centers, np.repeat(centers[-1:], k - len(centers), axis=0)])
    return centers, wanted


def _split(
    passes: Passes, count: int, sketch: Sketch, gaps: NDArray[np.float32], mark: Mark
) -> None:
    """Label the rows by a k-means of a sample."""
    if mark.row == 0:
        sketch.centers = _middles(passes, count)
    compared, half = inner(sketch.centers, passes.frame)
    count = len(sketch.centers)
    if count > 1:
        everyone = padded_lists([np.arange(count)], count)
        passes.assign(_alike, 1, everyone, compared, half, sketch.groups, gaps, mark=mark)


def _middles(passes: Passes, count: int) -> NDArray[np.float32]:
    """Return at most so many centers of a sample."""
    picked = sample_rows(passes.rows, max(_ROWS_PER_GROUP * count, 1 << 14), passes.seed)
    sample = taken(passes.stream, picked)
    weights = None if passes.weights is None else passes.weights[picked]
    useful = np.arange(len(sample)) if weights is None else np.flatnonzero(weights > 0)
    if count == 1 or len(useful) == 0:
        return np.zeros((1, passes.dim), np.float32)
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
    return centers


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
