"""Files from URLs: fetched once, checked against the hash that was asked for, kept in the cache.

Nothing is fetched without its SHA-256: what comes is what was meant, or an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vwkit.cache import cache_folder
from vwkit.errors import DataError, ParameterError, VwkitError
from vwkit.hashing import file_sha256
from vwkit.jobs import job

__all__ = [
    "Content",
    "another_file",
    "fetch_checked",
    "fetched_file",
    "is_sha256",
    "is_url",
    "kept_file",
    "web_content",
]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_BLOCK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte

Content = AbstractContextManager[tuple[int | None, Callable[[int], Any]]]
"""How many bytes there are, where that is known, and what reads the next ones."""


def is_url(value: Any) -> bool:
    """Tell whether a value is text that begins like a URL, of whatever scheme."""
    return isinstance(value, str) and _URL.match(value) is not None


def is_sha256(value: str) -> bool:
    """Tell whether a text is a SHA-256 in hexadecimal."""
    return _SHA256.fullmatch(value) is not None


def kept_file(sha256: str, suffix: str) -> Path:
    """Return where the model file of this hash is kept in the cache folder, or will be."""
    return cache_folder() / "models" / f"{sha256.lower()}{suffix}"


def fetched_file(url: str, sha256: str, suffix: str, most_bytes: int) -> Path:
    """Return the file of a URL from the cache folder, fetched if it is not there.

    Parameters
    ----------
    url : str
    sha256 : str
        Of the file, in hexadecimal.
    suffix : str
        Of the kept file's name, such as ``".onnx"``.
    most_bytes : int
        A larger file is refused.

    Raises
    ------
    DataError, ParameterError
        As `fetch_checked`.
    """
    kept = kept_file(sha256, suffix)
    with contextlib.suppress(OSError):
        if file_sha256(kept) == sha256.lower():
            return kept
    fetch_checked(url, sha256, kept, lambda: web_content(url), most_bytes=most_bytes)
    return kept


def fetch_checked(
    named: str,
    sha256: str,
    kept: Path,
    content: Callable[[], Content],
    *,
    most_bytes: int | None = None,
) -> None:
    """Write what comes to a place, if it is what was meant; else nothing is there.

    Parameters
    ----------
    named : str
        What messages call it.
    sha256 : str
        In hexadecimal.
    kept : Path
    content : callable
        Opens what is to come.
    most_bytes : int, optional
        More is refused.

    Raises
    ------
    DataError
        It cannot be fetched, is too large, ends early, there is no room for it, or the folder cannot
        be written.
    ParameterError
        What was fetched has another hash.
    """
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".part", dir=kept.parent)
    except OSError as error:
        raise DataError(f"{kept.parent}: cannot be written: {error.strerror}") from None
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as out, content() as (total, read):
            _need_room(named, total, kept.parent, most_bytes)
            digest, done = hashlib.sha256(), 0
            while block := read(_BLOCK):
                done += len(block)
                if most_bytes is not None and done > most_bytes:
                    raise _too_large(named, most_bytes)
                digest.update(block)
                out.write(block)
                job().progress(done, total, "bytes")
        if total is not None and done != total:
            raise DataError(f"{named}: ended after {done:,} of {total:,} bytes; try again")
        if digest.hexdigest() != sha256.lower():
            raise another_file(named, digest.hexdigest(), sha256)
        part.replace(kept)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, VwkitError):
            raise
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{named}: cannot be fetched: {reason}") from None
    finally:
        part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            kept.parent.rmdir()  # only if nothing is in it


def _need_room(named: str, total: int | None, folder: Path, most_bytes: int | None) -> None:
    if total is None:
        return
    if most_bytes is not None and total > most_bytes:
        raise _too_large(named, most_bytes)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise DataError(
            f"{named}: has {total:,} bytes, and {folder} has room for {free:,}; set VWKIT_CACHE to a "
            "folder with more"
        )


def _too_large(named: str, most_bytes: int) -> DataError:
    return DataError(f"{named}: more than {most_bytes:,} bytes; refused")


def another_file(named: str, found: str, wanted: str) -> ParameterError:
    """Return the error that says that a file has another hash than was asked for."""
    return ParameterError.of(
        "sha256", f"{named} has {found}, not {wanted}; it is another file and is not used"
    )


@contextlib.contextmanager
def web_content(url: str) -> Iterator[tuple[int | None, Callable[[int], Any]]]:
    """Open a URL with what Python has; the server need not say how much there is."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
        length = answer.headers.get("Content-Length") or ""
        yield (int(length) if length.isdigit() else None), answer.read
