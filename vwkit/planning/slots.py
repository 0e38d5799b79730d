"""The slots after the source: what each takes and gives."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vwkit.clusterer import Clusterer
from vwkit.planning.data import Flowing
from vwkit.planning.handed import (
    asked_dim,
    code_form,
    dense,
    fitting,
    more_components,
    with_quantizer,
)
from vwkit.planning.spent import NOTHING, Spent
from vwkit.planning.stage import PlannedStage
from vwkit.planning.trials import fitted_on, shrunk
from vwkit.quantizer import Quantizer
from vwkit.stages import Stage, used_key
from vwkit.stream import CHUNK_BYTES

if TYPE_CHECKING:
    from vwkit.planning.walk import Walk

__all__ = ["plan_clusterer", "plan_index", "plan_quantizer", "plan_transform"]

# Rows that codes are tried out on come from so many vectors.
_CODED = 16_384
# Seconds to write the label of a pixel.
_A_PIXEL = 6e-8


def plan_transform(walk: Walk, i: int, transform: Any) -> None:
    """Plan a transform: learned from some rows perhaps, applied to all as they are read."""
    name = f"transform[{i}]"
    data, key = walk.training(name, walk.flow, walk.key)
    fits = transform._needs_fit() and not transform._fitted
    described = walk.signature(transform)
    known = described is not None and (key is not None or not fits)
    hit = walk.look(
        name, {"data": key if fits else None, "transform": described} if known else None
    )
    stage = PlannedStage(name, transform.name, rows=data.rows if fits else None)
    trial = walk.trial(transform, dense(transform, data), fits=fits, applied=True)
    if fits:
        walk.fill(stage, transform, dense(transform, data), trial)
    else:
        walk.next_to_nothing(stage)
    before = walk.flow
    dim: int | None = trial.told.get("out")
    if hit.found:
        shapes = hit.shapes()
        if "components" in shapes:
            dim = shapes["components"][0][0]
    elif dim is not None and fits and data.rows is not None and trial:
        dim = more_components(dim, trial, data)
    elif not fits and walk.measured is None and before.dim is not None:
        dim = asked_dim(transform, before.dim)
    dim = dim if dim is not None else getattr(transform, "dim", None)
    stage.dim = dim
    walk.add(stage, hit)
    each = (trial.each(transform, before.dim or 1) if trial else None) or NOTHING
    lazy = before.stream
    dtype = np.dtype(trial.told.get("out_dtype", "float32"))

    def sample(rows: int) -> Any:
        given = fitting(transform, before.some(rows))
        made = shrunk(transform, len(given), before.rows or 1) if fits else transform
        if fits:
            fitted_on(made, given)
        out = made.transform(given)
        return out[:, :dim] if dim is not None and out.shape[1] > dim else out

    walk.flow = Flowing(
        before.rows, dim, dtype, held=not lazy, stream=lazy,
        read=before.read + each if lazy else NOTHING,
        sample=sample, about=[before.about, described or repr(transform)],
    )  # fmt: skip
    if not lazy and stage.spent is not None and before.rows is not None and not hit.found:
        stage.takes(stage.spent + each * before.rows)
    kept = Stage(name, hit.key or "", Path())
    walk.key = (
        None if walk.key is None or hit.key is None
        else {"data": walk.key, "transform": used_key(kept, transform)}
    )  # fmt: skip


def plan_quantizer(walk: Walk, quantizer: Quantizer) -> None:
    """Plan a quantizer, and the codes of all rows if anybody wants them."""
    data, key = walk.training("quantizer", walk.flow, walk.key)
    described = walk.signature(quantizer)
    known = key is not None and described is not None
    hit = walk.look("quantizer", {"data": key, "quantizer": described} if known else None)
    fits = not quantizer._fitted
    stage = PlannedStage("quantizer", quantizer.name, rows=data.rows, dim=data.dim)
    taken = getattr(quantizer, "train_rows", None)
    if taken and data.rows is not None:
        stage.rows = min(data.rows, float(taken))
    trial = walk.trial(quantizer, data, fits=fits, applied=True)
    walk.fill(stage, quantizer, data, trial)
    walk.add(stage, hit)
    if "codes" not in walk.expected:
        return
    before = walk.flow
    m, dtype = code_form(quantizer, trial)
    made = used_key(Stage("quantizer", hit.key or "", Path()), quantizer)
    known = walk.key is not None and hit.key is not None
    codes = walk.look("codes", {"data": walk.key, "quantizer": made} if known else None)
    walk.add(walk.applying("codes", quantizer, before, trial, (m or 1) * dtype.itemsize, m), codes)
    walk.codes_key = codes.key

    @functools.cache
    def of_codes() -> tuple[Any, Any]:
        rows = before.some(round(min(_CODED, before.rows or _CODED)))
        small = shrunk(quantizer, len(rows), before.rows or 1, 3) if fits else quantizer
        if fits:
            fitted_on(small, rows)
        return small, np.asarray(small.encode(rows))

    def sample(rows: int) -> Any:
        return of_codes()[1][:rows]

    walk.coder = lambda: of_codes()[0]
    walk.codes = Flowing(
        before.rows, m, dtype, mapped=True, sample=sample,
        about=[before.about, described or repr(quantizer)],
    )  # fmt: skip


def plan_clusterer(walk: Walk, clusterer: Clusterer) -> None:
    """Plan a clusterer, and the labels of all rows if it learns from others."""
    on_codes = clusterer.consumes == "codes"
    whole = walk.codes if on_codes and walk.codes is not None else walk.flow
    whole_key = walk.codes_key if on_codes else walk.key
    data, key = walk.training("clusterer", whole, whole_key)
    described = walk.signature(clusterer)
    known = key is not None and described is not None
    hit = walk.look("clusterer", {"data": key, "clusterer": described} if known else None)
    stage = PlannedStage("clusterer", clusterer.name, rows=data.rows, dim=data.dim)
    apart = "labels" in walk.expected and walk.spread is None
    trial = walk.trial(
        clusterer, dense(clusterer, data), applied=apart,
        quantizer=walk.coder if on_codes and walk.codes is not None else None,
        coded=walk.codes.about if on_codes and walk.codes is not None else None,
    )  # fmt: skip
    asked = clusterer
    if on_codes and walk.spec.quantizer is not None:
        asked = with_quantizer(clusterer, walk.spec.quantizer, walk.flow.dim, data.dim)
    walk.fill(stage, asked, dense(clusterer, data), trial)
    walk.add(stage, hit)
    if walk.spread is not None:
        made = used_key(Stage("clusterer", hit.key or "", Path()), clusterer)
        known = whole_key is not None and hit.key is not None
        labels = walk.look("labels", {"data": whole_key, "clusterer": made} if known else None)
        pixels = next(s.rows for s in walk.plan.stages if s.name == "colours")
        told = PlannedStage("labels", rows=pixels, dim=1)
        if pixels is not None and walk.measured is not None:
            told.disk = 4.0 * pixels
            told.takes(Spent(pixels * _A_PIXEL))
            told.memory = walk.plan.base + 4.0 * CHUNK_BYTES
        walk.add(told, labels)
    if apart:
        made = used_key(Stage("clusterer", hit.key or "", Path()), clusterer)
        known = whole_key is not None and hit.key is not None
        labels = walk.look("labels", {"data": whole_key, "clusterer": made} if known else None)
        walk.add(walk.applying("labels", clusterer, whole, trial, 4, 1), labels)


def plan_index(walk: Walk, index: Any) -> None:
    """Plan an index."""
    described = walk.signature(index)
    known = walk.key is not None and described is not None and walk.ids is not False
    inputs = {"data": walk.key, "ids": walk.ids, "index": described}
    hit = walk.look("index", inputs if known else None)
    stage = PlannedStage("index", index.name, rows=walk.flow.rows, dim=walk.flow.dim)
    data = dense(index, walk.flow)
    trial = walk.trial(index, data)
    walk.fill(stage, index, data, trial)
    walk.add(stage, hit)
