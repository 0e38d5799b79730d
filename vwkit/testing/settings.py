"""The settings that all code of a process shares, and a place where they are other than usual.

A test that comes later finds a setting as the tests before it have left it. So whoever sets it again
is only seen where it was something else before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

__all__ = ["changed", "elsewhere", "kept", "open_files", "settings", "written_variables"]

_LEVEL = 35


class _NobodysWarning(Warning):
    """Nothing warns of this."""


def settings() -> dict[str, Any]:
    """Return the settings by what they are called in a message."""
    root = logging.getLogger()
    return {
        "working directory": os.getcwd(),
        "environment": dict(os.environ),
        "NumPy's errors": np.geterr(),
        "warning filters": list(warnings.filters),
        "root logger": {
            "level": root.level,
            "handlers": [type(one).__name__ for one in root.handlers],
            "disabled": root.manager.disable,
        },
        "handler of SIGINT": signal.getsignal(signal.SIGINT),
        "sys.path": list(sys.path),
    }


def open_files() -> dict[int, str]:
    """Return the process's open files by their numbers, none where the system does not tell."""
    found = {}
    with contextlib.suppress(OSError):  # as on Windows
        for name in os.listdir("/dev/fd"):
            with contextlib.suppress(OSError):  # the listing's own is closed again
                path = f"/dev/fd/{name}"
                os.stat(path)
                found[int(name)] = os.readlink(path) if os.path.islink(path) else path
    return found


def changed(before: dict[str, Any]) -> list[str]:
    """Return what is other now, one text for each setting."""
    now = settings()
    return [
        f"{name}: {_differ(value, now[name])}"
        for name, value in before.items()
        if value != now[name]
    ]


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put all settings back in the end."""
    before, root = settings(), logging.getLogger()
    handlers, path = list(root.handlers), list(sys.path)
    with warnings.catch_warnings(), np.errstate(), mock.patch.dict(os.environ):
        try:
            yield
        finally:
            os.chdir(before["working directory"])
            root.handlers[:], sys.path[:] = handlers, path
            root.setLevel(before["root logger"]["level"])
            logging.disable(before["root logger"]["disabled"])
            if signal.getsignal(signal.SIGINT) is not before["handler of SIGINT"]:
                signal.signal(signal.SIGINT, before["handler of SIGINT"])


@contextlib.contextmanager
def written_variables() -> Iterator[set[str]]:
    """Give the names of the environment variables that are written meanwhile."""
    found: set[str] = set()
    put = os.putenv

    def note(name: Any, value: Any) -> None:
        found.add(os.fsdecode(name))
        put(name, value)

    with mock.patch("os.putenv", note):
        yield found


@contextlib.contextmanager
def elsewhere(without: set[str], *, move: bool) -> Iterator[dict[str, Any]]:
    """Give settings that are other than before, and put them back in the end.

    Parameters
    ----------
    without : set of str
        Environment variables that are taken away.
    move : bool
        Whether the working directory is another one, too.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(kept())
        if move:
            os.chdir(folder)
        for name in without:
            os.environ.pop(name, None)
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.simplefilter("ignore", _NobodysWarning)
        flipped: Any = {
            name: "warn" if way == "ignore" else "ignore" for name, way in np.geterr().items()
        }
        np.seterr(**flipped)
        root = logging.getLogger()
        root.setLevel(_LEVEL)
        root.handlers[:] = []
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda *got: signal.default_int_handler(*got))
        yield settings()


def _differ(before: Any, now: Any) -> str:
    """Say in short what is other."""
    if isinstance(before, dict):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return ", ".join(f"{name} is now {now.get(name)!r}" for name in sorted(names)[:3])
    if isinstance(before, list):
        more = [one for one in now if one not in before]
        return f"now also {more[0]!r}" if more else f"now first {now[0]!r}"
    return f"now {now!r}"
