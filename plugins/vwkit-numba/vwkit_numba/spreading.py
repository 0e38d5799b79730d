"""Pieces of a pass, spread over the job's threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import Job

__all__ = ["Spread"]

#: Pieces of work for each thread, so that an uneven one does not keep the others waiting.
_PARTS = 8


class Spread:
    """What passes have in common that run kernels on several threads."""

    job: Job

    @property
    def pool(self) -> ThreadPoolExecutor:
        """Threads for the kernels, which hold no lock of Python's."""
        if not hasattr(self, "_pool"):
            self._pool = ThreadPoolExecutor(self.job.threads, "vwkit-numba")
        return self._pool

    def close(self) -> None:
        """End the threads."""
        if hasattr(self, "_pool"):
            self._pool.shutdown()

    def spread(self, function: Callable[[int, int], Any], bounds: NDArray[Any]) -> list[Any]:
        """Call ``function(first, last)`` for consecutive bounds, on all threads."""
        self.job.check()
        pairs = [(int(a), int(b)) for a, b in pairwise(bounds) if a < b]
        if self.job.threads == 1 or len(pairs) < 2:
            return [function(a, b) for a, b in pairs]
        return list(self.pool.map(lambda pair: function(*pair), pairs))

    def even(self, count: int) -> NDArray[Any]:
        """Cut 0…count into parts for the threads."""
        parts = min(count, self.job.threads * _PARTS)
        return np.linspace(0, count, parts + 1).astype(np.int64)

    def by_rows(self, starts: NDArray[np.int64]) -> NDArray[Any]:
        """Cut groups into parts of about as many rows."""
        load = starts + 2 * np.arange(len(starts))
        parts = min(len(starts) - 1, self.job.threads * _PARTS)
        bounds = np.searchsorted(load, np.linspace(0, load[-1], parts + 1))
        bounds[0], bounds[-1] = 0, len(starts) - 1
        return bounds
