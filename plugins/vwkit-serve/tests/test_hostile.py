"""What hostile or careless clients send; the server answers each with one sentence."""

import asyncio
import io
import socket
import struct
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vwkit_serve.errors import RequestError
from vwkit_serve.guard import Hosts, is_loopback
from vwkit_serve.uploads import Uploads, _file_of
from vwkit_serve.workers import Workers

import vwkit
from vwkit.featurizer import Featurizer
from vwkit.plugins import registered
from vwkit.types import Features

EVIL = {"host": "evil.example"}


def png(width, height, data):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BOMB = png(9_000, 9_000, zlib.compress(bytes(3_000_000)))
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
NO_PICTURES = {
    "bomb": BOMB,
    "far too large": png(2**31 - 1, 2**31 - 1, b""),
    "svg": SVG,
    "html": b"<!doctype html><img src=x onerror=alert(1)>",
    "empty": b"",
    "text": b"hello",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "cut short": None,
    "not its format": b"\xff\xd8\xff\xe0" + bytes(200),
    "zip": b"PK\x03\x04" + bytes(100),
}


def jpeg(size=(200, 150)):
    buffer = io.BytesIO()
    PIL.Image.effect_noise(size, 80).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


class TestUploads:
    @pytest.mark.parametrize("name", NO_PICTURES)
    @pytest.mark.parametrize("path", ["/api/search", "/api/matches?row=0", "/api/preview"])
    def test_what_is_no_picture_is_415(self, serve, name, path):
        content = NO_PICTURES[name]
        status, said = serve("bag").error_of(path, jpeg()[:2000] if content is None else content)
        assert status == 415
        assert "upload" in said

    def test_a_bomb_is_told_by_its_pixels_before_it_is_decoded(self, serve):
        said = serve("bag").error_of("/api/search", BOMB)[1]
        assert "9000 × 9000 pixels, more than 50,000,000" in said

    def test_limits_are_those_that_were_set(self, make, serve, folder):
        server = make(serve("bag").run, max_pixels=10_000, max_upload=1000)
        small = io.BytesIO()
        PIL.Image.new("RGB", (90, 90)).save(small, "PNG")
        server.json("/api/search", small.getvalue())
        large = io.BytesIO()
        PIL.Image.new("RGB", (101, 100)).save(large, "PNG")
        assert server.error_of("/api/search", large.getvalue())[0] == 415
        assert server.error_of("/api/search", bytes(1001))[0] == 413
        # The items' own pictures are larger than that, too.
        assert server.ask("/api/items/0/thumbnail")[1]["cache-control"] == "no-store"

    def test_too_large_with_and_without_a_length(self, make, serve):
        server = make(serve("bag").run, max_upload=100_000)
        body = bytes(3_000_000)
        for sent, headers in ((body, {}), (iter([body[:500_000]] * 6), {})):
            status, said = server.error_of("/api/search", sent, headers=headers)
            assert status == 413
            assert "100,000 bytes" in said
        assert server.error_of("/api/search", jpeg((600, 600)) * 9)[0] == 413

    def test_a_length_that_is_a_lie(self, make, serve):
        server = make(serve("bag").run, timeout=1)
        for length in ("99999999999999999999999", "1000"):
            answer = raw(
                server,
                f"POST /api/search HTTP/1.1\r\nHost: {server.host}\r\n"
                f"Content-Length: {length}\r\n\r\nabc",
            )
            assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 408", b"HTTP/1.1 400")), answer

    def test_slow_clients_are_sent_away(self, make, serve):
        server = make(serve("bag").run, timeout=1)
        head = f"POST /api/search HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: 100\r\n\r\n"
        assert b"408" in raw(server, head + "abc").split(b"\r\n")[0]
        assert b"did not arrive within 1 seconds" in raw(server, head)
        assert raw(server, "GET /api/run HT") == b""  # an unfinished head has no answer
        both = f"GET /api/items/1 HTTP/1.1\r\nHost: {server.host}\r\n\r\nGET /"
        assert raw(server, both).startswith(b"HTTP/1.1 200")

    def test_a_client_that_hangs_up_is_no_error(self, make, serve, caplog):
        server = make(serve("bag").run)
        host, _, port = server.host.partition(":")
        for sent in (b"", b"abc", bytes(70_000)):
            with socket.create_connection((host, int(port))) as sock:
                head = f"POST /api/search HTTP/1.1\r\nHost: {server.host}\r\n"
                sock.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + sent)
        assert server.ask("/api/search", jpeg())[0] == 200
        server.stop()
        assert [one for one in caplog.records if one.levelname == "ERROR"] == []

    def test_uploads_are_never_files(self, serve, monkeypatch):
        def refused(*_, **__):
            raise AssertionError("an upload was to become a file")

        server = serve("whole")
        for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp"):
            monkeypatch.setattr(tempfile, name, refused)
        content = np.random.default_rng(0).integers(0, 255, (900, 900, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        PIL.Image.fromarray(content).save(buffer, "PNG")
        assert len(buffer.getvalue()) > 2_000_000
        head = b'--b\r\nContent-Disposition: form-data; name="i"; filename="../../x.png"\r\n\r\n'
        body = head + buffer.getvalue() + b"\r\n--b--\r\n"
        headers = {"content-type": "multipart/form-data; boundary=b"}
        server.json("/api/search", body, headers=headers)
        server.json("/api/search", buffer.getvalue())

    @pytest.mark.parametrize(
        ("kind", "body", "status"),
        [
            ("multipart/form-data", b"abc", 400),
            ("multipart/form-data; boundary=b", b"abc", 400),
            ("multipart/form-data; boundary=b", b"--b\r\n", 400),
            ("multipart/form-data; boundary=b", b"--b--\r\n", 415),
            ("multipart/form-data; boundary=" + "b" * 300, b"--b--\r\n", 400),
            ("application/x-www-form-urlencoded", b"image=abc", 415),
            ("application/json", b'{"image": "abc"}', 415),
        ],
    )
    def test_forms_that_are_none(self, serve, kind, body, status):
        found, _ = serve("bag").error_of("/api/search", body, headers={"content-type": kind})
        assert found == status

    @given(st.binary(max_size=300), st.sampled_from([b"--b\r\n", b"--b--", b"\r\n\r\n", b""]))
    def test_any_bytes_as_a_form(self, content, between):
        try:
            found = _file_of(b"--b\r\n" + content + between + content, "form; boundary=b")
        except RequestError as error:
            assert error.status in (400, 415)
        else:
            assert isinstance(found, bytes)


def raw(server, text):
    """Send bytes, and return what comes until the server closes the connection."""
    host, _, port = server.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=15) as sock:
        sock.sendall(text.encode())
        parts = []
        while part := sock.recv(65_536):
            parts.append(part)
    return b"".join(parts)


class TestWhoMayAsk:
    def test_a_foreign_name_is_refused_everywhere(self, serve):
        server = serve("bag")
        for path in ("/", "/api/run", "/api", "/static/app.js", "/nothing", "/api/items/0/image"):
            status, said = server.error_of(path, headers=EVIL)
            assert status == 400
            assert "Host" in said
        assert server.error_of("/api/search", jpeg(), headers=EVIL)[0] == 400

    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1",
            "127.0.0.1:9",
            "[::1]",
            "[::1]:8080",
            "localhost.",
        ],
    )
    def test_names_of_this_machine(self, serve, host):
        assert serve("bag").ask("/api/run", headers={"host": host})[0] == 200

    @pytest.mark.parametrize(
        "host",
        [
            "", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "a@localhost",
            "localhost:x", "localhost/evil", "192.168.0.9", "[::2]", "0x7f000001", "local host",
            "evil.example#localhost", "localhost:99999", "[::1", "127.0.0.1\\evil", "2130706433",
        ],
    )  # fmt: skip
    def test_other_names(self, host):
        assert not Hosts("127.0.0.1").allow(host)

    def test_two_hosts_or_none(self, serve):
        server = serve("bag")
        name = server.host
        both = f"GET /api/run HTTP/1.1\r\nHost: {name}\r\nHost: evil\r\nConnection: close\r\n\r\n"
        for head in (both, "GET /api/run HTTP/1.0\r\n\r\n"):
            assert raw(server, head).startswith(b"HTTP/1.1 400")

    def test_open_to_others(self):
        hosts = Hosts("0.0.0.0", ["photos.example"])
        assert hosts.allow("192.168.0.9:8765")
        assert hosts.allow("photos.example")
        assert hosts.allow(socket.gethostname())
        assert not hosts.allow("evil.example")
        assert is_loopback("127.0.0.2")
        assert is_loopback("::1")
        assert not is_loopback("0.0.0.0")
        assert not is_loopback("example.org")

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        ],
    )
    def test_pages_of_other_origins_may_not_ask(self, serve, headers):
        server = serve("bag")
        assert server.error_of("/api/items/0/image", headers=headers)[0] == 403
        assert server.error_of("/api/search", jpeg(), headers=headers)[0] == 403

    def test_our_own_page_may_and_a_link_may_be_followed(self, serve):
        server = serve("bag")
        own = {"origin": f"http://{server.host}", "sec-fetch-site": "same-origin"}
        assert server.ask("/api/search", jpeg(), headers=own)[0] == 200
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        assert server.ask("/", headers=link)[0] == 200

    @pytest.mark.parametrize(
        "path",
        ["/", "/api", "/api/run", "/api/items/0/image", "/static/app.js", "/no", "/openapi.json"],
    )
    def test_every_answer_forbids_what_is_not_needed(self, serve, path):
        headers = serve("bag").ask(path, headers={"origin": f"http://{serve('bag').host}"})[1]
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert "server" not in headers


