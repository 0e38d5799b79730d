"""Files and folders on their way to a place, each locked for as long as somebody writes there.

What carries such a name and is locked by nobody was left by a killed process, and goes away.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["part_file", "part_folder", "sweep", "sweep_all"]

# Where the file system has no locks, only age tells.
_OLD_SECONDS = 3600.0
_MIDDLE = r"\.[a-z0-9_]{8}\.part"
_ANY = re.compile(rf"\..+{_MIDDLE}(?:\.[^.]+)?", re.DOTALL)


def part_file(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Give an empty file beside `path`, with its suffix; what is left of it in the end is removed.

    Raises
    ------
    OSError
        There is no room, or no permission.
    """
    return _part(path, folder=False)


def part_folder(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Give an empty folder beside `path`; what is left of it in the end is removed.

    Raises
    ------
    OSError
        There is no room, or no permission.
    """
    return _part(path, folder=True)


@contextlib.contextmanager
def _part(path: Path, *, folder: bool) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    while True:
        if folder:
            part = Path(tempfile.mkdtemp(".part", f".{path.name}.", path.parent))
            handle = os.open(part, os.O_RDONLY)
        else:
            handle, name = tempfile.mkstemp(f".part{path.suffix}", f".{path.name}.", path.parent)
            part = Path(name)
        # Somebody who sweeps may have come between the two, and have taken it for a leftover.
        if _locked(handle) is not False and part.exists():
            break
        os.close(handle)
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            _remove(part)
        os.close(handle)


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what killed processes left on its way to a path."""
    ours = re.compile(rf"\.{re.escape(path.name)}{_MIDDLE}(?:{re.escape(path.suffix)})?")
    _sweep(path.parent, ours)


def sweep_all(folder: Path) -> None:
    """Remove what killed processes left on its way to whatever is in a folder, or below it."""
    for above, _, _ in os.walk(folder):
        _sweep(Path(above), _ANY)


def _sweep(folder: Path, ours: re.Pattern[str]) -> None:
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if ours.fullmatch(name)]
        for name in names:
            with contextlib.suppress(OSError):
                _remove_if_left(folder / name)


def _remove_if_left(part: Path) -> None:
    # Never through a link, and never waiting for a pipe.
    handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        locked = _locked(handle)
        old = time.time() - os.fstat(handle).st_mtime > _OLD_SECONDS
        if locked or (locked is None and old):
            _remove(part)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool | None:
    """Take the lock of an opened file; False if somebody has it, None where there are no locks."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
