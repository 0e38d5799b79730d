"""Files from URLs: fetched once, checked against the hash that was asked for, kept in the cache.

Nothing is fetched without its SHA-256: what comes is what was meant, or an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from vwkit.cache import cache_folder
from vwkit.errors import DataError, ParameterError, VwkitError
from vwkit.hashing import file_sha256
from vwkit.jobs import job

__all__ = ["fetched_file", "is_sha256", "is_url", "kept_file"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_BLOCK = 1 << 20


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
    DataError
        It cannot be fetched, is too large, or the cache folder cannot be written.
    ParameterError
        What was fetched has another hash; it is not kept.
    """
    sha256 = sha256.lower()
    kept = kept_file(sha256, suffix)
    with contextlib.suppress(OSError):
        if file_sha256(kept) == sha256:
            return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".part", dir=kept.parent)
    except OSError as error:
        raise DataError(f"{kept.parent}: cannot be written: {error.strerror}") from None
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            found = _download(url, file, most_bytes)
        if found != sha256:
            raise ParameterError.of(
                "sha256", f"{url} has {found}, not {sha256}; it is another file and was not kept"
            )
        part.replace(kept)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, VwkitError):
            raise
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url}: cannot be fetched: {reason}") from None
    finally:
        part.unlink(missing_ok=True)
    return kept


def _download(url: str, file: Any, most_bytes: int) -> str:
    """Write what is behind a URL to a file; return its hash."""
    digest = hashlib.sha256()
    done = 0
    with urllib.request.urlopen(url, timeout=60) as answer:
        length = answer.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        while block := answer.read(_BLOCK):
            done += len(block)
            if done > most_bytes:
                raise DataError(f"{url}: more than {most_bytes:,} bytes; refused")
            digest.update(block)
            file.write(block)
            job().progress(done, total, "bytes")
    return digest.hexdigest()
