"""Watches a run: keeps its log and its progress file, through the job that the work goes through."""

from __future__ import annotations

import contextlib
import copy
import os
import platform
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import vwkit
from vwkit.errors import Interrupted, VwkitError
from vwkit.jobs import Job, use_job
from vwkit.lock import holder
from vwkit.observing.listening import listening
from vwkit.observing.log import LOG, RunLog
from vwkit.observing.progress import PROGRESS, Progress, read_progress, write_progress
from vwkit.types import Item

__all__ = ["Observer", "last_words", "note_skipped", "observed", "part"]

_EVERY = 1.0
_TOLD_EVERY = 60.0
#: What may come many times a second goes into the log at most once in so many seconds.
_SELDOM = 5.0
_SKIPPED = 1000


class Observer:
    """Keeps the log and the progress file of one run; `Job` tells it of everything.

    The file is written by a thread of its own: a slow disk never holds up the work, and somebody who
    looks can see by ``updated`` that the process is alive though a stage tells nothing.
    """

    def __init__(self, folder: Path, verb: str, to_come: Iterable[str], *, again: bool) -> None:
        before = read_progress(folder / PROGRESS) if again else None
        same = before is not None and before["state"] != "finished" and before.get("verb") == verb
        run = str(before["run"]) if before and same else secrets.token_hex(6)
        attempt = int(before["attempt"]) + 1 if before and same else 1
        self.path = folder / PROGRESS
        self.log = RunLog(folder / LOG, run)
        self.state = Progress(
            run, attempt, verb, os.getpid(), socket.gethostname(), list(to_come)
        )  # fmt: skip
        held = holder(folder / "lock")
        self.state.lock = None if held is None else held.id
        self._lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vwkit-progress", daemon=True)
        self._logged = time.monotonic()
        self._seldom: dict[str, float] = {}
        self.checkpoints = 0

    # What the job tells

    def progress(
        self, stage: str, done: int, total: int | None, unit: str, values: dict[str, float]
    ) -> None:
        """Take note of a step."""
        now = time.monotonic()
        with self._lock:
            state = self.state
            self._go_to(stage)
            if unit == "" and done == 0:
                return  # only says that it begins
            try:
                new = state.told(done, total, unit, values)
            except (TypeError, ValueError):  # no numbers; that is no reason to stop the work
                return
            if not new and now - self._logged < _TOLD_EVERY:
                return
            if new and not self._is_time("objective", now):
                return
            self._logged = now
            rate = state.rate.now() if state.rate else None
            message = "" if rate is None else f"{rate:,.0f} {unit} a second"
            known = {"done": done, "total": total, "unit": unit, "rate": rate, **values}
        self.log.write("progress", message, stage=stage, level="debug", values=known)

    def note(
        self, event: str, stage: str, message: str, level: str, values: dict[str, Any]
    ) -> None:
        """Take note of what happened."""
        now = time.monotonic()
        with self._lock:
            if event == "stage started":
                self.state.begin(stage)
                self._logged, self.checkpoints = now, 0
            elif event == "stage finished":
                origin = str(values.get("from", "computed"))
                self.state.end(stage, origin, float(values.get("seconds", 0.0)))
                if origin != "folder":  # or it is of an earlier attempt
                    # Looked at ten times a second: it may have been higher than we saw.
                    self.state.peak = max(self.state.peak, int(values.get("peak_memory", 0)))
            elif event == "checkpoint taken up":
                self._go_to(stage)
                if self.state.rate is not None:
                    self.state.rate.resumed(now)
            elif event == "checkpoint written":
                self.checkpoints += 1
                if not self._is_time(event, now):
                    return
        self.log.write(event, message, stage=stage, level=level, values=values)

    def _go_to(self, stage: str) -> None:
        """Take note of where the work is: ``quantizer.slice-0`` is a part of ``quantizer``."""
        state = self.state
        within = f"{state.stage}."
        if state.stage is None or not f"{stage}.".startswith(within):
            state.begin(stage)
            return
        part = stage[len(within) :] or None
        if part != state.part:
            state.at(part)

    def _is_time(self, what: str, now: float) -> bool:
        if now - self._seldom.get(what, -_SELDOM) < _SELDOM:
            return False
        self._seldom[what] = now
        return True

    def heard(self, level: str, event: str, message: str) -> None:
        """Take note of a message of the logger, or of a warning."""
        self.log.write(event, message, stage=self.state.stage or "", level=level)

    # From the beginning to the end

    def begin(self, values: dict[str, Any]) -> None:
        """Say that the run begins, and what runs it."""
        state = self.state
        known = {
            "attempt": state.attempt,
            "pid": state.pid,
            "host": state.host,
            "vwkit": vwkit.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            **values,
        }
        event = "started" if state.attempt == 1 else "resumed"
        self.log.write(f"{state.verb} {event}", values=known)
        self._write()
        with contextlib.suppress(
            RuntimeError
        ):  # no room for another thread: it is written at the end
            self._thread.start()

    def end(self, state: str, message: str = "", values: dict[str, Any] | None = None) -> None:
        """Say how it ended, and stop watching."""
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
        seconds = round(time.time() - self.state.started, 3)
        with self._lock:
            self.state.state, self.state.message = state, message or None
            if state == "finished":
                self.state.to_come.clear()
                self.state.rest()
        self._write()
        said = {"seconds": seconds, "memory_peak": self.state.peak, **(values or {})}
        level = {"finished": "info", "interrupted": "warning"}.get(state, "error")
        stage = self.state.stage or ""
        event = f"{self.state.verb} {state}"
        self.log.write(event, message, stage=stage, level=level, values=said)
        self.log.close()

    def _watch(self) -> None:
        while not self._done.wait(_EVERY):
            self._write()

    def _write(self) -> None:
        # Whatever a backend told that cannot be shown: nothing of the work may suffer by it.
        with self._file_lock, contextlib.suppress(Exception):
            with self._lock:
                document = self.state.document()
            write_progress(self.path, document)


