"""Descriptor files that a spec names by URL: read in parts where they lie, or fetched once.

With a ``sha256`` the file is fetched whole into the cache folder, checked, and then like any file.
Without one it stays where it is: its rows are read in parts, and what its store says of its content
(an ETag, a generation, a time) stands for the hash that a file on disk would have.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vwkit.cache import Cache, cache_folder
from vwkit.errors import DataError
from vwkit.fetching import another_file, fetch_checked, web_content
from vwkit.formats.http_ranges import NoPartsError
from vwkit.formats.remote import (
    MissingLibraryError,
    Place,
    open_url,
)
from vwkit.formats.urls import local_of_url, name_of_url, shown_url

__all__ = ["UrlFile", "fetched_to", "file_of", "place_key", "said_key"]


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
                raise another_file(str(named), found, named.sha256)
    finally:
        cache.close()
    if local is None and not fetch:
        return open_url(named.url)
    if local is None:
        fetch_checked(str(named), wanted, kept, lambda: _content(named))
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
    with web_content(file.url) as (total, read):
        if total is None:
            raise DataError(
                f"{file}: its server does not say how large it is; download it yourself"
            )
        yield total, read
