"""How rows are read in another process: by file and place, and by what is computed of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vwkit.errors import DataError

__all__ = ["Behind", "Computed", "MappedFile", "mapped_file", "rows_of"]

Array = npt.NDArray[Any]


@dataclass
class MappedFile:
    """Rows of a C-contiguous array in a file, such as a ``.npy`` that is memory-mapped.

    Attributes
    ----------
    path : str
    offset : int
        Of the first row, in bytes.
    shape : tuple of int
    dtype : str
    stamp : tuple of int
        Size and time of the file when it was mapped: it must still be that file.
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str
    stamp: tuple[int, int]
    _map: Array | None = field(default=None, repr=False, compare=False)

    def read(self, start: int, stop: int) -> Array:
        """Return the rows [start, stop), a view of the map."""
        if self._map is None:
            if _stamp(self.path) != self.stamp:
                raise DataError(
                    f"{self.path}: is not the file any more that it was, or is not here"
                )
            self._map = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        rows: Array = np.asarray(self._map[start:stop])
        return rows

    def take(self, rows: Array) -> Array:
        """Return some rows, in ascending order."""
        found: Array = self.read(0, self.shape[0])[rows]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_map": None}


@dataclass
class Computed:
    """Rows that a function makes of others, row by row."""

    rows: Any
    function: Callable[[Array], Array]

    def read(self, start: int, stop: int) -> Array:
        """Return what the function makes of the rows [start, stop)."""
        return self.function(self.rows.read(start, stop))


@dataclass
class Behind:
    """The rows of another reader from a row on."""

    rows: Any
    first: int

    def read(self, start: int, stop: int) -> Array:
        """Return the rows [start, stop), counted from the first."""
        found: Array = self.rows.read(self.first + start, self.first + stop)
        return found


def rows_of(reader: Any, rows: Array, step: int, count: int) -> Array:
    """Return some rows of a reader: directly where it can take them, else out of whole chunks.

    Parameters
    ----------
    reader : RowReader
    rows : (t,) ascending whole numbers, at least one
    step, count : int
        Rows of a chunk, and of all: chunks begin where they begin in a pass over all rows.
    """
    take = getattr(reader, "take", None)
    if take is not None:
        direct: Array = take(rows)
        return direct
    parts, done = [], 0
    while done < len(rows):
        start = int(rows[done]) // step * step
        upto = int(np.searchsorted(rows, start + step))
        parts.append(reader.read(start, min(count, start + step))[rows[done:upto] - start])
        done = upto
    found: Array = np.concatenate(parts)
    return found


def mapped_file(array: Any) -> MappedFile | None:
    """Return how to read a memory map elsewhere; None where the rows are only in memory."""
    root = array
    while isinstance(root, np.ndarray) and isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or not array.flags.c_contiguous or array.ndim != 2:
        return None
    path = getattr(root, "filename", None)
    if path is None or root.mode not in ("r", "c") or not os.path.isfile(path):
        return None
    start = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    found = MappedFile(
        os.path.abspath(path), int(root.offset) + start, array.shape, array.dtype.str, _stamp(path)
    )
    return found if _still_there(found, array) else None


def _still_there(file: MappedFile, array: Array) -> bool:
    """Whether the path still leads to what is mapped, and not to a file that took its place."""
    if file.offset + array.nbytes > file.stamp[0]:
        return False
    try:
        with open(file.path, "rb") as opened:
            for place, rows in ((0, array[:1]), (array.nbytes, array[-1:])):
                opened.seek(file.offset + max(0, place - rows.nbytes))
                if opened.read(rows.nbytes) != rows.tobytes():
                    return False
    except OSError:
        return False
    return True


def _stamp(path: Any) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns
