"""What a run folder says from outside: at work, interrupted, failed, finished, or dead."""

from __future__ import annotations

import contextlib
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from vwkit.errors import ArtifactError, RunError
from vwkit.lock import holder
from vwkit.observing.log import read_log
from vwkit.observing.progress import PROGRESS, read_progress
from vwkit.run_folder import INNER, MANIFEST, read_manifest

__all__ = ["status"]

_LAST = 5


def status(folder: str | Path) -> dict[str, Any]:
    """Say how a run is doing, whoever makes it; nothing of it is changed, and no part is opened.

    Parameters
    ----------
    folder : path
        The run folder.

    Returns
    -------
    dict
        ``state``: ``running``; ``interrupted`` (it was asked to stop, or was killed: resume it);
        ``failed`` (``message`` says why); ``finished``. ``alive``: whether a process is at work in the
        folder. ``complete``: whether a finished run is in it, be it an earlier one. ``progress``: what
        ``progress.json`` says, or None. ``manifest``: the counts, seconds and stages of the finished
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
    by = holder(inner / "lock")
    progress = read_progress(inner / PROGRESS)
    manifest = None
    with contextlib.suppress(ArtifactError):
        manifest = read_manifest(folder / MANIFEST)
    state, message = _state(by, progress, manifest is not None)
    return {
        "run": str(folder),
        "state": state,
        "message": message,
        "alive": by is not None,
        "held_by": by,
        "complete": manifest is not None,
        "seconds_since_update": _age(progress),
        "progress": progress,
        "manifest": None
        if manifest is None
        else {
            key: manifest[key]
            for key in ("vwkit", "counts", "accounts", "seconds", "peak_memory", "scores", "stages")
            if key in manifest
        },
        "problems": _problems(folder, None if progress is None else progress["run"]),
    }


def _state(
    by: str | None, progress: dict[str, Any] | None, complete: bool
) -> tuple[str, str | None]:
    if by is not None:
        return "running", None
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
    with contextlib.suppress(ValueError, TypeError, KeyError):
        at = datetime.fromisoformat(progress["updated"]).timestamp()
        return round(max(0.0, time.time() - at), 1)
    return None


def _problems(folder: Path, run: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in read_log(folder):
        if line["level"] in ("warning", "error") and line.get("run") == run:
            found = [*found[-(_LAST - 1) :], line]
    return found
