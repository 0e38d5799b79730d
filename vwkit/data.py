"""What users hand in becomes what a backend's underscored method asks for.

One place checks shapes, dtypes, NaN and infinity, so that no backend has to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError, ShapeError, UnsupportedError
from vwkit.sparse import Sparse
from vwkit.stream import Stream, chunk_rows, row_spans
from vwkit.types import Array

__all__ = [
    "Data",
    "as_data",
    "as_weights",
    "dim_of",
    "given_array",
    "given_centers",
    "prepare",
    "rows_of",
]

Data: TypeAlias = Array | Stream | Sparse

_EXACT_FLOAT32 = 1 << 24
_FINITE_BLOCK = 1 << 16


def as_data(data: Any, what: str = "vectors") -> Data:
    """Accept an array, a memory map, a Stream or a Sparse; refuse the rest with the reason."""
    if isinstance(data, (Stream, Sparse)):
        return data
    if isinstance(data, Iterator):
        raise DataError(
            f"{what}: a generator can be read only once, and fitting reads the data many times; "
            "wrap a function that makes it in vwkit.Stream, or pass an array"
        )
    if hasattr(data, "tocsr"):
        raise DataError(f"{what}: a SciPy sparse matrix; pass vwkit.Sparse.from_scipy(it)")
    if np.ma.isMaskedArray(data) and np.ma.getmaskarray(data).any():
        raise DataError(f"{what}: a masked array with masked entries; fill or drop them first")
    try:
        array: Array = data if type(data) is np.memmap else np.asarray(data)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what}: cannot be read as an array: {error}") from None
    if array.ndim != 2:
        hint = "; for a single vector pass x[None, :]" if array.ndim == 1 else ""
        raise ShapeError(
            f"{what}: an array of shape (n, d) is needed; got shape {array.shape}{hint}"
        )
    if array.dtype.kind not in "uifb":
        raise DataError(
            f"{what}: numbers are needed (uint8 or a float type); got dtype {array.dtype}"
        )
    if array.shape[1] == 0:
        raise ShapeError(f"{what}: vectors need at least one dimension; got shape {array.shape}")
    return array


def rows_of(data: Data) -> int:
    """Return the number of rows, counting an uncounted Stream by one pass."""
    return data.count() if isinstance(data, Stream) else data.shape[0]


def dim_of(data: Data) -> int:
    """Return the number of columns."""
    return data.dim if isinstance(data, Stream) else int(data.shape[1])


def prepare(
    data: Any,
    *,
    dtypes: tuple[str, ...],
    streams: bool = False,
    sparse: bool = False,
    dim: int | None = None,
    empty: bool = False,
    what: str = "vectors",
    who: str = "this backend",
) -> Data:
    """Check data and convert them to a form that the backend declares.

    An array that already fits is returned itself, not a copy.

    Parameters
    ----------
    data : array, Stream or Sparse
        What the user gave.
    dtypes : tuple of str
        The backend's; data of another dtype are converted chunk by chunk.
    streams, sparse : bool
        Whether the backend takes a Stream, a Sparse.
    dim : int, optional
        The number of columns that the backend was fitted with.
    empty : bool
        Whether zero rows are fine (they are for queries, not for a fit).
    what, who : str
        The argument's and the backend's name, for messages.

    Raises
    ------
    ShapeError, DataError, UnsupportedError
    """
    data = as_data(data, what)
    if isinstance(data, Sparse) and not sparse:
        raise UnsupportedError(
            f"{who} does not take sparse vectors; pass {what}.toarray() if they fit in memory"
        )
    if dim is not None and dim_of(data) != dim:
        raise ShapeError(
            f"{what}: {who} was fitted with {dim} dimensions and needs shape (n, {dim}); "
            f"got (n, {dim_of(data)})"
        )
    if isinstance(data, Sparse):
        _check_finite(data.data[:, None], what, 0)
        prepared: Data = data
    elif isinstance(data, Stream):
        target = _target(data.dtype, dtypes)
        if streams:
            prepared = _checked_stream(data, target, what)
            if prepared.array is not None and not empty:
                # A fit may read the array itself, past the checks of each chunk.
                _check_finite(prepared.array, what, 0)
        elif data.array is not None:
            prepared = _converted(data.array, target, what)
        else:
            prepared = _gathered(data, target, what)
    else:
        prepared = _converted(data, _target(data.dtype, dtypes), what)
    if not empty and rows_of(prepared) == 0:
        raise DataError(f"{what}: 0 rows were given; at least 1 is needed")
    return prepared


def _target(dtype: np.dtype[Any], dtypes: tuple[str, ...]) -> np.dtype[Any]:
    """Choose the backend's dtype for data of another: itself, else a float, else its first."""
    if dtype.name in dtypes:
        return dtype.newbyteorder("=")
    floats = [name for name in dtypes if np.dtype(name).kind == "f"]
    return np.dtype((floats or list(dtypes))[0])


def _converted(array: Array, target: np.dtype[Any], what: str) -> Array:
    if _fits(array, target):
        _check_finite(array, what, 0)
        return array
    out = np.empty(array.shape, target)
    step = chunk_rows(array.shape[1] * max(array.itemsize, target.itemsize))
    for start, stop in row_spans(len(array), step):
        out[start:stop] = _cast(array[start:stop], target, what, start)
    return out


def _fits(array: Array, target: np.dtype[Any]) -> bool:
    return array.dtype == target and array.flags.c_contiguous and array.flags.aligned


