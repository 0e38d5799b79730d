"""fvecs, ivecs and bvecs under gzip, read as a stream.

SIFT1B comes as one 92 GB ``bigann_base.bvecs.gz`` of which most people fetch a first part, so a file
that is cut anywhere is ordinary here. Python's own `gzip` loses what it has already decompressed when
it meets the end too early; driving the decompressor directly keeps every byte.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from vwkit.errors import FormatError, UnsupportedError
from vwkit.formats.ahead import read_ahead
from vwkit.formats.base import VectorFile, opening
from vwkit.formats.gunzip import damage, decompressor, held_back
from vwkit.formats.remote import Place
from vwkit.formats.texmex_rows import COMPONENT, check_rows, plausible_dim, record_bytes

__all__ = ["GZIP_MAGIC", "inflate", "open_compressed"]

# The two magic bytes and the only compression method there is.
GZIP_MAGIC = b"\x1f\x8b\x08"

_COMPRESSED_BLOCK = 1 << 16
# Bounds what one step hands out, however well a hostile file compresses.
_BLOCK = 1 << 20
# So many of them at most, and no more than a chunk, are decompressed while the rows before are used.
_AHEAD = 8


class _CutError(Exception):
    """The compressed stream ends before its end mark."""


def inflate(path: Place, *, exact: bool = False) -> Generator[bytes, None, None]:
    """Yield the decompressed content of a gzip file in pieces of at most 1 MiB.

    Several gzip members one after the other, and zero bytes after the last, are allowed as in
    gzip itself. Of a file that is cut, the last bytes may be missing without `exact`.

    Raises
    ------
    _CutError
        After all that could be decompressed, if the file ends too early.
    zlib.error, isal.isal_zlib.error
        If it is damaged; see `vwkit.formats.gunzip.damage`.
    """
    with opening(path):
        file = path.open("rb", buffering=0)
    with file:
        member, begun = decompressor(exact=exact), False
        while True:
            with opening(path):
                block = file.read(_COMPRESSED_BLOCK)
            if not block:
                break
            while block:
                if member.eof:
                    block = block.lstrip(b"\0")
                    if not block:
                        break
                    member = decompressor(exact=exact)
                begun = True
                piece = member.decompress(block, _BLOCK)
                block = member.unused_data if member.eof else member.unconsumed_tail
                if piece:
                    yield piece
        # What zlib still holds after its input is used up.
        while begun and not member.eof:
            piece = member.decompress(b"", _BLOCK)
            if not piece:
                break
            yield piece
    if not member.eof:
        raise _CutError


class CompressedFile(VectorFile):
    """An fvecs, ivecs or bvecs file under gzip: rows come in order, from the first.

    Parameters
    ----------
    partial : bool
        Whether a cut file is accepted. Then a whole pass over it sets `cut` and `partial_bytes`.
    """

    def __init__(self, path: Place, format: str, *, dim: int, partial: bool) -> None:
        super().__init__(path, format, rows=None, dim=dim, dtype=COMPONENT[format])
        self._partial = partial

    def _chunks(self, rows_per_chunk: int) -> Iterator[npt.NDArray[Any]]:
        width = record_bytes(self.format, self.dim)
        ahead = max(2, min(_AHEAD, rows_per_chunk * width // _BLOCK))
        done, cut = 0, False
        # Grown by what the file really holds: its claims alone make us allocate nothing.
        buffer = bytearray()
        try:
            with closing(read_ahead(inflate(self.path), ahead)) as pieces:
                for piece in pieces:
                    buffer += piece
                    ready = len(buffer) // (rows_per_chunk * width)
                    for chunk in range(ready):
                        yield self._rows(buffer, chunk * rows_per_chunk, rows_per_chunk, done)
                        done += rows_per_chunk
                    if ready:
                        del buffer[: ready * rows_per_chunk * width]
        except _CutError:
            cut = True
        except damage() as error:
            raise FormatError(
                f"{self.path}: the compressed data are damaged after about "
                f"{done + len(buffer) // width} whole rows: {error}; fetch it again"
            ) from error
        if cut and len(buffer) % width >= width - held_back():
            # The last row may be whole, and which rows there are must not depend on a library.
            buffer += self._behind(done * width + len(buffer))
        rest, spare = divmod(len(buffer), width)
        total = done + rest
        if (cut or spare) and not self._partial:
            raise FormatError(
                f"{self.path}: the file is cut: {total} whole rows could be read and {spare} bytes "
                f"of row {total} (the first is 0); fetch the rest, or open it with partial=True to "
                "use its whole rows"
            )
        if not total:
            raise FormatError(f"{self.path}: 0 whole rows: the file is cut within its first row")
        if rest:
            yield self._rows(buffer, 0, rest, done)
        self.rows, self.cut, self.partial_bytes = total, cut or spare > 0, spare

    def _behind(self, known: int) -> bytes:
        """Return what a cut file holds behind the bytes that a fast library gave of it."""
        seen, found = 0, b""
        with suppress(_CutError, *damage()):
            for piece in inflate(self.path, exact=True):
                found += piece[max(0, known - seen) :]
                seen += len(piece)
        return found

    def _rows(self, buffer: bytearray, first: int, count: int, done: int) -> npt.NDArray[Any]:
        """Copy rows out of `buffer`; nothing keeps a view of it, so that it can grow again."""
        width = record_bytes(self.format, self.dim)
        flat = np.frombuffer(buffer, np.uint8, count * width, first * width)
        records = flat.reshape(count, width)
        check_rows(records, self.dim, self.path, np.arange(done, done + count))
        # `ascontiguousarray` would hand on a view of the buffer if there is one row.
        components = np.array(records[:, 4:], order="C").view(COMPONENT[self.format])
        return components.astype(self.dtype, copy=False)

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        raise UnsupportedError(
            f"{self.path}: a compressed file is read in order, from its first row; use chunks(), or "
            "decompress it with gunzip"
        )

    def _take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        step = max(1, _BLOCK // record_bytes(self.format, self.dim))
        out, start, found = [], 0, 0
        for chunk in self._chunks(step):
            until = int(np.searchsorted(rows, start + len(chunk)))
            out.append(chunk[rows[found:until] - start])
            start, found = start + len(chunk), until
            if found == len(rows):
                return np.concatenate(out)
        raise self._outside(int(rows[-1]))


def open_compressed(path: Place, format: str, partial: bool) -> CompressedFile:
    """Open a compressed fvecs, ivecs or bvecs file.

    Raises
    ------
    FormatError
        If the first row claims no plausible dimension, or not even that can be read.
    """
    head = b""
    try:
        with closing(inflate(path)) as pieces:
            for piece in pieces:
                head += piece
                if len(head) >= 4:
                    break
    except _CutError:
        if len(head) < 4:
            message = f"{path}: 0 whole rows: the file is cut within its first row; fetch it again"
            raise FormatError(message) from None
    except damage() as error:
        raise FormatError(f"{path}: the compressed data are damaged: {error}") from error
    if not head:
        raise FormatError(f"{path}: 0 rows: there is nothing in it")
    return CompressedFile(path, format, dim=plausible_dim(head, path, format), partial=partial)
