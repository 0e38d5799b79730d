"""Time as a plan tells it: by the clock, and of the processors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["NOTHING", "Spent"]


@dataclass(frozen=True)
class Spent:
    """Seconds that something takes.

    Attributes
    ----------
    clock : float
        On a machine without other work.
    cpu : float
        What processors work, all threads together: the same on a busy machine.

    Examples
    --------
    >>> Spent(1, 2) * 3 + Spent(0.5)
    Spent(clock=3.5, cpu=6.5)
    """

    clock: float
    cpu: float = -1.0

    def __post_init__(self) -> None:
        if self.cpu < 0:  # one thread works all the time
            object.__setattr__(self, "cpu", self.clock)

    @classmethod
    def of(cls, told: Mapping[str, Any], name: str) -> Spent:
        """Read what `plain` wrote; nothing where there is none."""
        clock, cpu = told.get(name, (0.0, 0.0))
        return cls(float(clock), float(cpu))

    def plain(self) -> list[float]:
        """Return what JSON can hold."""
        return [self.clock, self.cpu]

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.clock + other.clock, self.cpu + other.cpu)

    def __mul__(self, factor: float) -> Spent:
        return Spent(self.clock * factor, self.cpu * factor)

    def less(self, other: Spent) -> Spent:
        """Return what is left without `other`, not below nothing."""
        return Spent(max(0.0, self.clock - other.clock), max(0.0, self.cpu - other.cpu))


NOTHING = Spent(0.0, 0.0)
