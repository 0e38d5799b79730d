"""What a run folder says from outside: at work, interrupted, failed, finished, or dead."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from vwkit.errors import ArtifactError, RunError
from vwkit.lock import Holder, holder
from vwkit.observing.log import read_log
from vwkit.observing.progress import PROGRESS, moment, read_progress
from vwkit.run_folder import INNER, MANIFEST, read_manifest

__all__ = ["status"]

_LAST = 5
_TRIES = 100


def status(folder: str | Path) -> dict[str, Any]:
    """Say how a run is doing, whoever makes it; nothing of it is changed, and no part is opened.

    Parameters
    ----------
    folder : path
        The run folder.

    Returns
    -------
    dict
        ``state``: ``starting`` (a process holds the run's lock, and has told nothing of its work yet);
        ``running``; ``interrupted`` (it was asked to stop, or was killed: resume it);
        ``failed`` (``message`` says why); ``finished``. ``alive``: whether a process is at work in the
        folder. ``complete``: whether a finished run is in it, be it an earlier one. ``progress``: what
        ``progress.json`` says, or None (of a process that is starting, too). ``manifest``: the counts, seconds and stages of the finished
        run, or None. ``problems``: the last warnings and errors of the log.

    Raises
    ------
    RunError
        There is no run folder at this path.
    """
    folder = Path(folder)
    inner = folder / INNER
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    if not inner.is_dir() and not (folder / MANIFEST).is_file():
        raise RunError(f"{folder}: not a run folder of vwkit (it has no {MANIFEST})")
    by, progress, manifest = _seen(folder)
    if by is not None and (progress is None or progress.get("lock") != by.id):
        progress = None  # of whoever was there before
    state, message = _state(by, progress, manifest is not None)
    return {
        "run": str(folder),
        "state": state,
        "message": message,
        "alive": by is not None,
        "held_by": None if by is None else by.name,
        "complete": manifest is not None,
        "seconds_since_update": _age(progress),
        "progress": progress,
        "manifest": None if manifest is None else _told(manifest),
        "problems": _problems(folder, None if progress is None else progress["run"]),
    }


def _seen(folder: Path) -> tuple[Holder | None, dict[str, Any] | None, dict[str, Any] | None]:
    """Return who holds the lock, the progress file and the manifest, all of one moment."""
    inner = folder / INNER
    by = holder(inner / "lock")
    for _ in range(_TRIES):
        progress, manifest = read_progress(inner / PROGRESS), None
        with contextlib.suppress(ArtifactError):
            manifest = read_manifest(folder / MANIFEST)
        before, by = by, holder(inner / "lock")
        if before == by:
            break
    return by, progress, manifest


def _state(
    by: Holder | None, progress: dict[str, Any] | None, complete: bool
) -> tuple[str, str | None]:
    if by is not None:
        # Without an id in the lock (the disk was full) nobody can tell.
        return ("starting" if progress is None and by.id else "running"), None
    if progress is None:
        return ("finished", None) if complete else ("interrupted", "it was killed, or never began")
    if progress["state"] != "running":
        return str(progress["state"]), progress.get("message")
    # Who wrote it let go of the lock without a word: killed, or the power went.
    where = f"process {progress.get('pid')} on {progress.get('host')}"
    return "interrupted", f"{where} ended without a word: it was killed, or the machine went down"


def _age(progress: dict[str, Any] | None) -> float | None:
    if progress is None:
        return None
    at = moment(progress["updated"])
    return None if at is None else round(max(0.0, time.time() - at), 1)


def _told(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of a finished run; what it cannot have written is left out."""
    kept: dict[str, Any] = {
        key: manifest[key]
        for key in ("vwkit", "counts", "accounts", "seconds", "peak_memory", "scores", "stages")
        if key in manifest
    }
    for key in ("seconds", "peak_memory"):
        if not _is_number(kept.get(key, 0)):
            del kept[key]
    if not _are_counts(kept.get("counts", {})):
        del kept["counts"]
    accounts = kept.get("accounts") or {}
    items = accounts.get("items", {}) if isinstance(accounts, dict) else None
    if not isinstance(items, dict) or not _are_counts(items.get("skipped") or {}):
        kept.pop("accounts", None)
    return kept


def _are_counts(counts: Any) -> bool:
    return isinstance(counts, dict) and all(map(_is_number, counts.values()))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1 << 63


def _problems(folder: Path, run: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in read_log(folder):
        if line["level"] in ("warning", "error") and line.get("run") == run:
            found = [*found[-(_LAST - 1) :], line]
    return found
