"""One picture by HTTP: limited in time, size and redirects, whatever the server does.

A connection's socket is read through `_Timed`: every wait counts against one deadline, so that a server
that sends a byte now and then, in the headers or in the body, cannot hold a thread for long.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from typing import IO, Any, Protocol

import vwkit
from vwkit.downloading.addresses import Refused, Target, parsed, resolved
from vwkit.errors import DataError, VwkitError

__all__ = ["Client", "Failure"]

_REDIRECTS = 5
_REDIRECT_CODES = (301, 302, 303, 307, 308)
# What may be otherwise the next time: too early, too many, and servers that are not well.
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 1 << 16
_LEFT_TO_READ = 1 << 16  # the end of an answer is read, to use its connection again, if so short
_CONNECT = 10.0


class Failure(Exception):
    """A picture that could not be fetched.

    Attributes
    ----------
    temporary : bool
        Whether it may work the next time.
    after : float
        Seconds that the server asks to wait.
    unreachable : bool
        Whether there was no connection at all.
    forbidden : bool
        Whether the settings forbid it: nobody was asked.
    """

    def __init__(
        self,
        reason: str,
        *,
        temporary: bool,
        after: float = 0.0,
        unreachable: bool = False,
        forbidden: bool = False,
    ) -> None:
        super().__init__(reason)
        self.forbidden = forbidden
        self.temporary = temporary
        self.after = after
        self.unreachable = unreachable


class _Settings(Protocol):
    @property
    def timeout(self) -> float: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def allow_private(self) -> bool: ...


class Client:
    """Fetches; may be used by many threads at once.

    Parameters
    ----------
    settings
        With ``timeout`` (seconds, one picture, all redirects included), ``max_bytes`` and
        ``allow_private``.
    keep : int
        Idle connections that are kept, at most.
    """

    def __init__(self, settings: _Settings, keep: int) -> None:
        self._settings = settings
        self._keep = keep
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, int], list[http.client.HTTPConnection]] = {}
        self._kept = 0
        self._open: set[_Timed] = set()
        self._closed = False
        self._tls: ssl.SSLContext | None = None

    # One picture

    def fetch(self, target: Target, file: IO[bytes]) -> int:
        """Write what is behind a URL to a file; return the number of bytes.

        Raises
        ------
        Failure
        """
        deadline = time.monotonic() + self._settings.timeout
        seen = {target.url}
        for _ in range(_REDIRECTS + 1):
            with self._answer(target, deadline) as answer:
                if answer.status not in _REDIRECT_CODES:
                    return self._body(answer, file)
                try:
                    target = parsed(answer.headers.get("Location", ""), target)
                except Refused as error:
                    raise Failure(f"redirected: {error}", temporary=False) from None
                if target.url in seen:
                    raise Failure("redirected in a circle", temporary=False)
                seen.add(target.url)
        raise Failure(f"redirected more than {_REDIRECTS} times", temporary=False)

    @contextlib.contextmanager
    def _answer(self, target: Target, deadline: float) -> Iterator[http.client.HTTPResponse]:
        """Give the answer of a server; its connection is kept for the next if it can be."""
        connection = None
        good = False
        try:
            with self._reasons(target):
                connection, answer = self._asked(target, deadline)
                yield answer
                left = answer.length
                good = left is not None and left <= _LEFT_TO_READ
                if good:
                    answer.read()
                good = not answer.will_close and answer.isclosed()
        finally:
            if connection is not None:
                self._give(target, connection, good)

    def _asked(
        self, target: Target, deadline: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        while True:
            connection = self._take(target)
            used = connection is not None
            if connection is None:
                connection = self._connected(target, deadline)
            connection.sock.deadline = deadline
            try:
                connection.request("GET", target.path, headers=_HEADERS)
                return connection, connection.getresponse()
            except TimeoutError:
                connection.close()
                raise
            except (OSError, http.client.HTTPException):
                connection.close()
                if not used:  # a kept connection may have been closed by the server meanwhile
                    raise

    def _body(self, answer: http.client.HTTPResponse, file: IO[bytes]) -> int:
        status = answer.status
        if status != 200:
            raise Failure(
                f"HTTP {status} {http.client.responses.get(status, '')}".rstrip(),
                temporary=status in _TEMPORARY,
                after=_seconds(answer.headers.get("Retry-After")),
            )
        most = self._settings.max_bytes
        if answer.length is not None and answer.length > most:
            raise Failure(f"more than {most:,} bytes (max_bytes)", temporary=False)
        unpack = _unpacking(answer.headers.get("Content-Encoding", "identity"), most)
        received = written = 0
        while block := answer.read(_BLOCK):
            received += len(block)
            data = unpack(block)
            written += len(data)
            if received > most or written > most:
                raise Failure(f"more than {most:,} bytes (max_bytes)", temporary=False)
            try:
                file.write(data)
            except OSError as error:  # a full disk: no fault of the server
                said = error.strerror or error
                raise DataError(
                    f"{getattr(file, 'name', 'file')}: cannot be written: {said}"
                ) from None
        if answer.length:
            raise Failure(f"the connection ended {answer.length:,} bytes too early", temporary=True)
        return written

    @contextlib.contextmanager
    def _reasons(self, target: Target) -> Iterator[None]:
        """Turn whatever can go wrong into one plain reason."""
        try:
            yield
        except VwkitError:
            raise
        except Refused as error:
            raise Failure(str(error), temporary=False, forbidden=True) from None
        except TimeoutError:
            raise Failure(
                f"not there within {self._settings.timeout:g} s", temporary=True
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise Failure(
                f"the certificate of {target.host} is not valid: {error.verify_message}",
                temporary=False,
            ) from None
        except socket.gaierror as error:
            raise Failure(
                f"no such host: {target.host} ({error.strerror})", temporary=True, unreachable=True
            ) from None
        except http.client.IncompleteRead:
            raise Failure("the connection ended too early", temporary=True) from None
        except (OSError, http.client.HTTPException) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Failure(
                f"{target.host}: {' '.join(said.split())[:200]}",
                temporary=True,
                unreachable=isinstance(error, _Unreachable),
            ) from None
        except (ValueError, OverflowError, zlib.error) as error:
            # A chunk without a length, a header that is no number, bytes that are not gzip, …
            raise Failure(f"not a valid answer: {error}", temporary=False) from None

    # Connections

    def _connected(self, target: Target, deadline: float) -> http.client.HTTPConnection:
        plain = self._socket(target, deadline)
        try:
            if target.scheme == "https":
                plain.settimeout(max(0.01, deadline - time.monotonic()))
                plain = self._context().wrap_socket(plain, server_hostname=target.host)
        except BaseException:
            plain.close()
            raise
        timed = _Timed(plain, self._open)
        # Only for its host and port, which become the Host header: it never connects by itself.
        connection = (
            http.client.HTTPSConnection(target.host, target.port, context=self._context())
            if target.scheme == "https"
            else http.client.HTTPConnection(target.host, target.port)
        )
        connection.sock = timed
        with self._lock:
            if self._closed:
                timed.shut()
        return connection

    def _socket(self, target: Target, deadline: float) -> socket.socket:
        error: OSError = OSError("no address")
        for family, address in resolved(target, self._settings.allow_private):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            plain = socket.socket(family, socket.SOCK_STREAM)
            try:
                plain.settimeout(min(left, _CONNECT))
                plain.connect(address)
            except OSError as one:
                plain.close()
                error = one
                continue
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return plain
        said = "no connection in time" if isinstance(error, TimeoutError) else error.strerror
        raise _Unreachable(str(said or error))

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
            return self._tls

    def _take(self, target: Target) -> Any:
        with self._lock:
            held = self._idle.get(target.site)
            if not held:
                return None
            self._kept -= 1
            return held.pop()

    def _give(self, target: Target, connection: http.client.HTTPConnection, good: bool) -> None:
        with self._lock:
            good = good and connection.sock is not None and not self._closed
            if good and self._kept < self._keep:
                self._idle.setdefault(target.site, []).append(connection)
                self._kept += 1
                return
        connection.close()

    def close(self) -> None:
        """End all connections, also those in use: their threads get an error at once."""
        with self._lock:
            self._closed = True
            idle = [one for held in self._idle.values() for one in held]
            self._idle.clear()
            for timed in list(self._open):
                timed.shut()
        for connection in idle:
            connection.close()


class _Unreachable(OSError):
    """No connection could be made."""


_HEADERS = {
    "User-Agent": f"vwkit/{vwkit.__version__}",
    "Accept": "image/*,*/*;q=0.1",
    # Pictures are compressed already; another layer is only a way to hide a bomb.
    "Accept-Encoding": "identity",
}


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def _unpacking(encoding: str, most: int) -> Any:
    """Return what unpacks blocks; no block becomes larger than `most` and one more byte."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return lambda block: block
    if name not in ("gzip", "x-gzip", "deflate"):
        raise Failure(f"packed as {name[:40]!r}, which was not asked for", temporary=False)
    machine = zlib.decompressobj(zlib.MAX_WBITS | 32 if name != "deflate" else zlib.MAX_WBITS)
    return lambda block: machine.decompress(block, most + 1)


