"""Codes that know which quantizer made them.

The same bytes mean other vectors to another codebook, and nothing about the bytes shows it. So what
`Quantizer.encode` returns carries the quantizer's identity, a file of codes has it beside itself, and
another quantizer refuses both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.types import Array

__all__ = ["Codes", "arrays_identity", "kind_of", "made_by", "read_note", "write_note"]

_PREFIX = "codes of "
_NOTE_LIMIT = 64 << 10
_HEAD = 1 << 20


class Codes(np.ndarray[Any, np.dtype[Any]]):
    """An array of codes with the identity of the quantizer that made them.

    It is a plain array in all else; slices keep the identity, ``np.asarray`` drops it.

    Attributes
    ----------
    quantizer : str or None
        `vwkit.Quantizer.identity` of the maker.
    """

    quantizer: str | None

    @classmethod
    def of(cls, array: Array, identity: str) -> Codes:
        """View an array as codes of that quantizer; nothing is copied."""
        codes = array.view(cls)
        codes.quantizer = identity
        return codes

    def __array_finalize__(self, other: object) -> None:
        self.quantizer = getattr(other, "quantizer", None)

    def __repr__(self) -> str:
        return repr(self.view(np.ndarray))


def arrays_identity(arrays: Mapping[str, Array]) -> str:
    """Return 16 hexadecimal digits that tell named arrays from all others (of SHA-256)."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        array = np.ascontiguousarray(array)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()[:16]


def kind_of(identity: str) -> str:
    """Return what a Stream of such codes has as its `kind`."""
    return _PREFIX + identity


def made_by(codes: Any) -> str | None:
    """Return the identity of what made codes, an array or a Stream; None if nothing tells."""
    if isinstance(codes, Codes):
        return codes.quantizer
    kind = getattr(codes, "kind", None)
    return kind.removeprefix(_PREFIX) if isinstance(kind, str) and _PREFIX in kind else None


# A note beside a file: ``codes.npy`` has ``codes.npy.json`` ------------------------------------


def write_note(path: Path, identity: str, note: Path | None = None) -> None:
    """Write beside a file of codes whose they are.

    Parameters
    ----------
    path : Path
        The finished file of codes.
    identity : str
        `vwkit.Quantizer.identity`.
    note : Path, optional
        Where to write, if not beside `path`.
    """
    text = json.dumps({"codes": _mark(path), "quantizer": identity}, indent=1)
    (note or _beside(path)).write_text(text + "\n", encoding="utf-8")


def read_note(path: Path) -> str | None:
    """Return the identity written beside a file of codes.

    None without a note, and where the file is no longer the one that the note was written for.
    """
    beside = _beside(path)
    try:
        if beside.stat().st_size > _NOTE_LIMIT:
            return None
        said = json.loads(beside.read_text(encoding="utf-8"))
        identity = said["quantizer"] if said["codes"] == _mark(path) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # no note, or a file of somebody else's that is called so
    return identity if isinstance(identity, str) else None


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _mark(path: Path) -> dict[str, Any]:
    """Tell a file by its size and the beginning of its content."""
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD)).hexdigest()
    return {"bytes": path.stat().st_size, "sha256_of_first_mib": head}
