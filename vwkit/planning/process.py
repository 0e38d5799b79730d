"""The memory of the process itself: what is imported before any work is done."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from vwkit.observing.memory import anonymous_memory
from vwkit.planning.measuring import Measurements
from vwkit.planning.meters import BUSY, busy
from vwkit.planning.spent import NOTHING, Spent

__all__ = ["imported"]

_CHILD = """
import importlib, json, sys, time
import vwkit, vwkit.cli.run, vwkit.pipeline
from vwkit.observing.memory import anonymous_memory
vwkit.backends()
told = [[anonymous_memory(), 0.0, 0.0]]
for name in sys.argv[1:]:
    start, worked = time.perf_counter(), time.process_time()
    try:
        importlib.import_module(name)
    except Exception:
        pass
    took = time.perf_counter() - start, time.process_time() - worked
    told.append([anonymous_memory(), *took])
print(json.dumps(told))
"""


def imported(modules: Sequence[str], measured: Measurements) -> list[tuple[float, Spent]]:
    """Return anonymous bytes and the time of a process that imports modules one after the other.

    The first entry is the process with vwkit alone: this one, where no other could be begun.
    """

    def measure(_: float) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, *modules],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return {"told": json.loads(done.stdout.splitlines()[-1])}

    told = measured.of({"process": list(modules)}, measure).get("told", [])
    told = told or [[anonymous_memory(), 0.0, 0.0]]
    waits = busy() > BUSY  # then the clock tells of others, too
    found = [
        (float(memory), Spent(min(clock, cpu) if waits else clock, cpu))
        for memory, clock, cpu in told
    ]
    return found + [(found[-1][0], NOTHING)] * (len(modules) + 1 - len(found))
