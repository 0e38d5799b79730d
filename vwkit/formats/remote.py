"""Descriptor files at URLs, read in parts through fsspec (https://filesystem-spec.readthedocs.io).

Every part that is read is a request of its own, so any process can read its own rows, and nothing
but the URL, the size and the mark of the content travels between processes. Where the store is, how
one logs in and how it is reached are fsspec's matter: its configuration files and environment
variables, which stay on the machine.
"""

from __future__ import annotations

import functools
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vwkit.errors import DataError, FormatError, UnsupportedError, VwkitError
from vwkit.formats.ahead import growing_spans, in_order, near_ranges
from vwkit.formats.base import MissingFileError, UnknownFormatError
from vwkit.formats.http_ranges import NoPartsError, Part, http_part
from vwkit.formats.urls import is_url, local_of_url, name_of_url, shown_url

__all__ = [
    "MissingLibraryError",
    "Place",
    "RemotePlace",
    "open_url",
    "place_of",
]

# One request moves this much at most: several are under way at a time, and memory stays flat.
_BLOCK = 8 << 20
_FIRST_BLOCK = 1 << 16
_PARALLEL = 4
# Single rows are small, and what they cost is the wait for the answer.
_PARALLEL_TAKE = 16
_TAKE_BLOCK = 4 << 20
# Reading on costs less than another request would.
_GAP = 128 << 10
# Seconds between two looks at whether the file is still the same.
_LOOK = 1.0

# What stores say that changes with the content, the surest first.
_MARKS = (
    "md5Hash", "generation", "ETag", "etag", "e_tag", "VersionId", "version_id", "crc32c",
    "blob_id", "oid", "sha", "CRC", "checksum", "LastModified", "last_modified", "Last-Modified",
    "updated", "modified", "modify", "modificationTime", "mtime", "last_write_time", "date_time",
    "created",
)  # fmt: skip


class MissingLibraryError(UnsupportedError):
    """A URL needs a package that is not installed."""

    # Known before any data are read.
    exit_status = 2


