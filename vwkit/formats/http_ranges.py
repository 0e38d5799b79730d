"""Parts of a file from an HTTP server, trusting nothing that it says.

fsspec finds the session: its settings (headers, proxies, certificates) come from the user's own
configuration. Its own reading takes whatever a server sends, as long as it sends, and cannot tell a
file that changes between two requests; so the requests are made here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vwkit.errors import DataError

__all__ = ["RETRIES", "NoPartsError", "Part", "http_part"]

# Seconds before each new try of a request that failed for the moment.
RETRIES = (0.2, 1.0, 5.0)

_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_EMPTY = re.compile(r"bytes \*/0")
_ADVICE = (
    "it can only be fetched whole: give its sha256 too (`url:` and `sha256:` in a spec), or download "
    "it yourself"
)


class NoPartsError(DataError):
    """A server sends a file whole or not at all."""


class _TemporaryError(Exception):
    """Worth another try."""


@dataclass(frozen=True)
class Part:
    """A part of a file.

    Attributes
    ----------
    data : bytes
    total : int
        Bytes of the whole file.
    mark : tuple of str or None
        The name and the value of the header that tells this content from any other.
    """

    data: bytes
    total: int
    mark: tuple[str, str] | None


async def http_part(files: Any, url: str, start: int, stop: int) -> Part:
    """Fetch the bytes [start, stop) of a URL, or those up to the end of a shorter file.

    Parameters
    ----------
    files : fsspec.implementations.http.HTTPFileSystem
    url : str
    start, stop : int
        At least one byte.

    Raises
    ------
    FileNotFoundError
        The server says so.
    NoPartsError
        It sends whole files only.
    DataError
        It refuses, or sends something else than was asked for.
    Exception
        aiohttp's own, where the server cannot be reached, after some tries.
    """
    import asyncio

    import aiohttp

    failures = (
        _TemporaryError,
        aiohttp.ClientConnectionError,
        aiohttp.ClientPayloadError,
        asyncio.IncompleteReadError,
        TimeoutError,
    )
    for pause in RETRIES:
        try:
            return await _once(files, url, start, stop)
        except failures:
            await asyncio.sleep(pause)
    try:
        return await _once(files, url, start, stop)
    except _TemporaryError as error:
        raise DataError(str(error)) from None
    except asyncio.IncompleteReadError as error:
        raise DataError(
            f"the server sent {len(error.partial):,} bytes of {error.expected:,} and then no more"
        ) from None


async def _once(files: Any, url: str, start: int, stop: int) -> Part:
    import aiohttp

    session = await files.set_session()
    options = dict(files.kwargs)
    headers = {
        **options.pop("headers", {}),
        "Range": f"bytes={start}-{stop - 1}",
        # Else a server may compress, and a range of compressed bytes is another range.
        "Accept-Encoding": "identity",
    }
    if "timeout" not in options and "timeout" not in files.client_kwargs:
        options["timeout"] = aiohttp.ClientTimeout(total=600, sock_connect=30, sock_read=60)
    async with session.get(files.encode_url(url), headers=headers, **options) as answer:
        place = answer.headers.get("Content-Range", "")
        if answer.status == 416 and _EMPTY.fullmatch(place):
            return Part(b"", 0, _mark(answer.headers))
        if answer.status in (404, 410):
            raise FileNotFoundError(url)
        said = f"the server answered {answer.status} {answer.reason or ''}".rstrip()
        if answer.status in _TEMPORARY:
            raise _TemporaryError(said)
        if answer.status == 200:
            raise NoPartsError(f"the server sends no parts of it, and {_ADVICE}")
        if answer.status != 206:
            raise DataError(said)
        if answer.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise NoPartsError(f"the server compresses what it sends, and {_ADVICE}")
        given = _RANGE.fullmatch(place)
        if given is None:
            raise DataError(f"the server does not say which part it sends ({place[:80]!r})")
        first, last, total = (int(number) for number in given.groups())
        if first != start or last + 1 != min(stop, total):
            raise DataError(
                f"the bytes {start:,} to {stop - 1:,} were asked for; the server sends {place[:80]}"
            )
        # Reads no more than that, however much is sent.
        data = await answer.content.readexactly(last + 1 - first)
        return Part(data, total, _mark(answer.headers))


def _mark(headers: Any) -> tuple[str, str] | None:
    for name in ("ETag", "Last-Modified"):
        if headers.get(name):
            return name, str(headers[name])
    return None
