"""The transform role: vectors → vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vwkit.base import Backend
from vwkit.data import dim_of, prepare
from vwkit.errors import BackendError
from vwkit.stream import Stream
from vwkit.types import Array

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Transform"]


class Transform(Backend):
    """Turns vectors into vectors, row by row.

    An author writes `_transform`, and `_fit` if there is something to learn.
    """

    role: ClassVar[str] = "transform"

    def _fit(self, vectors: Any) -> None:
        """Learn from the vectors."""

    def _transform(self, vectors: Any) -> Array:
        """Return an (n, d') array for an (n, d) one."""
        raise NotImplementedError(f"{type(self).__name__} must define _transform")

    def _out_dim(self, dim: int) -> int:
        """Return d' for d; by default it is tried out on one row."""
        return int(self._transform(np.zeros((1, dim), self.dtypes[0])).shape[1])

    def _needs_fit(self) -> bool:
        return type(self)._fit is not Transform._fit

    def fit(self, vectors: Any) -> Self:
        """Learn from (n, d) vectors; a second call replaces the first.

        Raises
        ------
        ShapeError, DataError
        """
        prepared = self._prepare(vectors, streams=self.streams)
        self._fitted = False
        self._dim = dim_of(prepared)
        self._kind = getattr(vectors, "kind", None)
        self._fit(prepared)
        self._fitted = True
        return self

    def transform(self, vectors: Any) -> Any:
        """Return the transformed vectors: an array for an array, a lazy Stream for a Stream.

        Raises
        ------
        NotFittedError, ShapeError, DataError
        """
        if self._needs_fit():
            self._need_fitted()
        dim = self._dim if self._fitted else None
        if not isinstance(vectors, Stream):
            prepared = self._prepare(vectors, dim=dim, empty=True)
            return self._checked_rows(self._transform(prepared), len(prepared))
        stream = self._prepare(vectors, dim=dim, empty=True, streams=True)
        sample = self._out_dim(stream.dim)
        dtype = self._transform(np.zeros((1, stream.dim), stream.dtype)).dtype

        def one(chunk: Array) -> Array:
            return self._checked_rows(self._transform(chunk), len(chunk))

        kind = f"{vectors.kind}+{self.name}" if vectors.kind else None
        return stream.map(one, dim=sample, dtype=dtype, kind=kind)

    def _checked_rows(self, result: Any, rows: int) -> Array:
        if getattr(result, "ndim", 0) != 2 or len(result) != rows:
            raise BackendError(
                f"{self.name}._transform must return one row per row: ({rows}, d'); "
                f"got {getattr(result, 'shape', type(result).__name__)}"
            )
        array: Array = result
        return array

    def _prepare(
        self, vectors: Any, dim: int | None = None, empty: bool = False, streams: bool = False
    ) -> Any:
        return prepare(
            vectors, dtypes=self.dtypes, streams=streams, dim=dim, empty=empty, who=self.name
        )
