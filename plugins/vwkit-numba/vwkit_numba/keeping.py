"""What a fit of graph k-means keeps to be gone on with, between its passes and within them.

A checkpoint takes 12 bytes a row (4 or 8 in the start) and, for centers of d dimensions with κ neighbours,
4·d + 4·κ + 62 bytes a center; 8·d more for the sums where these will be needed, which they are not as long
as every cluster is added up anew. It is written as it lies in memory or in mapped files, some megabytes at
a time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.checkpoints import found_checkpoints
from vwkit.hashing import content_key
from vwkit.jobs import Job
from vwkit.stream import row_spans
from vwkit.types import Array
from vwkit_numba.frames import inner
from vwkit_numba.graph import Graph
from vwkit_numba.marks import Doing, Mark, Phase

if TYPE_CHECKING:
    from vwkit_numba.fitting import Fit
    from vwkit_numba.graph_kmeans import GraphClusterer
    from vwkit_numba.passes import Passes

__all__ = ["Keeper", "fingerprint"]

_WORTH_KEEPING = 60.0  # seconds of work within a pass
_SPAN = 1 << 20
_DTYPES = {
    "at": "<i8",
    "of": "|u1",
    "centers": "<f4",
    "wanted": "<i8",
    "labels": "<i4",
    "runners": "<i4",
    "gaps": "<f4",
    "still": "|i1",
    "touched": "|b1",
    "sums": "<i8",
    "totals": "<i8",
    "far_keys": "<f8",
    "far_rows": "<i8",
    "lists": "<i4",
    "near": "<i4",
    "objective": "<f8",
    "changed": "<i8",
    "moved": "<i8",
}
# Those with one number a row that passes of the start need; later ones need all.
_ROWS = {
    Doing.SPLIT: ("runners",),
    Doing.FIRST: ("runners", "labels"),
    Doing.MEANS: ("runners", "labels"),
    Doing.SECOND: ("runners", "labels"),
    Doing.WALK: ("labels",),
}
_ALL_ROWS = "labels", "runners", "gaps"
_AT = "phase", "doing", "row", "changed", "repairs"
_BEGINNING = frozenset({Doing.SPLIT, Doing.FIRST, Doing.MEANS, Doing.SECOND})


class Keeper:
    """The checkpoints of a fit: those of its start, and later ones.

    Parameters
    ----------
    of : (32,) uint8
        Tells this fit from others; see `fingerprint`.
    """

    def __init__(self, current: Job, of: NDArray[np.uint8]) -> None:
        self._jobs = current.within("start"), current
        self._of = of
        self._saves = [0, 0]
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether so much was done since the last one that it is worth keeping within a pass."""
        kept = self._jobs[1].folder is not None
        return kept and time.monotonic() - self._saved >= _WORTH_KEEPING

    def keep(self, fit: Fit, *, begun: bool) -> None:
        """Offer a checkpoint: one of the start, or with `begun` one of what follows it."""
        self._saves[begun] += 1
        self._jobs[begun].checkpoint(self._saves[begun], self._state(fit))
        self._saved = time.monotonic()
        folder = self._jobs[1].folder
        if begun and folder is not None and len(found_checkpoints(folder)) > 1:
            self._jobs[0].forget()  # each of these two is worth more

    def take_up(self, fit: Fit) -> None:
        """Go on behind the last checkpoint, if there is one of this fit."""
        for begun in (1, 0):
            saved = self._jobs[begun].resume()
            if saved is None:
                continue
            self._saves[begun], arrays = saved  # new ones come behind it, whatever it is
            mark = _mark_of(arrays, self._of, fit)
            if mark is not None:
                _restore(fit, mark, arrays)
                return

    def _state(self, fit: Fit) -> dict[str, Array]:
        mark, totals, sketch = fit.mark, fit.totals, fit.sketch
        starting = mark.doing in _BEGINNING
        needed = _ROWS.get(mark.doing, _ALL_ROWS)
        return {
            "at": np.array([getattr(mark, name) for name in _AT] + [fit.corrected], np.int64),
            "of": self._of,
            "centers": sketch.centers if starting else fit.centers,
            "wanted": sketch.wanted if starting else sketch.wanted[:0],
            **{name: getattr(fit, name)[: None if name in needed else 0] for name in _ALL_ROWS},
            "still": fit.still,
            "touched": fit.touched,
            "sums": totals.sums[: None if _needs_sums(mark, fit.touched) else 0],
            "totals": totals.totals,
            "far_keys": totals.far_keys,
            "far_rows": totals.far_rows,
            "lists": fit.graph.lists,
            "near": fit.graph.near,
            "objective": np.array(fit.objective, np.float64),
            "changed": np.array(fit.changed, np.int64),
            "moved": np.array(fit.moved, np.int64),
        }


