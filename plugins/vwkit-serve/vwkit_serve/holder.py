"""The run that is served now: loaded anew when the folder holds another one."""

from __future__ import annotations

import asyncio
import logging
import time

from vwkit.errors import VwkitError
from vwkit.run import Run
from vwkit_serve.served import Served, signature
from vwkit_serve.workers import Workers

__all__ = ["Holder"]

_LOOK_EVERY = 1.0
_log = logging.getLogger("vwkit.serve")


class Holder:
    """Gives requests the run, and looks once a second whether it was made again.

    A request keeps the run that it began with. Until the new one is loaded, and if it cannot be, the
    old one is served: everything that it needs is in memory or mapped.

    Attributes
    ----------
    notice : str or None
        Why the run that is in the folder now is not the one that is served.
    """

    def __init__(self, served: Served, workers: Workers, max_pixels: int) -> None:
        self._served = served
        self._workers = workers
        self._max_pixels = max_pixels
        self._looked = time.monotonic()
        self._refused = served.signature
        self._loading: asyncio.Task[None] | None = None
        self.notice: str | None = None

    async def get(self) -> Served:
        """Return the run to answer from."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY and self._loading is None:
            self._looked = now
            found = signature(self._served.run.folder)
            if found is None:
                self.notice = "the run folder is gone; what was loaded from it is served"
            elif found == self._served.signature:
                self.notice = None
            elif found != self._refused:
                self._loading = asyncio.create_task(self._load(found))
        return self._served

    async def _load(self, found: tuple[int, int, int]) -> None:
        folder = self._served.run.folder
        try:
            self._served = await self._workers.run(
                lambda: Served(Run.open(folder), self._max_pixels)
            )
            self.notice = None
            _log.info("%s was made again; the new run is served", folder)
        except (VwkitError, OSError, MemoryError) as error:
            self._refused = found  # not tried again before it changes
            self.notice = f"the run was made again and cannot be loaded: {error}"
            _log.warning("%s: %s", folder, self.notice)
        except Exception:
            # Too many requests just now, say: looked at again in a second.
            _log.debug("%s: not loaded yet", folder, exc_info=True)
        finally:
            self._loading = None
