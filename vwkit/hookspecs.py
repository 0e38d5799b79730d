"""The one hook that plugins implement."""

from __future__ import annotations

from typing import Any

import pluggy

__all__ = ["hookimpl", "hookspec", "vwkit_backends"]

hookspec = pluggy.HookspecMarker("vwkit")
hookimpl = pluggy.HookimplMarker("vwkit")


@hookspec
def vwkit_backends() -> list[type[Any]]:  # type: ignore[empty-body]
    """Return the backend classes of this plugin."""
