"""Where requests are worked on: a few threads, and a queue that ends somewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from vwkit.jobs import Job, use_job
from vwkit_serve.errors import RequestError

__all__ = ["Workers"]

T = TypeVar("T")


class Workers:
    """Runs functions on threads, at most `threads` at once, while at most `queue` more wait.

    Parameters
    ----------
    job : Job
        The current one on all threads: its budgets, and its event that stops the work.
    threads, queue : int
    """

    def __init__(self, job: Job, threads: int, queue: int) -> None:
        self.threads = threads
        self._job = job
        self._most = threads + queue
        self._held = 0  # touched in the event loop only
        self._pool = ThreadPoolExecutor(threads, "vwkit-serve")

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what the function returns.

        Raises
        ------
        RequestError
            503: as many as may wait do so already.
        """
        if self._held >= self._most:
            raise RequestError(503, "too many requests at once; try again in a moment")
        loop = asyncio.get_running_loop()
        self._held += 1
        future = self._pool.submit(self._within_job, function, *arguments)

        def done(_: Future[Any]) -> None:
            # Not when the caller stops waiting: a thread cannot be stopped, and its work counts.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._release)

        future.add_done_callback(done)
        return await asyncio.wrap_future(future)

    def _release(self) -> None:
        self._held -= 1

    def _within_job(self, function: Callable[..., T], *arguments: Any) -> T:
        with use_job(self._job):
            return function(*arguments)

    def close(self) -> None:
        """Drop what waits, and wait for what runs."""
        self._pool.shutdown(wait=True, cancel_futures=True)
