"""Making a plan, and refusing what cannot fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vwkit.cache import Cache
from vwkit.errors import RunError, VwkitError
from vwkit.jobs import Job, available_memory
from vwkit.planning.hits import Hits
from vwkit.planning.measuring import Measurements
from vwkit.planning.stage import Plan, PlannedStage
from vwkit.planning.walk import Walk
from vwkit.spec import Spec

__all__ = ["check_budget", "make_plan", "size_text"]

#: Seconds that measuring may take, about.
SECONDS = 10.0
# A stage that needs less than this is never refused: a small budget is about the size of chunks.
_FLOOR = 16 << 20
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def make_plan(
    spec: Spec,
    *,
    out: str | Path | None = None,
    seconds: float = SECONDS,
    fresh: bool = False,
    job: Job | None = None,
) -> Plan:
    """Tell what a run of a spec is going to take; nothing of it is run.

    Parameters
    ----------
    spec : Spec
        A checked spec, such as `Pipeline.spec`.
    out : path, optional
        The run folder, where an interrupted run would be resumed.
    seconds : float
        About how long measuring may take; what was measured before is remembered.
    fresh : bool
        Measure again.
    job : Job, optional
        Budgets; by default from the spec's ``run``.

    Returns
    -------
    Plan

    Raises
    ------
    VwkitError
        The data cannot be read.
    """
    work = job or Job(threads=spec.run.threads, memory=spec.run.memory)
    cache = Cache()
    try:
        measured = Measurements(seconds, work, fresh=fresh)
        hits = Hits(cache, None if out is None else Path(out).absolute())
        return Walk(spec, work, measured, hits).run()
    finally:
        cache.close()


def check_budget(spec: Spec, job: Job | None = None) -> None:
    """Refuse a spec that certainly needs more memory than it may use.

    Only what is certain counts: arrays that must be there at once. Nothing is tried out, and where
    the spec does not say ``run.memory``, only what is beyond the machine's memory is refused.

    Raises
    ------
    RunError
        One line: which stage, how much, and what to do.
    """
    stated = spec.run.memory
    if stated is None and spec.images is not None:
        return  # their number alone tells too little for the time that listing them takes
    work = job or Job(threads=spec.run.threads, memory=stated)
    limit = stated if stated is not None else available_memory()
    worst = _largest(Walk(spec, work), limit)
    if worst is None:
        return
    cache = Cache()
    try:  # what is there already is not made again
        worst = _largest(Walk(spec, work, hits=Hits(cache)), limit)
    finally:
        cache.close()
    if worst is None:
        return
    place = _place(spec, worst, stated is not None)
    whose = "run.memory is" if stated is not None else "this machine has"
    raise RunError(
        f"{place}{worst.name} ({worst.backend}) needs at least {size_text(worst.least)} at once for "
        f"{worst.rows:,.0f} rows × {worst.dim}, and {whose} {size_text(limit)}: {_advice(spec, worst)}"
    )


def _largest(walk: Walk, limit: int) -> PlannedStage | None:
    """Return the stage that needs most, if that is more than there is."""
    try:
        stages = [one for one in walk.run().stages if one.cached not in ("yes", "run")]
    except (VwkitError, OSError, MemoryError):
        return None  # what is wrong with the data is told where they are read
    worst = max(stages, key=lambda stage: stage.least, default=None)
    return None if worst is None or worst.least <= max(limit, _FLOOR) else worst


def _place(spec: Spec, stage: PlannedStage, stated: bool) -> str:
    path: tuple[Any, ...] = ("run", "memory") if stated else _path_of(stage.name)
    where = spec.source.where(path)
    if not where:
        return ""
    return f"{where}: " + ("run.memory: " if stated else "")


def _path_of(name: str) -> tuple[Any, ...]:
    """Return the place of a stage's slot in the spec."""
    if name.startswith("transform["):
        return ("transform", int(name[10:-1]))
    return tuple(name.split("."))


def _advice(spec: Spec, stage: PlannedStage) -> str:
    advice = ["allow more (run.memory)"]
    backend = _backend(spec, stage.name)
    if backend is not None and not backend.streams:
        advice.append("take a backend that reads its data as a stream (`vwkit backends` tells)")
    if getattr(backend, "init", None) == "k-means++":
        advice.append("init: random")
    if backend is not None and "train_rows" in type(backend).parameters():
        advice.append("fewer train_rows")
    elif getattr(backend, "k", None):
        advice.append("a smaller k")
    fewer = "limit or sample" if spec.images is not None or spec.vectors is not None else "rows"
    advice.append(f"or fewer rows ({fewer})")
    return ", ".join(advice)


def _backend(spec: Spec, name: str) -> Any:
    path = _path_of(name)
    found: Any = getattr(spec, str(path[0]), None)
    if path[0] == "transform":
        return spec.transform[int(path[1])]
    for part in path[1:]:
        found = getattr(found, str(part), None) or getattr(found, f"{part}_", None)
    return found


def size_text(size: float) -> str:
    """Return an amount of bytes as text: ``1.5 GB``.

    Examples
    --------
    >>> size_text(1_500_000_000), size_text(12)
    ('1.5 GB', '12 bytes')
    """
    for unit in _UNITS:
        if size < 999.5 or unit == _UNITS[-1]:
            break
        size /= 1000
    if unit == "bytes":
        return f"{size:.0f} {unit}"
    return f"{size:.2g} {unit}" if size < 9.95 else f"{size:.0f} {unit}"
