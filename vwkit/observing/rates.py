"""How fast work goes, and how long it will take: over the last half minute, and over all of it."""

from __future__ import annotations

from collections import deque

__all__ = ["Rate"]

_WINDOW = 30.0
#: Reports that are nearer together than this are taken as one: the memory stays small.
_APART = 0.25


class Rate:
    """The rate of one stage.

    Work that was done before (a stage taken up from its checkpoint) does not count: after `resumed`
    the next report only says where the work begins. Where the count goes back to the start (a
    second pass over the rows), it goes on from what was done.

    Parameters
    ----------
    now : float
        When the stage began, in seconds of any clock that never goes back.
    """

    def __init__(self, now: float) -> None:
        self.done = 0
        self.total: int | None = None
        self._counted = 0  # all passes together, without what was done before
        self._unknown = False  # whether the next report is where the work begins
        self._start = now
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])

    def resumed(self, now: float) -> None:
        """Take what the next report says as done before."""
        self._unknown = True
        self._again(now)

    def told(self, done: int, total: int | None, now: float) -> None:
        """Take note of a report."""
        if self._unknown:
            self._unknown = False
            self._again(now)
        elif done < self.done:
            self._counted += max(0, done)
        else:
            self._counted += done - self.done
        self.done, self.total = done, total
        if len(self._seen) > 1 and now - self._seen[-2][0] < _APART:
            self._seen[-1] = now, self._counted
        else:
            self._seen.append((now, self._counted))
        # One from before the window stays, so that slow work has a rate, too.
        while len(self._seen) > 2 and self._seen[1][0] < now - _WINDOW:
            self._seen.popleft()

    def _again(self, now: float) -> None:
        self._counted, self._start = 0, now
        self._seen = deque([(now, 0)])

    def now(self) -> float | None:
        """Return units per second over the last half minute; None where it is not known yet."""
        return _rate(self._seen[0], self._seen[-1])

    def overall(self) -> float | None:
        """Return units per second since the stage began."""
        return _rate((self._start, 0), self._seen[-1])

    def seconds_left(self) -> float | None:
        """Return how long this pass will take at the rate of now; None where that is not known."""
        rate = self.now()
        if rate is None or not self.total:
            return None
        return max(0, self.total - self.done) / rate


def _rate(first: tuple[float, int], last: tuple[float, int]) -> float | None:
    seconds, units = last[0] - first[0], last[1] - first[1]
    return units / seconds if seconds > 0 and units > 0 else None
