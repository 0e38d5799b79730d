"""What is added up over the rows of each cluster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vwkit_numba.room import readonly

__all__ = ["PartTotals", "Tally", "Totals"]


@dataclass
class Totals:
    """What is added up over the rows of each cluster, in int64 fixed point.

    Attributes
    ----------
    sums : (k, d) int64
    totals : (k, 4) int64
        Weight, rows, weighted distances, weighted gaps to the second nearest center.
    far_keys, far_rows : (k,)
        A row far from its center, drawn with a preference for the farthest; −1 where none is off.
    """

    sums: NDArray[np.int64]
    totals: NDArray[np.int64]
    far_keys: NDArray[np.float64]
    far_rows: NDArray[np.int64]

    @classmethod
    def zeros(cls, k: int, dim: int) -> Totals:
        """Nothing added yet."""
        return cls(
            np.zeros((k, dim), np.int64),
            np.zeros((k, 4), np.int64),
            np.zeros(k),
            np.full(k, -1, np.int64),
        )

    def clear(self, which: NDArray[np.bool_]) -> None:
        """Forget what was added up for some clusters."""
        self.sums[which] = 0
        self.totals[which] = 0
        self.far_keys[which] = 0
        self.far_rows[which] = -1

    def of(self, which: NDArray[np.bool_]) -> Totals:
        """Return those of some clusters alone."""
        return Totals(
            self.sums[which], self.totals[which], self.far_keys[which], self.far_rows[which]
        )

    def add(self, part: PartTotals, place: NDArray[np.int64] | NDArray[np.int32]) -> None:
        """Add what other rows bring; `place` tells for each cluster of the part which it is here.

        In whatever order parts are added, the result is that of one pass over all rows.
        """
        from vwkit_numba.merging import add_rows

        other = part.totals
        # Compiled code sees what came from another process as one type, and 64-bit places as well.
        place = np.asarray(place, np.int64)
        add_rows(readonly(other.sums), place, self.sums)
        add_rows(readonly(other.totals), place, self.totals)
        keys, rows = self.far_keys[place], self.far_rows[place]
        # Of equal keys the first row's is kept, as in a pass.
        farther = other.far_keys > keys
        farther |= (other.far_keys == keys) & (other.far_rows >= 0) & (other.far_rows < rows)
        self.far_keys[place] = np.where(farther, other.far_keys, keys)
        self.far_rows[place] = np.where(farther, other.far_rows, rows)


@dataclass
class PartTotals:
    """The totals of some rows: of the clusters that they are in, so that no zeros travel.

    Attributes
    ----------
    clusters : (a,) int32
        Ascending.
    totals : Totals
        Of these.
    """

    clusters: NDArray[np.int32]
    totals: Totals

    def merged(self, other: PartTotals) -> PartTotals:
        """Return the totals of both's rows."""
        clusters: NDArray[np.int32]
        if np.array_equal(self.clusters, other.clusters):
            clusters = self.clusters
        else:
            clusters = np.union1d(self.clusters, other.clusters)
        found = Totals.zeros(len(clusters), self.totals.sums.shape[1])
        for one in (self, other):
            same = len(one.clusters) == len(clusters)
            place = np.arange(len(clusters)) if same else np.searchsorted(clusters, one.clusters)
            found.add(one, place)
        return PartTotals(clusters, found)


@dataclass(frozen=True)
class Tally:
    """What an assignment of some rows comes to.

    Attributes
    ----------
    changed : int
        Labels that changed.
    touched : (k / 8,) uint8
        Packed bits: the clusters that rows left or came to.
    totals : PartTotals, optional
        Of the rows, if they were added up at once.
    """

    changed: int
    touched: NDArray[np.uint8]
    totals: PartTotals | None = None

    @classmethod
    def of(
        cls, changed: int, touched: NDArray[np.bool_], totals: PartTotals | None = None
    ) -> Tally:
        """Pack the bits."""
        return cls(changed, np.packbits(touched), totals)

    def mark(self, touched: NDArray[np.bool_]) -> None:
        """Set the clusters that were touched."""
        touched |= np.unpackbits(self.touched, count=len(touched)).view(np.bool_)

    def merged(self, other: Tally) -> Tally:
        """Return what it comes to for both's rows."""
        totals = None
        if self.totals is not None and other.totals is not None:
            totals = self.totals.merged(other.totals)
        return Tally(self.changed + other.changed, self.touched | other.touched, totals)