#: Who is told when the process ends at once.
_at_work: list[Observer] = []


def last_words(message: str, patience: float = 0.5) -> None:
    """Say of all runs at work that they were interrupted, for a process that is about to end at once.

    It takes no longer than `patience`, in seconds: whoever holds what is needed for it may be stuck.
    """
    said = threading.Thread(target=_say_all, args=(message,), daemon=True)
    with contextlib.suppress(RuntimeError):  # no room for another thread
        said.start()
        said.join(patience)


def _say_all(message: str) -> None:
    for observer in _at_work.copy():
        with contextlib.suppress(Exception):
            observer.end("interrupted", message)


@contextlib.contextmanager
def observed(
    folder: Path,
    job: Job,
    *,
    verb: str = "run",
    to_come: Iterable[str] = (),
    again: bool = False,
    values: dict[str, Any] | None = None,
) -> Iterator[Job]:
    """Keep the log and the progress file of a run within a ``with`` block; its lock must be held.

    Parameters
    ----------
    folder : Path
        The run's inner folder, ``.run``.
    job : Job
    verb : str
        ``run``, ``add`` or ``remove``.
    to_come : iterable of str
        The names of the stages that are expected.
    again : bool
        Whether it goes on with an earlier run, if that one was not finished.
    values : dict, optional
        More to say at the start.

    Yields
    ------
    Job
        The job to work through, which is watched.
    """
    observer = Observer(folder, verb, to_come, again=again)
    watched = copy.copy(job)
    watched.observer = observer
    observer.begin(values or {})
    try:
        _at_work.append(observer)
        try:
            with listening(observer.heard):
                yield watched
        finally:
            _at_work.remove(observer)
    except (Interrupted, KeyboardInterrupt) as error:
        observer.end("interrupted", str(error) or "interrupted")
        raise
    except BaseException as error:
        known: dict[str, Any] = {"error": type(error).__name__}
        if not isinstance(error, VwkitError):
            known["traceback"] = "".join(traceback.format_exception(error))
        observer.end("failed", str(error) or type(error).__name__, known)
        raise
    observer.end("finished")


@contextlib.contextmanager
def part(job: Job, name: str) -> Iterator[Job]:
    """Do a part of the work under its own name: the current job within a ``with`` block."""
    work = job.within(name)
    start = time.monotonic()
    work.note("stage started")
    with use_job(work):
        yield work
    work.note("stage finished", seconds=round(time.monotonic() - start, 3))


def note_skipped(job: Job, items: Iterable[Item], *, at: int = _SKIPPED) -> None:
    """Write into the log which items were skipped and why; of very many, the first ones."""
    count = 0
    for item in items:
        if item.status == "skipped":
            count += 1
            if count <= at:
                job.note(
                    "item skipped",
                    f"{item.id}: {item.reason}",
                    level="warning",
                    row=item.row,
                    id=item.id,
                    reason=item.reason,
                )
    if count > at:
        job.note("items skipped", f"{count - at:,} more; items.jsonl has them all", level="warning")
