"""How far a run is, in a file that is always whole: ``.run/progress.json``."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from vwkit.observing.log import utc
from vwkit.observing.memory import anonymous_memory
from vwkit.observing.rates import Rate

__all__ = ["FORMAT", "PROGRESS", "SCHEMA", "Progress", "moment", "read_progress", "write_progress"]

PROGRESS = "progress.json"
FORMAT = 1
STATES = ("running", "interrupted", "failed", "finished")
SCHEMA = Path(__file__).with_name("progress.schema.json")
"""The JSON schema of the file."""

#: Values of the objective that are kept; of more, the first and the last ones.
_KEPT = 1000
_LARGEST = 4 << 20
_MOST = 1 << 63


@dataclass
class Progress:
    """What is known of a run at work; `document` is what the file says.

    Attributes
    ----------
    to_come : list of str
        Stages that are still to come, in order.
    finished : list of dict
        Stages that are done: name, from, seconds.
    """

    run: str
    attempt: int
    verb: str
    pid: int
    host: str
    to_come: list[str] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)
    state: str = "running"
    message: str | None = None
    stage: str | None = None
    part: str | None = None
    unit: str = ""
    values: dict[str, float] = field(default_factory=dict)
    objective: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    stage_started: float | None = None
    peak: int = 0
    lock: str | None = None
    rate: Rate | None = None

    def begin(self, stage: str) -> None:
        """Go on to a stage."""
        if stage in self.to_come:
            # Those before it that never came are not needed: the spec allows for more than is done.
            del self.to_come[: self.to_come.index(stage) + 1]
        self.stage, self.stage_started = stage, time.time()
        self.at(None)

    def at(self, part: str | None) -> None:
        """Go on to a part of the stage, which is counted by itself."""
        self.part = part
        self.rate = Rate(time.monotonic())
        self.unit, self.values, self.objective = "", {}, []

    def end(self, stage: str, origin: str, seconds: float) -> None:
        """Take note of a finished stage."""
        if stage in self.to_come:
            del self.to_come[: self.to_come.index(stage) + 1]
        self.finished.append({"name": stage, "from": origin, "seconds": seconds})
        if stage == self.stage:
            self.rest()

    def rest(self) -> None:
        """Be in no stage."""
        self.at(None)
        self.stage = self.stage_started = self.rate = None

    def told(self, done: int, total: int | None, unit: str, values: dict[str, float]) -> bool:
        """Take note of a report of the current stage; return whether the objective is a new one."""
        if self.rate is None:
            self.rate = Rate(time.monotonic())
        if unit != self.unit and self.unit:
            self.rate = Rate(
                time.monotonic()
            )  # another part of the work, counted in something else
        self.unit = unit or self.unit
        self.rate.told(int(done), None if total is None else int(total), time.monotonic())
        if not values:
            return False
        self.values = {str(name): float(value) for name, value in values.items()}
        new = self.values.get("objective")
        if new is None or (self.objective and self.objective[-1] == new):
            return False
        self.objective.append(new)
        if len(self.objective) > _KEPT:
            del self.objective[_KEPT // 2]
        return True

    def document(self) -> dict[str, Any]:
        """Return what the file says."""
        rate = self.rate
        used = anonymous_memory()
        self.peak = max(self.peak, used)
        return {
            "format": FORMAT,
            "run": self.run,
            "attempt": self.attempt,
            "verb": self.verb,
            "state": self.state,
            "message": self.message,
            "stage": self.stage,
            "part": self.part,
            "stages_done": list(self.finished),
            "stages_to_come": list(self.to_come),
            "done": rate.done if rate else 0,
            "total": rate.total if rate else None,
            "unit": self.unit,
            "rate_now": _rounded(rate.now() if rate else None),
            "rate_overall": _rounded(rate.overall() if rate else None),
            "eta_seconds": _rounded(rate.seconds_left() if rate else None),
            "values": {name: _rounded(value, 9) for name, value in self.values.items()},
            "objective": [_rounded(value, 9) for value in self.objective],
            "started": utc(self.started),
            "stage_started": None if self.stage_started is None else utc(self.stage_started),
            "updated": utc(),
            "pid": self.pid,
            "host": self.host,
            "lock": self.lock,
            "memory_now": used,
            "memory_peak": self.peak,
        }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None  # JSON has no word for them
    return float(f"{value:.{digits}g}")


def write_progress(path: Path, document: dict[str, Any]) -> None:
    """Replace the file by one rename; where that cannot be, nothing happens."""
    part = path.with_suffix(".json.part")
    try:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part)


def read_progress(path: Path) -> dict[str, Any] | None:
    """Return what the file says; None where there is none of ours or it is damaged."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    fits = _fits(document, schema) and document["format"] <= FORMAT
    return document if fits and moment(document["updated"]) is not None else None


def moment(text: str) -> float | None:
    """Return the seconds since 1970 of a time in ISO 8601, or None if it is no such text."""
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).timestamp()
    return None


_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    """Tell whether a value is what a schema says, as far as ours go."""
    wanted = schema.get("type", [])
    kinds = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(value, bool) or not any(isinstance(value, _TYPES[kind]) for kind in kinds):
        return False
    if isinstance(value, dict):
        named = schema.get("properties", {})
        other = schema.get("additionalProperties")
        return all(key in value for key in schema.get("required", ())) and all(
            _fits(one, named.get(key, other)) if key in named or other else True
            for key, one in value.items()
        )
    if isinstance(value, list):
        return all(_fits(one, schema["items"]) for one in value)
    # Numbers beyond are none that a machine counts to, and cannot be shown. NaN is not below, either.
    if isinstance(value, (int, float)) and not -_MOST < value < _MOST:
        return False
    if isinstance(value, (int, float)) and value < schema.get("minimum", value):
        return False
    return value in schema.get("enum", (value,))
