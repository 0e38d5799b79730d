"""Writing files and folders all or nothing, and only over what is ours."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from vwkit.artifact import MARKER
from vwkit.errors import RunError

__all__ = ["new_file", "new_folder"]


_STALE_SECONDS = 3600.0


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; it is put in place of `path` if the block succeeds."""
    with _clear(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, name = tempfile.mkstemp(f".part{path.suffix}", f".{path.name}.", path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        with _clear(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it is put in place of `path` if the block succeeds.

    A folder that was there is replaced only if it carries our marker file or is empty.

    Raises
    ------
    RunError
        The folder holds something else, or cannot be written.
    """
    if path.exists() and not (
        path.is_dir() and ((path / MARKER).exists() or not any(path.iterdir()))
    ):
        raise RunError(
            f"{path}: was not made by vwkit and is not overwritten; move it away or name another"
        )
    with _clear(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        part = Path(tempfile.mkdtemp(".part", f".{path.name}.", path.parent))
    try:
        part.chmod(0o777 & ~_umask())
        (part / MARKER).write_text("Made by vwkit; the folder is replaced by the next run.\n")
        yield part
        with _clear(path):
            if path.exists():
                shutil.rmtree(path)
            part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _clear(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


def _sweep(path: Path) -> None:
    """Remove what a killed process left beside an output; what is recent may still be written to."""
    ours = re.compile(
        rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.part(?:{re.escape(path.suffix)})?"
    )
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if not ours.fullmatch(entry.name):
                continue
            if time.time() - entry.stat(follow_symlinks=False).st_mtime < _STALE_SECONDS:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
