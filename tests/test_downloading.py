"""Fetching many pictures: against a server that misbehaves in every way, killed and resumed."""

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time

import pytest

from tests.picture_server import PictureServer, jpeg
from vwkit.downloading import Limits, fetch_pictures
from vwkit.downloading.addresses import Refused, is_public, parsed
from vwkit.downloading.ledger import Entry, Ledger, file_name
from vwkit.errors import DataError, Interrupted, ParameterError, RunError
from vwkit.jobs import Job, use_job

QUICK = {"timeout": 5.0, "retries": 2, "allow_private": True, "backoff": 0.01, "max_bytes": 200_000}


def limits(**given):
    return Limits(**{**QUICK, **given})


@pytest.fixture(scope="module")
def server():
    with PictureServer() as one:
        yield one


def one(server, path, cache, url=None, **given):
    url = url or server.url(path)
    return fetch_pictures([url], cache, limits(**given))[url]


def test_pictures_are_fetched_once_and_known_afterwards(tmp_path):
    with PictureServer() as server:
        urls = [server.url(f"/picture/{i}.jpg") for i in range(40)] + [server.url("/picture/3.jpg")]
        found = fetch_pictures(urls, tmp_path, limits())
        assert len(found) == 40
        assert all(outcome.fresh for outcome in found.values())
        assert found[urls[3]].path.read_bytes() == jpeg(3)
        assert set(server.asked.values()) == {1}
        again = fetch_pictures(urls, tmp_path, limits())
        assert {url: o.path for url, o in again.items()} == {u: o.path for u, o in found.items()}
        assert not any(outcome.fresh for outcome in again.values())
        assert set(server.asked.values()) == {1}
        # Connections are used again, so there are fewer of them than pictures.
        assert server.connections <= 16


def test_parallel_and_per_host_are_limits(tmp_path):
    with PictureServer(delay=0.03) as server:
        urls = [server.url(f"/picture/{i}.jpg") for i in range(24)]
        fetch_pictures(urls, tmp_path / "a", limits(parallel=6, per_host=3))
        assert server.most_at_once == 3
        names = ["127.0.0.1", "localhost"]
        both = [server.url(f"/picture/{i}.jpg", names[i % 2]) for i in range(24)]
        found = fetch_pictures(both, tmp_path / "b", limits(parallel=16, per_host=2))
        assert all(outcome.path for outcome in found.values())
        assert server.most_at_once == 4
        assert set(server.hosts) == {f"{name}:{server.port}" for name in names}


GOOD = ("/second-time", "/no-length", "/chunks", "/moved", "/packed", "/too-much", "/goodbye")


@pytest.mark.parametrize("path", GOOD)
def test_what_can_be_had_is_had(server, tmp_path, path):
    outcome = one(server, path, tmp_path)
    assert outcome.reason is None
    assert outcome.path.suffix == ".jpg"
    assert outcome.path.read_bytes()[:3] == b"\xff\xd8\xff"


BAD = {
    "/missing": "HTTP 404 Not Found",
    "/broken": "HTTP 503 Service Unavailable",
    "/endless": "more than 200,000 bytes",
    "/huge": "more than 200,000 bytes",
    "/short": "100 bytes too early",
    "/bad-chunks": "not a valid answer|ended too early",
    "/loop": "in a circle",
    "/chain/0": "more than 5 times",
    "/to-file": "file: is not fetched",
    "/html": "not an image",
    "/bomb": "too many pixels|pixels, more than",
    "/empty": "not an image",
    "/packed-bomb": "more than 200,000 bytes",
    "/packed-wrong": "not a valid answer",
    "/brotli": "packed as 'br'",
    "/garbage": "127.0.0.1: ",
    "/hang-up": "127.0.0.1: ",
}


