"""Writing files and folders all or nothing, and only over what is ours."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vwkit.artifact import MARKER
from vwkit.errors import RunError
from vwkit.leftovers import part_file, part_folder
from vwkit.run_folder import sync

__all__ = ["new_file", "new_folder"]


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; it is put in place of `path` if the block succeeds."""
    with contextlib.ExitStack() as parts:
        with _clear(path):
            part = parts.enter_context(part_file(path))
        yield part
        with _clear(path):
            sync(part)
            part.chmod(0o666 & ~_umask())
            part.replace(path)
            sync(path.parent)


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
    with contextlib.ExitStack() as parts:
        with _clear(path):
            part = parts.enter_context(part_folder(path))
            part.chmod(0o777 & ~_umask())
            (part / MARKER).write_text("Made by vwkit; the folder is replaced by the next run.\n")
        yield part
        with _clear(path):
            for inside in part.rglob("*"):
                if inside.is_file() and not inside.is_symlink():
                    sync(inside)
            if path.exists():
                shutil.rmtree(path)
            part.rename(path)
            sync(path.parent)


@contextlib.contextmanager
def _clear(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
