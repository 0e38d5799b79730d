"""Targets: URLs, what servers answer, and what clients upload."""

from __future__ import annotations

import contextlib
import io
import socket
import zlib
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.pictures import PIXELS
from benchmarks.fuzzing.target import Wrong, target

_URLS = [
    b"https://x.example/a.jpg?b=c#d\nhttp://x.example/base/",
    b"//other.example/x y\nhttps://x.example:8080/",
    b"../up\nhttp://x.example/a/b/c",
    b"http://[::1]:80/\n",
    b"http://user:pass@x.example/\n",
    "http://m\u00fcnchen.example/\u00e9\n".encode(),
]


@target("url", lambda _: _URLS, words=(b"http://", b"https://", b"file:///", b"@", b"[::ffff:127.0.0.1]", b"127.0.0.1", b"0x7f.1",
                                     b":99999", b"%00", b"\\", b"\xed\xa0\x80", b"..", b"xn--", b"\xef\xbc\x8e"))  # fmt: skip
def url(data: bytes, folder: Path) -> None:
    """URLs of a metadata file, and redirects."""
    from vwkit.downloading.addresses import Refused, Target, is_public, parsed
    from vwkit.downloading.ledger import file_name

    first, _, second = data.decode("utf-8", "surrogateescape").partition("\n")
    try:
        base = parsed(second) if second else None
        found = parsed(first, base)
    except Refused as error:
        if not str(error):
            raise Wrong("refused without a reason") from error
        return
    if not isinstance(found, Target) or found.scheme not in ("http", "https"):
        raise Wrong(f"{found}")
    if not 0 <= found.port < 65536 or any(
        ord(c) < 33 or ord(c) > 126 for c in found.path + found.host
    ):
        raise Wrong(f"a strange target: {found}")
    again = parsed(found.url)
    if again.site != found.site:
        raise Wrong(f"{found.url} is read as {again.url}")
    is_public(found.host)
    name = file_name(first)
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise Wrong(name)


# What a server answers --------------------------------------------------------------------------

_BODY = b"\xff\xd8 a picture \xff\xd9"
_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nContent-Type: image/jpeg\r\n\r\n" + _BODY,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nT: v\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + zlib.compress(b"x" * 99, wbits=31),
    b"HTTP/1.0 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
]
_MOST = 1 << 16


@target("answer", lambda _: _ANSWERS, cheap=False, guided=False, largest=1 << 13,
        words=(b"\r\n", b": ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: deflate\r\n",
               b"Location: http://127.0.0.1/\r\n", b"Location: ", b"HTTP/1.1 ", b"Retry-After: ", b"Set-Cookie: ", b"0\r\n\r\n",
               b"ffffffffffffffff\r\n"))  # fmt: skip
def answer(data: bytes, folder: Path) -> None:
    """The answer of a server that a picture is fetched from, from status line to body."""
    from vwkit.downloading.addresses import parsed
    from vwkit.downloading.transfer import Client, Failure

    class Settings:
        timeout = 2.0
        max_bytes = _MOST
        allow_private = False

    class Told(Client):
        def _socket(self, target: Any, deadline: float) -> socket.socket:
            ours, theirs = socket.socketpair()
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            others.append(theirs)
            return ours

    others: list[socket.socket] = []
    client = Told(Settings(), 2)
    file = io.BytesIO()
    try:
        client.fetch(parsed("http://x.example/a.jpg"), file)
    except Failure as error:
        if not str(error):
            raise Wrong("failed without a reason") from error
    finally:
        client.close()
        for one in others:
            one.close()
    if len(file.getvalue()) > _MOST + (1 << 17):
        raise Wrong(f"{len(file.getvalue())} bytes were kept")


# What a client sends ----------------------------------------------------------------------------

_TYPE = b"multipart/form-data; boundary=x"
_FORMS = [
    _TYPE
    + b'\n--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nbytes\r\n--x--\r\n',
    _TYPE
    + b'\n--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n3\r\n--x\r\nA: b\r\n\r\n\r\n--x--',
    b"image/png\n\x89PNG\r\n\x1a\n",
]


@target("upload", lambda _: _FORMS, needs=("vwkit_serve", "python_multipart"),
        words=(b"--x", b"--x--\r\n", b"\r\n", b"boundary=", b'filename="', b"multipart/form-data;", b"Content-", b'"', b"; "))  # fmt: skip
def upload(data: bytes, folder: Path) -> None:
    """A form that is sent to ``vwkit serve``, and the picture in it."""
    from vwkit_serve.errors import RequestError
    from vwkit_serve.uploads import _file_of

    from vwkit.errors import ImageError
    from vwkit.image import open_image

    kind, _, body = data.partition(b"\n")
    try:
        held = _file_of(body, kind.decode("latin-1"))
    except RequestError:
        return
    if len(held) > len(body):
        raise Wrong("a file larger than the form")
    with contextlib.suppress(ImageError):
        open_image(io.BytesIO(held), max_pixels=PIXELS)
