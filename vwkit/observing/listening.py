"""Messages of the ``vwkit`` logger and warnings, handed to whoever listens during a run.

Who reads them otherwise (the terminal, a program's own handlers, filters of warnings) gets what it
would get anyway. Runs at the same time in one process each hear what is said in their own work; what
a worker thread says cannot be told apart, so all of them hear it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["listening"]

Heard = Callable[[str, str, str], None]
"""Called as ``heard(level, event, message)``."""

_lock = threading.Lock()
_listeners: list[Heard] = []
_undo = contextlib.ExitStack()
_mine: contextvars.ContextVar[Heard | None] = contextvars.ContextVar("vwkit_heard", default=None)
_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))


@contextlib.contextmanager
def listening(heard: Heard) -> Iterator[None]:
    """Hand messages (from INFO on) and warnings to `heard` within a ``with`` block."""
    with _lock:
        if not _listeners:
            _listen()
        _listeners.append(heard)
    token = _mine.set(heard)
    try:
        yield
    finally:
        _mine.reset(token)
        with _lock:
            _listeners.remove(heard)
            if not _listeners:
                _undo.close()


def _hand_on(level: str, event: str, message: str) -> None:
    own = _mine.get()
    for heard in [own] if own is not None else list(_listeners):
        # Whatever goes wrong with keeping a message, the work that said it goes on.
        with contextlib.suppress(Exception):
            heard(level, event, message)


def _listen() -> None:
    logger = logging.getLogger("vwkit")
    before = logger.level
    effective = logger.getEffectiveLevel()
    keeper = _Keeper()
    logger.addHandler(keeper)
    _undo.callback(logger.removeHandler, keeper)
    if effective > logging.INFO:
        # INFO is for our log alone: nobody else hears more than before.
        gate = _Gate(effective)
        logger.addFilter(gate)
        logger.setLevel(logging.INFO)
        _undo.callback(_restore, logger, before, logging.INFO)
        _undo.callback(logger.removeFilter, gate)
    shown = warnings.showwarning

    def show(
        message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None
    ) -> None:
        _hand_on("warning", "warning", f"{category.__name__}: {message}")
        shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    _undo.callback(_show_again, show, shown)


def _restore(logger: logging.Logger, before: int, ours: int) -> None:
    if logger.level == ours:  # nobody else has set it since
        logger.setLevel(before)


def _show_again(show: Any, before: Any) -> None:
    if warnings.showwarning is show:  # else it went with a `catch_warnings` that has ended
        warnings.showwarning = before


class _Gate(logging.Filter):
    """Keeps what others would not have heard from them, after handing it on."""

    def __init__(self, effective: int) -> None:
        super().__init__()
        self._effective = effective

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= self._effective:
            return True
        _keep(record)
        return False


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        _keep(record)


def _keep(record: logging.LogRecord) -> None:
    with contextlib.suppress(Exception):  # a message whose parts do not fit it
        _hand_on(_level(record.levelno), "message", record.getMessage())


def _level(number: int) -> str:
    return next((name for least, name in _LEVELS if number >= least), "debug")
