"""Words of pictures: local features, their vocabulary, and one vector for each picture."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vwkit.cache import link_tree
from vwkit.errors import VwkitError
from vwkit.planning.data import Flowing
from vwkit.planning.hits import Hit
from vwkit.planning.meters import Clock
from vwkit.planning.spent import Spent
from vwkit.planning.stage import PlannedStage
from vwkit.planning.trials import Trial, fitted_on, shrunk
from vwkit.sparse import Sparse
from vwkit.stages import Stage, opened, used_key

if TYPE_CHECKING:
    from vwkit.planning.pictures import Pictures

__all__ = ["plan_words"]

_TRIED = 8  # pictures
_PUT_TOGETHER = Spent(1 / 2e9)  # a byte of the vectors of all pictures


def plan_words(pictures: Pictures, featurizer: Any) -> None:
    """Plan local features, vocabulary, words, and what is made of them."""
    walk, local, model = pictures.walk, featurizer.local_, featurizer.vocabulary
    _, said = pictures.features("featurizer.local", local)
    flow, ids = walk.flow, pictures.ids(said)
    name = "featurizer.vocabulary"
    trial, made, fitted = Trial({}), None, model if model._fitted else None
    if name not in walk.expected:
        made = walk.signature(model, late=True)
        trial = walk.trial(model, flow, fits=False, applied=True)
    else:
        data, key = walk.training(name, flow, said.key)
        described = walk.signature(model)
        known = key is not None and described is not None
        hit = walk.look(name, {"data": key, "vocabulary": described} if known else None)
        stage = PlannedStage(name, model.name, rows=data.rows, dim=data.dim)
        trial = walk.trial(model, data, applied=True)
        walk.fill(stage, model, data, trial)
        walk.add(stage, hit)
        if hit.key is not None:
            made = used_key(Stage(name, hit.key, Path()), model)
        if hit.folder is not None:
            fitted = _opened(hit, model)
    known = made is not None and said.key is not None
    words = walk.look("featurizer.words", {"data": said.key, "vocabulary": made} if known else None)
    walk.add(walk.applying("featurizer.words", model, flow, trial, 4, 1), words)
    k = float(featurizer.word_count)
    told: dict[str, Any] = {}
    if walk.measured is not None and flow.rows and flow.dim:
        what = {
            "aggregated": walk.signature(featurizer) or repr(featurizer),
            "data": flow.about,
            "each": round(flow.rows / max(1.0, pictures.count)),
        }
        told = walk.measured.of(what, lambda _: _probe_words(pictures, featurizer, flow))
    whole = None
    if fitted is not None and walk.hits is not None:
        kept, featurizer.vocabulary = featurizer.vocabulary, fitted
        try:
            whole = walk.signature(featurizer)
        finally:
            featurizer.vocabulary = kept
    known = whole is not None and words.key is not None
    learned = walk.look("featurizer", {"words": words.key, "featurizer": whole} if known else None)
    rows = flow.rows or 0.0
    stage = PlannedStage("featurizer", featurizer.name, rows=pictures.count)
    if "learn" in told:
        stage.takes(Spent.of(told, "learn") * rows)
        stage.memory = walk.plan.base + 16.0 * rows
        stage.disk = 4 * k * (flow.dim or 1) + 4.0 * rows
    walk.add(stage, learned)
    last = None
    if known and learned.key is not None:
        used = used_key(Stage("featurizer", learned.key, Path()), featurizer)
        last = {"words": words.key, "featurizer": used}
    vectors = walk.look("vectors", last)
    stage = PlannedStage("vectors", featurizer.name, rows=pictures.count)
    dim, dense, entries = _form(pictures, featurizer, told, k, flow)
    stage.dim = dim
    if "each" in told and dim is not None:
        row_bytes = 4.0 * dim if dense else 8.0 * entries
        scale = float(told["k"]) and (k / float(told["k"]) if dense else 1.0)
        together = _PUT_TOGETHER * (pictures.count * row_bytes * scale)
        stage.takes(Spent.of(told, "each") * rows + together)
        stage.disk = pictures.count * row_bytes
        stage.memory = walk.plan.base + 2e8 * min(1.0, pictures.count / 256 * row_bytes / 1e6)
    walk.add(stage, vectors)
    walk.key, walk.ids = vectors.key, ids
    walk.flow = Flowing(
        pictures.count, dim, np.dtype(np.float32), mapped=dense,
        sparse=None if dense else entries,
        about=[walk.signature(featurizer) or repr(featurizer), pictures.about],
    )  # fmt: skip


def _form(
    pictures: Pictures, featurizer: Any, told: dict[str, Any], k: float, flow: Flowing
) -> tuple[int | None, bool, float]:
    """Return the dimensions of a picture's vector, whether it is dense, and its entries."""
    each = (flow.rows or 0.0) / max(1.0, pictures.count)
    if "dim" in told:
        dim = round(float(told["dim"]) * k / max(1.0, float(told["k"])))
        return dim, bool(told["dense"]), min(k, each * 0.8)
    dense = bool(featurizer.needs_vectors)
    return (round(k) if not dense else None), dense, min(k, each * 0.8)


def _probe_words(pictures: Pictures, featurizer: Any, flow: Flowing) -> dict[str, Any]:
    """Aggregate the words of some descriptors."""
    each = max(1, round((flow.rows or 1.0) / max(1.0, pictures.count)))
    rows = flow.some(min(_TRIED * each, 20_000))
    model = featurizer.vocabulary
    if not model._fitted:
        model = shrunk(model, len(rows), flow.rows or 1.0, 2)
        fitted_on(model, rows)
    params = {
        name: getattr(featurizer, one.attribute)
        for name, one in type(featurizer).parameters().items()
    }
    tried = type(featurizer)(**{**params, "vocabulary": model})
    words = np.asarray(tried.words.encode(rows))[:, 0]
    offsets = np.linspace(0, len(words), _TRIED + 1).astype(np.int64)
    with Clock() as learning:
        tried.learn(words, offsets)
    with Clock() as making:
        out = list(tried.aggregate(words, offsets, rows))
    return {
        "learn": (learning.spent * (1 / len(words))).plain(),
        "each": (making.spent * (1 / len(words))).plain(),
        "dim": int(tried.dim),
        "dense": not isinstance(out[0], Sparse),
        "k": float(tried.word_count),
    }


def _opened(hit: Hit, backend: Any) -> Any:
    """Load what a stage made as a run would: a copy of it gets the late parameters."""
    if hit.folder is None:
        return None
    with tempfile.TemporaryDirectory(prefix="vwkit-plan-") as folder:
        target = Path(folder) / "stage"
        try:
            link_tree(hit.folder, target)
            return opened(Stage("", hit.key or "", target), backend)
        except (OSError, VwkitError):
            return None
