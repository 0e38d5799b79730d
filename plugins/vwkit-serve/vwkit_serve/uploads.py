"""Uploaded pictures: bounded in size, time and number, and never on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from vwkit_serve.errors import RequestError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["Uploads"]

#: All uploads in memory together may be as large as so many of the largest.
_AT_ONCE = 16
#: A form has a few short fields beside the picture.
_FORM_SPARE = 16 * 1024
_DRAINED = 8 * 1024 * 1024
_DRAIN_SECONDS = 2.0


class Uploads:
    """Reads the pictures that requests bring.

    Parameters
    ----------
    limit : int
        Bytes of one picture.
    seconds : float
        That a client may take to send it.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self._seconds = seconds
        self._budget = _AT_ONCE * limit
        self._held = 0  # touched in the event loop only

    async def picture(self, request: Request, use: Callable[[bytes], object]) -> object:
        """Read the picture of a request, and return what `use` (which may be awaited) makes of it.

        Raises
        ------
        RequestError
            400 a form that cannot be read, 408 too slow, 413 too large, 415 none, 503 too many.
        """
        held = [0]
        try:
            body = await self._read(request, held)
            kind = request.headers.get("content-type", "")
            if kind.lower().startswith("multipart/form-data"):
                body = _file_of(body, kind)
            if not body:
                raise RequestError(415, "the upload is empty; send the bytes of a picture")
            if len(body) > self.limit:
                raise RequestError(413, self._too_large())
            result = use(body)
            return await result if asyncio.iscoroutine(result) else result
        finally:
            self._held -= held[0]

    def _too_large(self) -> str:
        return f"the upload is larger than {self.limit:,} bytes, which this server allows"

    async def _read(self, request: Request, held: list[int]) -> bytes:
        most = self.limit + _FORM_SPARE
        claimed = request.headers.get("content-length", "")
        stream = request.stream()
        chunks: list[bytes] = []
        total = 0
        try:
            async with asyncio.timeout(self._seconds):
                if claimed.isascii() and claimed.isdigit() and int(claimed[:20]) > most:
                    await self._refuse(stream)
                async for chunk in stream:
                    total += len(chunk)
                    if total > most:
                        await self._refuse(stream)
                    if self._held + len(chunk) > self._budget:
                        raise RequestError(
                            503, "too many uploads at once; try again in a moment", close=True
                        )
                    self._held += len(chunk)
                    held[0] += len(chunk)
                    chunks.append(chunk)
        except ClientDisconnect:
            raise RequestError(400, "the client went away", close=True) from None  # nobody reads it
        except TimeoutError:
            message = f"the upload did not arrive within {self._seconds:g} seconds"
            raise RequestError(408, message, close=True) from None
        return b"".join(chunks)

    async def _refuse(self, stream: AsyncIterator[bytes]) -> None:
        """Read on for a moment: a client that is still sending would not see the answer."""
        spare = max(_DRAINED, 4 * self.limit)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for chunk in stream:
                    spare -= len(chunk)
                    if spare < 0:
                        break
        except TimeoutError:
            pass
        raise RequestError(413, self._too_large(), close=True)


def _file_of(body: bytes, content_type: str) -> bytes:
    """Return the first file of a form, or its first field if it has no file."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RequestError(400, "the form names no boundary in its Content-Type")
    parts: list[tuple[bytearray, bytearray]] = []  # headers and content of each

    def header(data: bytes, start: int, end: int) -> None:
        parts[-1][0].extend(data[start:end])

    def content(data: bytes, start: int, end: int) -> None:
        parts[-1][1].extend(data[start:end])

    ended: list[bool] = []
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": lambda: parts.append((bytearray(), bytearray())),
                "on_header_field": header,
                "on_header_value": header,
                "on_header_end": lambda: parts[-1][0].extend(b"\n"),
                "on_part_data": content,
                "on_end": lambda: ended.append(True),
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        ended.clear()
    if not ended:
        raise RequestError(400, "the form cannot be read; it is damaged or cut short")
    if not parts:
        raise RequestError(415, "the form holds no file")
    files = [part for part in parts if b"filename" in part[0]]
    return bytes((files or parts)[0][1])
