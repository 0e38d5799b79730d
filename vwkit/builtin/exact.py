"""Exact search: every vector is looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.base import backend
from vwkit.estimates import Estimate
from vwkit.exact_search import search_rows
from vwkit.index import Index
from vwkit.jobs import job
from vwkit.restoring import check_array
from vwkit.types import Array

__all__ = ["Exact"]


@backend("exact")
class Exact(Index):
    """Compares each query with every vector; the answers are certain, ties go to the lowest row.

    Good up to some hundred thousand vectors, and as the measure of all approximate indexes.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> index = vwkit.create("index", "exact").build(np.eye(3, dtype=np.float32), ids=[7, 8, 9])
    >>> ids, distances = index.search([[1.0, 0.1, 0.0]], 2)
    >>> ids.tolist()
    [[7, 8]]
    """

    choose = "up to some hundred thousand vectors, and wherever an answer has to be certain."

    metrics = frozenset({"l2", "cosine", "ip", "hamming"})
    exact = True
    deterministic = True
    supports_add = True
    supports_remove = True
    supports_compact = True
    supports_filter = True
    thread_safe = True
    memory_mapped = True

    @property
    def dtypes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Bits come in bytes; everything else is compared as float32."""
        return ("uint8",) if self.metric == "hamming" else ("float32",)

    def _build(self, vectors: Any) -> None:
        self._vectors: Array = vectors
        self._living: NDArray[np.bool_] | None = None

    def _add(self, vectors: Any) -> None:
        held = len(self._vectors)
        self._vectors = np.concatenate([self._vectors, vectors])
        if self._living is not None:
            self._living = np.concatenate([self._living, np.ones(len(self._vectors) - held, bool)])

    def _remove(self, rows: NDArray[np.int64]) -> None:
        living = np.ones(len(self._vectors), bool) if self._living is None else self._living.copy()
        living[rows] = False
        self._living = living

    def _compact(self, rows: NDArray[np.int64]) -> None:
        self._vectors = self._vectors[rows]
        self._living = None

    def _search(
        self, queries: Any, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if self._living is not None:
            allowed = self._living if allowed is None else allowed & self._living
        arrays = {"vectors": self._vectors, "k": k, "metric": self.metric, "allowed": allowed}
        parts = list(job().here().map(_search_chunk, queries, arrays, rows=256))
        return (
            np.concatenate([rows for rows, _ in parts]),
            np.concatenate([distances for _, distances in parts]),
        )

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        return Estimate(work=rows * dim, memory=0, disk=float(rows * dim * itemsize))

    def _restore(self, state: dict[str, Array]) -> None:
        total, self._living = self._held_ids.total, state.get("_living")
        check_array("vectors", state.get("_vectors"), (total, self._dim), self.dtypes[0])
        if self._living is not None:
            check_array("living", self._living, (total,), "bool")
        self._vectors = state["_vectors"]


def _search_chunk(chunk: Array, **arrays: Any) -> tuple[Array, Array]:
    return search_rows(chunk, **arrays)
