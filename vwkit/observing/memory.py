"""How much memory this process uses."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

__all__ = ["anonymous_memory"]


def anonymous_memory() -> int:
    """Return RssAnon + RssShmem in bytes; where the system does not tell, the resident peak."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += int(line.split()[1]) << 10
    if total == 0:
        unit = 1 if sys.platform == "darwin" else 1 << 10
        total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return total
