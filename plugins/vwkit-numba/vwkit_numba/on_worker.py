"""What a worker does with a block of rows, and what it sends back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.frames import Frame
from vwkit_numba.passes import Passes, Task
from vwkit_numba.room import readonly
from vwkit_numba.totals import Tally

__all__ = ["Change", "Found", "Work", "merged", "on_block", "parted"]

# What no row has: it tells that nothing was written.
_UNWRITTEN = -1


@dataclass(frozen=True)
class Work:
    """A task on a block, and what it needs of the fit."""

    task: Task
    frame: Frame
    seed: int
    scales: NDArray[np.float64]
    weighted: bool
    reads: int
    written: tuple[np.dtype[Any], ...]


@dataclass(frozen=True)
class Change:
    """What became other numbers among those of the rows of a block.

    Attributes
    ----------
    which : uint8 or None
        Packed bits: for which rows; None for all.
    values
        One for each of these.
    """

    which: NDArray[np.uint8] | None
    values: Array

    @classmethod
    def of(cls, before: Any, after: Array) -> Change:
        """Compare what was and what is; `before` may be one number for all."""
        other = before != after
        return cls(None, after) if other.all() else cls(np.packbits(other), after[other])

    def put(self, into: Array) -> None:
        """Write it over what was."""
        from vwkit_numba import merging

        if self.which is None:
            into[:] = self.values
        else:
            merging.put(readonly(self.which), readonly(self.values), into)


@dataclass(frozen=True)
class Found:
    """What comes of some blocks: for each its rows and what changed there, and all that adds up."""

    blocks: tuple[tuple[range, list[Change]], ...]
    tally: Any


def merged(a: Found, b: Found) -> Found:
    """Return what comes of both's blocks."""
    tally = b.tally if a.tally is None else a.tally
    if a.tally is not None and b.tally is not None:
        tally = a.tally.merged(b.tally)
    return Found(a.blocks + b.blocks, tally)


def parted(found: Found) -> tuple[Found, Found]:
    """Part a result: what is told of each block is to come in the order of the rows."""
    tally = found.tally
    if isinstance(tally, Tally):
        return Found(found.blocks, replace(tally, totals=None)), Found((), tally.totals)
    return Found(found.blocks, None), Found((), tally)


def on_block(
    rows: Array, numbers: range, *given: Array, work: Work, arrays: dict[str, Any]
) -> Found:
    """Run a task on a block of rows."""
    weights = _own(given[0]) if work.weighted else None
    read = given[work.weighted : work.weighted + work.reads]
    before = given[work.weighted + work.reads :]
    # Others may hold what was given.
    changed = [np.array(one) for one in before]
    written = [np.full(len(rows), _UNWRITTEN, dtype) for dtype in work.written]
    stream = Stream.from_array(rows)
    passes = Passes(stream, weights, work.frame, job(), work.seed, _own(work.scales), numbers.start)
    try:
        tally = work.task(passes, *map(_own, read), *changed, *written, **arrays)
    finally:
        passes.close()
    changes = [Change.of(old, new) for old, new in zip(before, changed, strict=True)]
    changes += [Change.of(_UNWRITTEN, new) for new in written]
    return Found(((numbers, changes),), tally)


def _own(array: Array) -> Array:
    """Return what compiled code takes for an ordinary array."""
    own: Array = np.require(array, requirements=["C", "W"])
    return own
