"""Ctrl-C and SIGTERM as a wish that work listens to, and leaves for even where it cannot listen."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import click

__all__ = ["AT_THE_NEXT", "GRACE", "stopping"]

AT_THE_NEXT = "stopping at the next safe place; once more to stop at once"
#: Seconds that work has to get to a safe place. A kill costs no more than waiting longer would: what
#: was recorded stays, and nothing else is recorded on the way out of a library's long call.
GRACE = 2.0
_LEFT = b"interrupted; what was recorded is kept, run again with --resume to continue\n"
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stopping(
    stop: threading.Event, told: str = "", *, grace: float | None = None
) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set `stop`, and say `told`; a second one ends the process at once.

    A thread waits for the signals, so that they are heard while the main thread is inside a library
    that computes for minutes without coming back to Python.

    Parameters
    ----------
    stop : threading.Event
    told : str
        What the person is told.
    grace : float, optional
        So many seconds after the first signal the process ends, with exit status 130, if the work
        has not ended by then. Only for work that may be killed anywhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watching = threading.Thread(
        target=_watch, args=(reader, stop, told, grace), name="vwkit-signals", daemon=True
    )
    # A handler of Python's, or the system would end the process; the thread does the work.
    before = {number: signal.signal(number, _nothing) for number in _NUMBERS}
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watching.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        os.write(writer, b"\0")
        watching.join()
        os.close(writer)
        os.close(reader)


def _nothing(number: int, frame: Any) -> None:
    """Leave the signal to the thread."""


def _watch(reader: int, stop: threading.Event, told: str, grace: float | None) -> None:
    end: float | None = None
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        if not select.select([reader], [], [], left)[0]:
            _leave()
        for number in os.read(reader, 64):
            if number == 0:  # the work has ended
                return
            if number not in _NUMBERS:
                continue
            if stop.is_set():  # asked twice: do not wait for the next safe place
                _leave()
            stop.set()
            end = None if grace is None else time.monotonic() + grace
            if told:
                click.echo(told, err=True)


def _leave() -> None:
    with contextlib.suppress(OSError):
        os.write(2, _LEFT)
    from vwkit.observing.observer import last_words  # here already, if there is anything to say

    last_words("interrupted, and ended at once: it did not get to a safe place in time")
    os._exit(130)
