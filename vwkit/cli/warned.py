"""Warnings as one line each; one that the end of the command may say better waits for a moment."""

from __future__ import annotations

import threading
from typing import Any

import click

from vwkit.cli.text import printable

__all__ = ["show", "show_waiting"]

#: So long a checkpoint that could not be written is kept back: where the disk is full, the work itself
#: mostly ends of it soon, and one line is enough.
_PATIENCE = 10.0
_waiting: list[Any] = []
_lock = threading.Lock()


def show(message: Any, *_: Any, **__: Any) -> None:
    """Show a warning, as `warnings.showwarning` is asked to."""
    reason = getattr(message, "reason", None)
    if not reason:
        _say(message)
        return
    with _lock:
        _waiting.append(message)
    later = threading.Timer(_PATIENCE, show_waiting)
    later.daemon = True
    try:
        later.start()
    except RuntimeError:  # no room for another thread
        show_waiting()


def show_waiting(error: str | None = None) -> None:
    """Show what waits, but for warnings whose reason is in the error that ends the command."""
    with _lock:
        messages = _waiting.copy()
        _waiting.clear()
    for message in messages:
        if error is None or message.reason not in error:
            _say(message)


def _say(message: Any) -> None:
    click.echo(f"warning: {printable(str(message))}", err=True)
