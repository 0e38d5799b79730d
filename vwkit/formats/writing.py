"""Writing descriptor files: whole or not at all."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vwkit.errors import DataError, FormatError, ParameterError, ShapeError
from vwkit.formats import bigann, npy, texmex_rows
from vwkit.formats.base import MissingFileError
from vwkit.formats.open import check_format, format_of_name, known_formats
from vwkit.formats.urls import is_url, shown_url

__all__ = ["write_vectors"]

# Rows are laid out in pieces of this many bytes, so that one large array costs no second one.
_PIECE = 1 << 24

_MAX_UINT32 = 2**32 - 1


def write_vectors(
    path: str | os.PathLike[str],
    chunks: Iterable[npt.NDArray[Any]],
    *,
    dim: int,
    dtype: npt.DTypeLike,
    rows: int | None = None,
    format: str | None = None,
) -> int:
    """Write a descriptor file.

    The file appears, or is replaced, when it is complete and on the disk; on any error nothing is
    left behind and a former file stays as it was.

    Parameters
    ----------
    path : path-like
        The file; its name tells the format, and ``.gz`` after ``.fvecs``, ``.ivecs`` or ``.bvecs``
        compresses it.
    chunks : iterable of ndarray, shape (n_i, dim)
        The rows in order. A single array counts as one chunk.
    dim : int
        Components of a row.
    dtype : dtype-like
        Type of the components. ``npy`` stores it; the other formats store one type each, and what
        `dtype` holds must fit: any integers for ``ivecs`` (values out of its range are refused
        when met), any floats for ``fvecs``, uint8 for ``bvecs``.
    rows : int, optional
        How many rows are promised; any other number is an error.
    format : str, optional
        A key of `FORMATS` other than ``oxford-sift``; by default it follows from the name.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    ParameterError
        If the path is a URL, or the format is not known, cannot be written, or cannot hold
        `dtype` or `dim`.
    ShapeError
        If a chunk is not (n_i, dim).
    DataError
        If a value does not fit, no row comes, or another number of rows than `rows`.
    MissingFileError
        If the folder does not exist.
    FormatError
        If the file cannot be written.
    """
    if is_url(path):
        raise ParameterError(
            f"{shown_url(str(path))}: files are written to local paths only; write one there and copy it"
        )
    path = Path(path)
    layout = _layout(path, dim, np.dtype(dtype), format)
    if isinstance(chunks, np.ndarray):
        chunks = [chunks]
    with _replacing(path) as file:
        total = _write(path, file, chunks, layout)
        if rows is not None and total != rows:
            raise DataError(f"{path}: {rows} rows were promised, {total} came; nothing was written")
        if total == 0:
            raise DataError(f"{path}: there are no rows to write")
        with _writing(path):
            file.seek(0)
            file.write(layout.header(total))
            file.flush()
            os.fsync(file.fileno())
    return total


class _Layout:
    """How rows of `dim` components of `stored` type become bytes of `format`."""

    def __init__(self, format: str, dim: int, stored: np.dtype[Any], compressed: bool) -> None:
        self.format = format
        self.dim = dim
        self.stored = stored
        self.compressed = compressed

    def header(self, rows: int) -> bytes:
        """Return what stands before the first row; its length does not depend on `rows`."""
        if self.format == "npy":
            return npy.header(rows, self.dim, self.stored)
        if self.format in bigann.COMPONENT:
            if rows > _MAX_UINT32:
                raise DataError(f"{self.format} counts rows in 32 bits, {rows} do not fit; use npy")
            return bigann.HEADER.pack(rows, self.dim)
        return b""

    def records(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a contiguous array of the bytes of `rows`, which are of type `stored`."""
        if self.format not in texmex_rows.COMPONENT:
            return np.ascontiguousarray(rows)
        records = np.empty((len(rows), texmex_rows.record_bytes(self.format, self.dim)), np.uint8)
        records[:, :4] = np.frombuffer(self.dim.to_bytes(4, "little"), np.uint8)
        records[:, 4:] = np.ascontiguousarray(rows).view(np.uint8)
        return records


