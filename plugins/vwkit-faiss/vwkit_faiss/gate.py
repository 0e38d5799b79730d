"""Who may be inside an index at the same time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["Gate"]


class Gate:
    """Lets many searches in together, but a change only alone: FAISS moves memory then."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._searching = 0
        self._waiting = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Search, beside others."""
        with self._changed:
            # A change that waits goes first, or searches without end would keep it out.
            self._changed.wait_for(lambda: not self._waiting)
            self._searching += 1
        try:
            yield
        finally:
            with self._changed:
                self._searching -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Change the index, with nobody else inside."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._searching)
                yield
            finally:
                self._waiting -= 1
                self._changed.notify_all()