@pytest.mark.parametrize("path", BAD)
def test_what_cannot_be_had_has_a_reason(server, tmp_path, path):
    outcome = one(server, path, tmp_path, retries=1)
    assert outcome.path is None
    assert "\n" not in outcome.reason
    assert re.search(BAD[path], outcome.reason)
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p.name not in (".lock",)]
    assert [p.name for p in left] == ["ledger.jsonl"]


@pytest.mark.parametrize("path", ["/drip", "/drip-head", "/silent"])
def test_slow_servers_cost_the_timeout_only(server, tmp_path, path):
    start = time.monotonic()
    outcome = one(server, path, tmp_path, timeout=0.3, retries=1)
    assert outcome.reason == "not there within 0.3 s"
    assert time.monotonic() - start < 5


def test_only_what_may_pass_is_tried_again(tmp_path):
    with PictureServer() as server:
        for path, attempts in (("/broken", 3), ("/missing", 1), ("/html", 1), ("/short", 3)):
            one(server, path, tmp_path)
            assert server.asked[path] == attempts, path


@pytest.mark.parametrize(
    "wrong", [{"parallel": 0}, {"per_host": 1.5}, {"retry": "always"}, {"timeout": 0}]
)
def test_limits_are_checked(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Limits(**wrong)


def test_failures_are_not_retried_forever(tmp_path):
    with PictureServer() as server:
        for _ in range(5):
            one(server, "/missing", tmp_path)
            one(server, "/broken", tmp_path, retries=0)
        assert server.asked == {"/missing": 1, "/broken": 3}
        assert "503" in one(server, "/broken", tmp_path).reason
        one(server, "/missing", tmp_path, retry="failed")
        assert server.asked["/missing"] == 2
        one(server, "/second-time", tmp_path, retries=0)
        assert one(server, "/second-time", tmp_path, retry="never").path is None
        assert one(server, "/second-time", tmp_path).path is not None


def test_a_host_that_is_down_is_given_up(tmp_path):
    with PictureServer() as server:
        port = server.port
    urls = [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(300)]
    found = fetch_pictures(urls, tmp_path, limits(retries=0))
    assert len(found) == 300
    assert all(outcome.path is None for outcome in found.values())
    assert any("not asked again" in outcome.reason for outcome in found.values())


def test_private_addresses_are_refused(server, tmp_path):
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "2130706433"):
        url = f"http://{host}:{server.port}/picture/1.jpg"
        outcome = fetch_pictures([url], tmp_path, Limits(retries=0))[url]
        assert outcome.path is None, host
        assert "not in the public internet" in outcome.reason or "connect" in outcome.reason
    before = server.asked["/picture/1.jpg"]
    # It was a setting, not a fault of the picture: with another one it is asked for.
    assert one(server, "/picture/1.jpg", tmp_path).path is not None
    assert server.asked["/picture/1.jpg"] == before + 1


def test_redirects_are_judged_too(monkeypatch, tmp_path):
    from vwkit.downloading import transfer

    judged = []
    real = transfer.resolved

    def watching(target, allow_private):
        judged.append(target.path)
        return real(target, allow_private)

    monkeypatch.setattr(transfer, "resolved", watching)
    with PictureServer() as server, PictureServer() as other:
        server.do_away = lambda one, path: one.sendall(
            f"HTTP/1.1 302 Found\r\nLocation: {other.url('/picture/2.jpg')}\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        assert one(server, "/away", tmp_path).path is not None
    assert judged == ["/away", "/picture/2.jpg"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("127.1.2.3", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("no address", False),
    ],
)
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no URL"),
        ("file:///etc/passwd", "file: is not fetched"),
        ("ftp://host/x.jpg", "ftp: is not fetched"),
        ("javascript:alert(1)", "javascript: is not fetched"),
        ("x.jpg", "is no URL"),
        ("http:///x.jpg", "no host"),
        ("http://user:secret@host/x.jpg", "user name or password"),
        ("http://host:99999/", "not a URL"),
        ("http://host/a\r\nX: y", "control characters"),
        ("http://h\u00e4\u0000x/", "control characters"),
        ("http://ho st/", "no host name"),
        ("http://" + "a" * 100 + "/", "no host name"),
        ("http://host/" + "a" * 10_000, "too long"),
    ],
)
def test_strange_urls_are_refused(text, said):
    with pytest.raises(Refused, match=said):
        parsed(text)


