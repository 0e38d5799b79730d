"""Trying a backend out on few rows, and telling from that what many take."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.base import Backend, create
from vwkit.clusterer import Clusterer
from vwkit.estimates import Estimate
from vwkit.index import Index
from vwkit.jobs import COMPILED, Job, job, use_job
from vwkit.planning.meters import Clock, Memory
from vwkit.planning.spent import NOTHING, Spent
from vwkit.quantizer import Quantizer
from vwkit.transform import Transform

__all__ = ["Trial", "estimated", "fitted_on", "shrunk", "try_out"]

_FEWEST_ROWS, _FIRST_ROWS = 256, 512
_STEP = 4
_FEW_PASSES = 1
# What is fitted is used on so many rows at least: few take longer, one by one.
_USED_ON = 4096
_LEAST_SLOPE = 0.25
# Seconds of computing that a trial on more rows may take in any case, and by how much the clock may go
# on for longer where a machine is busy.
_FOR_A_SECOND, _PATIENCE = 1.0, 6.0
# Of the rows of a small trial, so many stand for each cluster at least.
_ROWS_PER_CENTER = 4
_COUNTS = ("k", "ks")


def estimated(backend: Backend, rows: float, dim: int, itemsize: int) -> Estimate:
    """Return the backend's own estimate; without one, work grows with the rows."""
    found = None
    if dim > 0:
        found = backend._estimate(round(rows), dim, itemsize)
    return found if found is not None else Estimate(work=rows)