@vwkit.backend("test-slow")
class Slow(Featurizer):
    """Waits, and counts how many do so at once."""

    thread_safe = True
    safe: bool = True
    counted = threading.Lock()
    running = 0
    most = 0
    gate = threading.Event()

    @property
    def dim(self):
        return 3

    def _extract(self, images):
        cls = type(self)
        with cls.counted:
            cls.running += 1
            cls.most = max(cls.most, cls.running)
        cls.gate.wait(20)
        with cls.counted:
            cls.running -= 1
        return [Features(one.rgb.reshape(-1, 3).mean(axis=0)[None].astype("f4")) for one in images]


class TestManyAtOnce:
    @pytest.fixture
    def slow_run(self, folder, tmp_path, monkeypatch):
        monkeypatch.setenv("VWKIT_CACHE", str(folder / "cache"))
        spec = {
            "vwkit": 1,
            "images": {"path": str(folder / "photos"), "pattern": "*-left.png"},
            "featurizer": {"use": "test-slow"},
            "index": {"use": "exact"},
        }
        Slow.gate.set()
        with registered(Slow):
            yield vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
        Slow.thread_safe = True

    @pytest.mark.parametrize(("thread_safe", "most"), [(True, 2), (False, 1)])
    def test_extractions_are_as_many_as_there_are_threads(self, slow_run, make, thread_safe, most):
        Slow.thread_safe = thread_safe
        server = make(slow_run, threads=2)
        Slow.gate.clear()
        Slow.most = 0
        content = jpeg()
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(server.ask, "/api/search", content) for _ in range(6)]
            until(lambda: Slow.running == most)
            # What needs no thread is answered meanwhile.
            assert server.ask("/api/run")[0] == 200
            Slow.gate.set()
            assert [one.result()[0] for one in asked] == [200] * 6
        assert Slow.most == most

    def test_those_that_may_not_wait_are_503(self, slow_run, make, monkeypatch):
        made = []

        class Watched(Workers):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                made.append(self)

        monkeypatch.setattr("vwkit_serve.server.Workers", Watched)
        server = make(slow_run, threads=1, queue=2)
        Slow.gate.clear()
        content = jpeg()
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(server.ask, "/api/search", content) for _ in range(3)]
            until(lambda: made[0]._held == 3)
            assert server.ask("/api/items/0/thumbnail")[0] == 503
            status, said = server.error_of("/api/search", content)
            assert (status, said) == (503, "too many requests at once; try again in a moment")
            Slow.gate.set()
            assert [one.result()[0] for one in asked] == [200] * 3
        assert server.ask("/api/search", content)[0] == 200

    def test_stopping_does_not_wait_for_the_queue(self, slow_run, make):
        server = make(slow_run, threads=1)
        Slow.gate.clear()
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(swallow, server, jpeg()) for _ in range(4)]
            until(lambda: Slow.running == 1)
            stopper = threading.Thread(target=server.stop)
            stopper.start()
            time.sleep(0.3)
            Slow.gate.set()
            stopper.join(20)
            assert not stopper.is_alive()
            assert all(one.result() is not None for one in asked)


def swallow(server, content):
    try:
        return server.ask("/api/search", content)[0]
    except OSError as error:
        return str(error)
    except Exception as error:  # the connection ended without an answer
        return repr(error)


def until(fine):
    end = time.monotonic() + 20
    while not fine():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_uploads_in_memory_have_a_bound_together():
    class Request:
        headers = {}

        async def stream(self):
            for _ in range(10):
                yield bytes(100)

    async def run():
        uploads = Uploads(1000, 5)
        waiting = asyncio.Event()
        held = [asyncio.ensure_future(uploads.picture(Request(), lambda _: waiting.wait()))
                for _ in range(16)]  # fmt: skip
        await asyncio.sleep(0.05)
        with pytest.raises(RequestError, match="too many uploads") as caught:
            await uploads.picture(Request(), bytes)
        assert caught.value.status == 503
        waiting.set()
        await asyncio.gather(*held)
        assert await uploads.picture(Request(), len) == 1000

    asyncio.run(run())