def test_urls_are_brought_into_one_form():
    assert parsed(" HTTP://Host.Example/a b/\u00e9.jpg?x=1 2#part ").url == (
        "http://host.example/a%20b/%C3%A9.jpg?x=1%202"
    )
    assert parsed("https://b\u00fccher.example:8443/%41").url == (
        "https://xn--bcher-kva.example:8443/%41"
    )
    assert parsed("http://[2001:4860:4860::8888]/x").site == ("http", "2001:4860:4860::8888", 80)


def test_names_of_files_tell_nothing_of_the_url(server, tmp_path):
    urls = [
        server.url(path)
        for path in ("/picture/../../1.jpg", "/picture/%2e%2e/2.jpg", "/picture/a/../3")
    ]
    found = fetch_pictures(urls, tmp_path, limits())
    for outcome in found.values():
        assert outcome.path.resolve().is_relative_to(tmp_path.resolve())
        assert len(outcome.path.relative_to(tmp_path).parts) == 2


def test_a_ledger_that_lies_is_not_believed(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    cache = tmp_path / "cache"
    cache.mkdir()
    lines = [
        {"url": "http://a/", "file": "../secret.jpg", "bytes": 6},
        {"url": "http://b/", "file": str(secret), "bytes": 6},
        {"url": "http://c/", "file": file_name("http://c/") + ".jpg", "bytes": 6},
        {"url": 7, "file": 7, "bytes": 7},
        [],
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (cache / "ledger.jsonl").write_text(text + "\n[[[[\n\x00\n" + '{"url": "http://d/", "rea')
    ledger = Ledger(cache)
    assert [ledger.picture(f"http://{name}/") for name in "abcd"] == [None] * 4
    assert ledger.entry("http://a/") is None
    ledger.note("http://e/", ledger.entry("http://c/"))
    ledger.close()
    again = Ledger(cache)
    assert again.entry("http://e/") is not None  # the torn line before it does no harm
    again.close()


def test_the_ledger_does_not_grow_without_end(tmp_path):
    ledger = Ledger(tmp_path)
    for i in range(3000):
        ledger.note(f"http://a/{i % 3}", Entry(None, 0, f"reason {i}", True, 1))
    ledger.close()
    again = Ledger(tmp_path)
    assert again.entry("http://a/2").reason == "reason 2999"
    again.close()
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 3


def test_a_picture_that_went_or_changed_is_fetched_again(server, tmp_path):
    first = one(server, "/picture/11.jpg", tmp_path)
    first.path.write_bytes(b"short")
    assert one(server, "/picture/11.jpg", tmp_path).path.read_bytes() == jpeg(11)
    first.path.unlink()
    assert one(server, "/picture/11.jpg", tmp_path).fresh


def test_a_cache_that_is_in_use_is_refused(server, tmp_path):
    from vwkit.lock import locked

    with (
        locked(tmp_path / ".lock", tmp_path),
        pytest.raises(RunError, match="another cache folder"),
    ):
        one(server, "/picture/1.jpg", tmp_path)


def test_a_cache_that_cannot_be_written_is_one_clear_error(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        one(server, "/picture/1.jpg", tmp_path / "file")


def test_a_full_disk_is_not_the_servers_fault(server, tmp_path, monkeypatch):
    from vwkit.downloading import fetching

    def full(self, target, file):
        raise DataError("disk: cannot be written: No space left on device")

    monkeypatch.setattr(fetching.Client, "fetch", full)
    with pytest.raises(DataError, match="No space left"):
        one(server, "/picture/1.jpg", tmp_path)
    assert (tmp_path / "ledger.jsonl").read_text() == ""


def test_stopping_is_quick_and_keeps_what_is_there(tmp_path):
    with PictureServer() as server:
        good = [server.url(f"/picture/{i}.jpg") for i in range(10)]
        urls = [*good, *(server.url(f"/silent/{i}") for i in range(10))]
        stop = threading.Event()
        told = []

        def progress(stage, done, total, unit, values):
            told.append((done, total, unit))
            if done >= 10:
                stop.set()

        start = time.monotonic()
        with use_job(Job(progress=progress, stop=stop)), pytest.raises(Interrupted):
            fetch_pictures(urls, tmp_path, limits(timeout=60.0))
        assert time.monotonic() - start < 10
        assert told[-1] == (10, 20, "pictures")
        found = fetch_pictures(good, tmp_path, limits())
        assert not any(outcome.fresh for outcome in found.values())
        assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 10


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_https_checks_certificates(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    make += [
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with PictureServer(tls=context) as server:
        url = f"https://localhost:{server.port}/picture/1.jpg"
        found = fetch_pictures([url], tmp_path / "cache", limits())[url]
        assert "certificate of localhost is not valid" in found.reason
        assert server.asked.total() == 0
        trusting = ssl.create_default_context(cafile=certificate)
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
        urls = [url.replace("1.jpg", f"{i}.jpg") for i in range(6)]
        again = fetch_pictures(urls, tmp_path / "cache", limits(retry="failed", parallel=2))
        assert [again[one].path.read_bytes() for one in urls] == [jpeg(i) for i in range(6)]
        assert server.connections <= 3
        wrong = url.replace("localhost", "127.0.0.1")  # another name than the certificate's
        found = fetch_pictures([wrong], tmp_path / "cache", limits())[wrong]
        assert "certificate of 127.0.0.1 is not valid" in found.reason
        slow = f"https://localhost:{server.port}/drip"
        assert "within 0.5 s" in one(server, "", tmp_path, url=slow, timeout=0.5, retries=0).reason


KILLED = """
import json, sys
from pathlib import Path
from vwkit.downloading import Limits, fetch_pictures
urls = json.loads(Path(sys.argv[1]).read_text())
fetch_pictures(urls, Path(sys.argv[2]), Limits(parallel=4, allow_private=True, timeout=20))
"""


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="kill-safety is promised on Linux and macOS"
)
def test_a_killed_fetch_goes_on_where_it_was(tmp_path):
    with PictureServer(delay=0.01) as server:
        urls = [server.url(f"/picture/{i}.jpg") for i in range(120)]
        (tmp_path / "urls.json").write_text(json.dumps(urls))
        command = [sys.executable, "-c", KILLED, "urls.json", "cache"]
        for wanted in (20, 60):
            process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ})
            deadline = time.monotonic() + 60
            while server.asked.total() < wanted and time.monotonic() < deadline:
                time.sleep(0.002)
            process.kill()
            process.wait(10)
        found = fetch_pictures(urls, tmp_path / "cache", limits())
        for i, url in enumerate(urls):
            assert found[url].path.read_bytes() == jpeg(i)
        # Only what was under way at a kill was asked for twice.
        assert server.asked.total() <= 120 + 2 * 4
        assert 0 < sum(outcome.fresh for outcome in found.values()) < 120
    assert not list((tmp_path / "cache").glob("??/.*"))


@pytest.mark.parametrize("url", ["http://a/\ud800", "http://a/?\udfff", "http://\ud800/"])
def test_half_a_character_is_no_url(url):
    with pytest.raises(Refused):
        parsed(url)


@pytest.mark.parametrize(
    "address", ["fec0::1", "::127.0.0.1", "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "5f00::1"]
)
def test_only_global_unicast_of_ipv6_is_public(address):
    assert not is_public(address)
    assert is_public("2606:4700::1")
    assert is_public("64:ff9b::808:808")
