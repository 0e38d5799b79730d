"""Where a fit is: in which pass over the rows, and behind which row of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

__all__ = ["Doing", "Mark", "Phase"]


class Phase(IntEnum):
    """What a fit is about, in this order."""

    ITERATE = 0  # also the start
    REPAIR = 1  # empty clusters get centers, and all rows are compared
    FILL = 2  # empty clusters get rows
    EXACT = 3
    REFILL = 4  # as `FILL`, behind the exact pass


class Doing(IntEnum):
    """The passes; those of the start in their order."""

    NOTHING = 0
    SPLIT = 1
    FIRST = 2
    MEANS = 3
    SECOND = 4
    WALK = 5
    ASSIGN = 6
    ADD = 7
    COMPARE = 8


@dataclass
class Mark:
    """A place to go on from.

    A pass begins behind `row`, and tells with `reached` how far it has come. Whatever it changes is
    by then as if there were no other rows.

    Attributes
    ----------
    row : int
        Rows of the pass that are done.
    changed : int
        How many of these have another label than before.
    repairs : int
        How often empty clusters have got centers.
    told : callable, optional
        Called behind each block of rows.
    """

    row: int = 0
    changed: int = 0
    phase: Phase = Phase.ITERATE
    doing: Doing = Doing.NOTHING
    repairs: int = 0
    told: Callable[[], None] | None = field(default=None, repr=False)

    def enter(self, what: Doing) -> bool:
        """Begin a pass, if it is not the one that is gone on with; tell whether it was begun."""
        if self.doing == what:
            return False
        self.doing, self.row, self.changed = what, 0, 0
        return True

    def upto(self, what: Doing) -> bool:
        """Enter a pass, if none behind it was begun; tell whether it is to be done."""
        if self.doing > what:
            return False
        self.enter(what)
        return True

    def leave(self) -> None:
        """End the pass."""
        self.enter(Doing.NOTHING)

    def reached(self, row: int) -> None:
        """Say up to which row the pass is done."""
        self.row = row
        if self.told is not None:
            self.told()
