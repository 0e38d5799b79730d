"""From slot to slot, as a run goes: what each is expected to receive, to take and to give."""

from __future__ import annotations

import copy
import functools
import math
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.base import Backend
from vwkit.builtin.aggregated import Aggregated
from vwkit.builtin.readers import open_stream
from vwkit.clusterer import Clusterer
from vwkit.errors import VwkitError
from vwkit.estimates import Estimate
from vwkit.featurizer import Featurizer
from vwkit.hashing import derive_seed
from vwkit.jobs import Job
from vwkit.planning.data import Flowing
from vwkit.planning.hits import Hit, Hits
from vwkit.planning.measuring import Measurements, busy, quiet
from vwkit.planning.process import imported
from vwkit.planning.sources import Pictures, from_vectors
from vwkit.planning.stage import Plan, PlannedStage
from vwkit.planning.trials import Trial, estimated, fitted_on, shrunk, try_out
from vwkit.quantizer import Quantizer, code_dtype
from vwkit.remote import file_of, said_key
from vwkit.spec import Spec
from vwkit.stages import Stage, used_key
from vwkit.stream import CHUNK_BYTES

__all__ = ["Walk"]

# Reading a finished stage means to check its files: about so many bytes a second.
_CHECKED = 1.2e9
# Rows that codes are tried out on come from so many vectors.
_CODED = 16_384


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
        self.plan = Plan(threads=job.threads, budget=job.memory, stated=spec.run.memory is not None)
        self.flow = Flowing(None, None, np.dtype(np.float32))
        self.key: Any = None
        self.codes: Flowing | None = None
        self.codes_key: Any = None
        self.ids: Any = None
        #: The stage of counted pixels, where each pixel is told its label in the end.
        self.spread: Hit | None = None
        self._coder: Any = None
        #: Where the number of rows comes from, if it is not certain.
        self.rows_note = ""
        self._process: dict[str, tuple[float, float]] = {}
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
                self._transform(i, transform)
            if spec.quantizer is not None:
                self._quantizer(spec.quantizer)
            if spec.clusterer is not None:
                self._clusterer(spec.clusterer)
            if spec.index is not None:
                self._index(spec.index)
        if self.measured is not None:
            self.plan.calibrated, self.plan.busy = self.measured.spent, busy()
        return self.plan

    # Parts that all slots share

    def _weigh(self) -> None:
        """Find out what the process takes with the libraries of all slots."""
        modules: list[str] = []
        for backend in _every(self.spec):
            modules += [name for name in backend.requires if name not in modules]
        if self.measured is None:
            return
        told = imported(modules, self.measured)
        self.plan.base = told[0][0]
        before = told[0][0]
        for name, (memory, seconds) in zip(modules, told[1:], strict=True):
            self._process[name] = max(0.0, memory - before), seconds
            before = max(before, memory)

    def grow(self, backend: Backend, kept: float = 0.0) -> float:
        """Count a backend's libraries as loaded; return the seconds that loading takes."""
        seconds = 0.0
        for one in _below(backend):
            for name in one.requires:
                if name not in self._used:
                    self._used.add(name)
                    memory, took = self._process.get(name, (0.0, 0.0))
                    self.plan.base += memory
                    seconds += took
        if self.measured is not None and f"kept by {backend.name}" not in self._used:
            self._used.add(f"kept by {backend.name}")
            self.plan.base += kept
        return seconds

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
        if hit.found:
            stage.disk = float(hit.size())
            stage.seconds = stage.disk / _CHECKED + 0.005
            stage.memory = self.plan.base
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
                backend, lambda n: _fitting(backend, data.some(n)), rows, seconds,
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
            reading = 0.0 if data.held else data.rows * data.read * reads
            stage.seconds = loading + trial.seconds(estimate, data.rows) + reading
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

    # Slots

    def _transform(self, i: int, transform: Any) -> None:
        name = f"transform[{i}]"
        data, key = self.training(name, self.flow, self.key)
        fits = transform._needs_fit() and not transform._fitted
        described = self.signature(transform)
        known = described is not None and (key is not None or not fits)
        hit = self.look(
            name, {"data": key if fits else None, "transform": described} if known else None
        )
        stage = PlannedStage(name, transform.name, rows=data.rows if fits else None)
        trial = self.trial(transform, _dense(transform, data), fits=fits, applied=True)
        if fits:
            self.fill(stage, transform, _dense(transform, data), trial)
        else:
            stage.seconds, stage.disk = 0.005, 1000.0
            stage.memory = self.plan.base if self.measured is not None else None
        before = self.flow
        dim: int | None = trial.told.get("out")
        if hit.found:
            shapes = hit.shapes()
            if "components" in shapes:
                dim = shapes["components"][0][0]
        elif dim is not None and fits and data.rows is not None and trial:
            dim = _more_components(dim, trial, data)
        elif not fits and self.measured is None and before.dim is not None:
            dim = _asked_dim(transform, before.dim)
        dim = dim if dim is not None else getattr(transform, "dim", None)
        stage.dim = dim
        self.add(stage, hit)
        each = trial.each(transform, before.dim or 1) if trial else math.nan
        each = 0.0 if math.isnan(each) else each
        lazy = before.stream
        dtype = np.dtype(trial.told.get("out_dtype", "float32"))

        def sample(rows: int) -> Any:
            given = _fitting(transform, before.some(rows))
            made = shrunk(transform, len(given), before.rows or 1) if fits else transform
            if fits:
                fitted_on(made, given)
            out = made.transform(given)
            return out[:, :dim] if dim is not None and out.shape[1] > dim else out

        self.flow = Flowing(
            before.rows, dim, dtype, held=not lazy, stream=lazy,
            read=before.read + each if lazy else 0.0,
            sample=sample, about=[before.about, described or repr(transform)],
        )  # fmt: skip
        if not lazy and stage.seconds is not None and before.rows is not None and not hit.found:
            stage.seconds += each * before.rows
        kept = Stage(name, hit.key or "", Path())
        self.key = (
            None if self.key is None or hit.key is None
            else {"data": self.key, "transform": used_key(kept, transform)}
        )  # fmt: skip

    def _quantizer(self, quantizer: Quantizer) -> None:
        data, key = self.training("quantizer", self.flow, self.key)
        described = self.signature(quantizer)
        known = key is not None and described is not None
        hit = self.look("quantizer", {"data": key, "quantizer": described} if known else None)
        fits = not quantizer._fitted
        stage = PlannedStage("quantizer", quantizer.name, rows=data.rows, dim=data.dim)
        taken = getattr(quantizer, "train_rows", None)
        if taken and data.rows is not None:
            stage.rows = min(data.rows, float(taken))
        trial = self.trial(quantizer, data, fits=fits, applied=True)
        self.fill(stage, quantizer, data, trial)
        self.add(stage, hit)
        wanted = any("quantizer" in output.needs for output in self.spec.output)
        clusterer = self.spec.clusterer
        if not (wanted or (clusterer is not None and clusterer.consumes == "codes")):
            return
        before = self.flow
        m, dtype = _code_form(quantizer, trial)
        made = used_key(Stage("quantizer", hit.key or "", Path()), quantizer)
        known = self.key is not None and hit.key is not None
        codes = self.look("codes", {"data": self.key, "quantizer": made} if known else None)
        self.add(
            self.applying("codes", quantizer, before, trial, (m or 1) * dtype.itemsize, m), codes
        )
        self.codes_key = codes.key

        @functools.cache
        def of_codes() -> tuple[Any, Any]:
            rows = before.some(round(min(_CODED, before.rows or _CODED)))
            small = shrunk(quantizer, len(rows), before.rows or 1, 3) if fits else quantizer
            if fits:
                fitted_on(small, rows)
            return small, np.asarray(small.encode(rows))

        def sample(rows: int) -> Any:
            return of_codes()[1][:rows]

        self._coder = lambda: of_codes()[0]
        self.codes = Flowing(
            before.rows, m, dtype, mapped=True, sample=sample,
            about=[before.about, described or repr(quantizer)],
        )  # fmt: skip

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
            writing = row_bytes / 5e8
            stage.seconds = data.rows * (each + data.read + writing)
            if math.isnan(stage.seconds):
                stage.seconds = None
            block = data.rows * (4.0 * data.row_bytes + 8 * data.dim)
            stage.memory = self.plan.base + min(4.0 * CHUNK_BYTES, block)
        return stage

    def _clusterer(self, clusterer: Clusterer) -> None:
        on_codes = clusterer.consumes == "codes"
        whole = self.codes if on_codes and self.codes is not None else self.flow
        whole_key = self.codes_key if on_codes else self.key
        data, key = self.training("clusterer", whole, whole_key)
        described = self.signature(clusterer)
        known = key is not None and described is not None
        hit = self.look("clusterer", {"data": key, "clusterer": described} if known else None)
        stage = PlannedStage("clusterer", clusterer.name, rows=data.rows, dim=data.dim)
        apart = "clusterer" in self.spec.trains and clusterer.supports_predict
        trial = self.trial(
            clusterer, _dense(clusterer, data), applied=apart,
            quantizer=self._coder if on_codes and self.codes is not None else None,
            coded=self.codes.about if on_codes and self.codes is not None else None,
        )  # fmt: skip
        asked = clusterer
        if on_codes and self.spec.quantizer is not None:
            asked = _with_quantizer(clusterer, self.spec.quantizer, self.flow.dim, data.dim)
        self.fill(stage, asked, _dense(clusterer, data), trial)
        self.add(stage, hit)
        if self.spread is not None:
            made = used_key(Stage("clusterer", hit.key or "", Path()), clusterer)
            known = whole_key is not None and hit.key is not None
            labels = self.look("labels", {"data": whole_key, "clusterer": made} if known else None)
            pixels = next(s.rows for s in self.plan.stages if s.name == "colours")
            told = PlannedStage("labels", rows=pixels, dim=1)
            if pixels is not None and self.measured is not None:
                told.disk, told.seconds = 4.0 * pixels, pixels * 6e-8
                told.memory = self.plan.base + 4.0 * CHUNK_BYTES
            self.add(told, labels)
        if apart:
            made = used_key(Stage("clusterer", hit.key or "", Path()), clusterer)
            known = whole_key is not None and hit.key is not None
            labels = self.look("labels", {"data": whole_key, "clusterer": made} if known else None)
            self.add(self.applying("labels", clusterer, whole, trial, 4, 1), labels)

    def _index(self, index: Any) -> None:
        described = self.signature(index)
        known = self.key is not None and described is not None and self.ids is not False
        inputs = {"data": self.key, "ids": self.ids, "index": described}
        hit = self.look("index", inputs if known else None)
        stage = PlannedStage("index", index.name, rows=self.flow.rows, dim=self.flow.dim)
        data = _dense(index, self.flow)
        trial = self.trial(index, data)
        self.fill(stage, index, data, trial)
        self.add(stage, hit)


