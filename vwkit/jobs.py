"""The running work: progress, checkpoints, budgets, and where chunks are computed.

Long work asks `job()` for the current job. Outside a run that is a silent default, so a backend's
code is the same in a notebook, in a pipeline, and on many machines.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vwkit.errors import Interrupted
from vwkit.stream import Stream
from vwkit.types import Array

__all__ = ["Executor", "Job", "Progress", "ThreadedExecutor", "job", "one_blas_thread", "use_job"]

Kernel = Callable[..., Any]
Progress = Callable[[str, int, int | None, str, dict[str, float]], None]
"""Called as ``progress(stage, done, total, unit, values)``."""

# Checkpoints may cost at most one twentieth of the time spent between them.
_CHECKPOINT_SHARE = 20
_KEPT_CHECKPOINTS = 2
_COUNT = "__arrays__"


class Executor(Protocol):
    """Where chunks are computed. `map` yields the kernel's results in the order of the chunks."""

    def map(
        self, kernel: Kernel, chunks: Iterable[tuple[Array, ...]], arrays: Mapping[str, Any]
    ) -> Iterator[Any]:
        """Yield ``kernel(*chunk, **arrays)`` for each chunk, in order."""
        ...


class ThreadedExecutor:
    """Computes chunks on the threads of this process.

    NumPy and the native libraries let go of the interpreter lock while they compute, so threads
    are enough. BLAS gets one thread per worker: two pools on the same cores slow each other down.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def map(
        self, kernel: Kernel, chunks: Iterable[tuple[Array, ...]], arrays: Mapping[str, Any]
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


def available_threads() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity


def available_memory() -> int:
    """Return the machine's (or the container's) memory in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


class Job:
    """What long work runs through.

    Parameters
    ----------
    threads : int, optional
        Threads to use; all available ones by default.
    memory : int, optional
        Budget in bytes; half of the machine's memory by default.
    folder : Path, optional
        Where checkpoints are kept; without it there are none.
    progress : callable, optional
        Told of every step.
    executor : Executor, optional
        Where chunks are computed; threads by default.
    stage : str
        Name of the work, shown with its progress.
    resumable : bool
        Whether checkpoints found in `folder` may be used.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        memory: int | None = None,
        folder: str | Path | None = None,
        progress: Progress | None = None,
        executor: Executor | None = None,
        stage: str = "",
        resumable: bool = True,
        stop: threading.Event | None = None,
    ) -> None:
        self.threads = threads or available_threads()
        self.memory = memory or available_memory() // 2
        self.folder = None if folder is None else Path(folder)
        self.stage = stage
        self.resumable = resumable
        self.stop = stop or threading.Event()
        self._progress = progress
        self._executor = executor or ThreadedExecutor(self.threads)
        self._free_from = 0.0

    def within(self, stage: str, folder: Path | None = None) -> Job:
        """Return a job for one part of the work: same budgets, own name and checkpoints."""
        name = f"{self.stage}.{stage}" if self.stage else stage
        if folder is None and self.folder is not None:
            folder = self.folder / stage
        return Job(
            threads=self.threads,
            memory=self.memory,
            folder=folder,
            progress=self._progress,
            executor=self._executor,
            stage=name,
            resumable=self.resumable,
            stop=self.stop,
        )

    def check(self) -> None:
        """Raise `Interrupted` if the work was asked to stop."""
        if self.stop.is_set():
            raise Interrupted("interrupted; run again with --resume to continue")

    def progress(
        self, done: int, total: int | None = None, unit: str = "rows", **values: float
    ) -> None:
        """Tell how far the work is; also the place where it can be interrupted."""
        self.check()
        if self._progress is not None:
            self._progress(self.stage, done, total, unit, values)

    def map(
        self,
        kernel: Kernel,
        stream: Stream | Array,
        arrays: Mapping[str, Any] | None = None,
        *,
        aligned: Mapping[str, Array] | None = None,
        rows: int | None = None,
        unit: str | None = None,
    ) -> Iterator[Any]:
        """Compute a kernel on every chunk and yield the partial results in chunk order.

        Parameters
        ----------
        kernel : callable
            A module-level function ``kernel(chunk, *aligned_chunks, **arrays)``. It must treat
            each row by itself or return sums that do not depend on how rows are cut into chunks.
        stream : Stream or (n, d) array
            The rows.
        arrays : dict, optional
            Handed to every call, for example the centers.
        aligned : dict of (n, …) arrays, optional
            Cut like the rows and handed over behind them, in this order.
        rows : int, optional
            Rows per chunk; by default what the stream brings.
        unit : str, optional
            With it, progress over rows is reported.
        """
        if not isinstance(stream, Stream):
            stream = Stream.from_array(stream)
        if rows is not None:
            stream = stream.rechunk(rows)
        others = list((aligned or {}).values())

        def chunks() -> Iterator[tuple[Array, ...]]:
            start = 0
            for chunk in stream:
                self.check()
                stop = start + len(chunk)
                yield (chunk, *(other[start:stop] for other in others))
                start = stop
                if unit is not None:
                    self.progress(stop, stream.rows, unit)

        return self._executor.map(kernel, chunks(), arrays or {})

    # Checkpoints ---------------------------------------------------------------------------

    def checkpoint(self, step: int, arrays: Mapping[str, Array]) -> None:
        """Keep the state of the work after `step`, unless the last one is too recent.

        Each is one file, written beside its place, synced and renamed; the last two are kept, so
        that a damaged one costs one step.
        """
        now = time.monotonic()
        if self.folder is None or now < self._free_from:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:09d}.npz"
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                # The count finds out a damaged directory that hides an array; CRCs do the rest.
                held = {_COUNT: np.array(len(arrays))}
                held.update((name, np.asarray(array)) for name, array in arrays.items())
                np.savez(file, allow_pickle=False, **held)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        for old in self._checkpoints()[:-_KEPT_CHECKPOINTS]:
            old.unlink(missing_ok=True)
        end = time.monotonic()
        self._free_from = end + _CHECKPOINT_SHARE * (end - now)

    def resume(self) -> tuple[int, dict[str, Array]] | None:
        """Return the last whole checkpoint as ``(step, arrays)``, or None; drop damaged ones."""
        if not self.resumable:
            self.forget()  # or the new run's checkpoints would be taken for older ones
            return None
        for path in reversed(self._checkpoints()):
            try:
                with zipfile.ZipFile(path) as archive:
                    whole = archive.testzip() is None  # the CRC of all that it holds
                if whole:
                    with np.load(path, allow_pickle=False) as saved:
                        found = {name: saved[name] for name in saved.files if name != _COUNT}
                        if len(found) == int(saved[_COUNT]):
                            return int(path.stem[5:]), found
            except Exception:  # whatever a damaged archive leads to
                pass
            path.unlink(missing_ok=True)
        return None

    def forget(self) -> None:
        """Remove this job's checkpoints, once its result is safe or no longer wanted."""
        for path in self._checkpoints():
            path.unlink(missing_ok=True)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.npz")) if self.folder is not None else []


_current: contextvars.ContextVar[Job | None] = contextvars.ContextVar("vwkit_job", default=None)


def job() -> Job:
    """Return the current job; outside a run, a silent one with the machine's budgets."""
    return _current.get() or Job()


@contextlib.contextmanager
def use_job(current: Job) -> Iterator[Job]:
    """Make a job the current one within a ``with`` block."""
    token = _current.set(current)
    try:
        yield current
    finally:
        _current.reset(token)