def _restore(fit: Fit, mark: Mark, saved: Mapping[str, Array]) -> None:
    fit.mark = replace(mark, told=fit.mark.told)
    fit.corrected = int(saved["at"][-1])
    for name in _ROWS.get(mark.doing, _ALL_ROWS):
        getattr(fit, name)[:] = saved[name]
    fit.centers = fit.sketch.centers = saved["centers"]
    fit.sketch.wanted = saved["wanted"]
    fit.still[:], fit.touched[:] = saved["still"], saved["touched"]
    totals = fit.totals
    totals.sums[: len(saved["sums"])] = saved["sums"]
    totals.totals[:] = saved["totals"]
    totals.far_keys[:], totals.far_rows[:] = saved["far_keys"], saved["far_rows"]
    fit.graph = Graph(saved["lists"], saved["near"])
    fit.objective = [float(value) for value in saved["objective"]]
    fit.changed = [int(value) for value in saved["changed"]]
    fit.moved = [int(value) for value in saved["moved"]]
    if mark.doing not in _BEGINNING:
        fit.ready = inner(fit.centers, fit.passes.frame)


def fingerprint(params: GraphClusterer, passes: Passes, *, given: bool) -> NDArray[np.uint8]:
    """Return 32 bytes that are others for another fit: for other parameters, or most other data.

    Paths are left out: data may have moved.
    """
    plain = params._plain_params(late=False, arrays=False)
    plain |= {"init": given, "rows": passes.rows, "dim": passes.dim, "scale": passes.frame.scale}
    plain["dtype"] = passes.stream.dtype.str
    if passes.weights is not None:
        plain["weights"] = [float(passes.weights.min()), float(passes.weights.max())]
    found = hashlib.sha256(content_key(plain).encode())
    found.update(np.ascontiguousarray(passes.frame.shift).tobytes())
    if passes.frame.book is not None:
        found.update(np.ascontiguousarray(passes.frame.book).tobytes())
    return np.frombuffer(found.digest(), np.uint8)


def _needs_sums(mark: Mark, touched: NDArray[np.bool_]) -> bool:
    """Tell whether sums over clusters are needed to go on: not if all are added up anew."""
    if mark.phase > Phase.ITERATE:
        return False  # no center will be the mean of them
    if mark.doing in (Doing.MEANS, Doing.ADD) and mark.row > 0:
        return True
    if mark.doing in (Doing.ASSIGN, Doing.ADD):
        return not touched.all()
    return mark.doing == Doing.NOTHING


def _mark_of(saved: Mapping[str, Array], of: NDArray[np.uint8], fit: Fit) -> Mark | None:
    """Return where a checkpoint goes on, or None if it is none of this fit."""
    if {name: array.dtype.str for name, array in saved.items()} != _DTYPES:
        return None
    at = saved["at"]
    if at.shape != (len(_AT) + 1,) or not np.array_equal(saved["of"], of):
        return None
    phase, doing, row, changed, repairs, _ = (int(one) for one in at)
    if phase not in set(Phase) or doing not in set(Doing) or not 0 <= row <= fit.rows:
        return None
    mark = Mark(row, changed, Phase(phase), Doing(doing), repairs)
    return mark if _shaped(mark, saved, fit) and _sound(saved, fit) else None


def _shaped(mark: Mark, saved: Mapping[str, Array], fit: Fit) -> bool:
    k, dim, starting = fit.k, fit.passes.dim, mark.doing in _BEGINNING
    groups = min(max(1, len(saved["centers"])), k)
    shapes: dict[str, Any] = {
        "centers": (groups if mark.doing == Doing.SPLIT else k, dim),
        "still": (k,),
        "touched": (k,),
        "totals": (k, 4),
        "far_keys": (k,),
        "far_rows": (k,),
        "lists": (0, 4) if starting else (k, fit.width),
        "near": (0 if starting else k, 3),
        **dict.fromkeys(_ALL_ROWS, (0,)),
        **dict.fromkeys(_ROWS.get(mark.doing, _ALL_ROWS), (fit.rows,)),
    }
    if any(saved[name].shape != shape for name, shape in shapes.items()):
        return False
    sums = k if _needs_sums(mark, saved["touched"]) else 0
    return saved["sums"].shape == (sums, dim) and all(
        saved[name].ndim == 1 for name in ("wanted", "objective", "changed", "moved")
    )


def _sound(saved: Mapping[str, Array], fit: Fit) -> bool:
    """Tell whether all numbers of centers and rows are such: compiled code does not ask."""
    k, wanted = fit.k, saved["wanted"]
    return (
        all(_within(saved[name], 0, k) for name in ("labels", "runners"))
        and _within(saved["lists"].reshape(-1), 0, k + 1)
        and _within(saved["near"].reshape(-1), -1, k + 1)
        and _within(saved["far_rows"], -1, fit.rows)
        and _within(wanted, 0, k + 1)
        and (not len(wanted) or _within(saved["runners"], 0, len(wanted)))
        and int(wanted.sum()) <= k
    )


def _within(numbers: Array, least: int, end: int) -> bool:
    return all(
        int(numbers[first:last].min()) >= least and int(numbers[first:last].max()) < end
        for first, last in row_spans(len(numbers), _SPAN)
    )
