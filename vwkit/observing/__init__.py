"""What a run tells about itself while it works, and afterwards: log, progress, state, accounts.

A run keeps two files in its folder, beside what is needed to resume it:

* ``.run/log.jsonl``: what happened, a line of JSON each (`read_log`);
* ``.run/progress.json``: how far it is, replaced about once a second (`status`).

They say when, where and how fast, so they are no part of a run's results and never compared.
"""

from __future__ import annotations

from vwkit.observing.log import LOG, read_log
from vwkit.observing.progress import PROGRESS
from vwkit.observing.state import status

__all__ = ["LOG", "PROGRESS", "read_log", "status"]
