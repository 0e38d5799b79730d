"""Foreign text, for a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Show what could steer a terminal (names and metadata come from files) as what it is not."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)
