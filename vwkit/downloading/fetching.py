"""Many pictures at once: threads that ask several hosts, none of them with too many connections."""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from vwkit.downloading.addresses import Refused, Target, parsed
from vwkit.downloading.ledger import Entry, Ledger, file_name
from vwkit.downloading.transfer import Client, Failure
from vwkit.errors import DataError, ImageError, ParameterError, RunError
from vwkit.image import picture_kind
from vwkit.jobs import job
from vwkit.lock import locked

__all__ = ["Limits", "Outcome", "fetch_pictures"]

#: Which failures of earlier runs are tried again.
RETRY = ("temporary", "failed", "never")

_TOLD_EVERY = 0.2
_LONGEST_WAIT = 60.0
# A temporary failure is tried again by later runs, but not forever.
_RUNS = 3
# So many connections in a row that could not be made at all: a host is given up for this run.
_GIVEN_UP_AFTER = 10


@dataclass(frozen=True)
class Limits:
    """How pictures are fetched.

    Attributes
    ----------
    parallel : int
        Pictures under way at once.
    per_host : int
        Of these, from one host.
    timeout : float
        Seconds for one picture and attempt, redirects included.
    max_bytes : int
        A larger file is refused.
    retries : int
        Further attempts after one that failed but may work the next time.
    retry : str
        Which failures of earlier runs are tried again: ``temporary`` (those that may pass, in at most
        three runs), ``failed`` (all), or ``never``.
    allow_private : bool
        Whether hosts in private networks and on this machine may be asked.
    backoff : float
        Seconds before the first further attempt; doubled for each one after it.
    """

    parallel: int = 16
    per_host: int = 8
    timeout: float = 30.0
    max_bytes: int = 20_000_000
    retries: int = 3
    retry: str = "temporary"
    allow_private: bool = False
    backoff: float = 0.5

    def __post_init__(self) -> None:
        for name, least in (("parallel", 1), ("per_host", 1), ("max_bytes", 1), ("retries", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ParameterError.of(
                    name, f"must be a whole number of at least {least}; got {value!r}"
                )
        if self.retry not in RETRY:
            raise ParameterError.of(
                "retry", f"must be temporary, failed or never; got {self.retry!r}"
            )
        if not self.timeout > 0 or not self.backoff >= 0:
            raise ParameterError.of("timeout", "must be seconds, more than 0")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one URL.

    Attributes
    ----------
    path : Path or None
        The picture.
    reason : str or None
        Why there is none.
    fresh : bool
        Whether it was asked for now, not known from before.
    """

    path: Path | None
    reason: str | None = None
    fresh: bool = False


def fetch_pictures(
    urls: Iterable[str], cache: Path, limits: Limits | None = None
) -> dict[str, Outcome]:
    """Fetch pictures into a cache folder; those that are there already are not asked for again.

    Progress goes to the current job, which can also stop it; what was fetched until then is kept.

    Parameters
    ----------
    urls : iterable of str
        A URL that stands there more than once is fetched once.
    cache : Path
        The folder; see `vwkit.downloading.ledger` for what is in it.
    limits : Limits, optional

    Returns
    -------
    dict of URL to Outcome

    Raises
    ------
    DataError
        The folder cannot be written, or the disk is full.
    RunError
        Another process is fetching into it.
    Interrupted
        The job was asked to stop.
    """
    limits = limits or Limits()
    try:
        with locked(cache / ".lock", cache):
            ledger = Ledger(cache)
            try:
                return _fetched(list(dict.fromkeys(urls)), ledger, limits)
            finally:
                ledger.close()
    except OSError as error:
        raise DataError(f"{cache}: cannot be written: {error.strerror or error}") from None
    except RunError as error:
        said = str(error).partition("; ")[0]
        if isinstance(error.__cause__, OSError):  # nobody has it: it cannot be had
            raise DataError(said) from None
        raise RunError(f"{said}; wait for it, or name another cache folder") from None


def _fetched(urls: list[str], ledger: Ledger, limits: Limits) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    tasks = []
    for url in urls:
        known = _known(url, ledger, limits.retry)
        if known is None:
            try:
                tasks.append(_Task(url, parsed(url)))
            except Refused as error:  # known without asking anyone, so it is not written down
                known = Outcome(None, str(error))
        if known is not None:
            outcomes[url] = known
    if tasks:
        for left in ledger.folder.glob("??/.*.part"):
            left.unlink(missing_ok=True)  # of a fetch that was killed
        work = _Work(tasks, ledger, limits, outcomes)
        work.run(len(urls))
    return outcomes


def _known(url: str, ledger: Ledger, retry: str) -> Outcome | None:
    entry = ledger.entry(url)
    if entry is None:
        return None
    if entry.file is not None:
        path = ledger.picture(url)
        return None if path is None else Outcome(path)
    again = retry == "failed" or (retry == "temporary" and entry.temporary and entry.runs < _RUNS)
    return None if again else Outcome(None, entry.reason)


@dataclass(slots=True)
class _Task:
    url: str
    target: Target
    attempts: int = 0


@dataclass
class _Host:
    waiting: deque[_Task] = field(default_factory=deque)
    active: int = 0
    listed: bool = False
    unreachable: int = 0


class _Work:
    """The tasks, who waits for what, and the threads."""

    def __init__(
        self, tasks: list[_Task], ledger: Ledger, limits: Limits, outcomes: dict[str, Outcome]
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._outcomes = outcomes
        self._client = Client(limits, keep=limits.parallel)
        # Only workers wait for their turn: a word to one of them must not reach somebody else.
        self._turn = threading.Condition()
        self._over = threading.Event()
        self._hosts: dict[str, _Host] = {}
        self._ready: deque[_Host] = deque()
        self._later: list[tuple[float, int, _Task]] = []
        self._count = 0  # tells apart tasks that are due at the same time
        self._left = len(tasks)
        self._failed = 0
        self._bytes = 0
        self._stop = False
        self._error: BaseException | None = None
        self._random = random.Random()  # only spreads waiting times
        for task in tasks:
            self._hosts.setdefault(task.target.host, _Host()).waiting.append(task)
        with self._turn:
            for host in self._hosts.values():
                self._list(host)

    def run(self, total: int) -> None:
        """Fetch everything; the calling thread tells of the progress."""
        current = job()
        current.progress(total - self._left, total, "pictures")  # told however soon it is over
        count = min(self._limits.parallel, self._left)
        threads = [
            threading.Thread(target=self._serve, name=f"vwkit-fetch-{i}", daemon=True)
            for i in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                self._over.wait(_TOLD_EVERY)
                with self._turn:
                    values = {"failed": float(self._failed), "MB": self._bytes / 1e6}
                    done = total - self._left
                current.progress(done, total, "pictures", **values)
                if not self._left or self._stop:
                    threads[0].join(_TOLD_EVERY)
                    threads = [thread for thread in threads if thread.is_alive()]
        finally:
            with self._turn:
                self._stop = True
                self._turn.notify_all()
            self._client.close()
            for thread in threads:
                thread.join(5)
        if self._error is not None:
            raise self._error

    # Threads

    def _serve(self) -> None:
        try:
            while (taken := self._take()) is not None:
                self._done(*taken, self._attempt(taken[1]))
        except BaseException as error:
            with self._turn:
                self._error = self._error or error
                self._stop = True
                self._turn.notify_all()
                self._over.set()

    def _take(self) -> tuple[_Host, _Task] | None:
        """Wait for a task whose host may be asked now."""
        with self._turn:
            while self._left and not self._stop:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    task = heapq.heappop(self._later)[2]
                    host = self._hosts[task.target.host]
                    host.waiting.append(task)
                    self._list(host)
                if self._ready:
                    host = self._ready.popleft()
                    host.listed = False
                    task = host.waiting.popleft()
                    host.active += 1
                    self._list(host)
                    return host, task
                self._turn.wait(max(0.0, self._later[0][0] - now) if self._later else None)
            return None

    def _list(self, host: _Host) -> None:
        """Put a host behind those that may be asked, if it may be."""
        if host.waiting and host.active < self._limits.per_host and not host.listed:
            host.listed = True
            self._ready.append(host)
            self._turn.notify()

    def _done(self, host: _Host, task: _Task, result: Entry | Failure) -> None:
        entry: Entry
        wait = None
        if isinstance(result, Failure):
            task.attempts += 1
            if result.temporary and task.attempts <= self._limits.retries:
                wait = self._limits.backoff * 2.0 ** (task.attempts - 1)
                wait *= 0.5 + self._random.random()
                wait = min(_LONGEST_WAIT, max(wait, result.after))
            before = self._ledger.entry(task.url)
            runs = 1 + (before.runs if before is not None else 0)
            entry = Entry(None, 0, str(result), result.temporary, runs)
        else:
            entry = result
        with self._turn:
            host.active -= 1
            unreachable = isinstance(result, Failure) and result.unreachable
            host.unreachable = host.unreachable + 1 if unreachable else 0
            if self._stop and isinstance(result, Failure):
                return  # its connection was cut by us
            if host.unreachable >= _GIVEN_UP_AFTER:
                self._give_up(host, entry)
                wait = None
            if wait is not None:
                self._count += 1
                heapq.heappush(self._later, (time.monotonic() + wait, self._count, task))
                self._turn.notify()
            else:
                # What the settings forbid is asked again when they are others.
                forbidden = isinstance(result, Failure) and result.forbidden
                self._finish(task, entry, noted=not forbidden)
            self._list(host)

    def _give_up(self, host: _Host, entry: Entry) -> None:
        """Fail everything that waits for a host that cannot be reached."""
        reason = f"{entry.reason}; {_GIVEN_UP_AFTER} times in a row, so it was not asked again"
        late = [task for _, _, task in self._later if self._hosts[task.target.host] is host]
        self._later = [one for one in self._later if self._hosts[one[2].target.host] is not host]
        heapq.heapify(self._later)
        for task in [*host.waiting, *late]:
            before = self._ledger.entry(task.url)
            runs = 1 + (before.runs if before is not None else 0)
            self._finish(task, Entry(None, 0, reason, True, runs))
        host.waiting.clear()
        if host.listed:
            self._ready.remove(host)
            host.listed = False

    def _finish(self, task: _Task, entry: Entry, *, noted: bool = True) -> None:
        if noted:
            self._ledger.note(task.url, entry)
        path = None if entry.file is None else self._ledger.folder / entry.file
        self._outcomes[task.url] = Outcome(path, entry.reason, fresh=True)
        self._failed += entry.file is None
        self._bytes += entry.size
        self._left -= 1
        if not self._left:
            self._turn.notify_all()
            self._over.set()

    # One attempt

    def _attempt(self, task: _Task) -> Entry | Failure:
        name = file_name(task.url)
        place = self._ledger.folder / name
        part = place.with_name(f".{place.name}.{os.getpid()}.part")
        done = False
        try:
            with _opened(part) as file:
                size = self._client.fetch(task.target, file)
                file.seek(0)
                kind = picture_kind(file)
            part.replace(place.with_suffix(f".{kind}"))
            done = True
            return Entry(f"{name}.{kind}", size)
        except Failure as failure:
            return failure
        except ImageError as error:
            return Failure(str(error).removeprefix("file: "), temporary=False)
        finally:
            if not done:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)


def _opened(path: Path) -> IO[bytes]:
    """Open a new file; its folder is made when it is first needed."""
    try:
        return path.open("w+b")
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        return path.open("w+b")
