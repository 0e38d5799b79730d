"""The chunks of a pass over rows, and who computes them: here, the threads of this process."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from vwkit.types import Array

__all__ = ["ChunkMapper", "Chunks", "Kernel", "ThreadedExecutor", "one_blas_thread"]

Kernel = Callable[..., Any]


class ChunkMapper(Protocol):
    """Where chunks are computed. `map` yields the kernel's results in the order of the chunks."""

    def map(
        self, kernel: Kernel, chunks: Iterable[tuple[Any, ...]], arrays: Mapping[str, Any]
    ) -> Iterator[Any]:
        """Yield ``kernel(*chunk, **arrays)`` for each chunk, in order.

        `chunks` are mostly `Chunks`, which know more: an executor on other machines has them read
        there, and adds up results before they travel.
        """
        ...


class Chunks:
    """The chunks of one `Job.map` or `Job.each`: to iterate over, or to get at in other ways.

    Attributes
    ----------
    reader : RowReader or None
        Reads rows in any process, where the source can.
    spans : list of (start, stop) or None
        The rows of each chunk, where they are known beforehand. A cut elsewhere is not allowed.
    aligned : list of (n, …) arrays
        Cut like the rows and handed to the kernel behind them.
    combine : callable or None
        ``combine(a, b)`` makes one result of those of two neighbours, and it does not matter which
        neighbours come together first. An executor may, but need not, yield fewer results so.
    split : callable or None
        ``split(result)`` parts a result into what is said of its rows, which stays in order and is
        not combined any further, and what is added up; see `Job.map`.
    """

    def __init__(
        self,
        tuples: Callable[[], Iterator[tuple[Any, ...]]],
        *,
        reader: Any = None,
        spans: list[tuple[int, int]] | None = None,
        aligned: list[Array] | None = None,
        combine: Callable[[Any, Any], Any] | None = None,
        split: Callable[[Any], tuple[Any, Any]] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> None:
        self._tuples = tuples
        self._done = done
        self.reader = reader
        self.spans = spans
        self.aligned = aligned or []
        self.combine = combine
        self.split = split

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._tuples()

    def done(self, rows: int) -> None:
        """Tell how many rows are done; only for who does not iterate."""
        if self._done is not None:
            self._done(rows)


class ThreadedExecutor:
    """Computes chunks on the threads of this process.

    NumPy and the native libraries let go of the interpreter lock while they compute, so threads
    are enough. BLAS gets one thread per worker: two pools on the same cores slow each other down.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def map(
        self, kernel: Kernel, chunks: Iterable[tuple[Any, ...]], arrays: Mapping[str, Any]
    ) -> Iterator[Any]:
        """Yield ``kernel(*chunk, **arrays)`` in order, at most ``threads + 1`` chunks ahead."""
        if self.threads == 1:
            for chunk in chunks:
                with _one_blas_thread():
                    result = kernel(*chunk, **arrays)
                yield result
            return
        waiting: deque[Future[Any]] = deque()
        # In each worker too: a BLAS that is built on OpenMP counts by thread.
        pool = ThreadPoolExecutor(self.threads, "vwkit", initializer=_one_blas_thread)
        with _one_blas_thread(), pool:
            try:
                for chunk in chunks:
                    waiting.append(pool.submit(kernel, *chunk, **arrays))
                    if len(waiting) > self.threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


_controller_lock = threading.Lock()
_controller: Any = None
_modules_seen = 0


def one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    """Let BLAS use one thread within a ``with`` block, so that its sums have one order."""
    return _one_blas_thread()


def _one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    global _controller, _modules_seen
    with _controller_lock:
        # Looking for the loaded libraries takes a millisecond, so it is done again only when
        # modules, and perhaps a BLAS with them, have come.
        if _controller is None or len(sys.modules) != _modules_seen:
            from threadpoolctl import ThreadpoolController

            _controller = ThreadpoolController()
            _modules_seen = len(sys.modules)
    limit: contextlib.AbstractContextManager[Any] = _controller.limit(limits=1, user_api="blas")
    return limit
