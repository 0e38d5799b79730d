"""From slot to slot, as a run goes: what each is expected to receive, to take and to give."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from vwkit.base import Backend
from vwkit.builtin.readers import open_stream
from vwkit.counted import counts_pixels, keeps_pixels
from vwkit.errors import VwkitError
from vwkit.estimates import Estimate
from vwkit.hashing import derive_seed
from vwkit.jobs import Job
from vwkit.observing.names import stage_names
from vwkit.planning.data import Flowing
from vwkit.planning.files import from_vectors
from vwkit.planning.handed import (
    backends_in,
    backends_of,
    fitting,
    gathered_bytes,
    handed_itemsize,
)
from vwkit.planning.hits import Hit, Hits
from vwkit.planning.keeping import Keeping
from vwkit.planning.measuring import Measurements, quiet
from vwkit.planning.meters import busy
from vwkit.planning.pictures import Pictures
from vwkit.planning.process import imported
from vwkit.planning.slots import plan_clusterer, plan_index, plan_quantizer, plan_transform
from vwkit.planning.spent import NOTHING, Spent
from vwkit.planning.stage import Plan, PlannedStage
from vwkit.planning.trials import Trial, estimated, try_out
from vwkit.remote import file_of, said_key
from vwkit.spec import Spec
from vwkit.stream import CHUNK_BYTES

__all__ = ["Walk"]

# Reading a finished stage means to check its files: about so many bytes a second.
_CHECKED = 1.2e9


class Walk:
    """One plan being made.

    Parameters
    ----------
    spec : Spec
        Checked. Its backends are looked at, not changed.
    job : Job
        The budgets.
    measured : Measurements, optional
        Without it nothing is tried out: only what is certain is told.
    hits : Hits, optional
        Without it nothing is looked up.
    """

    def __init__(
        self, spec: Spec, job: Job, measured: Measurements | None = None, hits: Hits | None = None
    ) -> None:
        self.spec, self.job, self.measured, self.hits = spec, job, measured, hits
        colours = counts_pixels(spec)
        #: The stages that a run says it will have.
        self.expected = frozenset(
            stage_names(spec, colours=colours, pixels=colours and keeps_pixels(spec))
        )
        self.plan = Plan(threads=job.threads, budget=job.memory, stated=spec.run.memory is not None)
        self.flow = Flowing(None, None, np.dtype(np.float32))
        self.key: Any = None
        self.codes: Flowing | None = None
        self.codes_key: Any = None
        self.ids: Any = None
        #: The stage of counted pixels, where each pixel is told its label in the end.
        self.spread: Hit | None = None
        self.coder: Any = None
        #: Where the number of rows comes from, if it is not certain.
        self.rows_note = ""
        self._process: dict[str, tuple[float, Spent]] = {}
        self._keeping = Keeping()
        self._used: set[str] = set()

    def run(self) -> Plan:
        """Go through the slots."""
        spec = self.spec
        with quiet(self.job):
            if self.measured is not None:
                self._weigh()
            if spec.images is not None:
                Pictures(self, spec.images).run()
            else:
                from_vectors(self)
            for i, transform in enumerate(spec.transform):
                plan_transform(self, i, transform)
            if spec.quantizer is not None:
                plan_quantizer(self, spec.quantizer)
            if spec.clusterer is not None:
                plan_clusterer(self, spec.clusterer)
            if spec.index is not None:
                plan_index(self, spec.index)
        if self.measured is not None:
            self.plan.calibrated, self.plan.busy = self.measured.spent, busy()
        return self.plan

    # Parts that all slots share

    def _weigh(self) -> None:
        """Find out what the process takes with the libraries of all slots."""
        modules: list[str] = []
        for backend in backends_of(self.spec):
            modules += [name for name in backend.requires if name not in modules]
        if self.measured is None:
            return
        told = imported(modules, self.measured)
        self.plan.base = told[0][0]
        before = told[0][0]
        for name, (memory, loading) in zip(modules, told[1:], strict=True):
            self._process[name] = max(0.0, memory - before), loading
            before = max(before, memory)
        self._keeping = Keeping.measured(self.measured)

    def grow(self, backend: Backend, kept: float = 0.0) -> Spent:
        """Count a backend's libraries as loaded; return the time that loading takes."""
        loading = NOTHING
        for one in backends_in(backend):
            for name in one.requires:
                if name not in self._used:
                    self._used.add(name)
                    memory, took = self._process.get(name, (0.0, NOTHING))
                    self.plan.base += memory
                    loading += took
        if self.measured is not None and f"kept by {backend.name}" not in self._used:
            self._used.add(f"kept by {backend.name}")
            self.plan.base += kept
        return loading

    def look(self, name: str, inputs: Any) -> Hit:
        """Look a stage up; `inputs` is None where something is not known."""
        return Hit() if self.hits is None else self.hits.look(name, inputs)

    def signature(self, backend: Backend, *, late: bool = False) -> Any:
        """Describe a backend; None if that cannot be."""
        return None if self.hits is None else self.hits.signature(backend, late=late)

    def add(self, stage: PlannedStage, hit: Hit) -> PlannedStage:
        """Take a stage into the plan; what is found takes next to nothing."""
        stage.key, stage.cached = hit.key, hit.state
        if not self.plan.stages:
            stage.note = stage.note or self.rows_note
        spent = stage.spent
        if hit.found:
            stage.disk = float(hit.size())
            stage.takes(Spent(stage.disk / _CHECKED + 0.005))
            stage.memory = self.plan.base
        elif spent is not None:
            stage.takes(spent + self._keeping.of(stage.disk or 0.0))
        self.plan.stages.append(stage)
        return stage

    def trial(
        self, backend: Any, data: Flowing, *, fits: bool = True, applied: bool = False,
        quantizer: Any = None, coded: Any = None,
    ) -> Trial:  # fmt: skip
        """Try a backend out on some of the rows, or remember how that went."""
        if self.measured is None or data.rows is None or data.dim is None or data.rows < 1:
            return Trial({})
        rows = data.rows
        what = {
            "trial": backend.role,
            "of": self.signature(backend, late=True) or repr(backend),
            "rows": _rough(rows),
            "data": [data.about, data.dim, data.dtype.str, data.sparse],
            "fits": fits,
            "applied": applied,
            "coded": coded,
        }

        def measure(seconds: float) -> dict[str, Any]:
            of_codes = quantizer() if quantizer is not None else None
            return try_out(
                backend, lambda n: fitting(backend, data.some(n)), rows, seconds,
                fits=fits, quantizer=of_codes, applied=applied,
            )  # fmt: skip

        return Trial(self.measured.of(what, measure))

    def fill(
        self, stage: PlannedStage, backend: Any, data: Flowing, trial: Trial, *, dense: bool = True
    ) -> Estimate | None:
        """Tell what fitting takes: time by the trial, memory by the estimate and what is handed on."""
        if data.rows is None or data.dim is None:
            stage.note = stage.note or "rows not known before"
            return None
        itemsize = handed_itemsize(backend, data)
        estimate = estimated(backend, data.rows, data.dim, itemsize)
        gathered = gathered_bytes(backend, data, itemsize)
        stage.least = estimate.least + gathered
        loading = self.grow(backend, trial.kept)
        if trial:
            memory = estimate.memory
            if memory is None:
                memory = trial.memory(data.rows)
            chunks = 0.0 if data.mapped or data.held or gathered else estimate.block
            stage.memory = self.plan.base + memory + gathered + chunks
            passes = trial.passes(data.rows, estimate.passes)
            reads = 1.0 if gathered else estimate.reads + estimate.reads_each * passes
            reading = NOTHING if data.held else data.read * (data.rows * reads)
            stage.takes(loading + trial.time(estimate, data.rows) + reading)
            stage.disk = estimate.disk if estimate.disk is not None else trial.disk(data.rows)
        elif trial.error:
            stage.note = f"not tried out: {trial.error}"
        return estimate

    def training(self, slot: str, data: Flowing, key: Any) -> tuple[Flowing, Any]:
        """Return what a slot learns from, and what decides it; as `Flow._training`."""
        train = self.spec.trains.get(slot)
        if train is None:
            return data, key
        described: Any = {
            "from": key,
            "rows": train.rows,
            "seed": derive_seed(self.spec.seed, f"{slot}.train"),
        }
        if train.path is not None:
            try:
                place = file_of(train.path, fetch=False)
                stream = open_stream(place)
            except (VwkitError, OSError):
                return Flowing(None, data.dim, data.dtype), None
            data = Flowing(
                None if stream.rows is None else float(stream.rows),
                stream.dim, stream.dtype, mapped=stream.array is not None,
                sample=data.sample, about=[str(train.path)],
            )  # fmt: skip
            held = None if self.hits is None else self.hits.file_key(place)
            described["from"] = held and (said_key(train.path) or held)
            described = None if described["from"] is None else described
            for transform in self.spec.transform if not slot.startswith("featurizer") else []:
                if transform._needs_fit():
                    described = None
            if described is not None:
                described["transform"] = [
                    self.signature(one)
                    for one in ([] if slot.startswith("featurizer") else self._before(slot))
                ]
        elif train.images is not None:
            return Flowing(train.rows, data.dim, data.dtype, held=True, sample=data.sample), None
        elif key is None:
            described = None
        if train.rows is not None:
            rows = float(train.rows) if data.rows is None else min(float(train.rows), data.rows)
            data = replace(data, rows=rows, mapped=False, held=True)
        return data, described

    def _before(self, slot: str) -> list[Any]:
        if slot.startswith("transform["):
            return self.spec.transform[: int(slot[10:-1])]
        return self.spec.transform

    def next_to_nothing(self, stage: PlannedStage) -> None:
        """Fill in a stage that only writes down a little."""
        if self.measured is not None:
            stage.takes(NOTHING)
            stage.memory, stage.disk = self.plan.base, 1000.0

    def applying(
        self,
        name: str,
        backend: Any,
        data: Flowing,
        trial: Trial,
        row_bytes: float,
        dim: int | None,
    ) -> PlannedStage:
        """Return the stage in which something fitted is used on every row, and written."""
        stage = PlannedStage(name, backend.name, rows=data.rows, dim=dim)
        if data.rows is None:
            stage.note = "rows not known before"
            return stage
        stage.disk = data.rows * row_bytes
        if trial and data.dim is not None:
            each = trial.each(backend, data.dim)
            stage.takes(None if each is None else (each + data.read) * data.rows)
            block = data.rows * (4.0 * data.row_bytes + 8 * data.dim)
            stage.memory = self.plan.base + min(4.0 * CHUNK_BYTES, block)
        return stage


def _rough(rows: float) -> int:
    """Return the rows to two digits, so that a few more do not call for measuring again."""
    if rows < 100:
        return round(rows)
    step = 10 ** (math.floor(math.log10(rows)) - 1)
    return int(rows // step * step)
