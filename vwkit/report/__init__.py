"""Pages to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["write_report"]


def write_report(run: Any, path: Path) -> None:
    """Write the report of a run."""
    path.write_text("<!doctype html><title>vwkit</title>")
