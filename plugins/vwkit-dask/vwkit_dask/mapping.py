"""One map: tasks are made of chunks, kept in flight, waited for, and what is lost is made again."""

from __future__ import annotations

import contextlib
import importlib
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any

from vwkit.jobs import Chunks, Job, Kernel
from vwkit_dask.cluster import Cluster, ClusterError
from vwkit_dask.work import (
    Dropped,
    Result,
    Shared,
    combined,
    compute_chunk,
    compute_spans,
    pack,
    part_of,
    shared_value,
)

__all__ = ["Mapped"]

_TASKS = 4  # for each thread of the cluster, so that a slow one does not keep the others waiting
_SPANS = 4  # of about 8 MiB, at most, where results are not added up
_REPEATS = 3  # of what Dask gives up, which itself tries four times where workers die
_LOOK = 0.1  # seconds between two looks at whether to stop
_COUNT_EVERY = 2.0  # seconds between two looks at whether there are workers
_LARGE = 1 << 20  # bytes from which on what is shared goes from worker to worker as a tree
_SOON = 10  # priority of what makes results smaller, over that of what makes more of them


@dataclass(eq=False)
class _Piece:
    """A task, and how to make it again."""

    function: Callable[..., Any]
    needs: list[_Piece]
    args: tuple[Any, ...] = ()
    near: str | None = None  # the worker that is to do it, if it can
    home: str | None = None  # the worker that probably holds the result
    stop: int = 0  # rows up to here are done with it
    future: Any = None
    repeats: int = 0


