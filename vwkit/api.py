"""A few functions that users call and no module needs: `backends`, `read`, `write`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vwkit.builtin.readers import open_stream
from vwkit.codes import made_by, write_note
from vwkit.data import as_data
from vwkit.errors import UnsupportedError
from vwkit.plugins import registry, unavailable
from vwkit.sparse import Sparse
from vwkit.stream import Stream

__all__ = ["backends", "read", "write"]


def backends() -> dict[str, dict[str, type[Any]]]:
    """Return every usable backend as ``{role: {name: class}}``.

    Examples
    --------
    >>> import vwkit
    >>> vwkit.backends()["index"]["exact"]
    <class 'vwkit.builtin.exact.Exact'>
    """
    known = registry()
    return {
        role: {
            name: known.entries[role, name][0].cls
            for name in known.names(role)
            if len(known.entries[role, name]) == 1
            and unavailable(known.entries[role, name][0].cls) is None
        }
        for role in known.roles()
    }


def read(path: str | Path, format: str | None = None) -> Stream:
    """Open a descriptor file; nothing is read before it is asked for.

    Parameters
    ----------
    path : path or URL
        ``.fvecs``, ``.ivecs``, ``.bvecs`` (also ``.gz``), ``.npy``, ``.fbin``, ``.u8bin`` or the
        Oxford5k binary. Text that begins like a URL (``s3://…``, ``https://…``) is read from
        there, in parts, through fsspec; it takes ``pip install 'vwkit[remote]'``.
    format : str, optional
        Its format, where the name does not tell.

    Raises
    ------
    FormatError
        Unknown format, or truncated; the text names file and row.
    DataError
        A URL cannot be reached, or there is no such file.
    """
    return open_stream(path, format)


def write(path: str | Path, vectors: Any) -> int:
    """Write (n, d) vectors to a descriptor file (format by its name) and return n.

    Codes get a small file beside theirs, ``codes.npy.json``, that names their quantizer; `read`
    looks for it.

    Raises
    ------
    FormatError
        The format does not hold such numbers.
    """
    data = as_data(vectors)
    if isinstance(data, Sparse):
        raise UnsupportedError("descriptor files hold dense vectors; pass .toarray()")
    stream = data if isinstance(data, Stream) else Stream.from_array(np.asanyarray(data))
    rows = stream.write(path)
    maker = made_by(vectors)
    if maker is not None:
        write_note(Path(path), maker)
    return rows
