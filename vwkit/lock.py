"""One run at a time in a folder: an operating-system lock that holds who has it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vwkit.errors import RunError

__all__ = ["holder", "locked"]


@contextlib.contextmanager
def locked(path: Path, what: Path) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends.

    Raises
    ------
    RunError
        Another process holds it; the text names it.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    # Not inherited by child processes (Python opens files that way).
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"{what}: in use by {_named(file)}; wait for it, or name another folder with --out"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        yield


def holder(path: Path) -> str | None:
    """Return who holds a lock file now, or None."""
    import fcntl

    with (
        contextlib.suppress(FileNotFoundError, PermissionError),
        path.open(encoding="utf-8") as file,
    ):
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _named(file)
    return None


def _named(file: IO[str]) -> str:
    file.seek(0)
    with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
        said = json.loads(file.read())
        return f"process {int(said['pid'])} on {said['host']}"
    return "another process"
