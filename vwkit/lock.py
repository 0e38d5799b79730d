"""One run at a time in a folder: an operating-system lock that holds who has it."""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from vwkit.errors import RunError

__all__ = ["Holder", "holder", "locked", "reserved"]

_LONGEST = 4096
_reserved: contextvars.ContextVar[IO[str] | None] = contextvars.ContextVar(
    "vwkit_reserved", default=None
)


class Holder(NamedTuple):
    """Who holds a lock: for people, and an id that no other time of holding it has."""

    name: str
    id: str | None

    def __str__(self) -> str:
        return self.name


@contextlib.contextmanager
def locked(path: Path, what: Path) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends.

    Raises
    ------
    RunError
        Another process holds it, and the text names it; or it cannot be written, or has no locks, and
        an `OSError` is the cause.
    """
    if _ours(path):
        yield
        return
    with _held(path, what):
        yield


@contextlib.contextmanager
def reserved(path: Path, what: Path) -> Iterator[None]:
    """Hold a lock file that is there already for a `locked` block that comes within this one.

    So whoever looks sees from the first moment that somebody is about to work there. Where there is
    no lock file nothing happens: a folder may turn out not to be ours.

    Raises
    ------
    RunError
        As for `locked`.
    """
    if not _plain(path) or _ours(path):
        yield
        return
    with _held(path, what) as file:
        token = _reserved.set(file)
        try:
            yield
        finally:
            _reserved.reset(token)


def _plain(path: Path) -> bool:
    with contextlib.suppress(OSError):  # also a name that no system takes
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def _ours(path: Path) -> bool:
    """Tell whether the current work has reserved this lock file."""
    file = _reserved.get()
    with contextlib.suppress(OSError):
        return file is not None and os.path.samestat(os.fstat(file.fileno()), path.lstat())
    return False


@contextlib.contextmanager
def _held(path: Path, what: Path) -> Iterator[IO[str]]:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        # Not inherited by child processes (Python opens files that way).
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        raise RunError(f"{what}: cannot be written: {error.strerror or error}") from error
    with os.fdopen(handle, "a+", encoding="utf-8") as file:
        try:
            taken = _taken(file)
        except OSError as error:
            raise RunError(
                f"{what}: its file system has no locks ({error.strerror or error}), without which two "
                "runs could spoil each other; name a folder on another one with --out"
            ) from error
        if not taken:
            raise RunError(
                f"{what}: in use by {_said(file)}; wait for it, or name another folder with --out"
            )
        said = {"pid": os.getpid(), "host": socket.gethostname(), "id": secrets.token_hex(8)}
        # A full disk takes no name; the lock holds all the same.
        with contextlib.suppress(OSError):
            file.seek(0)
            file.truncate()
            os.write(handle, json.dumps(said).encode())
        yield file


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
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(wait)
    return False


def holder(path: Path) -> Holder | None:
    """Return who holds a lock file now, or None."""
    import fcntl

    if path.is_symlink() or not path.is_file():
        return None
    with (
        contextlib.suppress(OSError),  # gone, not to be read, or without locks
        path.open(encoding="utf-8") as file,
    ):
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _said(file)
    return None


def _said(file: IO[str]) -> Holder:
    said: Any = None
    with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
        file.seek(0)
        said = json.loads(file.read(_LONGEST))
        known = said.get("id") if isinstance(said, dict) else None
        name = f"process {int(said['pid'])} on {said['host']}"
        return Holder(name, known if isinstance(known, str) else None)
    return Holder("another process", None)
