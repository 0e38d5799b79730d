"""fbin, u8bin, i8bin and ibin: the files of the billion-scale ANN benchmarks.

Two little-endian uint32, rows and dimension, then all components row by row
(https://big-ann-benchmarks.com).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from vwkit.errors import FormatError
from vwkit.formats.base import VectorFile, opening
from vwkit.formats.remote import Place
from vwkit.formats.stored import FlatFile

__all__ = ["COMPONENT", "HEADER", "open_bigann"]

COMPONENT: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "fbin": np.dtype("<f4"),
        "u8bin": np.dtype("u1"),
        "i8bin": np.dtype("i1"),
        "ibin": np.dtype("<i4"),
    }
)

HEADER = struct.Struct("<II")


def open_bigann(path: Place, format: str, size: int, partial: bool) -> VectorFile:
    """Open an fbin, u8bin, i8bin or ibin file.

    Parameters
    ----------
    path, format, size
        The file, its format (a key of `COMPONENT`) and its size in bytes.
    partial : bool
        Accept a file that ends before its header says, such as the first part of a larger one.

    Raises
    ------
    FormatError
        If the header and the size of the file disagree, or it holds no rows.
    """
    if size == 0:
        raise FormatError(f"{path}: 0 rows: the file is empty")
    with opening(path), path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        raise FormatError(
            f"{path}: has {size} bytes, a {format} file begins with 8: it is truncated"
        )
    rows, dim = HEADER.unpack(head)
    if rows == 0 or dim == 0:
        raise FormatError(
            f"{path}: its header claims {rows} rows of dimension {dim}: nothing to read"
        )
    width = dim * COMPONENT[format].itemsize
    expected = HEADER.size + rows * width
    whole, spare = divmod(size - HEADER.size, width)
    cut = partial and size < expected and whole > 0
    if size != expected and not cut:
        advice = (
            f"it is truncated; fetch it again, or open it with partial=True to use its {whole} "
            "whole rows"
            if size < expected
            else f"it is not a {format} file, or its header is not its own"
        )
        raise FormatError(
            f"{path}: its header claims {rows} rows of dimension {dim}, that is {expected:,} bytes, "
            f"but the file has {size:,}; {advice}"
        )
    opened = FlatFile(
        path,
        format,
        rows=whole if cut else rows,
        dim=dim,
        dtype=COMPONENT[format],
        size=size,
        offset=HEADER.size,
    )
    if cut:
        opened.cut, opened.partial_bytes = True, spare
    return opened
