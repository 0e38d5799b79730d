"""fvecs, ivecs and bvecs files: every row carries its own dimension.

Each vector is a little-endian int32 d followed by d components (float32, int32 or uint8); there is
no file header (http://corpus-texmex.irisa.fr). Since d is repeated, it is checked in every row that
is read and not in the first alone: that is what tells a damaged or a mixed file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vwkit.errors import FormatError
from vwkit.formats.base import VectorFile, opening
from vwkit.formats.remote import Place
from vwkit.formats.stored import StoredFile
from vwkit.formats.texmex_gz import GZIP_MAGIC, open_compressed
from vwkit.formats.texmex_rows import COMPONENT, check_rows, plausible_dim, record_bytes

__all__ = ["open_texmex"]

# Rows lose their dimension in pieces of this many bytes, so that no chunk is in memory twice.
_PIECE = 1 << 24

# Rows looked at when a file's size is odd, to tell a truncated file from one of another format.
_LOOK = 1000


class TexmexFile(StoredFile):
    """An fvecs, ivecs or bvecs file that is not compressed."""

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        width = record_bytes(self.format, self.dim)
        out = np.empty((stop - start, self.dim), COMPONENT[self.format])
        step = max(1, _PIECE // width)
        for first in range(start, stop, step):
            last = min(stop, first + step)
            records = self._bytes(first * width, (last - first) * width).reshape(-1, width)
            check_rows(records, self.dim, self.path, np.arange(first, last))
            out.view(np.uint8)[first - start : last - start] = records[:, 4:]
        return out.astype(self.dtype, copy=False)

    def _take_mapped(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        width = record_bytes(self.format, self.dim)
        mapped = np.asarray(self._map(0, np.dtype(np.uint8), (self.rows, width)))
        out = np.empty((len(rows), self.dim), COMPONENT[self.format])
        step = max(1, _PIECE // width)
        for first in range(0, len(rows), step):
            wanted = rows[first : first + step]
            records = mapped.take(wanted, axis=0)
            check_rows(records, self.dim, self.path, wanted)
            out.view(np.uint8)[first : first + step] = records[:, 4:]
        return out.astype(self.dtype, copy=False)

    def _some(self, rows: npt.NDArray[np.int64], start: int, stop: int) -> npt.NDArray[Any]:
        width = record_bytes(self.format, self.dim)
        records = self._bytes(start * width, (stop - start) * width).reshape(-1, width)[
            rows - start
        ]
        check_rows(records, self.dim, self.path, rows)
        components = np.ascontiguousarray(records[:, 4:]).view(COMPONENT[self.format])
        return components.astype(self.dtype, copy=False)

    def look(self) -> None:
        """Check the dimensions of the first rows, reading nothing else of them."""
        width = record_bytes(self.format, self.dim)
        rows = min(self.rows, _LOOK)
        heads = self._bytes(0, rows * width).reshape(rows, width)[:, :4]
        check_rows(heads, self.dim, self.path, np.arange(rows))


def open_texmex(path: Place, format: str, size: int, partial: bool) -> VectorFile:
    """Open an fvecs, ivecs or bvecs file, compressed with gzip or not.

    Parameters
    ----------
    path, format, size
        The file, its format (a key of `COMPONENT`) and its size in bytes.
    partial : bool
        Accept a file that ends within a row: its whole rows are used.

    Raises
    ------
    FormatError
        If the first row claims no plausible dimension, or the file ends within a row.
    """
    if size == 0:
        raise FormatError(f"{path}: 0 rows: the file is empty")
    with opening(path), path.open("rb") as file:
        head = file.read(4)
    named_gz = path.name.lower().endswith(".gz")
    if head.startswith(GZIP_MAGIC) or (named_gz and GZIP_MAGIC.startswith(head)):
        return open_compressed(path, format, partial)
    if named_gz:
        raise FormatError(
            f"{path}: does not begin like a gzip file; if something has decompressed it already, "
            f"rename it to {path.stem}"
        )
    dim = plausible_dim(head, path, format)
    width = record_bytes(format, dim)
    rows, spare = divmod(size, width)
    opened = TexmexFile(
        path, format, rows=rows, dim=dim, dtype=COMPONENT[format], size=size, width=width
    )
    if rows == 0:
        raise FormatError(
            f"{path}: 0 whole rows: row 0 claims dimension {dim}, which takes "
            f"{width:,} bytes, and the file has {size:,}; it is truncated, or "
            f"not a {format} file"
        )
    if spare:
        opened.look()
        if not partial:
            raise FormatError(
                f"{path}: the file is truncated: row {rows - 1} is its last whole row (the first "
                f"is 0) and {spare} bytes of row {rows} follow; fetch it again, or open it with "
                f"partial=True to use its {rows} whole rows"
            )
        opened.cut, opened.partial_bytes = True, spare
    return opened
