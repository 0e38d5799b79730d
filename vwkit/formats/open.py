"""Opening a descriptor file: which format it is, by its name and its first bytes."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from vwkit.errors import ParameterError
from vwkit.formats.base import (
    FORMATS,
    UnknownFormatError,
    VectorFile,
    opening,
    regular_size,
)
from vwkit.formats.bigann import open_bigann
from vwkit.formats.npy import MAGIC, open_npy
from vwkit.formats.oxford import open_oxford
from vwkit.formats.remote import Place, RemotePlace, place_of
from vwkit.formats.texmex import open_texmex

__all__ = ["check_format", "format_of_name", "known_formats", "open_vectors"]

_OPENERS: Mapping[str, Callable[[Place, str, int, bool], VectorFile]] = MappingProxyType(
    {
        "fvecs": open_texmex,
        "ivecs": open_texmex,
        "bvecs": open_texmex,
        "npy": open_npy,
        "oxford-sift": open_oxford,
        "fbin": open_bigann,
        "u8bin": open_bigann,
        "i8bin": open_bigann,
        "ibin": open_bigann,
    }
)

# The benchmarks' own name for the first rows of a larger file: base.1B.u8bin.crop_nb_10000000.
_CROP = re.compile(r"\.crop_nb_\d+$")


def open_vectors(
    path: str | os.PathLike[str] | RemotePlace, format: str | None = None, *, partial: bool = False
) -> VectorFile:
    """Open a descriptor file.

    Only its size and its first bytes are read.

    Parameters
    ----------
    path : path-like or str
        The file; text that begins like a URL (``s3://…``) is read from there, in parts.
    format : str, optional
        A key of `FORMATS`; by default it follows from the file's name, for ``npy`` also from its
        content.
    partial : bool
        Accept an ``fvecs``, ``ivecs``, ``bvecs`` (compressed or not) or ``*bin`` file that ends
        early, such as the first part of SIFT1B: its whole rows are used, and `VectorFile.cut` and
        `VectorFile.partial_bytes` tell what was left. A damaged file is never accepted.

    Returns
    -------
    VectorFile

    Raises
    ------
    MissingFileError
        If there is no such file.
    MissingLibraryError
        If a package is missing that reads such a URL.
    DataError
        If a store cannot be reached, or refuses.
    FormatError
        If it cannot be read, is truncated, empty, or not of the format it claims.
    ParameterError
        If `format` is not a known one.
    """
    if format is not None:
        check_format(format)
    place = place_of(path)
    size = place.size if isinstance(place, RemotePlace) else regular_size(place)
    format = format or format_of_name(place.name) or _format_of_content(place)
    if format is None:
        raise UnknownFormatError(
            f"{place}: not a known kind of descriptor file. Known are {known_formats()}. If you know "
            "its format, name it: `use: bvecs` in a spec, format='bvecs' in Python"
        )
    return _OPENERS[format](place, format, size, partial)


def check_format(format: str) -> None:
    """Raise `ParameterError` unless `format` is a key of `FORMATS`."""
    if format not in FORMATS:
        near = difflib.get_close_matches(str(format), FORMATS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ParameterError(
            f"unknown descriptor format {format!r}; known are {', '.join(FORMATS)}{hint}"
        )


def format_of_name(name: str) -> str | None:
    """Return the format that a file's name means, or None."""
    name = _CROP.sub("", name.lower())
    for format, known in FORMATS.items():
        if name.endswith(known.extensions):
            return format
    return None


def known_formats() -> str:
    """Return all formats with their endings, for messages."""
    return ", ".join(f"{name} ({', '.join(it.extensions)})" for name, it in FORMATS.items())


def _format_of_content(path: Place) -> str | None:
    # The other formats have no mark of their own: guessing them would read rubbish sooner or later.
    with opening(path), path.open("rb") as file:
        return "npy" if file.read(len(MAGIC)) == MAGIC else None