@dataclass(frozen=True)
class RemotePlace:
    """A file at a URL, for the formats that read it: it stands where a `Path` stands.

    Attributes
    ----------
    url : str
    size : int
        Bytes.
    mark : tuple of str or None
        What its store says that changes with its content, name and value; None if nothing.
    """

    url: str
    size: int
    mark: tuple[str, str] | None

    def __str__(self) -> str:
        return shown_url(self.url)

    @property
    def name(self) -> str:
        """The file name in the URL."""
        return name_of_url(self.url)

    @property
    def stem(self) -> str:
        """The name without its last ending."""
        return Path(self.name).stem

    def absolute(self) -> RemotePlace:
        """Return this place, which is the same everywhere."""
        return self

    def open(self, mode: str = "rb", buffering: int = -1) -> io.RawIOBase | io.BufferedReader:
        """Return a file to be read from its beginning, in blocks that are fetched ahead."""
        return io.BufferedReader(_Forward(self)) if buffering else _Forward(self)

    def fetch(self, offset: int, count: int) -> npt.NDArray[np.uint8]:
        """Return `count` bytes from `offset` as a new uint8 array.

        Raises
        ------
        FormatError
            It is not the file any more that it was.
        DataError
            It cannot be read.
        """
        if count == 0:
            return np.empty(0, np.uint8)
        with _reaching(self.url):
            files, path = _files(self.url)
            if _is_http(files):
                part = _run(files, http_part, path, offset, offset + count)
                self._same(part.total, part.mark)
                found: bytes = part.data
            else:
                found = files.cat_file(path, start=offset, end=offset + count)
        if len(found) != count:
            self.look()
            raise DataError(
                f"{self}: {count:,} bytes from {offset:,} on were asked for, {len(found):,} came"
            )
        return np.frombuffer(found, np.uint8).copy()

    def look(self) -> None:
        """Make sure that it is still the same file.

        Raises
        ------
        FormatError
            It is another one by now.
        """
        with _reaching(self.url):
            files, path = _files(self.url)
            # Every answer of an HTTP server has told already.
            if not _is_http(files):
                self._same(*_described(files, path, self.url))

    def looking(self) -> Callable[[], None]:
        """Return a function that looks, but not again and again."""
        lock = threading.Lock()
        last = time.monotonic()

        def look() -> None:
            nonlocal last
            with lock:
                now = time.monotonic()
                if now - last < _LOOK:
                    return
                last = now
            self.look()

        return look

    def _same(self, size: int, mark: tuple[str, str] | None) -> None:
        if size != self.size:
            now = f"it had {self.size:,} bytes when opened, now it has {size:,}"
        elif self.mark is not None and mark is not None and mark != self.mark:
            now = f"its {self.mark[0]} was {self.mark[1]}, now it is {mark[1]}"
        else:
            return
        raise FormatError(
            f"{self}: changed while in use: {now}; open it again once nothing writes to it"
        )

    @property
    def parallel(self) -> bool:
        """Whether several parts may be asked for at a time."""
        with _reaching(self.url):
            from fsspec.asyn import AsyncFileSystem

            return isinstance(_files(self.url)[0], AsyncFileSystem)

    # What `vwkit.formats.stored` asks for

    def chunks(
        self, read: Callable[[int, int], npt.NDArray[Any]], rows: int, width: int, step: int
    ) -> Iterator[npt.NDArray[Any]]:
        """Yield the rows 0…rows in chunks of `step`, fetched ahead in larger blocks.

        Parameters
        ----------
        read : callable
            Returns the rows [start, stop).
        rows, step : int
        width : int
            Bytes of a row.
        """
        block = step * max(1, _BLOCK // max(1, step * width))
        parallel = max(1, min(_PARALLEL, _PARALLEL * _BLOCK // (block * width)))
        parallel = parallel if self.parallel else 1
        look = self.looking()

        def fetched(start: int) -> npt.NDArray[Any]:
            found = read(start, min(rows, start + block))
            look()
            return found

        with closing(in_order(fetched, range(0, rows, block), parallel)) as pieces:
            for piece in pieces:
                for start in range(0, len(piece), step):
                    yield piece[start : start + step]
        self.look()

    def take(
        self,
        some: Callable[[npt.NDArray[np.int64], int, int], npt.NDArray[Any]],
        rows: npt.NDArray[np.int64],
        width: int,
        out: npt.NDArray[Any],
    ) -> npt.NDArray[Any]:
        """Fill `out` with the given rows; those near each other come in one request.

        `some` returns some rows out of a range that is read in one go.
        """
        gap, longest = max(1, _GAP // width), max(1, _TAKE_BLOCK // width)

        done = 0
        parallel = _PARALLEL_TAKE if self.parallel else 1
        for piece in in_order(lambda near: some(*near), near_ranges(rows, gap, longest), parallel):
            out[done : done + len(piece)] = piece
            done += len(piece)
        self.look()
        return out


Place: TypeAlias = Path | RemotePlace
"""Where a descriptor file is."""


class _Forward(io.RawIOBase):
    """Bytes of a URL from the first on; blocks begin small, for those who need the beginning only."""

    def __init__(self, place: RemotePlace) -> None:
        self._place = place
        look = place.looking()

        def fetched(span: tuple[int, int]) -> npt.NDArray[np.uint8]:
            found = place.fetch(span[0], span[1] - span[0])
            look()
            return found

        spans = growing_spans(place.size, _FIRST_BLOCK, _BLOCK)
        self._blocks = in_order(fetched, spans, _PARALLEL if place.parallel else 1)
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not len(self._held):
            block = next(self._blocks, None)
            if block is None:
                self._place.look()
                return 0
            self._held = memoryview(block.data)
        count = min(len(buffer), len(self._held))
        memoryview(buffer)[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._blocks.close()
        super().close()


def open_url(url: str) -> RemotePlace:
    """Ask the store of a URL for the file's size and mark.

    Raises
    ------
    MissingLibraryError
        A package is missing; the text says which to install.
    MissingFileError
        There is no such file.
    UnknownFormatError
        It is a folder.
    DataError
        It cannot be reached, or the store says no size.
    """
    with _reaching(url):
        files, path = _files(url)
        if _is_http(files):
            part = _run(files, http_part, path, 0, 1)
            return RemotePlace(url, part.total, part.mark)
        return RemotePlace(url, *_described(files, path, url))


def place_of(path: str | os.PathLike[str] | RemotePlace) -> Place:
    """Return where a file is: text that begins like a URL is one, ``file://`` is a path.

    Raises
    ------
    VwkitError
        As `open_url`.
    """
    if isinstance(path, str) and is_url(path):
        return local_of_url(path) or open_url(path)
    return path if isinstance(path, RemotePlace) else Path(path)


def _described(files: Any, path: str, url: str) -> tuple[int, tuple[str, str] | None]:
    """Return the size of a file and its mark, as its store has it now."""
    # Listings from before are kept by some file systems, with the old size.
    files.invalidate_cache()
    info = files.info(path)
    if info.get("type") == "directory":
        raise UnknownFormatError(f"{shown_url(url)}: is a folder; name a descriptor file in it")
    size = info.get("size")
    if not isinstance(size, int) or size < 0:
        raise DataError(f"{shown_url(url)}: its store does not say how large it is")
    mark = next(((name, str(info[name])) for name in _MARKS if info.get(name)), None)
    return size, mark


def _run(files: Any, work: Callable[..., Any], *given: Any) -> Part:
    """Run a coroutine on fsspec's own event loop and wait for it."""
    from fsspec.asyn import sync

    part: Part = sync(files.loop, functools.partial(work, files), *given)
    return part


def _is_http(files: Any) -> bool:
    protocol = files.protocol
    return "http" in ((protocol,) if isinstance(protocol, str) else protocol)


def _files(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, which fsspec keeps, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise MissingLibraryError(
            f"{shown_url(url)}: files at URLs are read by fsspec: pip install 'vwkit[remote]'"
        ) from None
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingLibraryError(f"{shown_url(url)}: {_install(url, error)}") from None
    except ValueError as error:
        known = sorted({*fsspec.available_protocols()})
        if "rotocol not known" not in str(error):
            raise
        raise MissingLibraryError(
            f"{shown_url(url)}: no installed package reads such a URL; fsspec knows "
            f"{', '.join(known)}"
        ) from None
    return files, str(path)


def _install(url: str, error: ImportError) -> str:
    scheme = url.partition("://")[0].rpartition("::")[2].lower()
    package = _PACKAGES.get(scheme)
    if package is not None:
        return f"{scheme}:// is read by {package}: pip install {package}"
    return f"a package is missing: {error}"


_PACKAGES = {
    "http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs",
    "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "adl": "adlfs",
    "sftp": "paramiko", "ssh": "paramiko", "hf": "huggingface_hub", "hdfs": "pyarrow",
    "smb": "smbprotocol", "oss": "ossfs", "oci": "ocifs",
}  # fmt: skip


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turn whatever a store's library raises into one error of ours."""
    try:
        yield
    except VwkitError as error:
        kind = type(error)
        if kind in (DataError, NoPartsError) and not str(error).startswith(shown_url(url)):
            raise kind(f"{shown_url(url)}: {error}") from None
        raise
    except FileNotFoundError:
        raise MissingFileError(f"no such file: {shown_url(url)}") from None
    except TimeoutError:
        raise DataError(f"{shown_url(url)}: cannot be read: no answer in time") from None
    except Exception as error:
        # Libraries like to quote the whole URL, and what was signed with it.
        said = " ".join(str(error).replace(url, shown_url(url)).split())[:300]
        query = url.partition("?")[2]
        said = said.replace(query, "…") if query else said
        said = said or type(error).__name__
        raise DataError(f"{shown_url(url)}: cannot be read: {said}") from error
