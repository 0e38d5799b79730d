"""Meters around a trial: memory, time by the clock, and the processors' time."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from pathlib import Path

from vwkit.jobs import available_threads, job
from vwkit.observing.memory import anonymous_memory
from vwkit.planning.spent import NOTHING, Spent

__all__ = ["BUSY", "Clock", "Memory", "busy"]

#: More processes than this for each processor, and times are not those of a quiet machine.
BUSY = 1.5
# The system counts in hundredths of a second: of less than this it tells too little.
_TOLD_BY_THE_SYSTEM = 0.1
# Others that take less of the processors than this share do not hold anybody up.
_OTHERS = 0.1


class Memory:
    """Looks at this process's anonymous memory every few milliseconds, within a ``with`` block.

    Attributes
    ----------
    grown : int
        How far the peak was above the beginning, in bytes.
    kept : int
        How much more there is at the end.
    """

    def __init__(self, every: float = 0.004) -> None:
        self.grown = self.kept = 0
        self._every, self._done = every, threading.Event()

    def __enter__(self) -> Memory:
        gc.collect()
        self._before = self._peak = anonymous_memory()
        self._thread = threading.Thread(target=self._watch, name="vwkit-plan", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        now = anonymous_memory()
        self.grown = max(0, max(self._peak, now) - self._before)
        self.kept = max(0, now - self._before)

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            self._peak = max(self._peak, anonymous_memory())


class Clock:
    """Takes the time of computing within a ``with`` block.

    Attributes
    ----------
    spent : Spent
        What the clock would show on a machine without other work, and what processors worked.

    Notes
    -----
    Where others take the processors, the clock also counts the waiting for them. What is left
    without it is at least the processors' time of this thread, that of all threads shared among as
    many as the job has, and the time in which processors had nothing to do, for which nobody waited: a file, say.
    """

    spent = NOTHING

    def __enter__(self) -> Clock:
        self._system = _system()
        self._before = time.perf_counter(), time.process_time(), time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        now = time.perf_counter(), time.process_time(), time.thread_time()
        clock, cpu, own = (b - a for a, b in zip(self._before, now, strict=True))
        least = max(own, cpu / max(1, job().threads))
        waited, idle = True, 0.0
        before, after = self._system, _system()
        if clock >= _TOLD_BY_THE_SYSTEM and before is not None and after is not None:
            idle, every = (b - a for a, b in zip(before, after, strict=True))
            others = every - idle - cpu
            waited, idle = others > _OTHERS * every, idle / (os.cpu_count() or 1)
        elif busy() <= BUSY:
            waited = False
        if waited:
            clock = min(clock, max(least, idle, 1e-6))
        self.spent = Spent(clock, cpu)


def _system() -> tuple[float, float] | None:
    """Return the seconds that all processors had nothing to do, and all of their seconds."""
    with contextlib.suppress(OSError, ValueError, IndexError, AttributeError):
        with Path("/proc/stat").open() as file:
            told = [int(one) for one in file.readline().split()[1:9]]
        ticks = os.sysconf("SC_CLK_TCK")
        return (told[3] + told[4]) / ticks, sum(told) / ticks
    return None


def busy() -> float:
    """Return how many processes want a processor, for each that there is; 0 where nothing tells."""
    try:
        return os.getloadavg()[0] / available_threads()
    except (OSError, AttributeError):
        return 0.0
