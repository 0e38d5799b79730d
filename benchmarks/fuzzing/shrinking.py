"""Smaller inputs that fail as a larger one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.target import Case, named
from benchmarks.fuzzing.working import key_of, signature, watched

__all__ = ["shrunk", "smaller"]

_TRIES = 1500
_SECONDS = 20.0


def shrunk(task: dict[str, Any], path: Path) -> None:
    """Write a smaller copy of a failing input beside it, if there is one."""
    said = str(json.loads(path.with_suffix(".json").read_text())["what"])
    data = path.read_bytes()
    kind = said.split()[0]
    fatal = kind.startswith(("SIG", "Hang:", "Exit"))
    case = Case(named(task["target"]), Path(task["folder"]) / "small")

    def alike(candidate: bytes) -> bool:
        if fatal:
            return _alone(task, candidate) == kind
        error = watched(case, candidate)
        return error is not None and key_of(signature(error)) == key_of(said)

    if kind in ("Hang:", "Hang", "Bloat", "Exit"):
        return
    found = smaller(data, alike, 60 if fatal else _TRIES)
    if len(found) < len(data):
        path.with_suffix(".small.bin").write_bytes(found)


def _alone(task: dict[str, Any], data: bytes) -> str:
    """Run one case in a process of its own; return how it ended."""
    only = Path(task["folder"]) / "only"
    only.write_bytes(data)
    alone = {**task, "only": str(only), "guided": False}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzzing.working", json.dumps(alone)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        timeout=120,
        env=os.environ,
    )
    if done.returncode >= 0:
        return ""
    import signal

    return signal.Signals(-done.returncode).name


def smaller(data: bytes, alike: Callable[[bytes], bool], tries: int) -> bytes:
    """Leave out parts, larger ones first, then make bytes plain, as long as it fails alike."""
    end = time.monotonic() + _SECONDS
    if not alike(data):
        return data  # it takes more than this input
    width = len(data) // 2
    while width >= 1 and tries > 0 and time.monotonic() < end:
        at = 0
        while at < len(data) and tries > 0 and time.monotonic() < end:
            candidate = data[:at] + data[at + width :]
            tries -= 1
            if alike(candidate):
                data = candidate
            else:
                at += width
        width //= 2
    return data