def _checked_stream(stream: Stream, target: np.dtype[Any], what: str) -> Stream:
    def chunks() -> Iterator[Array]:
        yield from skipping(0)

    def skipping(start: int) -> Iterator[Array]:
        for chunk in stream.from_row(start):
            yield _cast(chunk, target, what, start)
            start += len(chunk)

    array = stream.array if stream.array is not None and _fits(stream.array, target) else None
    checked = stream._derived(chunks, stream.dim, target, array=array)
    checked.step, checked._skipping = stream.step, skipping
    if stream.reader is not None:
        takes = hasattr(stream.reader, "take")
        checked.reader = (_CheckedAnywhere if takes else _Checked)(stream.reader, target, what)
    if stream.array is not None or stream._random is not None:
        checked._random = lambda rows: _cast(stream.take(rows), target, what, rows)
    return checked


@dataclass
class _Checked:
    """Rows read in another process, checked and converted there."""

    rows: Any
    target: np.dtype[Any]
    what: str

    def read(self, start: int, stop: int) -> Array:
        return _cast(self.rows.read(start, stop), self.target, self.what, start)


class _CheckedAnywhere(_Checked):
    """The same of a reader that can take single rows."""

    def take(self, rows: Array) -> Array:
        return _cast(self.rows.take(rows), self.target, self.what, rows)


def _gathered(stream: Stream, target: np.dtype[Any], what: str) -> Array:
    out = np.empty((stream.count(), stream.dim), target)
    start = 0
    for chunk in stream:
        # A stream that brings more than it promised is refused by its own last check.
        room = out[start : start + len(chunk)]
        room[:] = _cast(chunk, target, what, start)[: len(room)]
        start += len(chunk)
    return out


def _cast(chunk: Array, target: np.dtype[Any], what: str, start: int | Array) -> Array:
    """Convert one chunk, refusing values that would silently change.

    `start` is the first row's number, or the numbers of all rows, for messages.
    """
    if chunk.dtype == target:
        _check_finite(chunk, what, start)
        return np.ascontiguousarray(chunk)
    _check_finite(chunk, what, start)
    if target.kind == "f":
        if chunk.dtype.kind in "ui" and chunk.dtype.itemsize > 2 and target.itemsize == 4:
            _refuse(np.abs(chunk) > _EXACT_FLOAT32, chunk, what, start, "beyond ±2^24")
        with np.errstate(over="ignore"):
            cast = chunk.astype(target, order="C")
        if chunk.dtype.kind == "f" and chunk.itemsize > target.itemsize:
            _refuse(~np.isfinite(cast), chunk, what, start, f"beyond {target}")
        return cast
    limits = np.iinfo(target)
    with np.errstate(invalid="ignore"):
        wrong = (chunk < limits.min) | (chunk > limits.max) | (chunk != np.floor(chunk))
    _refuse(wrong, chunk, what, start, f"not a whole number of {target}")
    return chunk.astype(target, order="C")


def _refuse(
    wrong: NDArray[np.bool_], chunk: Array, what: str, start: int | Array, why: str
) -> None:
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        named = start + int(row) if isinstance(start, int) else int(start[row])
        raise DataError(f"{what}: row {named}, column {int(column)} is {chunk[row, column]}, {why}")


def _check_finite(array: Array, what: str, start: int | Array) -> None:
    """Raise at the first NaN or infinity. A sum finds them at the speed of memory."""
    if array.dtype.kind != "f":
        return
    step = max(1, _FINITE_BLOCK // array.shape[1])
    for first, last in row_spans(len(array), step):
        block = array[first:last]
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(block.sum())
        # A finite sum proves finite values; the converse fails on overflow, hence the exact look.
        if not math.isfinite(total):
            wrong = ~np.isfinite(block)
            here = start + first if isinstance(start, int) else start[first:last]
            _refuse(wrong, block, what, here, "not a finite number")


def as_weights(weights: Any, rows: int) -> NDArray[np.float64] | None:
    """Check weights: (n,) finite, not negative, not all zero.

    Raises
    ------
    ShapeError, DataError
    """
    if weights is None:
        return None
    try:
        array = np.ascontiguousarray(weights, np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"weights: cannot be read as numbers: {error}") from None
    if array.shape != (rows,):
        raise ShapeError(f"weights: one number per row, shape ({rows},), got {array.shape}")
    wrong = ~np.isfinite(array) | (array < 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(f"weights: row {row} is {array[row]}; finite numbers from 0 are needed")
    if not array.any():
        raise DataError("weights: all are 0; at least one must be positive")
    return array


def given_array(init: Any) -> Array:
    """Return what the parameter `init` holds: an array, or the content of a .npy file.

    Raises
    ------
    DataError
        There is no such file, or it holds objects or many arrays.
    """
    if not isinstance(init, Path):
        return np.asarray(init)
    try:
        with init.open("rb") as file:
            # Not np.load, which opens archives too.
            found: Array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"init: {init} is not a readable .npy file: {error}") from None
    return found


def given_centers(init: Any, k: int, dim: int) -> NDArray[np.float32]:
    """Return the centers that a clusterer is to start from, (k, dim) float32: a copy.

    Parameters
    ----------
    init : array-like or Path
        See `given_array`.

    Raises
    ------
    DataError
        Not numbers, or not finite ones in float32.
    ShapeError
    """
    array = given_array(init)
    if array.shape != (k, dim):
        raise ShapeError(f"init: centers of shape ({k}, {dim}) are needed; got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise DataError(f"init: numbers are needed; got dtype {array.dtype}")
    with np.errstate(over="ignore"):
        centers = np.array(array, np.float32, order="C")
    if not np.isfinite(centers).all():
        raise DataError("init: the given centers hold NaN or infinity")
    return centers
