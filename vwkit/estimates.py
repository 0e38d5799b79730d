"""What work is expected to take: the small type that backends answer with, and `vwkit plan` asks for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MAPPED_LABELS", "Estimate", "labels_bytes", "mapped_from"]

#: Labels above this many bytes go to a file, whatever the budget.
MAPPED_LABELS = 1 << 30


@dataclass(frozen=True)
class Estimate:
    """What learning from (or taking in) some rows takes.

    Work is in units of the backend's own: how long one takes is measured on a few rows of the same
    data. Only proportions count, so an author leaves out constants and may leave out small terms.

    Attributes
    ----------
    work : float
        What is done once, in units proportional to time.
    each_pass : float
        Units of one pass over all rows, where there are passes that may end early.
    passes : int
        The most passes there are.
    memory : float, optional
        Peak of anonymous bytes while it works, without the rows that it is handed. None: it is
        measured, and taken to grow with the rows.
    least : float
        Bytes that it holds at once for certain: a budget below this is refused.
    disk : float, optional
        Bytes of what is saved; None as for memory.
    block : float
        Bytes of the rows that it keeps together while it looks at them, where they come computed
        and not from an array.
    reads : float
        How often the rows are read besides the passes, where they come as a Stream.
    reads_each : float
        How often they are read in each pass.

    Examples
    --------
    >>> Estimate(work=10, each_pass=2, passes=5).total(3)
    16
    """

    work: float = 0
    each_pass: float = 0
    passes: int = 0
    memory: float | None = None
    least: float = 0
    disk: float | None = None
    block: float = 24 << 20
    reads: float = 1
    reads_each: float = 1

    def total(self, passes: float | None = None) -> float:
        """Return the units of all work with so many passes, by default the most."""
        return self.work + self.each_pass * (self.passes if passes is None else passes)


def mapped_from(memory: int) -> int:
    """Return above how many bytes one number for each row goes to a file, with such a budget."""
    return min(MAPPED_LABELS, memory // 8)


def labels_bytes(rows: float, memory: int, each: int = 4) -> float:
    """Return the memory that one number for each row takes: none where it goes to a file."""
    return 0 if each * rows > mapped_from(memory) else each * rows
