"""Small runs to serve, and servers on this machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import warnings
from urllib.parse import urlsplit

import numpy as np
import PIL.Image
import pytest
from vwkit_serve import Web

import vwkit
from vwkit.featurizer import Featurizer
from vwkit.jobs import Job, use_job
from vwkit.plugins import registered
from vwkit.types import Features

ODD = "<b>&\"'é.png"


@vwkit.backend("test-corners")
class Corners(Featurizer):
    """Points where brightness changes most, described by the pixels around them."""

    local = True
    thread_safe = True

    @property
    def dim(self):
        return 81

    def _extract(self, images):
        return [self._one(image) for image in images]

    def _one(self, image):
        gray = image.gray.astype(np.float32)
        if min(gray.shape) < 20:
            return Features(np.zeros((0, 81), np.float32), np.zeros((0, 5), np.float32))
        dy, dx = np.gradient(gray)
        strength = np.abs(dx) + np.abs(dy)
        strength[:5] = strength[-5:] = 0
        strength[:, :5] = strength[:, -5:] = 0
        top = np.argsort(-strength, axis=None, kind="stable")[:400:2]
        top = top[strength.flat[top] > 0]
        rows, columns = np.unravel_index(top, gray.shape)
        steps = np.arange(-4, 5)
        patches = gray[rows[:, None, None] + steps[:, None], columns[:, None, None] + steps]
        vectors = patches.reshape(len(top), 81)
        vectors = vectors - vectors.mean(axis=1, keepdims=True)
        points = np.zeros((len(top), 5), np.float32)
        points[:, 0], points[:, 1], points[:, 2], points[:, 4] = (
            columns,
            rows,
            9,
            strength.flat[top],
        )
        return Features(vectors.astype(np.float32), points)


@vwkit.backend("test-colours")
class Colours(Featurizer):
    """The mean colours of 4 by 4 fields; one picture at a time, as many networks work."""

    @property
    def dim(self):
        return 48

    def _extract(self, images):
        small = [PIL.Image.fromarray(one.rgb).resize((4, 4)) for one in images]
        return [Features(np.asarray(one, np.float32).reshape(1, 48)) for one in small]


def scene(seed, size=(160, 120)):
    rng = np.random.default_rng(seed)
    width, height = size
    pixels = np.full((height, width, 3), rng.integers(60, 200, 3), np.uint8)
    for _ in range(40):
        top, left = rng.integers(0, height), rng.integers(0, width)
        tall, broad = rng.integers(6, 30, 2)
        pixels[top : top + tall, left : left + broad] = rng.integers(0, 255, 3)
    return PIL.Image.fromarray(pixels)


def write_photos(folder):
    """Write five scenes, each from two places, one of them under an odd name."""
    folder.mkdir()
    for seed in range(5):
        wide = scene(seed)
        wide.crop((0, 0, 140, 110)).save(folder / f"{seed}-left.png")
        name = ODD if seed == 4 else f"{seed}-right.png"
        wide.crop((20, 10, 160, 120)).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")


BAG = {
    "featurizer": {
        "use": "bag-of-words",
        "local": {"use": "test-corners"},
        "vocabulary": {"use": "lloyd", "k": 60, "iterations": 4},
    },
    "index": {"use": "inverted"},
}
KINDS = {
    "bag": BAG,
    "votes": {"featurizer": {"use": "test-corners"}, "index": {"use": "exact"}},
    "whole": {
        "featurizer": {"use": "test-colours"},
        "index": {"use": "exact"},
        "clusterer": {"use": "lloyd", "k": 3, "iterations": 4},
    },
    "groups": {
        "featurizer": {"use": "test-colours"},
        "clusterer": {"use": "lloyd", "k": 3, "iterations": 4},
    },
    "words": {
        "featurizer": {"use": "test-corners"},
        "clusterer": {"use": "lloyd", "k": 30, "iterations": 4},
    },
}


@pytest.fixture(scope="session", autouse=True)
def _known():
    with registered(Corners), registered(Colours):
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("serve")
    write_photos(made / "photos")
    rows = np.random.default_rng(0).integers(0, 255, (300, 8)).astype(np.uint8)
    vwkit.write(made / "x.npy", rows)
    return made


def run_of(folder, kind, out=None, **changes):
    source = {"images": {"path": str(folder / "photos")}}
    slots = KINDS.get(kind)
    if slots is None:
        source, slots = {"vectors": {"path": str(folder / "x.npy")}}, {"clusterer": BAG_WORDS}
    spec = {"vwkit": 1, "seed": 1, **source, **slots, **changes}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", vwkit.SkippedItems)  # the broken picture
        patch.setenv("VWKIT_CACHE", str(folder / "cache"))
        return vwkit.Pipeline.from_dict(spec).run(out or folder / "runs" / kind)


BAG_WORDS = {"use": "lloyd", "k": 12, "iterations": 4}


class Server:
    """A server in a thread of this process."""

    def __init__(self, run, **params):
        self.run = run
        self.url = None
        self.error = None
        self._job = Job(threads=2)
        self._ready = threading.Event()
        self._app = Web(**{"port": 0, "threads": 2, **params})
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self._ready.wait(30)
        if self.error is not None:
            raise self.error
        self.host = urlsplit(self.url).netloc

    def _serve(self):
        def ready(url):
            self.url = url
            self._ready.set()

        try:
            with use_job(self._job):
                self._app._serve(self.run, ready)
        except BaseException as error:
            self.error = error
            self._ready.set()

    def stop(self):
        self._job.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def ask(self, path, body=None, method=None, headers=()):
        """Return (status, headers, body)."""
        connection = http.client.HTTPConnection(self.host, timeout=30)
        with contextlib.closing(connection):
            method = method or ("GET" if body is None else "POST")
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def json(self, path, body=None, **options):
        status, headers, content = self.ask(path, body, **options)
        assert status == 200, content
        assert headers["content-type"] == "application/json"
        return json.loads(content)

    def error_of(self, path, body=None, **options):
        """Return (status, sentence) of a request that must fail."""
        status, headers, content = self.ask(path, body, **options)
        assert status >= 400, content
        assert headers["content-type"] == "application/json"
        told = json.loads(content)
        assert list(told) == ["error"]
        assert "\n" not in told["error"]
        assert "Traceback" not in told["error"]
        return status, told["error"]


@pytest.fixture(scope="session")
def serve(folder):
    """Return a function that gives the server of a kind of run; each is started once."""
    servers = {}

    def of(kind):
        if kind not in servers:
            servers[kind] = Server(run_of(folder, kind))
        return servers[kind]

    yield of
    for server in servers.values():
        server.stop()


@pytest.fixture
def make(folder):
    """Return the class and what it needs, for servers of a test's own; they are stopped."""
    made = []

    def start(run, **params):
        made.append(Server(run, **params))
        return made[-1]

    yield start
    for server in made:
        server.stop()
