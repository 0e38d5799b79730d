"""The running work: progress, checkpoints, budgets, and where chunks are computed.

Long work asks `job()` for the current job. Outside a run that is a silent default, so a backend's
code is the same in a notebook, in a pipeline, and on many machines.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from vwkit.checkpoints import found_checkpoints, read_checkpoint, write_checkpoint
from vwkit.chunks import ChunkMapper, Chunks, Kernel, ThreadedExecutor, one_blas_thread
from vwkit.errors import CheckpointWarning, Interrupted
from vwkit.stream import Stream
from vwkit.types import Array

__all__ = [
    "COMPILED",
    "ChunkMapper",
    "Chunks",
    "Job",
    "Kernel",
    "Progress",
    "ThreadedExecutor",
    "job",
    "one_blas_thread",
    "use_job",
]

Progress = Callable[[str, int, int | None, str, dict[str, float]], None]
"""Called as ``progress(stage, done, total, unit, values)``."""

# Checkpoints may cost at most one twentieth of the time spent between them.
_CHECKPOINT_SHARE = 20
_KEPT_CHECKPOINTS = 2
_TRIED_AGAIN_SECONDS = 60.0


#: The event of `Job.note` that tells how many ``seconds`` kernels were compiled that are kept.
COMPILED = "kernels compiled"


class Observer(Protocol):
    """Told of all that happens in a run.

    Attributes
    ----------
    checkpoints : int
        How many were written since the stage began.
    """

    checkpoints: int

    def progress(
        self, stage: str, done: int, total: int | None, unit: str, values: dict[str, float]
    ) -> None:
        """Take note of a step."""
        ...

    def note(
        self, event: str, stage: str, message: str, level: str, values: dict[str, Any]
    ) -> None:
        """Take note of what happened."""
        ...


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
    executor : ChunkMapper, optional
        Where chunks are computed; threads by default. See also `vwkit.Executor`.
    stage : str
        Name of the work, shown with its progress.
    resumable : bool
        Whether checkpoints found in `folder` may be used.
    observer : Observer, optional
        Keeps a run's log and progress file; see `vwkit.observing`.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        memory: int | None = None,
        folder: str | Path | None = None,
        progress: Progress | None = None,
        executor: ChunkMapper | None = None,
        stage: str = "",
        resumable: bool = True,
        stop: threading.Event | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.threads = threads or available_threads()
        self.memory = memory or available_memory() // 2
        self.folder = None if folder is None else Path(folder)
        self.stage = stage
        self.resumable = resumable
        self.stop = stop or threading.Event()
        self.observer = observer
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
            observer=self.observer,
        )

    def beside(self, stage: str) -> Job:
        """Return a job for a part that is done beside others: one thread, and its share of memory.

        It has checkpoints of its own; progress is told by whoever counts the parts.
        """
        part = self.within(stage)
        part.memory = max(1, self.memory // self.threads)
        part.threads, part._executor = 1, ThreadedExecutor(1)
        part._progress = None
        return part

    def using(self, executor: ChunkMapper) -> Job:
        """Return the same job, its chunks computed elsewhere."""
        return Job(
            threads=self.threads,
            memory=self.memory,
            folder=self.folder,
            progress=self._progress,
            executor=executor,
            stage=self.stage,
            resumable=self.resumable,
            stop=self.stop,
            observer=self.observer,
        )

    def here(self) -> Job:
        """Return the same job, its chunks computed by the threads of this process.

        For work on data that only this process has, and that takes less time than sending them.
        """
        return self.using(ThreadedExecutor(self.threads)) if self.distributed else self

    def check(self) -> None:
        """Raise `Interrupted` if the work was asked to stop."""
        if self.stop.is_set():
            raise Interrupted("interrupted; run again with --resume to continue")

    def progress(
        self, done: int, total: int | None = None, unit: str = "rows", **values: float
    ) -> None:
        """Tell how far the work is; also the place where it can be interrupted."""
        self.check()
        if self.observer is not None:
            self.observer.progress(self.stage, done, total, unit, values)
        if self._progress is not None:
            self._progress(self.stage, done, total, unit, values)

    def note(self, event: str, message: str = "", *, level: str = "info", **values: Any) -> None:
        """Write a line into the run's log; outside a run nothing happens.

        Parameters
        ----------
        event : str
            What happened, in two or three words that stay the same: ``checkpoint written``. With
            `COMPILED` and the value ``seconds``, a backend tells of time that is not spent again
            the next time: a plan leaves it out.
        message : str
            What a person wants to know of it.
        level : str
            ``debug``, ``info``, ``warning`` or ``error``.
        **values
            Plain data that belong to it.
        """
        if self.observer is not None:
            self.observer.note(event, self.stage, message, level, values)

    def map(
        self,
        kernel: Kernel,
        stream: Stream | Array,
        arrays: Mapping[str, Any] | None = None,
        *,
        aligned: Mapping[str, Array] | None = None,
        rows: int | None = None,
        unit: str | None = None,
        combine: Callable[[Any, Any], Any] | None = None,
        split: Callable[[Any], tuple[Any, Any]] | None = None,
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
        combine : callable, optional
            ``combine(a, b)`` makes one result of those of two neighbouring chunks, and it does not
            matter which come together first. Then fewer results may come: an executor on many
            machines adds them up there.
        split : callable, optional
            With `combine`, for results that also say something of each row: ``split(result)`` is
            ``(rows, sums)``, two such results. The first has no sums; it travels by itself, so that
            the labels of all rows are not handed around with the sums. The second says nothing of
            any row, is combined in any order, and comes last.
        """
        if not isinstance(stream, Stream):
            stream = Stream.from_array(stream)
        if rows is not None:
            stream = stream.rechunk(rows)
        source = stream
        others = list((aligned or {}).values())

        def done(stop: int) -> None:
            self.check()
            if unit is not None:
                self.progress(stop, source.rows, unit)

        def tuples() -> Iterator[tuple[Array, ...]]:
            start = 0
            for chunk in source:
                self.check()
                stop = start + len(chunk)
                yield (chunk, *(other[start:stop] for other in others))
                start = stop
                done(stop)

        spans = source.spans if self.distributed else None
        chunks = Chunks(
            tuples,
            reader=None if spans is None else source.reader,
            spans=spans,
            aligned=others,
            combine=combine,
            split=split,
            done=done,
        )
        return self._executor.map(kernel, chunks, arrays or {})

    def each(
        self,
        kernel: Kernel,
        tasks: Iterable[tuple[Any, ...]],
        shared: Mapping[str, Any] | None = None,
    ) -> Iterator[Any]:
        """Compute independent pieces of work and yield the results in the order of the tasks.

        Parameters
        ----------
        kernel : callable
            A module-level function ``kernel(*task, **shared)``. With `distributed`, it and what it
            is given are pickled.
        tasks : iterable of tuples
            Taken little ahead of the results.
        shared : dict, optional
            Handed to every call.
        """

        def tuples() -> Iterator[tuple[Any, ...]]:
            for task in tasks:
                self.check()
                yield task

        return self._executor.map(kernel, Chunks(tuples), shared or {})

    @property
    def distributed(self) -> bool:
        """Whether chunks are computed in other processes, perhaps on other machines."""
        return bool(getattr(self._executor, "distributed", False))

    # Checkpoints ---------------------------------------------------------------------------

    def checkpoint(self, step: int, arrays: Mapping[str, Array]) -> None:
        """Keep the state of the work after `step`, unless the last one is too recent.

        Each is one file, written beside its place, synced and renamed; the last two are kept, so
        that a damaged one costs one step. They cost at most one twentieth of the time, so call this
        as often as there is a state to keep. One that cannot be written (a full disk) costs a
        `CheckpointWarning`, and not the work.

        Parameters
        ----------
        step : int
            Grows with every state; it need not be without gaps.
        arrays : dict of arrays
        """
        now = time.monotonic()
        if self.folder is None or now < self._free_from:
            return
        try:
            write_checkpoint(self.folder, step, arrays)
            found = found_checkpoints(self.folder)
            own = [path for other, path in found if other <= step]
            # One of a later step was not taken up: it is of other work, and would outlive this one's.
            for path in {path for _, path in found}.difference(own[-_KEPT_CHECKPOINTS:]):
                path.unlink(missing_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            text = (
                f"{self.folder}: no checkpoint could be written ({reason}); going on without: after "
                "a kill, more is done again"
            )
            warnings.warn(CheckpointWarning(text, reason), stacklevel=2)
            self._free_from = time.monotonic() + _TRIED_AGAIN_SECONDS
            return
        end = time.monotonic()
        self._free_from = end + _CHECKPOINT_SHARE * (end - now)
        self.note("checkpoint written", level="debug", step=step, seconds=round(end - now, 3))

    def resume(self) -> tuple[int, dict[str, Array]] | None:
        """Return the last whole checkpoint as ``(step, arrays)``, or None; drop damaged ones.

        Large arrays are memory maps. It is for the caller to see whether they are of such a work at
        all: their names, shapes and dtypes.
        """
        if not self.resumable:
            self.forget()  # or the new run's checkpoints would be taken for older ones
            return None
        if self.folder is None:
            return None
        for step, path in reversed(found_checkpoints(self.folder)):
            arrays = read_checkpoint(path)
            if arrays is not None:
                self.taken_up(step)
                return step, arrays
            self.note("damaged checkpoint dropped", path.name, level="warning")
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    def taken_up(self, step: int) -> None:
        """Say that the work goes on: what was done before does not count for how fast it is."""
        self.note("checkpoint taken up", f"step {step:,}", step=step)
        if self._progress is not None:
            self._progress(self.stage, 0, None, "", {"resumed": float(step)})

    def forget(self) -> None:
        """Remove this job's checkpoints, once its result is safe or no longer wanted."""
        if self.folder is not None:
            for _, path in found_checkpoints(self.folder):
                with contextlib.suppress(OSError):
                    path.unlink()


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
