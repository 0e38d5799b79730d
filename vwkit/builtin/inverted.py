"""The inverted index: for each word, the images that have it.

Sivic and Zisserman 2003, "Video Google". A query only touches the lists of its own words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.base import backend
from vwkit.errors import ArtifactError
from vwkit.index import Index
from vwkit.jobs import job
from vwkit.restoring import check_array
from vwkit.sparse import Sparse
from vwkit.types import Array

__all__ = ["Inverted"]


@backend("inverted")
class Inverted(Index):
    """Cosine search over sparse vectors such as bags of words; exact.

    An item that shares no word with the query is not listed.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> bags = vwkit.Sparse.from_dense(np.array([[1, 0, 2], [0, 3, 0]]))
    >>> vwkit.create("index", "inverted").build(bags).search(bags.rows(0, 1), 2).ids.tolist()
    [[0, -1]]
    """

    choose = "always for bags of words; it reads only the lists of words that a query has."

    metrics = frozenset({"cosine"})
    exact = True
    deterministic = True
    supports_add = True
    supports_remove = True
    supports_compact = True
    supports_filter = True
    supports_sparse = True
    thread_safe = True
    memory_mapped = True

    def _build(self, vectors: Any) -> None:
        self._rows_held = 0
        self._living: NDArray[np.bool_] | None = None
        self._pointers = np.zeros(vectors.shape[1] + 1, np.int64)
        self._items = np.zeros(0, np.int32)
        self._values = np.zeros(0, np.float32)
        self._add(vectors)

    def _add(self, vectors: Any) -> None:
        """Merge the lists of the new rows behind those held, word by word."""
        sparse = vectors if isinstance(vectors, Sparse) else Sparse.from_dense(vectors)
        n, words = sparse.shape
        lengths = _lengths(sparse)
        stored = np.flatnonzero(sparse.data)  # a stored zero is no word
        row = np.repeat(np.arange(n), np.diff(sparse.indptr))[stored]
        new_items = (row + self._rows_held).astype(np.int32)
        new_values = (sparse.data[stored] / lengths[row]).astype(np.float32)
        held_words = np.repeat(np.arange(words), np.diff(self._pointers))
        every_word = np.concatenate([held_words, sparse.indices[stored].astype(np.int64)])
        order = np.argsort(every_word, kind="stable")
        self._items = np.concatenate([self._items, new_items])[order]
        self._values = np.concatenate([self._values, new_values])[order]
        self._pointers = np.zeros(words + 1, np.int64)
        np.cumsum(np.bincount(every_word, minlength=words), out=self._pointers[1:])
        self._rows_held += n
        if self._living is not None:
            self._living = np.concatenate([self._living, np.ones(n, bool)])

    def _remove(self, rows: NDArray[np.int64]) -> None:
        living = np.ones(self._rows_held, bool) if self._living is None else self._living.copy()
        living[rows] = False
        self._living = living

    def _compact(self, rows: NDArray[np.int64]) -> None:
        numbers = np.full(self._rows_held, -1, np.int32)
        numbers[rows] = np.arange(len(rows), dtype=np.int32)
        every = numbers[self._items]
        kept = every >= 0
        counts = np.concatenate([[0], np.cumsum(kept)])
        self._items, self._values = every[kept], self._values[kept]
        self._pointers = counts[self._pointers].astype(np.int64)
        self._rows_held, self._living = len(rows), None

    def _search(
        self, queries: Any, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        sparse = queries if isinstance(queries, Sparse) else Sparse.from_dense(queries)
        if self._living is not None:
            allowed = self._living if allowed is None else allowed & self._living
        rows = np.full((sparse.shape[0], k), -1, np.int64)
        distances = np.full((sparse.shape[0], k), np.inf, np.float32)
        lengths = _lengths(sparse)
        for i in range(sparse.shape[0]):
            job().check()
            words, values = sparse.row(i)
            stored = np.flatnonzero(values)
            found, score = self._score(words[stored], values[stored] / (lengths[i] or 1.0))
            if allowed is not None:
                kept = allowed[found]
                found, score = found[kept], score[kept]
            order = np.lexsort((found, -score))[:k]
            rows[i, : len(order)] = found[order]
            distances[i, : len(order)] = np.maximum(0, 1 - score[order])
        return rows, distances

    def _score(
        self, words: NDArray[np.int32], values: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the rows that share a word, ascending, and their cosines."""
        spans = [slice(*self._pointers[word : word + 2]) for word in words]
        if not spans:
            return np.zeros(0, np.int64), np.zeros(0)
        items = np.concatenate([self._items[span] for span in spans])
        parts = [
            self._values[span].astype(np.float64) * float(value)
            for span, value in zip(spans, values, strict=True)
        ]
        total = np.bincount(items, np.concatenate(parts), minlength=self._rows_held)
        touched = np.zeros(self._rows_held, bool)
        touched[items] = True
        found = np.flatnonzero(touched).astype(np.int64)
        return found, total[found].astype(np.float64)

    def _restore(self, state: dict[str, Array]) -> None:
        total, dim, entries = self._held_ids.total, self._dim or 0, len(state.get("_items", ()))
        check_array("pointers", state.get("_pointers"), (dim + 1,), "int64", low=0, high=entries)
        check_array("items", state.get("_items"), (entries,), "int32", low=0, high=total - 1)
        check_array("values", state.get("_values"), (entries,), "float32", finite=True)
        pointers, held = state["_pointers"], state.get("_rows_held")
        if pointers[0] != 0 or pointers[-1] != entries or (np.diff(pointers) < 0).any():
            raise ArtifactError("its pointers do not cut its entries into words; damaged")
        if held is None or held.shape != () or held != total:
            raise ArtifactError(f"it says it holds {held} rows of {total}; damaged, make it again")
        if "_living" in state:
            check_array("living", state["_living"], (total,), "bool")
        super()._restore(state)
        self._living = state.get("_living")


def _lengths(sparse: Sparse) -> NDArray[np.float64]:
    row = np.repeat(np.arange(sparse.shape[0]), np.diff(sparse.indptr))
    squares = sparse.data.astype(np.float64) ** 2
    return np.sqrt(np.bincount(row, squares, minlength=sparse.shape[0]))
