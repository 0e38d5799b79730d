"""What every descriptor file offers, whatever its layout."""

from __future__ import annotations

import copy
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vwkit.errors import DataError, FormatError, ParameterError, ShapeError, UnsupportedError

if TYPE_CHECKING:
    from vwkit.formats.remote import Place

__all__ = [
    "FORMATS",
    "Format",
    "MissingFileError",
    "UnknownFormatError",
    "VectorFile",
    "native",
    "opening",
    "regular_size",
]


@dataclass(frozen=True)
class Format:
    """One descriptor format.

    Attributes
    ----------
    description : str
        One line for people.
    extensions : tuple of str
        The endings of a file's name, lower case, that mean this format.
    """

    description: str
    extensions: tuple[str, ...]


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "fvecs": Format(
            "rows of a little-endian int32 dimension and float32 components",
            (".fvecs", ".fvecs.gz"),
        ),
        "ivecs": Format(
            "rows of a little-endian int32 dimension and int32 components", (".ivecs", ".ivecs.gz")
        ),
        "bvecs": Format(
            "rows of a little-endian int32 dimension and uint8 components", (".bvecs", ".bvecs.gz")
        ),
        "npy": Format("a two-dimensional NumPy array of integers or floats", (".npy",)),
        "oxford-sift": Format(
            "the official Oxford5k descriptors: 128 uint8 a row, no header", ("_sift.bin",)
        ),
        "fbin": Format("uint32 rows and dimension, then float32 components", (".fbin",)),
        "u8bin": Format("uint32 rows and dimension, then uint8 components", (".u8bin",)),
        "i8bin": Format("uint32 rows and dimension, then int8 components", (".i8bin",)),
        "ibin": Format("uint32 rows and dimension, then int32 components", (".ibin",)),
    }
)
"""Name -> description and file name endings of every format that `open_vectors` reads."""


class MissingFileError(DataError):
    """A file or folder that was named does not exist."""

    # The command line returns 2 for what can be known before any data are read.
    exit_status = 2


class UnknownFormatError(FormatError):
    """A path is no descriptor file of a known format, as its name or kind alone tells."""

    exit_status = 2


@contextmanager
def opening(path: Place) -> Iterator[None]:
    """Turn the operating system's refusals while reading `path` into errors of ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f"no such file: {path}") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error


def regular_size(path: Path) -> int:
    """Return the size of `path` in bytes.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is a folder, a pipe or a device, or may not be looked at.
    """
    if "\0" in str(path):
        raise MissingFileError(f"no such file: {str(path)!r} (a name cannot hold a zero byte)")
    with opening(path):
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise UnknownFormatError(f"{path}: is a folder; name a descriptor file in it")
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for a writer, and neither can be read twice.
        raise UnknownFormatError(f"{path}: is not a regular file; copy its content into one")
    return status.st_size


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return `dtype` in this machine's byte order."""
    return dtype.newbyteorder("=")


