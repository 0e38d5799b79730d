"""The row that fvecs, ivecs and bvecs share: a little-endian int32 d, then d components."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from vwkit.errors import FormatError
from vwkit.formats.remote import Place

__all__ = ["COMPONENT", "MAX_DIM", "check_rows", "plausible_dim", "record_bytes"]

COMPONENT: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"fvecs": np.dtype("<f4"), "ivecs": np.dtype("<i4"), "bvecs": np.dtype("u1")}
)

# No descriptor comes near; a larger number is text, another format, or an attack on our memory.
MAX_DIM = 1_000_000


def record_bytes(format: str, dim: int) -> int:
    """Return the size of one row in bytes, its dimension included."""
    return 4 + dim * COMPONENT[format].itemsize


def plausible_dim(head: bytes, path: Place, format: str) -> int:
    """Return the dimension that a file's first bytes claim.

    Raises
    ------
    FormatError
        If there are fewer than four bytes or the claim is not in 1 ... `MAX_DIM`.
    """
    if len(head) < 4:
        raise FormatError(
            f"{path}: ends after {len(head)} bytes, within the dimension of its first row; the file "
            "is truncated: fetch it again"
        )
    dim = int.from_bytes(head[:4], "little", signed=True)
    if not 1 <= dim <= MAX_DIM:
        raise FormatError(
            f"{path}: row 0 claims dimension {dim}, allowed are 1 to {MAX_DIM}; this is not a "
            f"{format} file"
        )
    return dim


def check_rows(
    records: npt.NDArray[np.uint8], dim: int, path: Place, numbers: npt.NDArray[np.int64]
) -> None:
    """Check the dimension of every row.

    Parameters
    ----------
    records : ndarray of uint8, shape (n, record bytes)
        Rows as stored.
    dim : int
        The dimension each must have.
    path : Path or RemotePlace
        Named in the error.
    numbers : ndarray of int64, shape (n,)
        The row numbers in the file.

    Raises
    ------
    FormatError
        Naming the first row that has another dimension.
    """
    found = np.ascontiguousarray(records[:, :4]).view("<i4")[:, 0]
    wrong = found != dim
    if wrong.any():
        at = int(wrong.argmax())
        raise FormatError(
            f"{path}: row {numbers[at]} (the first is 0) has dimension {found[at]}, expected {dim} "
            "as in row 0; the file is damaged, or not of this format"
        )
