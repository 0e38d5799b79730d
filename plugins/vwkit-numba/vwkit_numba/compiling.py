"""Telling that kernels are compiled: it takes a while, once for each kind of data."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import vwkit
import vwkit.jobs

__all__ = ["compilation_told"]

_log = logging.getLogger("vwkit")


@contextlib.contextmanager
def compilation_told(who: str) -> Iterator[None]:
    """Log when numba begins to compile something in the block, and how long all of it took.

    Kernels that come from numba's cache on disk are not compiled, and nothing is said.

    Parameters
    ----------
    who : str
        The backend that needs the kernels.
    """
    from numba.core import event

    timer = _Timer(who)
    with event.install_listener("numba:compile", timer.listener(event)):
        yield
    if timer.seconds:
        _log.info(
            "%s: compiled for %.1f s; kept in numba's cache for the next time", who, timer.seconds
        )
        vwkit.job().note(vwkit.jobs.COMPILED, level="debug", seconds=round(timer.seconds, 3))


class _Timer:
    def __init__(self, who: str) -> None:
        self.who = who
        self.depth = 0
        self.begun = self.seconds = 0.0

    def start(self) -> None:
        if self.depth == 0:
            self.begun = time.perf_counter()
            if not self.seconds:
                _log.info("%s: compiling its kernels, up to half a minute, once", self.who)
        self.depth += 1

    def end(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.begun

    def listener(self, event: Any) -> Any:
        """Return what numba calls; compilations may hold others."""
        timer = self

        class Listener(event.Listener):  # type: ignore[misc]
            def on_start(self, event: Any) -> None:
                timer.start()

            def on_end(self, event: Any) -> None:
                timer.end()

        return Listener()
