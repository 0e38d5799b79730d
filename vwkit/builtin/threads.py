"""The executor that everybody has: the threads of this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vwkit.around import Executor
from vwkit.base import backend
from vwkit.jobs import Chunks, Job, Kernel, ThreadedExecutor

__all__ = ["Threads"]


@backend("threads")
class Threads(Executor):
    """Computes chunks on the threads of this process, as many as ``run.threads`` says."""

    choose = (
        "one machine: the default. NumPy and the native libraries compute without Python's lock."
    )

    deterministic = True

    _threads: ThreadedExecutor | None = None

    def _begin(self, job: Job) -> None:
        self._threads = ThreadedExecutor(job.threads)

    def _end(self) -> None:
        self._threads = None

    def _map(self, kernel: Kernel, chunks: Chunks, arrays: Mapping[str, Any]) -> Iterator[Any]:
        threads = self._threads or ThreadedExecutor(Job().threads)
        return threads.map(kernel, chunks, arrays)