class VectorFile(ABC):
    """An opened descriptor file: its size and type are known, its rows are read when asked for.

    Rows are numbered from 0. Nothing of the data is held in memory and no file is held open between
    calls. Get one from `open_vectors`.

    Attributes
    ----------
    path : Path or RemotePlace
        The file.
    format : str
        A key of `FORMATS`.
    rows : int or None
        How many rows it holds; None for compressed files until a first whole pass has counted them.
    dim : int
        Components of a row.
    dtype : numpy.dtype
        Type of the arrays handed out, in native byte order.
    cut : bool
        Whether the file ends early, which only ``partial=True`` accepts. Compressed files know it
        after a whole pass.
    partial_bytes : int
        Bytes after the last whole row of a cut file. Of a compressed one up to two more may be there.
    """

    cut: bool = False
    partial_bytes: int = 0

    def __init__(
        self, path: Place, format: str, *, rows: int | None, dim: int, dtype: np.dtype[Any]
    ) -> None:
        self.path = path
        self.format = format
        self.rows = rows
        self.dim = dim
        self.dtype = native(dtype)

    def __getstate__(self) -> dict[str, Any]:
        # Another process may work in another folder.
        return {**vars(self), "path": self.path.absolute()}

    def __repr__(self) -> str:
        rows = "unknown" if self.rows is None else self.rows
        return (
            f"<{self.format} file {str(self.path)!r}: rows={rows}, dim={self.dim}, "
            f"dtype={self.dtype}>"
        )

    @property
    def array(self) -> npt.NDArray[Any] | None:
        """The whole file as a read-only (rows, dim) memory map, or None.

        Only layouts that are a C-contiguous array in native byte order have one: ``npy`` in C
        order, ``oxford-sift`` and the ``*bin`` formats.
        """
        return None

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows [start, stop) as a new C-contiguous (stop - start, dim) array.

        Raises
        ------
        DataError
            If the range is not within the file.
        FormatError
            If the file is damaged there, or is no longer what it was when opened.
        UnsupportedError
            If the file is compressed.
        """
        if start < 0 or stop < start or (self.rows is not None and stop > self.rows):
            raise DataError(
                f"{self.path}: the rows [{start}, {stop}) were asked for; it has {self.rows} rows"
            )
        return self._read(int(start), int(stop))

    def take(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the given rows as a new C-contiguous (len(rows), dim) array.

        Parameters
        ----------
        rows : array_like of int, shape (m,)
            Row numbers, ascending; a number may be repeated. Compressed files are read from their
            beginning up to the last of them.

        Raises
        ------
        ShapeError
            If `rows` is not one-dimensional.
        DataError
            If `rows` are not whole numbers, not ascending, or not within the file.
        FormatError
            If the file is damaged there, or is no longer what it was when opened.
        """
        wanted = np.asarray(rows)
        if wanted.ndim != 1:
            raise ShapeError(f"take needs row numbers of shape (m,), was given {wanted.shape}")
        if not wanted.size:
            return np.empty((0, self.dim), self.dtype)
        if wanted.dtype.kind not in "iu":
            raise DataError(f"take needs whole row numbers, was given {wanted.dtype}")
        if np.any(wanted[1:] < wanted[:-1]):
            raise DataError("take needs ascending row numbers: sort them first")
        low, high = int(wanted[0]), int(wanted[-1])
        if low < 0 or (self.rows is not None and high >= self.rows):
            raise self._outside(low if low < 0 else high)
        return self._take(wanted.astype(np.int64, copy=False))

    def first(self, rows: int) -> VectorFile:
        """Return the same file without what comes after its first `rows` rows.

        Raises
        ------
        UnsupportedError
            If the file is compressed: its rows are not counted.
        """
        if self.rows is None:
            raise UnsupportedError(f"{self.path}: the rows of a compressed file are not known")
        fewer = copy.copy(self)
        fewer.rows = min(self.rows, max(0, int(rows)))
        return fewer

    def chunks(self, rows_per_chunk: int) -> Iterator[npt.NDArray[Any]]:
        """Read the file once from its beginning.

        Parameters
        ----------
        rows_per_chunk : int
            Rows of every array but the last, which may have fewer. At most about two such arrays
            are in memory at a time.

        Returns
        -------
        iterator of ndarray, shape (n_i, dim)
            New C-contiguous arrays, in order; a fresh iterator on each call.

        Raises
        ------
        ParameterError
            If `rows_per_chunk` is less than 1.
        FormatError
            While iterating: if the file is damaged, or no longer what it was when opened.
        """
        if rows_per_chunk < 1:
            raise ParameterError(f"rows_per_chunk must be at least 1, was given {rows_per_chunk}")
        return self._chunks(int(rows_per_chunk))

    def _outside(self, row: int) -> DataError:
        return DataError(f"{self.path}: row {row} was asked for; it has {self.rows} rows")

    @abstractmethod
    def _chunks(self, rows_per_chunk: int) -> Iterator[npt.NDArray[Any]]:
        """Yield the whole file, `rows_per_chunk` (at least 1) rows at a time."""

    @abstractmethod
    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows [start, stop), which are within the file."""

    @abstractmethod
    def _take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return `rows`: ascending, at least one, none negative, within the file where known."""
