"""`vwkit serve`: one line with the address, a clean end, clear errors."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings
from urllib.parse import urlsplit

import numpy as np
import pytest
from vwkit_serve import Web

import vwkit
from vwkit.jobs import Job, use_job


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Make a run that a process of its own can serve: its backends are vwkit's."""
    folder = tmp_path_factory.mktemp("command")
    vwkit.write(folder / "x.npy", np.random.default_rng(0).integers(0, 99, (200, 8)).astype("u1"))
    spec = {
        "vwkit": 1,
        "vectors": {"path": str(folder / "x.npy")},
        "clusterer": {"use": "lloyd", "k": 5, "iterations": 2},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWKIT_CACHE", str(folder / "cache"))
        return vwkit.Pipeline.from_dict(spec).run(folder / "run")


def command(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "vwkit", "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def failed(*arguments, **environment):
    process = command(*arguments, **environment)
    out, err = process.communicate(timeout=60)
    assert out == ""
    assert "Traceback" not in err
    return process.returncode, err.strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_it_is_asked_to_stop(run, number):
    process = command(run.folder, "--port", 0)
    line = process.stdout.readline()
    found = re.fullmatch(r"serving (.+) at (http://127\.0\.0\.1:\d+/) until Ctrl-C\n", line)
    assert found, line + process.stderr.read()
    assert found[1] == str(run.folder)
    # A client that keeps its connection open does not hold it up.
    connection = http.client.HTTPConnection(urlsplit(found[2]).netloc, timeout=30)
    connection.request("GET", "/api/run")
    assert connection.getresponse().read().startswith(b'{"name":"run"')
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    connection.close()
    assert (process.returncode, out, err) == (0, "", "")


def test_a_port_in_use(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = failed(run.folder, "--port", port)
    assert status == 2
    assert said.startswith(f"error: cannot listen on 127.0.0.1, port {port}: ")
    assert said.endswith("take another port, or 0 for a free one")


def test_what_is_wrong_is_said_in_one_line(run, tmp_path):
    for arguments, words in (
        ([tmp_path / "none"], "no such run folder"),
        ([tmp_path], "not a run folder"),
        (
            [run.folder, "--port", "70000"],
            "web.port: must be less than or equal to 65535; got 70000",
        ),
        ([run.folder, "--host", "no such host"], "cannot listen on no such host"),
        ([run.folder, "--app", "wed"], "no app is named 'wed'; did you mean web?"),
        ([run.folder, "--param", "ports=1"], "web has no such parameter; did you mean port?"),
    ):
        status, said = failed(*arguments)
        assert status == 2
        assert words in said
        assert "\n" not in said


def test_without_the_plugin_it_says_what_to_install(run, monkeypatch):
    status, said = failed(run.folder, VWKIT_BLOCK="vwkit-serve")
    assert status == 2
    assert "the plugin vwkit-serve is blocked" in said
    from vwkit import plugins

    monkeypatch.setenv("VWKIT_BLOCK", "vwkit-serve")
    found = plugins.discover()
    found.blocked = frozenset()
    with pytest.raises(vwkit.UnknownNameError, match=r"pip install ./plugins/vwkit-serve"):
        found.entry("app", "web")


def served(app, run):
    """Serve for a moment, and return the address."""
    job, urls = Job(threads=1), []
    ready = threading.Event()

    def work():
        with use_job(job):
            app._serve(run, lambda url: (urls.append(url), ready.set()))

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(30)
    job.stop.set()
    thread.join(30)
    assert not thread.is_alive()
    return urls


def test_another_host_is_warned_of(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        urls = served(Web(host="0.0.0.0", port=0), run)
        served(Web(host="127.0.0.1", port=0), run)
    assert len(urls) == 1
    assert urls[0].startswith("http://127.0.0.1:")
    told = [str(one.message) for one in caught if one.category is UserWarning]
    assert len(told) == 1
    assert "listening on 0.0.0.0" in told[0]
    assert "no password" in told[0]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6(run):
    assert served(Web(host="::1", port=0), run)[0].startswith("http://[::1]:")


def test_no_web_framework_is_imported_before_something_is_served():
    code = (
        "import sys, vwkit; vwkit.create('app', 'web'); vwkit.backends();"
        "print(sorted({'fastapi', 'starlette', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
