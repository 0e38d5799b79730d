"""Loaded by the workers of a local cluster as they start; others may load it, too."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from typing import Any

__all__ = ["dask_setup"]

# glibc's mallopt: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, and the most to which glibc raises them by itself.
_TRIM, _MMAP, _LARGEST = -1, -3, 32 << 20


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the process that asked for the work, and keep freed memory for a while."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Undo what Dask's nanny asks of glibc: to hand every freed block back to the system at once.

    Then each array of a kernel is new pages, which the system clears: more than half of a worker's
    time. So the worker keeps up to 64 MiB, as any process of vwkit does.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP, _LARGEST)
        mallopt(_TRIM, 2 * _LARGEST)