def shrunk(backend: Backend, rows: int, of: float, passes: int | None = None) -> Any:
    """Return an unfitted backend like this one, with no more clusters than few rows bear."""
    params: dict[str, Any] = {}
    for name, parameter in type(backend).parameters().items():
        value = getattr(backend, parameter.attribute)
        if isinstance(value, Backend):
            value = shrunk(value, rows, of) if not value._fitted else value
        params[name] = value
    if rows < of:
        for name in _COUNTS:
            if type(params.get(name)) is int:
                params[name] = max(
                    1 if name == "k" else 2, min(params[name], rows // _ROWS_PER_CENTER)
                )
        if isinstance(params.get("init"), (Path, np.ndarray)):
            params.pop("init")
    if passes is not None and type(params.get("iterations")) is int:
        params["iterations"] = min(passes, params["iterations"])
    return create(backend.role, backend.name, **params)


def fitted_on(backend: Any, rows: Any, quantizer: Any = None) -> None:
    """Fit or build, whatever the role."""
    if isinstance(backend, Index):
        backend.build(rows)
    elif isinstance(backend, Clusterer):
        backend.fit(rows, quantizer=quantizer)
    elif isinstance(backend, (Quantizer, Transform)):
        backend.fit(rows)


def try_out(
    backend: Any,
    some: Callable[[int], Any],
    rows: float,
    seconds: float,
    *,
    fits: bool = True,
    quantizer: Any = None,
    applied: bool = False,
) -> dict[str, Any]:
    """Fit copies of a backend on more and more rows, until about `seconds` are gone.

    Parameters
    ----------
    backend : Backend
        It is not changed.
    some : callable
        Returns so many rows.
    rows : float
        How many there are in truth.
    seconds : float
    fits : bool
        Whether there is anything to fit.
    quantizer : Quantizer, optional
        For clusterers of codes, fitted.
    applied : bool
        Whether the fitted copy is used on rows afterwards.

    Returns
    -------
    dict
        Plain data; see `Trial`.
    """
    begun, spent = time.monotonic(), 0.0
    points: list[dict[str, Any]] = []
    extra: dict[str, Any] = {"cold": [0.0, 0.0], "kept": 0.0, "grown": 0.0, "disk": 0.0}
    full = max(1, round(rows))
    count = min(full, _FIRST_ROWS)
    least = max((getattr(backend, name, 0) or 0 for name in _COUNTS), default=0)
    if isinstance(least, int) and 0 < least <= 4 * _FIRST_ROWS:
        count = min(full, max(count, 2 * least))
    passes: int | None = None
    made: Any = None
    while True:
        data = some(count)
        count = data.shape[0]
        small = shrunk(backend, count, rows, passes) if fits else backend
        if not points and fits:
            # Fewer rows still: what the library takes to be loaded, compiled and ready.
            few = some(min(count, _FEWEST_ROWS))
            least = few.shape[0]
            with Memory() as first:
                cold = _timed(shrunk(backend, least, rows, 1), few, quantizer)
            with Memory() as used:
                warm = _timed(shrunk(backend, least, rows, 1), few, quantizer)
            extra["cold"], extra["kept"] = cold.less(warm).plain(), float(first.kept)
            extra["grown"] = float(used.grown)
            begun = time.monotonic()  # loading is not the trial
        if fits:
            with Memory() as used:
                took = _timed(small, data, quantizer)
            extra["grown"] = float(used.grown)
            made = small
        else:
            made, took = backend, NOTHING
        estimate = estimated(small, count, data.shape[1], data.dtype.itemsize)
        done = _passes(small)
        points.append(
            {
                "rows": float(count),
                "work": estimate.total(done),
                "time": took.plain(),
                "passes": float(done if done is not None else estimate.passes),
                "most": float(estimate.passes),
                "cut": float(passes is not None),
            }
        )
        spent += took.clock
        left = seconds - spent
        if len(points) == 1 and seconds > 0:
            left = max(left, _FOR_A_SECOND)  # of very few rows alone nothing follows
        elif time.monotonic() - begun > _PATIENCE * seconds:
            left = 0.0  # others have the processors
        following = min(full, count * _STEP)
        if not fits or following <= count:
            break
        # Once it is known how many passes there are, time is better spent on more rows.
        full_time = took.clock * _growth(backend, count, following, rows, data, passes, passes)
        if passes is None and full_time > left / 4 and estimate.passes > _FEW_PASSES:
            if full_time <= left and following == full:
                count = following  # nothing tells more than all rows
                continue
            passes = _FEW_PASSES
            more = _growth(backend, count, following, rows, data, None, passes)
        else:
            more = full_time / took.clock if took.clock > 0 else 1.0
        if took.clock * more > left:
            break
        while passes is not None and following < full:
            further = min(full, following * _STEP)
            again = _growth(backend, following, further, rows, data, passes, passes)
            if took.clock * more * again > 0.6 * left:
                break
            following, more = further, more * again
        count = following
    extra["points"] = points
    if made is not None and fits:
        extra["disk"] = _saved_bytes(made)
    if applied and made is not None:
        if seconds > 0 and count < _USED_ON:
            data = some(min(full, _USED_ON))
        extra.update(_applied(made, data, max(0.1, min(0.5, left))))
    return extra


def _timed(backend: Any, data: Any, quantizer: Any) -> Spent:
    compiled, current = _Compiled(), job()
    told = Job(threads=current.threads, memory=current.memory, stop=current.stop, observer=compiled)
    with use_job(told), Clock() as clock:
        fitted_on(backend, data, quantizer)
    return clock.spent.less(Spent(compiled.seconds))


class _Compiled:
    """Adds up how long kernels are compiled: now that they are kept, the run does not do it again."""

    checkpoints = 0

    def __init__(self) -> None:
        self.seconds = 0.0

    def progress(
        self, stage: str, done: int, total: int | None, unit: str, values: dict[str, float]
    ) -> None:
        """Progress of a trial is not told."""

    def note(
        self, event: str, stage: str, message: str, level: str, values: dict[str, Any]
    ) -> None:
        """Add up what was compiled."""
        if event == COMPILED:
            self.seconds += values["seconds"]


def _growth(
    backend: Any,
    before: int,
    after: int,
    rows: float,
    data: Any,
    passes: int | None,
    then: int | None,
) -> float:
    """Return how much more work a trial on more rows is, with other passes perhaps."""
    dim, size = data.shape[1], data.dtype.itemsize
    now = estimated(shrunk(backend, before, rows, passes), before, dim, size).total()
    more = estimated(shrunk(backend, after, rows, then), after, dim, size).total()
    return more / now if now > 0 else after / before


def _passes(backend: Any) -> int | None:
    objective = getattr(backend, "objective", None)
    return len(objective) if isinstance(objective, list) and objective else None


def _saved_bytes(backend: Any) -> float:
    with tempfile.TemporaryDirectory(prefix="vwkit-plan-") as folder:
        backend.save(Path(folder) / "saved")
        return float(sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()))


