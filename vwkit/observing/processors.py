"""How much of the processors' time this process has used."""

from __future__ import annotations

import os

__all__ = ["processor_seconds"]


def processor_seconds() -> float:
    """Return the seconds that processors worked for this process: all threads, and processes it ended.

    What others do on the machine does not change it, as it changes the time by the clock.
    """
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system
