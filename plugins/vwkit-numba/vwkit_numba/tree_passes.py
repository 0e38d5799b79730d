"""Passes over the rows of a vocabulary tree: down its nodes, and into their means.

Each comes in parts that can be gone on behind: blocks of rows here, or long stretches of them, each
spread over workers. Distances and entries are added up as whole numbers, so that the parts do not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.stream import Stream, row_spans
from vwkit_numba.elsewhere import Elsewhere
from vwkit_numba.passes import Passes
from vwkit_numba.room import readonly
from vwkit_numba.totals import PartTotals, Totals
from vwkit_numba.tree_nodes import Nodes

__all__ = ["added_up", "taken_down"]

#: Rows that a thread takes at once.
_TAKEN = 1 << 12
#: Blocks that workers get before the state of a fit is looked at again.
_STRETCH = 256


@dataclass(frozen=True)
class _Distance:
    """The sum of weight times squared distance, in units."""

    total: int

    def merged(self, other: _Distance) -> _Distance:
        """Return that of both's rows."""
        return _Distance(self.total + other.total)


def taken_down(
    passes: Passes,
    tree: Nodes,
    nodes: NDArray[np.int32],
    levels: int,
    beam: int,
    units: float = 0.0,
    row: int = 0,
) -> Iterator[tuple[int, int]]:
    """Take the rows from `row` on down from their nodes, at most so many levels; `nodes` is changed.

    Parameters
    ----------
    units : float
        Per 1 of a squared distance; 0 to leave distances out.

    Yields
    ------
    int, int
        Up to which row it is done, and the sum of weight times squared distance of those since
        the last, in units.
    """
    arrays = {"tree": tree, "levels": levels, "beam": beam, "units": units}
    for part, start, stop in _parts(passes, row):
        found = part.run(_taken_down, arrays, change=(nodes[start:stop],))
        yield stop, sum(one.total for one in found)


def added_up(
    passes: Passes,
    nodes: NDArray[np.int32],
    place: NDArray[np.int32],
    centers: NDArray[np.float32],
    row: int = 0,
) -> Iterator[tuple[int, list[PartTotals]]]:
    """Add up the rows from `row` on by the node where they are.

    Parameters
    ----------
    place : (N,) int32
        Which of the sums a node's rows go to; −1 for none.
    centers : (m, D) float32
        Of the nodes that are summed, in inner coordinates.

    Yields
    ------
    int, list of PartTotals
        Up to which row it is done, and the sums of those since the last.
    """
    arrays = {"place": place, "centers": centers}
    for part, start, stop in _parts(passes, row):
        yield stop, list(part.run(_added_up, arrays, read=(nodes[start:stop],)))


def _parts(passes: Passes, row: int) -> Iterator[tuple[Passes, int, int]]:
    """Cut the rows from one on into parts, each with passes of its own."""
    if row == passes.rows:
        return
    if isinstance(passes, Elsewhere):
        array = passes.stream.array
        if array is None:  # cut anywhere, it could not be read there any more
            yield _part(passes, passes.stream.from_row(row), row)
            return
        for start, stop in row_spans(passes.rows - row, _STRETCH * passes.block):
            yield _part(passes, Stream.from_array(array[row + start : row + stop]), row + start)
        return
    for start, rows in replace(passes, stream=passes.stream.from_row(row), weights=None).parts():
        yield _part(passes, Stream.from_array(rows), row + start)


def _part(passes: Passes, stream: Stream, start: int) -> tuple[Passes, int, int]:
    stop = start + stream.count()
    weights = None if passes.weights is None else passes.weights[start:stop]
    part = replace(passes, stream=stream, weights=weights, first=passes.first + start)
    if isinstance(passes, Elsewhere) and isinstance(part, Elsewhere):
        part.block = passes.block
    elif passes.job.threads > 1:
        part._pool = passes.pool
    return part, start, stop


# Tasks --------------------------------------------------------------------------------------------


def _taken_down(
    passes: Passes, nodes: NDArray[np.int32], *, tree: Nodes, levels: int, beam: int, units: float
) -> _Distance:
    from vwkit_numba import tree_kernels

    frame, total = passes.frame, 0
    shift, first = readonly(frame.shift), readonly(tree.first)
    centers, half = readonly(tree.centers), readonly(tree.half)
    every = np.zeros(0) if passes.weights is None else passes.weights
    for start, block in passes.blocks():
        here = slice(start, start + len(block))
        weights = readonly(every[here])
        block_nodes = nodes[here]

        def one(
            begin: int,
            end: int,
            block: Any = block,
            weights: Any = weights,
            block_nodes: Any = block_nodes,
        ) -> int:
            distance: int = tree_kernels.descend(
                block,
                shift,
                np.float32(frame.scale),
                begin,
                end,
                first,
                centers,
                half,
                levels,
                beam,
                weights,
                units,
                block_nodes,
            )
            return distance

        bounds = np.append(np.arange(0, len(block), _TAKEN), len(block))
        total += sum(passes.spread(one, bounds))
    return _Distance(total)


def _added_up(
    passes: Passes,
    nodes: NDArray[np.int32],
    *,
    place: NDArray[np.int32],
    centers: NDArray[np.float32],
) -> PartTotals:
    own = place[nodes]
    present = np.flatnonzero(np.bincount(own[own >= 0], minlength=len(centers)))
    to = np.full(len(centers) + 1, -1, np.int32)  # the last for those that are left out
    to[present] = np.arange(len(present), dtype=np.int32)
    totals = Totals.zeros(len(present), passes.dim)
    # Pages of zeros that are never written take no memory.
    gaps = np.zeros(len(nodes), np.float32)
    active = np.ones(len(present), np.bool_)
    passes.accumulate(to[own], centers[present], gaps, totals, active, 0)
    return PartTotals(present.astype(np.int32), totals)
