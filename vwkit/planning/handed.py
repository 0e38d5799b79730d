"""What a backend is handed of the rows before it, and what it gives: forms, and bytes of arrays."""

from __future__ import annotations

import copy
import types
from dataclasses import replace
from typing import Any

import numpy as np

from vwkit.base import Backend
from vwkit.builtin.aggregated import Aggregated
from vwkit.featurizer import Featurizer
from vwkit.planning.data import Flowing
from vwkit.planning.trials import Trial
from vwkit.quantizer import code_dtype
from vwkit.sparse import Sparse
from vwkit.spec import Spec

__all__ = [
    "asked_dim",
    "backends_in",
    "backends_of",
    "code_form",
    "dense",
    "fitting",
    "gathered_bytes",
    "handed_itemsize",
    "more_components",
    "with_quantizer",
]


def backends_of(spec: Spec) -> list[Backend]:
    """Return all backends of the data path, in the order of their stages."""
    slots: list[Any] = [
        spec.featurizer,
        *spec.transform,
        spec.quantizer,
        spec.clusterer,
        spec.index,
    ]
    return [one for slot in slots if slot is not None for one in backends_in(slot)]


def backends_in(backend: Backend) -> list[Backend]:
    """Return a backend and those in it; the local featurizer comes before the vocabulary."""
    if isinstance(backend, Aggregated):
        return [*backends_in(backend.local_), *backends_in(backend.vocabulary), backend]
    found = [backend]
    for parameter in type(backend).parameters().values():
        value = getattr(backend, parameter.attribute)
        if isinstance(value, Backend):
            found += backends_in(value)
    return found


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


def dense(backend: Any, data: Flowing) -> Flowing:
    """Say what a backend gets of sparse rows if it takes none."""
    if data.sparse is None or getattr(backend, "supports_sparse", False):
        return data
    return replace(data, sparse=None, held=True, mapped=False)


def fitting(backend: Any, rows: Any) -> Any:
    """Return rows as a backend takes them: dense if it takes none that are sparse."""
    if isinstance(rows, Sparse) and not getattr(backend, "supports_sparse", False):
        return rows.toarray()
    return rows


def with_quantizer(clusterer: Any, quantizer: Any, dim: int | None, m: int | None) -> Any:
    """Return a copy that knows as much of its quantizer as an estimate may ask for."""
    if dim is None or m is None or clusterer._quantizer is not None:
        return clusterer
    ks = getattr(quantizer, "ks", 1 << 8)
    asked = copy.copy(clusterer)
    book = np.broadcast_to(np.float32(0), (m, ks, max(1, dim // m)))
    vars(asked)["_quantizer"] = types.SimpleNamespace(_dim=dim, codebook=book)
    return asked


def code_form(quantizer: Any, trial: Trial) -> tuple[int | None, np.dtype[Any]]:
    """Return the numbers of a code, and their dtype."""
    if quantizer._fitted:
        return quantizer._code_columns(), quantizer._code_dtype()
    m = trial.told.get("out") or quantizer.__dict__.get("m")
    ks = quantizer.__dict__.get("ks")
    m = m if m is not None else getattr(type(quantizer), "m", None)
    dtype = (
        code_dtype(ks) if isinstance(ks, int) else np.dtype(trial.told.get("out_dtype", "uint8"))
    )
    return m if isinstance(m, int) else None, dtype


def asked_dim(transform: Any, dim: int) -> int | None:
    """Return the dimensions after a transform, if its parameters tell."""
    if transform._needs_fit() and not transform._fitted:
        return None
    return int(transform._out_dim(dim))


def more_components(dim: int, trial: Trial, data: Flowing) -> int:
    """Tell how many components more rows need, where few rows had as many as they could."""
    rows, of = trial.points[-1]["rows"], data.rows or 0.0
    if rows >= of or dim < 0.5 * min(rows, data.dim or rows):
        return dim
    return int(min(data.dim or dim, dim * min(of, data.dim or of) / min(rows, data.dim or rows)))