def _applied(backend: Any, data: Any, seconds: float) -> dict[str, Any]:
    """Use a fitted backend on rows; return the seconds of a unit of `_row_work`, and what comes out."""
    use = getattr(
        backend, {"quantizer": "encode", "clusterer": "predict"}.get(backend.role, "transform")
    )
    rows = min(data.shape[0], 256)
    use(data[:rows])  # the first time what it needs is loaded and compiled
    while True:
        with Clock() as clock:
            out = use(data[:rows])
        if rows >= data.shape[0] or clock.spent.clock > seconds:
            break
        rows = min(data.shape[0], rows * 4)
    return {
        "unit": (clock.spent * (1 / (rows * backend._row_work(data.shape[1])))).plain(),
        "out": int(out.shape[1]) if out.ndim == 2 else 1,
        "out_dtype": str(out.dtype),
    }


class Trial:
    """What a trial tells of many rows.

    Parameters
    ----------
    told : dict
        As `try_out` returned it, or ``{"error": text}``.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.points: list[dict[str, Any]] = told.get("points", [])
        self.error: str | None = told.get("error")

    def __bool__(self) -> bool:
        return bool(self.points) and self.error is None

    @property
    def kept(self) -> float:
        """Bytes that the library keeps once it was used."""
        return float(self.told.get("kept", 0.0))

    def passes(self, rows: float, most: int) -> float:
        """Tell how many passes there will be; on more rows k-means goes on for longer."""
        whole = [point for point in self.points if not point["cut"]]
        if most == 0 or not whole:
            return float(most)
        tried, seen = float(whole[-1]["rows"]), float(whole[-1]["passes"])
        more = math.pow(max(1.0, rows / tried), 0.3)
        return min(float(most), max(1.0, seen) * more)

    def time(self, estimate: Estimate, rows: float) -> Spent:
        """Tell the time of all work."""
        last = self.points[-1]
        cold = Spent.of(self.told, "cold")
        if last["rows"] >= rows and not last["cut"]:
            return cold + Spent.of(last, "time")
        units = estimate.total(self.passes(rows, estimate.passes))
        return cold + Spent(self._extended(units, 0), self._extended(units, 1))

    def _extended(self, units: float, which: int) -> float:
        """Extend what was measured to more work: by the clock (0), or of the processors (1)."""
        points = [(float(one["work"]), float(one["time"][which])) for one in self.points]
        work, took = points[-1]
        rate, fixed = took / work if work else 0.0, 0.0
        for before, after in pairwise(points):
            more = after[0] - before[0]
            slope = (after[1] - before[1]) / more if more > 0 else 0.0
            # What is always spent does not grow; far less than the average is chance.
            if _LEAST_SLOPE * took < slope * work < took:
                rate, fixed = slope, max(0.0, took - slope * work)
        return fixed + rate * units

    def memory(self, rows: float) -> float:
        """Tell the memory of a backend that does not say: in proportion to the rows."""
        return float(self.told.get("grown", 0.0)) * self._more(rows)

    def disk(self, rows: float) -> float:
        """Tell the bytes of what is saved, likewise."""
        return float(self.told.get("disk", 0.0)) * self._more(rows)

    def _more(self, rows: float) -> float:
        return max(1.0, rows / float(self.points[-1]["rows"]))

    def each(self, backend: Backend, dim: int) -> Spent | None:
        """Tell the time of one row when the fitted backend is used; None if that was not tried."""
        if "unit" not in self.told:
            return None
        return Spent.of(self.told, "unit") * backend._row_work(dim)