# Small parts -----------------------------------------------------------------------------------


def _every(spec: Spec) -> list[Backend]:
    """Return all backends of the data path, in the order of their stages."""
    slots: list[Any] = [
        spec.featurizer,
        *spec.transform,
        spec.quantizer,
        spec.clusterer,
        spec.index,
    ]
    return [one for slot in slots if slot is not None for one in _below(slot)]


def _below(backend: Backend) -> list[Backend]:
    """Return a backend and those in it; the local featurizer comes before the vocabulary."""
    if isinstance(backend, Aggregated):
        return [*_below(backend.local_), *_below(backend.vocabulary), backend]
    found = [backend]
    for parameter in type(backend).parameters().values():
        value = getattr(backend, parameter.attribute)
        if isinstance(value, Backend):
            found += _below(value)
    return found


def _rough(rows: float) -> int:
    """Return the rows to two digits, so that a few more do not call for measuring again."""
    if rows < 100:
        return round(rows)
    step = 10 ** (math.floor(math.log10(rows)) - 1)
    return int(rows // step * step)


def handed_itemsize(backend: Backend, data: Flowing) -> int:
    """Return the bytes of a number as the backend gets it."""
    dtypes = backend.dtypes
    if data.dtype.name in dtypes:
        return data.dtype.itemsize
    floats = [name for name in dtypes if np.dtype(name).kind == "f"]
    return np.dtype((floats or list(dtypes))[0]).itemsize


def gathered_bytes(backend: Backend, data: Flowing, itemsize: int) -> float:
    """Return what an array of all rows takes that the core must make for a backend."""
    if data.rows is None or data.dim is None or isinstance(backend, Featurizer):
        return 0.0
    if data.sparse is not None and getattr(backend, "supports_sparse", False):
        return 8.0 * data.rows * data.sparse
    whole = data.rows * data.dim * itemsize
    fits = data.dtype.name in backend.dtypes
    if data.held or data.sparse is not None:
        return whole if data.sparse is not None or not fits else data.rows * data.row_bytes
    if backend.streams or (data.mapped and fits):
        return 0.0
    return whole


def _dense(backend: Any, data: Flowing) -> Flowing:
    """Say what a backend gets of sparse rows if it takes none."""
    if data.sparse is None or getattr(backend, "supports_sparse", False):
        return data
    return replace(data, sparse=None, held=True, mapped=False)


def _fitting(backend: Any, rows: Any) -> Any:
    from vwkit.sparse import Sparse

    if isinstance(rows, Sparse) and not getattr(backend, "supports_sparse", False):
        return rows.toarray()
    return rows


def _with_quantizer(clusterer: Any, quantizer: Any, dim: int | None, m: int | None) -> Any:
    """Return a copy that knows as much of its quantizer as an estimate may ask for."""
    if dim is None or m is None or clusterer._quantizer is not None:
        return clusterer
    ks = getattr(quantizer, "ks", 1 << 8)
    asked = copy.copy(clusterer)
    book = np.broadcast_to(np.float32(0), (m, ks, max(1, dim // m)))
    vars(asked)["_quantizer"] = types.SimpleNamespace(_dim=dim, codebook=book)
    return asked


def _code_form(quantizer: Any, trial: Trial) -> tuple[int | None, np.dtype[Any]]:
    if quantizer._fitted:
        return quantizer._code_columns(), quantizer._code_dtype()
    m = trial.told.get("out") or quantizer.__dict__.get("m")
    ks = quantizer.__dict__.get("ks")
    m = m if m is not None else getattr(type(quantizer), "m", None)
    dtype = (
        code_dtype(ks) if isinstance(ks, int) else np.dtype(trial.told.get("out_dtype", "uint8"))
    )
    return m if isinstance(m, int) else None, dtype


def _asked_dim(transform: Any, dim: int) -> int | None:
    if transform._needs_fit() and not transform._fitted:
        return None
    return int(transform._out_dim(dim))


def _more_components(dim: int, trial: Trial, data: Flowing) -> int:
    """Tell how many components more rows need, where few rows had as many as they could."""
    rows, of = trial.points[-1]["rows"], data.rows or 0.0
    if rows >= of or dim < 0.5 * min(rows, data.dim or rows):
        return dim
    return int(min(data.dim or dim, dim * min(of, data.dim or of) / min(rows, data.dim or rows)))
