"""CSV that spreadsheets open: names must not become formulas in them."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["no_formula"]

_FORMULAS = frozenset("=+-@＝＋－＠")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


def no_formula(value: Any) -> Any:
    """Put a ``'`` before text that a spreadsheet would compute; leave everything else, numbers too."""
    # Spaces before it, some programs pass over.
    if not isinstance(value, str) or value.lstrip()[:1] not in _FORMULAS:
        return value
    return value if _NUMBER.fullmatch(value) else f"'{value}"
