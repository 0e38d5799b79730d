"""Groups of centers: where a search for the nearest center starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vwkit.hashing import sample_rows
from vwkit.jobs import Job
from vwkit.stream import Stream
from vwkit_numba.passes import Frame, Lists, Passes, Totals, inner, padded_lists

__all__ = ["Coarse", "group_centers"]

_ITERATIONS = 4


@dataclass(frozen=True)
class Coarse:
    """Some centers of centers, and which centers belong to each.

    Attributes
    ----------
    centers : (g, d) float32, in the coordinates of what was grouped
    members : (k,) int32
        Center numbers, group by group.
    starts : (g + 1,) int64
    """

    centers: NDArray[np.float32]
    members: NDArray[np.int32]
    starts: NDArray[np.int64]

    def lists(self, sentinel: int) -> Lists:
        """Return the members as lists."""
        return padded_lists(np.split(self.members, self.starts[1:-1]), sentinel)


def group_centers(
    moved: NDArray[np.float32], job: Job, seed: int, groups: int | None = None
) -> Coarse:
    """Group centers, (k, D) in inner coordinates, by a few rounds of k-means.

    By default there are about √k groups.
    """
    k, wide = moved.shape
    count = max(1, min(k, groups or round(math.sqrt(k))))
    frame = Frame(np.zeros(wide, np.float32), 1.0, False)
    passes = Passes(Stream.from_array(moved), None, frame, job, seed)
    try:
        chosen = moved[sample_rows(k, count, seed)].copy()
        labels = np.zeros(k, np.int32)
        groups_of = np.zeros(k, np.int32)
        gaps = np.empty(k, np.float32)
        totals = Totals.zeros(count, wide)
        every = np.ones(count, np.bool_)
        everyone = padded_lists([np.arange(count)], count)
        for step in range(_ITERATIONS + 1):
            ready, half = inner(chosen, frame)
            passes.assign(groups_of, 1, everyone, ready, half, labels, gaps)
            if step < _ITERATIONS:
                passes.accumulate(labels, ready, gaps, totals, every, step)
                chosen = passes.means(totals, chosen)
        order, starts = passes._grouped(labels, count)
    finally:
        passes.close()
    held = np.flatnonzero(np.diff(starts) > 0)
    return Coarse(
        np.ascontiguousarray(chosen[held]),
        order,
        np.concatenate([starts[held], starts[-1:]]),
    )
