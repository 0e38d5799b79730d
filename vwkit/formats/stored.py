"""Files that are not compressed: every row has a known place."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vwkit.errors import FormatError
from vwkit.formats.base import VectorFile, opening
from vwkit.formats.remote import Place, RemotePlace

__all__ = ["FlatFile", "StoredFile"]


class StoredFile(VectorFile):
    """A file that is not compressed.

    Parameters
    ----------
    size : int
        Size of the file in bytes when it was opened.
    width : int
        Bytes of a row in it.
    """

    rows: int

    def __init__(
        self,
        path: Place,
        format: str,
        *,
        rows: int,
        dim: int,
        dtype: np.dtype[Any],
        size: int,
        width: int,
    ) -> None:
        super().__init__(path, format, rows=rows, dim=dim, dtype=dtype)
        self._size = size
        self._width = width

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows [start, stop); see `VectorFile.read`."""
        found = super().read(start, stop)
        if isinstance(self.path, RemotePlace):
            self.path.look()
        return found

    def _chunks(self, rows_per_chunk: int) -> Iterator[npt.NDArray[Any]]:
        if isinstance(self.path, RemotePlace):
            yield from self.path.chunks(self._read, self.rows, self._width, rows_per_chunk)
            return
        # Plain reads and not slices of a memory map: mapped pages count as the process's memory
        # until the system takes them back, and a file that shrinks under a map kills the process.
        for start in range(0, self.rows, rows_per_chunk):
            yield self._read(start, min(self.rows, start + rows_per_chunk))

    def _take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if isinstance(self.path, RemotePlace):
            out = np.empty((len(rows), self.dim), self.dtype)
            return self.path.take(self._some, rows, self._width, out)
        return self._take_mapped(rows)

    def _some(self, rows: npt.NDArray[np.int64], start: int, stop: int) -> npt.NDArray[Any]:
        """Return `rows`, which lie in [start, stop), reading those in one go."""
        found: npt.NDArray[Any] = self._read(start, stop)[rows - start]
        return found

    @abstractmethod
    def _take_mapped(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return `rows` of a file on this machine."""

    def _bytes(self, offset: int, count: int) -> npt.NDArray[np.uint8]:
        """Read `count` bytes from `offset` into a new uint8 array."""
        if isinstance(self.path, RemotePlace):
            return self.path.fetch(offset, count)
        with opening(self.path), self.path.open("rb", buffering=0) as file:
            self._check_size(os.fstat(file.fileno()).st_size)
            found = np.fromfile(file, np.uint8, count, offset=offset)
        if found.size != count:
            raise self._changed(offset + found.size)
        return found

    def _map(
        self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> np.memmap[Any, np.dtype[Any]]:
        """Map a part of the file, read only, after making sure that it is still there."""
        with opening(self.path), self.path.open("rb") as file:
            self._check_size(os.fstat(file.fileno()).st_size)
            return np.memmap(file, dtype, "r", offset, shape)

    def _check_size(self, size: int) -> None:
        if size != self._size:
            raise self._changed(size)

    def _changed(self, size: int) -> FormatError:
        return FormatError(
            f"{self.path}: changed while in use: it had {self._size:,} bytes when opened, now it "
            f"has {size:,}; open it again once nothing writes to it"
        )


class FlatFile(StoredFile):
    """A header (or none), then all rows as one C-contiguous array.

    Parameters
    ----------
    offset : int
        Bytes before the first row.
    dtype : numpy.dtype
        Type as stored, in any byte order.
    size : int
        Size of the file in bytes when it was opened.
    """

    def __init__(
        self,
        path: Place,
        format: str,
        *,
        rows: int,
        dim: int,
        dtype: np.dtype[Any],
        size: int,
        offset: int,
    ) -> None:
        width = dim * dtype.itemsize
        super().__init__(path, format, rows=rows, dim=dim, dtype=dtype, size=size, width=width)
        self._offset = offset
        self._stored = dtype

    @property
    def array(self) -> npt.NDArray[Any] | None:
        """The whole file as a read-only (rows, dim) memory map; None in foreign byte order."""
        if isinstance(self.path, RemotePlace) or not self._stored.isnative:
            return None
        return self._whole()

    def _whole(self) -> np.memmap[Any, np.dtype[Any]]:
        return self._map(self._offset, self._stored, (self.rows, self.dim))

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        width = self._width
        found = self._bytes(self._offset + start * width, (stop - start) * width)
        return found.view(self._stored).reshape(-1, self.dim).astype(self.dtype, copy=False)

    def _take_mapped(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        # A map of its own, so that its pages are given back at once.
        found = np.asarray(self._whole()).take(rows, axis=0)
        return found.astype(self.dtype, copy=False)
