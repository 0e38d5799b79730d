"""What a run is going to take, before it runs: rows, memory, disk and time of each stage."""

from __future__ import annotations
