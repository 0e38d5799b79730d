"""NumPy's own files, two-dimensional and of plain numbers.

The header is a line of Python (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html);
it is picked apart here and never evaluated, and what it claims is compared with the size of the file
before anything is mapped.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from vwkit.errors import FormatError, UnsupportedError
from vwkit.formats.base import VectorFile, opening
from vwkit.formats.remote import Place, RemotePlace
from vwkit.formats.stored import FlatFile, StoredFile

__all__ = ["MAGIC", "header", "open_npy"]

MAGIC = b"\x93NUMPY"

# As in NumPy. Headers of two-dimensional arrays take 118 bytes.
_MAX_HEADER = 10_000

_DESCR = re.compile(r"""['"]descr['"]\s*:\s*(?:['"]([^'"]*)['"]|(\[))""")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)\b""")
# No nested repeats here: a hostile header would keep such a pattern busy for ever.
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\d\s,L]{0,200})\)""")
# Python 2 wrote (10000L, 128L).
_EXTENT = re.compile(r"\s*(\d{1,18})L?\s*")
_NUMBER = re.compile(r"([<>|=]?)([iuf])([1248])")


class FortranFile(StoredFile):
    """An ``npy`` file stored column by column; rows are gathered as they are read."""

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

    def _columns(self) -> npt.NDArray[Any]:
        # Mapped anew each time, so that pages read before are given back.
        return np.asarray(self._map(self._offset, self._stored, (self.dim, self.rows)))

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return np.array(self._columns()[:, start:stop].T, self.dtype, order="C")

    def _take_mapped(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return np.array(self._columns()[:, rows].T, self.dtype, order="C")


def open_npy(path: Place, format: str, size: int, partial: bool) -> VectorFile:
    """Open an ``npy`` file.

    Raises
    ------
    FormatError
        If it is not one, is not two-dimensional, holds something else than integers or floats of
        1 to 8 bytes, holds no rows, or its header and its size disagree.
    """
    if size == 0:
        raise FormatError(f"{path}: 0 rows: the file is empty")
    text, offset = _header_text(path)
    stored = _dtype(text, path)
    order, extents = _ORDER.search(text), _shape(text)
    if order is None or extents is None:
        raise FormatError(f"{path}: its npy header cannot be read; the file is damaged")
    if len(extents) != 2:
        raise FormatError(
            f"{path}: holds an array of shape {extents}; vectors need two dimensions, "
            "(rows, components): reshape it and save it again"
        )
    rows, dim = extents
    if rows == 0 or dim == 0:
        raise FormatError(f"{path}: 0 rows or components: holds an array of shape {extents}")
    expected = offset + rows * dim * stored.itemsize
    if size != expected:
        state = "is truncated" if size < expected else "holds more than one array, or is damaged"
        raise FormatError(
            f"{path}: its header claims {rows} rows of {dim} {stored}, that is {expected:,} bytes, "
            f"but the file has {size:,}: it {state}"
        )
    by_column = order[1] == "True"
    if by_column and isinstance(path, RemotePlace):
        raise UnsupportedError(
            f"{path}: is stored column by column, so that no row can be read from afar by itself; "
            "save it again with np.save(name, np.ascontiguousarray(array)), or give its sha256 too "
            "to have it fetched whole"
        )
    kind = FortranFile if by_column else FlatFile
    return kind(path, format, rows=rows, dim=dim, dtype=stored, size=size, offset=offset)


def _header_text(path: Place) -> tuple[str, int]:
    """Return the header's text and where the data begin."""
    with opening(path), path.open("rb") as file:
        start = file.read(12)
        if not start.startswith(MAGIC):
            raise FormatError(f"{path}: is not an npy file: it does not begin with NumPy's mark")
        version = start[6:8]
        if version not in (b"\1\0", b"\2\0", b"\3\0"):
            raise FormatError(
                f"{path}: has an npy header of unknown version; this reads 1, 2 and 3"
            )
        used = 10 if version == b"\1\0" else 12
        length = int.from_bytes(start[8:used], "little")
        if len(start) < used or length > _MAX_HEADER:
            raise FormatError(f"{path}: its npy header cannot be read; the file is damaged")
        # The header of version 1 begins two bytes earlier than those of the others.
        begun = start[used:]
        text = (begun + file.read(max(0, length - len(begun))))[:length]
    if len(text) < length:
        raise FormatError(f"{path}: ends within its npy header: it is truncated")
    return text.decode("latin-1"), used + length


def _shape(text: str) -> tuple[int, ...] | None:
    """Return the shape a header claims, None if it cannot be made out."""
    found = _SHAPE.search(text)
    if found is None:
        return None
    parts = found[1].split(",")
    if not parts[-1].strip():
        parts.pop()
    extents = [_EXTENT.fullmatch(part) for part in parts]
    return None if None in extents else tuple(int(extent[1]) for extent in extents if extent)


def _dtype(text: str, path: Place) -> np.dtype[Any]:
    """Return the element type a header names; nothing but plain numbers is let through."""
    found = _DESCR.search(text)
    if found is None:
        raise FormatError(f"{path}: its npy header cannot be read; the file is damaged")
    if found[2]:
        raise FormatError(
            f"{path}: holds records with fields; save the field with the vectors as a "
            "two-dimensional array"
        )
    if "O" in found[1]:
        raise FormatError(
            f"{path}: holds Python objects, which are never loaded; save plain numbers"
        )
    number = _NUMBER.fullmatch(found[1])
    if number is None or number[2] + number[3] == "f1":
        raise FormatError(
            f"{path}: holds elements of type {found[1]!r}; vectors are integers of 1 to 8 bytes or "
            "floats of 2 to 8 bytes: convert it with astype and save it again"
        )
    return np.dtype(found[1])


def header(rows: int, dim: int, dtype: np.dtype[Any]) -> bytes:
    """Return the header of a C-ordered array: 128 bytes, however many rows there are.

    A fixed length lets a writer fill in the rows once it has counted them.
    """
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}"
    return MAGIC + b"\1\0" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"