class Mapped:
    """The running map of a kernel over chunks. Use it in a ``with`` block, which cancels the rest."""

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        kernel: Kernel,
        chunks: Chunks,
        arrays: Mapping[str, Any],
        patience: float,
    ) -> None:
        self._cluster = cluster
        self._client = cluster.client
        self._job = job
        self._chunks = chunks
        self._patience = patience
        self._futures: dict[int, Any] = {}
        self._places = self._present()
        memory = 0 if cluster.foreign else max(1 << 20, job.memory // len(self._places))
        value = Shared(
            kernel,
            dict(arrays),
            chunks.reader,
            chunks.combine,
            chunks.split,
            memory,
            cluster.versions,
        )
        packed = pack(value, uuid.uuid4().hex)
        self._shared = self._made(_Piece(shared_value, [], (packed,)))
        if packed.nbytes > _LARGE and len(set(self._places)) > 2:
            with contextlib.suppress(Exception):  # then they fetch it as they need it
                self._client.replicate([self._shared.future], branching_factor=2)

    def __enter__(self) -> Mapped:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        futures, self._futures = list(self._futures.values()), {}
        for future in futures:  # what nobody wants any more is not computed, or not to its end
            future.release()

    def results(self) -> Iterator[Any]:
        """Yield the results in the order of the chunks, or fewer that are combined."""
        spans = self._chunks.spans
        if self._chunks.reader is None or spans is None:
            yield from self._in_order(self._sent())
        elif self._chunks.combine is None:
            yield from self._in_order(self._read(spans))
        elif spans:
            yield from self._added_up(spans)

    # Tasks

    def _made(self, piece: _Piece) -> _Piece:
        """Submit a piece, and before it those that it needs and nobody has."""
        for need in piece.needs:
            if need.future is None or need.future.status in ("cancelled", "error"):
                self._made(need)
        key = f"vwkit-{piece.function.__name__}-{uuid.uuid4().hex}"
        how: dict[str, Any] = {"priority": _SOON if piece.function in (part_of, combined) else 0}
        if piece.near is not None:
            how.update(workers=[piece.near], allow_other_workers=True)
        futures = [need.future for need in piece.needs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dask's own; ours come with results
            piece.future = self._client.submit(
                piece.function, *futures, *piece.args, key=key, pure=False, **how
            )
        self._futures[id(piece)] = piece.future
        return piece

    def _release(self, piece: _Piece) -> None:
        """Let go of a piece: the cluster keeps it as long as others need it."""
        if self._futures.pop(id(piece), None) is not None:
            piece.future.release()
            piece.future = None

    def _sent(self) -> Iterator[_Piece]:
        """Make a task of each chunk that has to be sent."""
        for chunk in self._chunks:
            yield self._made(_Piece(compute_chunk, [self._shared], (pack(chunk),)))

    def _read(self, spans: list[tuple[int, int]]) -> Iterator[_Piece]:
        """Make a task of every few spans that workers read."""
        step = max(1, min(_SPANS, len(spans) // (_TASKS * len(self._places))))
        for first in range(0, len(spans), step):
            yield self._made(self._of_spans(spans[first : first + step]))

    def _of_spans(self, spans: list[tuple[int, int]], near: str | None = None) -> _Piece:
        start, stop = spans[0][0], spans[-1][1]
        cut = None
        if self._chunks.aligned:
            cut = pack([other[start:stop] for other in self._chunks.aligned])
        return _Piece(compute_spans, [self._shared], (spans, cut), near, near, stop)

    # Results

    def _in_order(self, pieces: Iterator[_Piece]) -> Iterator[Any]:
        """Keep a few tasks in flight, and yield what they bring in order."""
        waiting: deque[_Piece] = deque()
        ahead = 2 * len(self._places)
        for piece in pieces:
            waiting.append(piece)
            if len(waiting) > ahead:
                yield from self._told(waiting.popleft())
        while waiting:
            yield from self._told(waiting.popleft())

    def _told(self, piece: _Piece) -> Iterator[Any]:
        values = self._result(piece)
        if piece.stop:
            self._chunks.done(piece.stop)
        yield from values

    def _added_up(self, spans: list[tuple[int, int]]) -> Iterator[Any]:
        """Let workers add up: each the same rows in every pass, then two and two."""
        parts = min(len(spans), _TASKS * len(self._places))
        cuts = [len(spans) * i // parts for i in range(parts + 1)]
        pieces = [
            self._made(
                self._of_spans(spans[first:last], self._places[i * len(self._places) // parts])
            )
            for i, (first, last) in enumerate(pairwise(cuts))
        ]
        if self._chunks.split is None:
            root = self._tree(pieces)
            for piece in pieces:  # also tells of an error as soon as it is there
                self._wait(piece)
                self._chunks.done(piece.stop)
            yield from self._result(root)
            return
        rows = [self._made(_Piece(part_of, [one], (0,), stop=one.stop)) for one in pieces]
        sums = [self._made(_Piece(part_of, [one], (1,), home=one.home)) for one in pieces]
        for piece in pieces:
            self._release(piece)
        root = self._tree(sums)
        if root not in sums:
            for piece in sums:
                self._release(piece)
        for piece in rows:
            yield from self._told(piece)
        yield from self._result(root)

    def _tree(self, pieces: list[_Piece]) -> _Piece:
        """Combine neighbours until one is left; what lies between is not kept."""
        level = pieces
        while len(level) > 1:
            above = []
            for i in range(0, len(level), 2):
                two = level[i : i + 2]
                if len(two) == 1:
                    above += two
                    continue
                # What lies on one worker is added up there before anything is handed on.
                home = two[0].home if two[0].home == two[1].home else None
                piece = _Piece(combined, [self._shared, *two], near=home, home=home)
                above.append(self._made(piece))
            for piece in level:
                if piece not in above and piece not in pieces:
                    self._release(piece)
            level = above
        return level[0]

    # Waiting

    def _result(self, piece: _Piece) -> list[Any]:
        """Return what a task brings; it is not kept."""
        while True:
            self._wait(piece)
            try:
                found: Result = piece.future.result()
            except Exception as error:
                self._again(piece, error)
                continue
            self._release(piece)
            for category, text in found.warnings:
                warnings.warn(text, category, stacklevel=2)
            return found.values

    def _wait(self, piece: _Piece) -> None:
        """Wait until a task is done; see to it that there is hope."""
        distributed: Any = importlib.import_module("distributed")

        last_seen = looked = time.monotonic()
        while True:
            self._job.check()
            try:
                if not piece.future.done():
                    with self._client.as_current():
                        distributed.wait([piece.future], timeout=_LOOK)
                if piece.future.status in ("cancelled", "error"):
                    piece.future.result()
            except TimeoutError:
                now = time.monotonic()
                if now - looked >= _COUNT_EVERY:
                    looked = now
                    if self._cluster.alive and self._cluster.workers():
                        last_seen = now
                    elif now - last_seen > self._patience:
                        raise self._nobody() from None
            except Exception as error:
                self._again(piece, error)
            else:
                return

    def _again(self, piece: _Piece, error: Exception) -> None:
        """Make a task again whose result was lost; anything else is an error of the work."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        if isinstance(error, ModuleNotFoundError):
            raise ClusterError(
                f"executor dask: a worker has no module {error.name}; install there what is here"
            ) from error
        # A connection that broke while a result was fetched; it may be a moment until the client
        # knows that it has no scheduler.
        lost = (CancelledError, KilledWorker, Dropped, CommClosedError)
        if not isinstance(error, lost) and (not isinstance(error, OSError) or self._cluster.alive):
            raise error
        if isinstance(error, CommClosedError):
            time.sleep(_LOOK)
        self._wait_for_scheduler()
        piece.repeats += 1
        if piece.repeats > _REPEATS:
            why = "workers died each time" if isinstance(error, KilledWorker) else "it was lost"
            raise ClusterError(
                f"executor dask: a part of the work was begun {_REPEATS + 1} times, and {why}; look at "
                "the memory of the workers, and go on with --resume"
            ) from error
        self._made(piece)

    def _wait_for_scheduler(self) -> None:
        begun = time.monotonic()
        while not self._cluster.alive:
            self._job.check()
            if time.monotonic() - begun > self._patience or self._cluster.gone:
                raise ClusterError(
                    "executor dask: the scheduler went away; what was done is kept: begin it again, "
                    "and go on with --resume"
                )
            time.sleep(_LOOK)

    def _nobody(self) -> ClusterError:
        return ClusterError(
            f"executor dask: there was no worker for {self._patience:g} seconds; what was done is "
            "kept: begin some, and go on with --resume"
        )

    def _present(self) -> list[str]:
        """Return the address of a worker for each thread that there is."""
        begun = time.monotonic()
        while True:
            self._job.check()
            self._wait_for_scheduler()
            found = self._cluster.workers()
            if found:
                return [name for name, threads in found.items() for _ in range(threads)]
            if time.monotonic() - begun > self._patience:
                raise self._nobody()
            time.sleep(_LOOK)
