"""Measuring: the real code on few rows, remembered for this machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vwkit.cache import cache_folder
from vwkit.hashing import content_key
from vwkit.jobs import Job, use_job
from vwkit.planning.meters import BUSY, busy

__all__ = ["Measurements", "quiet"]

_FORMAT = 4


@contextlib.contextmanager
def quiet(job: Job) -> Iterator[None]:
    """Run a trial: the budgets of `job`, no progress, no checkpoints, no warnings."""
    silent = Job(threads=job.threads, memory=job.memory, stop=job.stop)
    with warnings.catch_warnings(), use_job(silent):
        warnings.simplefilter("ignore")
        yield


class Measurements:
    """What was measured, by what it depends on; kept in the cache folder.

    Parameters
    ----------
    seconds : float
        About how long all measuring may take.
    fresh : bool
        Whether to measure again what is remembered.
    job : Job
        Its threads and memory are used.
    """

    def __init__(self, seconds: float, job: Job, *, fresh: bool = False) -> None:
        self.job = job
        self.spent = 0.0
        self._allowed, self._fresh = seconds, fresh
        self._folder = cache_folder() / "plans"
        self._where = {
            "format": _FORMAT,
            "machine": [platform.node(), platform.machine(), os.cpu_count()],
            "python": platform.python_version(),
            "numpy": importlib.metadata.version("numpy"),
            "vwkit": importlib.metadata.version("vwkit"),
            "threads": job.threads,
        }

    @property
    def left(self) -> float:
        """Seconds that may still be spent."""
        return max(0.0, self._allowed - self.spent)

    def of(self, what: dict[str, Any], measure: Callable[[float], dict[str, Any]]) -> Any:
        """Return what ``measure(seconds)`` gives, plain data; from the folder if it is there.

        An error of the backend's is an answer, too: ``{"error": text}``.
        """
        path = self._folder / f"{content_key({**self._where, **what})}.json"
        if not self._fresh:
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(path.read_text(encoding="utf-8"))
                # What was measured in a hurry of others is measured again when it is over.
                if isinstance(found, dict) and found.get("busy", 0) < max(BUSY, 2 * busy()):
                    return found
        start = time.monotonic()
        # No part may use up what the others need.
        share = max(self._allowed / 20, self.left / 3)
        try:
            with quiet(self.job):
                before = busy()
                found = {**measure(share), "busy": round(before, 2)}
        except Exception as error:  # a trial on few made rows may fail where the run does not
            self.job.check()
            return {"error": f"{type(error).__name__}: {error}".split("\n")[0]}
        finally:
            self.spent += time.monotonic() - start
        self._keep(path, found)
        return found

    def _keep(self, path: Path, found: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self._folder, suffix=".part", delete=False, encoding="utf-8"
            ) as file:
                json.dump(found, file)
            Path(file.name).replace(path)
