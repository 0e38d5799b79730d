"""One run at a time in a folder: an operating-system lock that holds who has it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
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
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    # Not inherited by child processes (Python opens files that way).
    with os.fdopen(os.open(path, flags, 0o666), "a+", encoding="utf-8") as file:
        if not _taken(file):
            raise RunError(
                f"{what}: in use by {_named(file)}; wait for it, or name another folder with --out"
            )
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        yield


def _clear(path: Path) -> None:
    """Remove what is no lock file of ours: a link would be written through, a pipe waited for."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or (path.exists() and not path.is_file()):
            path.unlink()


def _taken(file: IO[str]) -> bool:
    """Take a lock; whoever only looks whether somebody has it holds it for a moment, too."""
    import fcntl

    for wait in (*[0.01] * 20, 0.0):
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(wait)
    return False


def holder(path: Path) -> str | None:
    """Return who holds a lock file now, or None."""
    import fcntl

    if path.is_symlink() or not path.is_file():
        return None
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
