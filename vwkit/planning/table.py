"""A plan as text."""

from __future__ import annotations

from vwkit.planning.making import size_text
from vwkit.planning.meters import BUSY
from vwkit.planning.stage import Plan, PlannedStage

__all__ = ["table", "time_text"]

_HEAD = ("stage", "backend", "rows", "memory", "disk", "time", "cpu", "cached")
_LEFT = (0, 1, 7)


def table(plan: Plan) -> list[str]:
    """Return the lines of a table of all stages, with the sums below."""
    rows = [_HEAD, *(_row(stage) for stage in plan.stages)]
    peak, disk = plan.peak, plan.total("disk")
    seconds, cpu = plan.total("seconds"), plan.total("cpu_seconds")
    rows.append(
        (
            "altogether",
            "",
            "",
            "?" if peak is None else size_text(peak),
            "?" if disk is None else size_text(disk),
            "?" if seconds is None else time_text(seconds),
            "?" if cpu is None else time_text(cpu),
            "",
        )
    )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i in _LEFT else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    for stage in plan.stages:
        if stage.note:  # what is said of rows is said of the data, and not of the first stage
            of = "" if stage.note.startswith("rows: ") else f"{stage.name}: "
            lines.append(f"{of}{stage.note}")
    if plan.busy > BUSY:
        lines.append(
            f"the machine is busy ({plan.busy:.1f} processes for each processor): times are rough; cpu tells more"
        )
    whose = "" if plan.stated else " (half of the machine's; run.memory sets it)"
    threads = f"{plan.threads} thread{'s' if plan.threads > 1 else ''}"
    lines.append(f"{threads}, budget {size_text(plan.budget)}{whose}")
    lines.append(f"{size_text(plan.base)} of the memory are the process and its libraries")
    return lines


def _row(stage: PlannedStage) -> tuple[str, ...]:
    cached = stage.cached
    if stage.of is not None and cached in ("some", "no", "unknown"):
        cached = f"{stage.hits:,} of {stage.of:,}"
    return (
        stage.name,
        stage.backend,
        "?" if stage.rows is None else f"{stage.rows:,.0f}",
        "?" if stage.memory is None else size_text(stage.memory),
        "?" if stage.disk is None else size_text(stage.disk),
        "?" if stage.seconds is None else time_text(stage.seconds),
        "?" if stage.cpu_seconds is None else time_text(stage.cpu_seconds),
        cached,
    )


def time_text(seconds: float) -> str:
    """Return a time as text.

    Examples
    --------
    >>> time_text(0.04), time_text(90), time_text(7300)
    ('0.04 s', '1.5 min', '2.0 h')
    """
    if seconds < 9.95:
        return f"{seconds:.1g} s" if seconds < 0.095 else f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