def _layout(path: Path, dim: int, dtype: np.dtype[Any], format: str | None) -> _Layout:
    if format is not None:
        check_format(format)
    else:
        format = format_of_name(path.name)
    if format is None:
        raise ParameterError(
            f"{path}: its name tells no descriptor format; known are {known_formats()}"
        )
    if format == "oxford-sift":
        raise ParameterError(f"{path}: oxford-sift can only be read; write npy or bvecs instead")
    fixed = texmex_rows.COMPONENT.get(format) or bigann.COMPONENT.get(format)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ParameterError(f"{path}: vectors are plain integers or floats, was given {dtype}")
    if fixed is not None and not _may_hold(fixed, dtype):
        raise ParameterError(
            f"{path}: {format} holds {fixed.newbyteorder('=')}, was given {dtype}; convert the "
            "vectors, or write npy, which holds any"
        )
    highest = texmex_rows.MAX_DIM if format in texmex_rows.COMPONENT else _MAX_UINT32
    if not 1 <= dim <= highest:
        raise ParameterError(f"{path}: {format} holds dimensions from 1 to {highest}, not {dim}")
    compressed = path.name.lower().endswith(".gz")
    if compressed and format not in texmex_rows.COMPONENT:
        raise ParameterError(f"{path}: only fvecs, ivecs and bvecs are compressed; drop the .gz")
    stored = fixed if fixed is not None else dtype.newbyteorder("<")
    return _Layout(format, int(dim), stored, compressed)


def _may_hold(stored: np.dtype[Any], given: np.dtype[Any]) -> bool:
    """Tell whether values of `given` can be written as `stored` when each of them fits."""
    both_integers = stored.kind in "iu" and given.kind in "iu" and stored.itemsize > 1
    both_floats = stored.kind == given.kind == "f"
    return both_integers or both_floats or np.can_cast(given, stored, "safe")


def _write(path: Path, file: IO[bytes], chunks: Iterable[npt.NDArray[Any]], layout: _Layout) -> int:
    """Write a header without its rows and then the rows; return how many came."""
    with _writing(path):
        file.write(layout.header(0))
    if not layout.compressed:
        return _write_rows(path, file, chunks, layout)
    # No time and no name in the gzip header: the same rows give the same bytes.
    with gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed:
        total = _write_rows(path, compressed, chunks, layout)
        with _writing(path):
            compressed.close()
    return total


def _write_rows(
    path: Path,
    file: IO[bytes] | gzip.GzipFile,
    chunks: Iterable[npt.NDArray[Any]],
    layout: _Layout,
) -> int:
    step = max(1, _PIECE // (layout.dim * layout.stored.itemsize))
    total = 0
    for number, chunk in enumerate(chunks):
        if np.ndim(chunk) != 2 or chunk.shape[1] != layout.dim:
            raise ShapeError(
                f"{path}: chunk {number} has shape {np.shape(chunk)}, expected (rows, {layout.dim})"
            )
        for start in range(0, len(chunk), step):
            rows = _fit(path, chunk[start : start + step], layout.stored, total + start)
            records = layout.records(rows)
            with _writing(path):
                file.write(records.data)
        total += len(chunk)
    return total


def _fit(path: Path, rows: npt.NDArray[Any], stored: np.dtype[Any], first: int) -> npt.NDArray[Any]:
    """Return `rows` as `stored`; a value that would change by more than rounding is refused."""
    if not _may_hold(stored, rows.dtype):
        raise DataError(f"{path}: row {first} comes as {rows.dtype}, which {stored} cannot hold")
    if np.can_cast(rows.dtype, stored, "safe"):
        return rows.astype(stored, copy=False)
    if stored.kind == "f":
        with np.errstate(over="ignore"):
            fitted = rows.astype(stored)
        wrong = np.isinf(fitted) & np.isfinite(rows)
    else:
        limits = np.iinfo(stored)
        wrong = (rows < limits.min) | (rows > limits.max)
        fitted = rows.astype(stored)
    if wrong.any():
        at, column = (int(axis) for axis in np.argwhere(wrong)[0])
        raise DataError(
            f"{path}: row {first + at} (the first is 0) holds {rows[at, column]}, which "
            f"{stored.newbyteorder('=')} cannot hold"
        )
    return fitted


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a new file beside `path` that takes its place when the block ends well."""
    if path.is_dir():
        raise FormatError(f"{path}: is a folder; name a file in it")
    # Not `tempfile`: its files are readable by their owner alone, and so would the result be.
    temporary = path.parent / f".vwkit-{os.urandom(8).hex()}.tmp"
    try:
        with _writing(path):
            file = temporary.open("xb")
        with file:
            yield file
        with _writing(path):
            temporary.replace(path)
            _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):  # its folder may be a file
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals while writing into errors of ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such folder: {path.parent}") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error