class _Timed:
    """A socket whose every wait ends at one deadline; what `http.client` needs of a socket."""

    def __init__(self, plain: socket.socket, register: set[_Timed]) -> None:
        self.deadline = 0.0
        self._plain = plain
        self._files = 0
        self._closing = False
        self._register = register
        register.add(self)

    def left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def sendall(self, data: Any) -> None:
        self._plain.settimeout(self.left())
        self._plain.sendall(data)

    def receive(self, buffer: Any) -> int:
        self._plain.settimeout(self.left())
        return self._plain.recv_into(buffer)

    def makefile(self, mode: str, *_: Any) -> io.BufferedReader:
        self._files += 1
        return io.BufferedReader(_Reader(self), _BLOCK)

    def close(self) -> None:
        """Close once no answer is read any more, as a real socket does."""
        self._closing = True
        if self._files <= 0:
            self._register.discard(self)
            self._plain.close()

    def file_closed(self) -> None:
        self._files -= 1
        if self._closing:
            self.close()

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self._plain.shutdown(socket.SHUT_RDWR)


class _Reader(io.RawIOBase):
    def __init__(self, timed: _Timed) -> None:
        super().__init__()
        self._timed: _Timed | None = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._timed is None:
            raise ValueError("closed")
        return self._timed.receive(buffer)

    def close(self) -> None:
        timed, self._timed = self._timed, None
        if timed is not None:
            timed.file_closed()
        super().close()
