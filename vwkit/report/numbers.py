"""Numbers with units, as people read them."""

from __future__ import annotations

__all__ = ["duration", "memory", "rate"]


def duration(seconds: float) -> str:
    """Write seconds as ``40 ms``, ``1.2 s``, ``3 min 20 s``, ``5 h 12 min`` or ``2 d 3 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 0.95 else f"{1000 * seconds:.0f} ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def memory(count: int) -> str:
    """Write bytes as kB, MB or GB."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def rate(units: float, seconds: float) -> str:
    """Write units per second."""
    value = units / seconds
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
