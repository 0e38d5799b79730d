"""FLANN's own files: blocks of LZ4 behind a header, as pyflann-ibeis 2.5 writes and reads them.

A file is the header (80 bytes), then blocks of at most 64 KiB once unpacked, each behind its packed
length, and a length of 0. The header tells the first block's length. Of `autotuned`, a second such
file follows in the same one. No number of it lies in two blocks: the library would not find it.

What the library wrote is unpacked when an index is saved; what it shall read is written here, of
numbers that were looked at before. So it never reads what came from anywhere else.

Source: ``util/serialization.h``, ``util/saving.h`` and ``algorithms/nn_index.h`` of pyflann-ibeis 2.5.0.
"""

from __future__ import annotations

import errno
import importlib
import os
import struct
from types import TracebackType
from typing import Any, Protocol

from vwkit.errors import BackendError, PluginError

__all__ = ["AUTOTUNED", "BLOCK", "KDTREE", "KMEANS", "LINEAR", "Reader", "Writer"]

BLOCK = 1 << 16  # bytes of a block, unpacked
LINEAR, KDTREE, KMEANS, AUTOTUNED = 0, 1, 2, 255

# Signature, version, type of the numbers, algorithm, rows, columns, packed or not, bytes of the
# first block.
_HEADER = struct.Struct("=24s 16s i i Q Q Q Q")
_SIGNATURE = b"FLANN_IBEIS_INDEX_v2.0"
_VERSION = b"2.0.0"
_FLOAT32 = 8
_LENGTH = struct.Struct("=Q")
# Rows, columns, rows when built, whether vectors follow (they do not), last id, number of ids,
# whether some were removed, how many.
_BASE = struct.Struct("=Q Q Q ? Q Q ? Q")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Writable(Protocol):
    def write(self, data: Any, /) -> int: ...


class Reader:
    """What the library wrote into one file, unpacked block by block.

    Parameters
    ----------
    file : binary file
        Where the header begins.
    """

    def __init__(self, file: _Readable) -> None:
        self._file = file
        self._lz4 = _lz4()
        head = _HEADER.unpack(self._read(_HEADER.size))
        if head[0].rstrip(b"\0") != _SIGNATURE or head[2] != _FLOAT32:
            raise BackendError("flann wrote a file of another kind: is it pyflann-ibeis 2.5?")
        self.algorithm: int = head[3]
        self._past = b""
        self._block = self._unpacked(head[7])
        self._at = 0
        base = _BASE.unpack(self.take(_BASE.size))
        if base[3] or base[5] or base[6]:
            raise BackendError("flann wrote vectors or ids into its file, which is not expected")

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        parts = []
        while size:
            if self._at == len(self._block):
                (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
                if not length:
                    raise BackendError("flann's file ends where its trees go on")
                self._block, self._at = self._unpacked(length), 0
            part = self._block[self._at : self._at + size]
            parts.append(part)
            self._at += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def end(self) -> None:
        """Step behind the last block.

        Raises
        ------
        BackendError
            Something is left.
        """
        if self._at != len(self._block) or any(self._read(_LENGTH.size)):
            raise BackendError("flann's file goes on where its trees end")

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            # The library does not look whether all was written.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return data

    def _unpacked(self, size: int) -> bytes:
        packed = self._read(size)
        # Each block may point into the 64 KiB before it.
        block: bytes = self._lz4.decompress(packed, uncompressed_size=BLOCK, dict=self._past)
        self._past = (self._past + block)[-BLOCK:]
        return block


class Writer:
    """A file that the library will read; nothing in it is packed.

    Parameters
    ----------
    file : binary file
        Where to write, from the beginning.
    algorithm : int
        `KDTREE` or `KMEANS`.
    rows, dim : int
        Of the vectors that the library gets beside it.
    """

    def __init__(self, file: _Writable, algorithm: int, rows: int, dim: int) -> None:
        self._file = file
        first = _literal(_BASE.pack(rows, dim, rows, False, 0, 0, False, 0))
        head = (_SIGNATURE, _VERSION, _FLOAT32, algorithm, rows, dim, 1, len(first))
        file.write(_HEADER.pack(*head) + first)

    def block(self, content: Any) -> None:
        """Write 1 to `BLOCK` bytes, which begin and end between two numbers."""
        start = _start(len(content))
        self._file.write(_LENGTH.pack(len(start) + len(content)) + start)
        self._file.write(content)

    def blocks(self, content: memoryview, step: int) -> None:
        """Write records of `step` bytes, as many in a block as fit."""
        most = BLOCK // step * step
        for start in range(0, len(content), most):
            self.block(content[start : start + most])

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._file.write(_LENGTH.pack(0))


def _start(size: int) -> bytes:
    """Return what stands before bytes that LZ4 shall take as they are."""
    if size < 15:
        return bytes([size << 4])
    full, rest = divmod(size - 15, 255)
    return b"\xf0" + b"\xff" * full + bytes([rest])


def _literal(content: bytes) -> bytes:
    return _start(len(content)) + content


def _lz4() -> Any:
    try:
        return importlib.import_module("lz4.block")
    except ImportError as error:
        raise PluginError(f"index flann: saving needs lz4 ({error}): pip install lz4") from None
