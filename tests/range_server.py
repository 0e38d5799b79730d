"""A server on loopback that gives parts of files, and one that behaves as badly as servers can."""

import hashlib
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["RangeServer"]


class RangeServer:
    """Listens on a port of 127.0.0.1 and serves `files`, a dict of names to bytes.

    Attributes
    ----------
    files : dict of str to bytes
    asked : list of (name, first byte, last byte)
        One entry per request for a part.
    served : int
        Bytes of bodies.
    fault : callable or None
        Gets the handler, the name and the range; returns True if it has answered.
    """

    def __init__(self):
        self.files = {}
        self.asked = []
        self.headers = []
        self.served = 0
        self.fault = None
        self.etags = True
        self.counts = Counter()
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                owner.answer(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, address: None  # a client may well go away
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def url(self, name):
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler):
        name = handler.path.lstrip("/").partition("?")[0]
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        span = (int(asked[1]), int(asked[2])) if asked else None
        with self._lock:
            self.counts[name] += 1
            self.headers.append(dict(handler.headers))
            if span is not None:
                self.asked.append((name, *span))
        try:
            if self.fault is not None and self.fault(handler, name, span):
                return
            self.good(handler, name, span)
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            handler.close_connection = True

    def good(self, handler, name, span, extra=None):
        """Answer as a server should."""
        content = self.files.get(name)
        if content is None:
            return self.send(handler, 404, b"nothing here")
        headers = {} if extra is None else dict(extra)
        if self.etags:
            headers.setdefault("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        if span is None:
            return self.send(handler, 200, content, headers)
        if span[0] >= len(content):
            headers["Content-Range"] = f"bytes */{len(content)}"
            return self.send(handler, 416, b"", headers)
        part = content[span[0] : span[1] + 1]
        headers.setdefault(
            "Content-Range", f"bytes {span[0]}-{span[0] + len(part) - 1}/{len(content)}"
        )
        return self.send(handler, 206, part, headers)

    def send(self, handler, status, body, headers=(), length=None):
        handler.send_response(status)
        for key, value in dict(headers).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)
        with self._lock:
            self.served += len(body)
        if length is not None and length > len(body):
            handler.close_connection = True
