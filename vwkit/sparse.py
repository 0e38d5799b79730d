"""Sparse vectors: compressed sparse rows (CSR), the layout that SciPy uses too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vwkit.errors import DataError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Sparse"]


@dataclass(frozen=True, eq=False)
class Sparse:
    """A matrix of mostly zeros in CSR form.

    Row ``i`` has the values ``data[indptr[i]:indptr[i + 1]]`` in the columns
    ``indices[indptr[i]:indptr[i + 1]]``, which are sorted and unique.

    Parameters
    ----------
    indptr : (n + 1,) int64
        Where each row starts and ends.
    indices : (nnz,) int32
        Columns.
    data : (nnz,) float32
        Values.
    shape : (int, int)
        Rows and columns.

    Raises
    ------
    ShapeError
        The three arrays do not fit each other or the shape.
    DataError
        Columns are outside the shape, unsorted or repeated.

    Examples
    --------
    >>> import numpy as np
    >>> from vwkit import Sparse
    >>> s = Sparse.from_dense(np.array([[0, 2.0], [0, 0]]))
    >>> s.shape, s.nnz
    ((2, 2), 1)
    >>> s.toarray()
    array([[0., 2.],
           [0., 0.]], dtype=float32)
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        fix = object.__setattr__
        fix(self, "indptr", np.ascontiguousarray(self.indptr, np.int64))
        columns = np.asarray(self.indices)
        if columns.size and columns.dtype.kind not in "iu":
            raise DataError(f"Sparse indices must be whole numbers; got dtype {columns.dtype}")
        # Looked at before int32 could wrap them round.
        if columns.size and not 0 <= int(columns.min()) <= int(columns.max()) < self.shape[1]:
            raise DataError(f"Sparse indices must be in 0…{self.shape[1] - 1}")
        fix(self, "indices", np.ascontiguousarray(columns, np.int32))
        with np.errstate(over="ignore"):  # infinity is refused where it is used
            fix(self, "data", np.ascontiguousarray(self.data, np.float32))
        fix(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        n = self.shape[0]
        if self.indptr.shape != (n + 1,) or self.indices.shape != self.data.shape:
            raise ShapeError(
                f"a Sparse of shape {self.shape} needs indptr of {n + 1} entries and equally long "
                f"indices and data; got {self.indptr.shape}, {self.indices.shape}, "
                f"{self.data.shape}"
            )
        if (
            self.indptr[0] != 0
            or self.indptr[-1] != len(self.indices)
            or (self.indptr[1:] < self.indptr[:-1]).any()
        ):
            raise ShapeError("Sparse indptr must rise from 0 to the number of stored values")
        if len(self.indices):
            falls = np.flatnonzero(self.indices[1:] <= self.indices[:-1]) + 1
            if not np.isin(falls, self.indptr).all():
                raise DataError("Sparse indices must be sorted and unique within each row")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nnz(self) -> int:
        """Number of stored values."""
        return len(self.indices)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Always float32."""
        return np.dtype(np.float32)

    def row(self, i: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return columns and values of one row."""
        span = slice(int(self.indptr[i]), int(self.indptr[i + 1]))
        return self.indices[span], self.data[span]

    def rows(self, start: int, stop: int) -> Sparse:
        """Return the rows ``start`` to ``stop`` (excluded); values are views."""
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        first, last = int(self.indptr[start]), int(self.indptr[max(start, stop)])
        return Sparse(
            self.indptr[start : max(start, stop) + 1] - first,
            self.indices[first:last],
            self.data[first:last],
            (max(0, stop - start), self.shape[1]),
        )

    def toarray(self) -> NDArray[np.float32]:
        """Return the same matrix as a dense (n, d) float32 array."""
        dense = np.zeros(self.shape, np.float32)
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
        dense[rows, self.indices] = self.data
        return dense

    def to_scipy(self) -> Any:
        """Return a ``scipy.sparse.csr_array`` (SciPy must be installed)."""
        from scipy.sparse import csr_array

        return csr_array((self.data, self.indices, self.indptr), shape=self.shape)

    @classmethod
    def from_scipy(cls, matrix: Any) -> Sparse:
        """Take any SciPy sparse matrix."""
        csr = matrix.tocsr().copy()
        csr.sum_duplicates()
        csr.sort_indices()
        return cls(csr.indptr, csr.indices, csr.data, csr.shape)

    @classmethod
    def from_dense(cls, matrix: Any) -> Sparse:
        """Keep the non-zero values of an (n, d) array."""
        dense = np.asarray(matrix)
        if dense.ndim != 2:
            raise ShapeError(f"Sparse.from_dense needs an (n, d) array; got shape {dense.shape}")
        rows, columns = np.nonzero(dense)
        indptr = np.zeros(dense.shape[0] + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=dense.shape[0]), out=indptr[1:])
        values: NDArray[Any] = dense[rows, columns]
        return cls(indptr, columns.astype(np.int32), values.astype(np.float32), dense.shape)

    @classmethod
    def stack(cls, parts: Iterable[Sparse], columns: int) -> Sparse:
        """Put matrices of the same number of columns below each other."""
        parts = list(parts)
        starts = np.cumsum([0, *(part.nnz for part in parts)])
        pointers = [part.indptr[1:] + start for part, start in zip(parts, starts, strict=False)]
        return cls(
            np.concatenate([np.zeros(1, np.int64), *pointers]),
            np.concatenate([np.zeros(0, np.int32), *(part.indices for part in parts)]),
            np.concatenate([np.zeros(0, np.float32), *(part.data for part in parts)]),
            (sum(part.shape[0] for part in parts), columns),
        )
