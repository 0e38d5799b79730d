"""The run folder: its manifest, and how a new run takes the place of an old one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

from vwkit.errors import ArtifactError
from vwkit.leftovers import sweep

__all__ = [
    "FILES",
    "FORMAT",
    "INNER",
    "JOURNAL",
    "MANIFEST",
    "commit",
    "finish_commit",
    "read_manifest",
    "read_small",
    "sync",
    "write_synced",
]

FORMAT = 1
INNER = ".run"
JOURNAL = "commit.json"
MANIFEST = "manifest.json"
_LARGEST = 64 << 20
FILES = ("items.jsonl", "report.html", "spec.yaml", MANIFEST)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a run's manifest.

    Raises
    ------
    ArtifactError
    """
    try:
        manifest = json.loads(read_small(path, links=True))
        if manifest["kind"] != "run" or not isinstance(manifest["stages"], dict):
            raise ValueError
        if int(manifest["format"]) > FORMAT:
            raise ArtifactError(
                f"{path}: run format {manifest['format']}, made by a newer vwkit; update vwkit"
            )
        if not all(_plain_name(name) for name in manifest["stages"]):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ArtifactError(f"{path}: not the manifest of a run, or damaged") from None
    checked: dict[str, Any] = manifest
    return checked


def read_small(path: Path, *, links: bool = False) -> bytes:
    """Return the content of a plain file of modest size, whoever made its folder.

    A pipe would be waited for, a device has no end, and a link may lead to either.

    Raises
    ------
    OSError
        It is something else, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise OSError(errno.EINVAL, "not a plain file of modest size", str(path))
        return file.read(_LARGEST)


def _plain_name(name: str) -> bool:
    # Without any sign it would be the folder itself.
    return name.isprintable() and not re.search(r"^$|^\.|[/\\]", name)


def commit(folder: Path, names: list[str]) -> None:
    """Make the work in ``.run/next`` the run: a journal first, so that a kill loses nothing."""
    inner = folder / INNER
    old: list[str] = []
    if (folder / MANIFEST).is_file():
        with contextlib.suppress(ArtifactError):
            old = [*read_manifest(folder / MANIFEST)["stages"], *FILES]
    for name in FILES:
        if (inner / "next" / name).exists():
            sync(inner / "next" / name)
    sync(inner / "next")
    write_synced(inner / JOURNAL, json.dumps({"new": sorted(names), "old": sorted(old)}))
    finish_commit(folder)


def write_synced(path: Path, text: str) -> None:
    """Write a small file that is the old one or the new one, even if the machine stops."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        sync(part)
    except OSError as error:
        error.filename = error.filename or str(path)  # which a full disk does not say
        raise
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make sure that a file's content, or a folder's names, are on the disk.

    Raises
    ------
    OSError
        The file could not be written to the end.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        # Not every file system can sync a folder.
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)


def finish_commit(folder: Path) -> None:
    """Roll a journalled commit forward, from wherever it stopped; only while holding the run's lock."""
    inner = folder / INNER
    _remove_foreign(inner)
    sweep(folder / "report.html")  # which is written once the lock is free
    journal = inner / JOURNAL
    if not journal.is_file():
        return
    try:
        written = json.loads(read_small(journal))
        new, old = ([str(name) for name in written[key]] for key in ("new", "old"))
        if not all(map(_plain_name, new + old)):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ArtifactError(f"{journal}: damaged; remove {inner} and run again") from None
    following = inner / "next"
    if (following / MANIFEST).exists():
        # The manifest goes first and comes last: without it the folder is no finished run.
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in old:
            if name not in new:
                _discard(folder / name)
        for name in sorted(new, key=lambda name: (name == MANIFEST, name)):
            if (following / name).exists():
                _discard(folder / name)
                (following / name).rename(folder / name)
        sync(folder)
    journal.unlink()
    shutil.rmtree(following, ignore_errors=True)
    shutil.rmtree(inner / "checkpoints", ignore_errors=True)
    (inner / "state.json").unlink(missing_ok=True)


_FOLDERS = ("next", "checkpoints", "parts")
_FILES_BELOW = {f"next/{name}" for name in FILES} | {"checkpoints/stages.json"}


def _remove_foreign(inner: Path) -> None:
    """Remove what no run of ours leaves in ``.run``: whoever made the folder may mean us to follow it.

    These are links and pipes, which would be written through or waited for, folders in the places of
    files, and files in those of folders.
    """
    for above, folders, files in os.walk(inner):
        for name in [*folders, *files]:
            path = Path(above, name)
            place = path.relative_to(inner).as_posix()
            if path.is_symlink() or not path.is_dir():
                foreign = path.is_symlink() or not path.is_file() or place in _FOLDERS
            elif "/" in place:
                foreign = place.removesuffix(".part") in _FILES_BELOW
            else:
                foreign = place not in _FOLDERS
            if foreign:
                with contextlib.suppress(FileNotFoundError):
                    _discard(path)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
