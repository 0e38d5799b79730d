"""A server on loopback that gives pictures, and one that behaves as badly as servers can."""

import contextlib
import gzip
import io
import socket
import struct
import threading
import time
import zlib
from collections import Counter

import numpy as np
import PIL.Image

__all__ = ["PictureServer", "jpeg", "png_of_size"]


def jpeg(seed=0, size=(64, 48)):
    """Return the bytes of a picture with colours of its own."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (4, 4, 3)).astype(np.uint8)
    image = PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def png_of_size(width, height):
    """Return a tiny file that says it is a picture of so many pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def answer(body, status="200 OK", headers=(), length=True):
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class PictureServer:
    """Listens on a port of 127.0.0.1; `asked` counts the requests by path.

    ``/picture/N.jpg`` is a good picture; the other paths are told by the methods `do_…`.

    Parameters
    ----------
    delay : float
        Seconds before a good picture, so that requests overlap.
    tls : ssl.SSLContext, optional
        With it the server talks HTTPS.
    """

    def __init__(self, delay=0.0, tls=None):
        self.delay = delay
        self.tls = tls
        self.asked = Counter()
        self.hosts = Counter()
        self.connections = 0
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._open = set()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def url(self, path, host="127.0.0.1"):
        return f"http://{host}:{self.port}{path}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            for one in list(self._open):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _accept(self):
        while not self._stop.is_set():
            try:
                one, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(one)
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.tls is not None:
                one = self.tls.wrap_socket(one, server_side=True)
            with one, one.makefile("rb") as lines:
                while True:
                    first = lines.readline()
                    if not first:
                        return
                    while line := lines.readline().strip():
                        if line.lower().startswith(b"host:"):
                            self.hosts[line[5:].strip().decode()] += 1
                    path = first.split()[1].decode()
                    with self._lock:
                        self.asked[path] += 1
                        self._now += 1
                        self.most_at_once = max(self.most_at_once, self._now)
                    try:
                        again = self._answer(one, path)
                    finally:
                        with self._lock:
                            self._now -= 1
                    if not again:
                        return
        except OSError:
            pass
        finally:
            one.close()
            with self._lock:
                self._open.discard(one)

    def _answer(self, one, path):
        """Answer; return whether the connection goes on."""
        name = path.strip("/").split("/")[0].split("?")[0].replace("-", "_")
        if name == "picture":
            self._stop.wait(self.delay)
            seed = int("".join(c for c in path if c.isdigit()) or 0)
            one.sendall(answer(jpeg(seed)))
            return True
        return getattr(self, f"do_{name}", self.do_missing)(one, path)

    def do_missing(self, one, path):
        one.sendall(answer(b"nothing here", "404 Not Found"))
        return True

    def do_second_time(self, one, path):
        good = self.asked[path] > 1
        one.sendall(answer(jpeg(1)) if good else answer(b"", "500 Internal Server Error"))
        return True

    def do_broken(self, one, path):
        one.sendall(answer(b"", "503 Service Unavailable"))
        return True

    def do_drip(self, one, path):
        """Send the body byte by byte, without end."""
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not self._stop.wait(0.02):
            one.sendall(b"x")

    def do_drip_head(self, one, path):
        one.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self._stop.wait(0.02):
            one.sendall(b"x")

    def do_silent(self, one, path):
        self._stop.wait(30)

    def do_endless(self, one, path):
        one.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + jpeg(1))
        while not self._stop.is_set():
            one.sendall(bytes(65536))

    def do_huge(self, one, path):
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + jpeg(1))

    def do_short(self, one, path):
        body = jpeg(1)
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) + 100) + body)

    def do_no_length(self, one, path):
        one.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + jpeg(1))

    def do_chunks(self, one, path):
        body = jpeg(3)
        one.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 100):
            part = body[start : start + 100]
            one.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
        one.sendall(b"0\r\n\r\n")
        return True

    def do_bad_chunks(self, one, path):
        one.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n")

    def do_too_much(self, one, path):
        """Send more than the length says: the rest must not be taken for the next answer."""
        body = jpeg(1)
        one.sendall(answer(body) + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        return True

    def do_loop(self, one, path):
        one.sendall(answer(b"", "302 Found", [f"Location: {path}"]))
        return True

    def do_chain(self, one, path):
        number = int(path.split("/")[2])
        one.sendall(answer(b"", "301 Moved Permanently", [f"Location: /chain/{number + 1}"]))
        return True

    def do_moved(self, one, path):
        one.sendall(answer(b"moved", "302 Found", ["Location: ../picture/5.jpg"]))
        return True

    def do_to_file(self, one, path):
        one.sendall(answer(b"", "302 Found", ["Location: file:///etc/passwd"]))
        return True

    def do_html(self, one, path):
        one.sendall(answer(b"<html>sorry</html>", headers=["Content-Type: image/jpeg"]))
        return True

    def do_bomb(self, one, path):
        one.sendall(answer(png_of_size(60_000, 60_000)))
        return True

    def do_cut(self, one, path):
        """Send half a picture, as it lies on the server."""
        body = jpeg(1, (400, 300))
        one.sendall(answer(body[: len(body) // 2]))
        return True

    def do_empty(self, one, path):
        one.sendall(answer(b""))
        return True

    def do_packed(self, one, path):
        one.sendall(answer(gzip.compress(jpeg(2)), headers=["Content-Encoding: gzip"]))
        return True

    def do_packed_bomb(self, one, path):
        machine = zlib.compressobj(9, wbits=31)
        body = b"".join(machine.compress(bytes(1 << 20)) for _ in range(64)) + machine.flush()
        one.sendall(answer(body, headers=["Content-Encoding: gzip"]))
        return True

    def do_packed_wrong(self, one, path):
        one.sendall(answer(jpeg(2), headers=["Content-Encoding: gzip"]))
        return True

    def do_brotli(self, one, path):
        one.sendall(answer(jpeg(2), headers=["Content-Encoding: br"]))
        return True

    def do_garbage(self, one, path):
        one.sendall(b"\x00\x01\x02 what is HTTP?\r\n\r\n")

    def do_hang_up(self, one, path):
        return False

    def do_goodbye(self, one, path):
        """Give a good picture, then close the kept connection without a word."""
        one.sendall(answer(jpeg(7)))
        time.sleep(0.01)
        return False
