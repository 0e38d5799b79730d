"""Ctrl-C and SIGTERM as a wish that work listens to."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import click

__all__ = ["AT_THE_NEXT", "stopping"]

AT_THE_NEXT = "stopping at the next safe place; once more to stop at once"


@contextlib.contextmanager
def stopping(stop: threading.Event, told: str = "") -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set `stop`, and say `told`; a second one ends the work at once."""

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():  # asked twice: do not wait for the next safe place
            raise KeyboardInterrupt
        stop.set()
        if told:
            click.echo(told, err=True)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
