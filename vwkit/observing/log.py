"""A run's log: one line of JSON for each thing that happened.

A line is one write, so that whatever ends the process leaves whole lines, but perhaps for the last.
The log is never the reason why a run fails: what cannot be written (a full disk) is left out.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["LOG", "LOG_BEFORE", "RunLog", "read_log", "utc"]

LOG = "log.jsonl"
LOG_BEFORE = "log.1.jsonl"
"""The older half, once the log has grown long."""

LEVELS = ("debug", "info", "warning", "error")
_LARGEST = 8 << 20
_LONGEST = 4000
_LONGEST_LINE = 64 << 10


def utc(seconds: float | None = None) -> str:
    """Write a time (by default now; seconds since 1970) as ``2026-01-31T12:00:00.000Z``."""
    at = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RunLog:
    """Appends lines to a log; thread-safe.

    Parameters
    ----------
    path : Path
    run : str
        The id that every line carries.
    largest : int
        Bytes after which the file becomes ``log.1.jsonl`` (the one before is dropped) and a new one
        is begun: together they are at most twice this.
    """

    def __init__(self, path: Path, run: str, *, largest: int = _LARGEST) -> None:
        self.path = path
        self.run = run
        self._largest = largest
        self._lock = threading.Lock()
        self._file: int | None = None
        self._size = 0
        self._torn = False

    def write(
        self,
        event: str,
        message: str = "",
        *,
        stage: str = "",
        level: str = "info",
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a line; whatever keeps it from being written is passed over."""
        line: dict[str, Any] = {"time": utc(), "level": level, "event": event, "run": self.run}
        if stage:
            line["stage"] = stage
        if message:
            line["message"] = _short(message)
        if values:
            line["values"] = _plain(values)
        text = (json.dumps(line) + "\n").encode()
        if len(text) > _LONGEST_LINE:
            line.pop("values")
            text = (json.dumps(line) + "\n").encode()
        with self._lock, contextlib.suppress(OSError):
            self._append(text)

    def _append(self, text: bytes) -> None:
        if self._file is not None and self._size + len(text) > self._largest:
            self._end()
            os.replace(self.path, self.path.with_name(LOG_BEFORE))
        if self._file is None:
            self._begin()
        if self._file is None:
            return
        if self._torn:
            text = b"\n" + text
        self._torn = True  # until all of it is known to be there
        written = os.write(self._file, text)
        self._size += written
        self._torn = written < len(text)

    def _begin(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"):  # not every system has all
            flags |= getattr(os, name, 0)
        self._file = os.open(self.path, flags, 0o666)
        self._size = os.fstat(self._file).st_size
        # A process that was killed may have left half a line.
        if self._size:
            os.lseek(self._file, -1, os.SEEK_END)
            self._torn = os.read(self._file, 1) != b"\n"

    def _end(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Let go of the file."""
        with self._lock, contextlib.suppress(OSError):
            self._end()


def read_log(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's log, the oldest first; torn ones are passed over.

    Parameters
    ----------
    folder : path
        The run folder.

    Yields
    ------
    dict
        ``time`` (UTC, ISO 8601), ``level``, ``event`` and ``run``; where there are any, ``stage``,
        ``message`` and ``values``.
    """
    for name in (LOG_BEFORE, LOG):
        path = Path(folder) / ".run" / name
        if path.is_symlink() or not path.is_file():
            continue  # nor would it be appended to
        with contextlib.suppress(OSError), path.open("rb") as file:
            for text in file:
                with contextlib.suppress(ValueError, RecursionError):
                    line = json.loads(text)
                    if isinstance(line, dict) and {"time", "level", "event"} <= line.keys():
                        yield line


def _short(text: str) -> str:
    # What begins and ends a traceback says most of it.
    return text if len(text) <= _LONGEST else f"{text[:1000]} … {text[-(_LONGEST - 1003) :]}"


def _plain(value: Any) -> Any:
    """Make anything JSON: numbers of NumPy, paths, NaN (which JSON has not)."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return _short(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        if not math.isfinite(number):
            return None
        return int(number) if hasattr(value, "__index__") else number
    return _short(str(value))
