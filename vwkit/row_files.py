"""Files of rows that grow, are checked block by block, and end as ``.npy`` files."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from vwkit.errors import ArtifactError
from vwkit.types import Array

__all__ = ["RowFile", "opened", "plain_dtype"]

_BLOCK = 8 << 20
# What a file system says that cannot set room aside; any other answer is meant.
_NO_ROOM_KEPT = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}


class RowFile:
    """One array's file: a header with room for the number of rows, then the rows."""

    file: IO[bytes]

    def __init__(self, path: Path, dim: int | None, dtype: np.dtype[Any]) -> None:
        self.path, self.dim, self.dtype = path, dim, dtype
        self.width = dtype.itemsize * (1 if dim is None else dim)
        self.rows = -1  # until something is known to be good
        self._recorded = 0
        self._crc = 0

    def begin(self) -> None:
        """Make the file anew."""
        self.open(create=True)
        self.file.truncate(0)
        self._start = self._header(0)
        self.rows = 0

    def open(self, *, create: bool = False) -> None:
        """Open the file that is there."""
        self.file = opened(self.path, create=create)
        if not create:
            self._start = len(_header(0, self.dim, self.dtype))

    def _header(self, rows: int) -> int:
        # NumPy leaves room in the header for the number of rows to grow.
        header = _header(rows, self.dim, self.dtype)
        self.file.seek(0)
        self.file.write(header)
        return len(header)

    def set_aside(self, rows: int) -> None:
        """Let the file system keep room for all rows."""
        needed = self._start + rows * self.width
        if not hasattr(os, "posix_fallocate") or needed == 0:
            return  # macOS: a full disk shows when it is full
        self.file.flush()
        try:
            os.posix_fallocate(self.file.fileno(), 0, needed)
        except OSError as error:
            if error.errno in _NO_ROOM_KEPT:
                return
            with contextlib.suppress(OSError):
                self.file.truncate(self._end())
            free = shutil.disk_usage(self.path.parent).free
            raise ArtifactError(
                f"{self.path.parent}: {self.path.stem} takes {needed:,} bytes there, and "
                f"{free:,} are free: {error.strerror}"
            ) from error

    def append(self, rows: Array) -> None:
        """Write rows behind the others."""
        data = np.ascontiguousarray(rows, self.dtype)
        flat = data.reshape(-1).view(np.uint8).data
        self.file.write(flat)
        self._crc = zlib.crc32(flat, self._crc)
        self.rows += len(data)

    def sync(self) -> None:
        """Make sure that what was appended is on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def block(self) -> dict[str, Any]:
        """Describe what was appended since the last record."""
        return {"rows": self.rows, "crc": self._crc, "dim": self.dim, "dtype": self.dtype.str}

    def recorded(self) -> None:
        """Begin the next block."""
        self._recorded, self._crc = self.rows, 0

    def holds(self, rows: int, crc: int) -> bool:
        """Tell whether the next block is there, up to so many rows and with this checksum."""
        known = max(0, self.rows)
        left = (rows - known) * self.width
        if rows < known or self._start + rows * self.width > os.fstat(self.file.fileno()).st_size:
            return False
        self.file.seek(self._start + known * self.width)
        found = 0
        while left > 0:
            piece = self.file.read(min(left, _BLOCK))
            if not piece:
                return False
            found, left = zlib.crc32(piece, found), left - len(piece)
        return found == crc

    def go_on(self, rows: int) -> None:
        """Count rows that are known to be good."""
        self.rows = self._recorded = rows

    def cut(self) -> None:
        """Drop what lies behind the rows that are good."""
        self._header(0)
        self.file.truncate(self._end())
        self.file.seek(self._end())

    def finish(self) -> None:
        """Write the number of rows and close."""
        self.file.flush()
        self.file.truncate(self._end())
        self._header(self.rows)
        self.file.close()

    def _end(self) -> int:
        return self._start + max(0, self.rows) * self.width


def _header(rows: int, dim: int | None, dtype: np.dtype[Any]) -> bytes:
    described = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (rows,) if dim is None else (rows, dim),
    }
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def plain_dtype(text: Any) -> np.dtype[Any]:
    """Return the dtype of that name, which must be one of numbers.

    Raises
    ------
    TypeError, ValueError
    """
    dtype = np.dtype(str(text))
    if dtype.kind not in "biuf":
        raise ValueError(f"not a type of numbers: {dtype}")
    return dtype


def opened(path: Path, *, create: bool = True) -> IO[bytes]:
    """Open a plain file to read and write; never one that a link leads to, or a pipe."""
    if not create and not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if create else 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=1 << 20)
