"""Descriptor files that a spec names by URL: read in parts where they lie, or fetched once.

With a ``sha256`` the file is fetched whole into the cache folder, checked, and then like any file.
Without one it stays where it is: its rows are read in parts, and what its store says of its content
(an ETag, a generation, a time) stands for the hash that a file on disk would have.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vwkit.cache import Cache, cache_folder
from vwkit.errors import DataError, ParameterError, VwkitError
from vwkit.formats.http_ranges import NoPartsError
from vwkit.formats.remote import (
    MissingLibraryError,
    Place,
    open_url,
)
from vwkit.formats.urls import local_of_url, name_of_url, shown_url
from vwkit.jobs import job

__all__ = ["UrlFile", "fetched_to", "file_of", "place_key", "said_key"]

_BLOCK = 1 << 20


@dataclass(frozen=True)
class UrlFile:
    """A file that a spec names by URL; it stands where a `Path` stands.

    Attributes
    ----------
    url : str
    sha256 : str or None
        In hexadecimal. With it the file is fetched whole, without it is read in parts.
    """

    url: str
    sha256: str | None = None

    def __str__(self) -> str:
        return shown_url(self.url)

    @property
    def name(self) -> str:
        """The file name in the URL."""
        return name_of_url(self.url)


def fetched_to(file: UrlFile) -> Path:
    """Return where in the cache folder a file with a ``sha256`` is kept, or will be."""
    # Its name tells its format, and messages speak of it.
    name = Path(file.name).name or "file"
    return cache_folder() / "files" / str(file.sha256).lower() / name


def file_of(named: Path | UrlFile, *, fetch: bool = True) -> Place:
    """Return where to read what a spec names, fetched first if it has a ``sha256``.

    Without `fetch`, a file that was not fetched before is looked at where it lies.

    Raises
    ------
    ParameterError
        What was fetched has another hash; it is not kept.
    DataError
        It cannot be fetched, there is no room for it, or the cache folder cannot be written.
    VwkitError
        As `vwkit.formats.open_vectors`, where it is read in parts.
    """
    if isinstance(named, Path):
        return named
    local = local_of_url(named.url)
    if named.sha256 is None:
        return local or open_url(named.url)
    wanted = named.sha256.lower()
    kept = local or fetched_to(named)
    cache = Cache()
    try:
        with contextlib.suppress(OSError):
            found = cache.file_key(kept)
            if found == wanted:
                with contextlib.suppress(OSError):
                    os.utime(kept.parent)
                return kept
            if local is not None:
                raise _another(named, found)
    finally:
        cache.close()
    if local is None and not fetch:
        return open_url(named.url)
    if local is None:
        _fetch(named, kept)
    return kept


def place_key(cache: Cache, place: Place) -> Any:
    """Return what tells the content of a file from any other, for keys of the cache.

    Raises
    ------
    DataError
        It is at a URL, and its store says nothing that changes with its content.
    """
    if isinstance(place, Path):
        return cache.file_key(place)
    if place.mark is None:
        raise DataError(
            f"{place}: its store says neither an ETag nor a time of its last change, so a run could "
            "not know whether it is still the same; give its sha256 too, and it is fetched whole"
        )
    return {"url": place.url, "size": place.size, "mark": list(place.mark)}


def said_key(named: Path | UrlFile) -> str | None:
    """Return the key of a file where the spec says it: its ``sha256``."""
    return named.sha256.lower() if isinstance(named, UrlFile) and named.sha256 else None


# Fetching ----------------------------------------------------------------------------------------


def _fetch(file: UrlFile, kept: Path) -> None:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".part", dir=kept.parent)
    except OSError as error:
        raise DataError(f"{kept.parent}: cannot be written: {error.strerror}") from None
    part = Path(name)
    digest = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as out, _content(file) as (total, read):
            free = shutil.disk_usage(kept.parent).free
            if total > free:
                raise DataError(
                    f"{file}: has {total:,} bytes, and {kept.parent} has room for {free:,}; set "
                    "VWKIT_CACHE to a folder with more"
                )
            done = 0
            while block := read(_BLOCK):
                digest.update(block)
                out.write(block)
                done += len(block)
                job().progress(done, total, "bytes")
        if done != total:
            raise DataError(f"{file}: ended after {done:,} of {total:,} bytes; try again")
        if digest.hexdigest() != str(file.sha256).lower():
            raise _another(file, digest.hexdigest())
        part.replace(kept)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, VwkitError):
            raise
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{file}: cannot be fetched: {reason}") from None
    finally:
        part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            kept.parent.rmdir()  # only if nothing is in it


def _another(file: UrlFile, found: str) -> ParameterError:
    return ParameterError.of(
        "sha256", f"{file} has {found}, not {file.sha256}; it is another file and is not used"
    )


@contextlib.contextmanager
def _content(file: UrlFile) -> Iterator[tuple[int, Callable[[int], Any]]]:
    """Open a URL from its beginning; give its size and what reads the next bytes."""
    try:
        place = open_url(file.url)
    except (MissingLibraryError, NoPartsError):
        # Python itself can fetch a file from the web in one go.
        if not file.url.lower().startswith(("http://", "https://")):
            raise
        place = None
    if place is not None:
        with place.open(buffering=0) as reader:
            yield place.size, reader.read
        return
    with urllib.request.urlopen(file.url, timeout=60) as answer:
        length = answer.headers.get("Content-Length") or ""
        if not length.isdigit():
            raise DataError(
                f"{file}: its server does not say how large it is; download it yourself"
            )
        yield int(length), answer.read
