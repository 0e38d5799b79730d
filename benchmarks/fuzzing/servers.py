"""Targets: descriptor files at URLs, from servers that lie about them.

A case is a file, then what the server does at each request: tell the truth, or another length, place, tag or
status; send less, more, or without end; say nothing that is HTTP. After that it tells the truth.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import re
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.fuzzing.target import Wrong, target

_NAMES = {"a.fvecs": "f4", "a.npy": "f8", "a.u8bin": "u1", "a.bvecs.gz": "u1"}
_ENDLESS = 64 << 20  # bytes that a server goes on with
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)
_STATUS = (200, 206, 204, 301, 302, 304, 400, 401, 403, 404, 410, 416, 429, 500, 503, 999)
_NUMBERS = (0, 1, -1, 2, 7, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 32, 10**12, (1 << 63) - 1, 1 << 63, 10**18 - 1, 10**30)  # fmt: skip


@functools.cache
def _content(name: str) -> bytes:
    import vwkit

    with tempfile.TemporaryDirectory() as place:
        rows = np.random.default_rng(0).integers(0, 255, (300, 9)).astype(_NAMES[name])
        vwkit.write(Path(place) / name, rows)
        return (Path(place) / name).read_bytes()


class _Liar(socketserver.ThreadingTCPServer):
    """Serves one file as `script` says, request by request."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.content = b""
        self.script: Iterator[tuple[int, int]] = iter(())
        self.raw = b""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients go away

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.BaseRequestHandler):
    """One request, one answer."""

    server: _Liar

    def handle(self) -> None:
        self.request.settimeout(10)
        asked = b""
        while b"\r\n\r\n" not in asked:
            part = self.request.recv(1 << 16)
            if not part:
                return
            asked += part
        with contextlib.suppress(OSError):
            self.request.sendall(b"".join(self._answer(asked)))

    def _answer(self, asked: bytes) -> Iterator[bytes]:
        kind, value = next(self.server.script, (0, 0))
        number = _NUMBERS[value % len(_NUMBERS)]
        held = self.server.content
        span = _RANGE.search(asked)
        start = int(span[1]) if span else 0
        stop = min(len(held), int(span[2]) + 1) if span and span[2] else len(held)
        body = held[start:stop]
        status, total, first, length, tag = (206 if span else 200), len(held), start, len(body), "x"
        more: list[str] = []
        if kind == 1:
            total = number
        elif kind == 2:
            first = number
        elif kind == 3:
            body = body[: value * len(body) // 256]
        elif kind == 4:
            body, length = body + held, length + value
        elif kind == 5:
            status = _STATUS[value % len(_STATUS)]
        elif kind == 6:
            tag = f"other{value}"
        elif kind == 7:
            length = number
        elif kind == 8:
            more = [f"X-{i}: {'y' * 4000}" for i in range(value)]
        elif kind == 9:
            more = ["Transfer-Encoding: chunked"]
            body = (b"10000\r\n" + bytes(1 << 16) + b"\r\n") * (_ENDLESS >> 16)
        elif kind == 10:
            more = [f"Location: {'/again' if value % 2 else 'file:///etc/passwd'}"]
            status = 302
        elif kind == 11:
            more = [f"Content-Encoding: {('gzip', 'deflate', 'br', 'x')[value % 4]}"]
        elif kind == 12:
            body = bytes(one ^ (value | 1) for one in body)
        elif kind == 13:
            yield self.server.raw
            return
        elif kind == 14:
            return
        elif kind == 15:
            total, body = len(held) + 8 * value, (held + bytes(8 * value))[start : stop + 8 * value]
            length = len(body)
        said = [f"HTTP/1.1 {status} Said", "Connection: close", f'ETag: "{tag}"', "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT", *more]  # fmt: skip
        if kind != 9:
            said.append(f"Content-Length: {length}")
        if kind != 5 or value % 2:
            said.append(f"Content-Range: bytes {first}-{first + len(body) - 1 if kind != 4 else stop - 1}/{total}")  # fmt: skip
        yield ("\r\n".join(said) + "\r\n\r\n").encode("latin-1")
        if not asked.startswith(b"HEAD"):
            yield body


@functools.cache
def _liar() -> _Liar:
    return _Liar()


def _prepared(data: bytes) -> tuple[str, _Liar]:
    """Set the server up; return the name of its file."""
    liar = _liar()
    name = list(_NAMES)[(data[0] if data else 0) % len(_NAMES)]
    steps = (data[1] if len(data) > 1 else 0) % 12
    script = data[2 : 2 + 2 * steps]
    liar.content = _content(name)
    liar.raw = data[2 + 2 * steps :]
    liar.script = iter([(kind % 16, value) for kind, value in zip(script[::2], script[1::2], strict=False)])  # fmt: skip
    return name, liar


def _read(url: str, name: str) -> None:
    import vwkit
    from vwkit.errors import VwkitError

    try:
        stream = vwkit.read(url)
        rows, most = 0, 300 + 16 * 256
        for chunk in stream:
            rows += len(chunk)
            if rows > most:
                raise Wrong(f"{rows} rows of a file of 300")
        stream.take(np.array([0, rows - 1]))
    except VwkitError as error:
        if name not in str(error):
            raise Wrong(f"does not name the file: {error}") from error
        raise


_SEEDS = [
    bytes([at, steps, *itertools.chain(*script)]) + b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-0/100\r\nContent-Length: 1\r\n\r\nx"
    for at in range(len(_NAMES))
    for steps, script in ((0, ()), (3, ((0, 0), (1, 3), (6, 1))), (4, ((0, 0), (0, 0), (3, 9), (5, 14))), (3, ((13, 0), (9, 0), (7, 9))),
                          (5, ((0, 0), (4, 9), (15, 9), (12, 3), (8, 200))), (3, ((10, 1), (11, 0), (14, 0))))
]  # fmt: skip
_RAW = (
    b"HTTP/1.1 ", b"206 ", b"Content-Range: bytes ", b"Content-Range: bytes 0-0/", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n",
    b"ETag: ", b"\r\n", b"\r\n\r\n", b"99999999999999999999", b"*/0", b"Location: ", b"\x00", b"ffffffffffffffff\r\n", b"<Error><Code>",
)  # fmt: skip


@target(
    "http-server",
    lambda _: _SEEDS,
    words=_RAW,
    cheap=False,
    guided=False,
    needs=("fsspec", "aiohttp"),
)
def http(data: bytes, folder: Path) -> None:
    """A descriptor file of a web server that lies: read in parts, and fetched whole."""
    from vwkit.formats import http_ranges
    from vwkit.remote import UrlFile, file_of

    name, liar = _prepared(data)
    url = f"{liar.url}/{name}"
    with (
        mock.patch.object(http_ranges, "RETRIES", (0.0,)),
        mock.patch.dict(os.environ, {"VWKIT_CACHE": str(folder / "cache")}),
    ):
        if len(data) % 3:
            _read(url, name)
            return
        sha256 = hashlib.sha256(liar.content).hexdigest()
        path = file_of(UrlFile(url, sha256))
        if not isinstance(path, Path) or path.read_bytes() != liar.content:
            raise Wrong(f"{path} is not what was asked for")


@target("s3-server", lambda _: _SEEDS, words=_RAW, cheap=False, guided=False, needs=("s3fs",))
def s3(data: bytes, folder: Path) -> None:
    """A descriptor file in an S3 bucket whose server lies."""
    import fsspec
    import s3fs

    name, liar = _prepared(data)
    settings = {"key": "k", "secret": "s", "endpoint_url": liar.url, "client_kwargs": {"region_name": "us-east-1"},
                "config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 5}}  # fmt: skip
    with (
        mock.patch.dict(fsspec.config.conf, {"s3": settings}),
        mock.patch.object(s3fs.S3FileSystem, "retries", 1),
    ):
        _read(f"s3://bucket/{name}", name)
