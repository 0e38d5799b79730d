"""Descriptor files to put at URLs, and stores to put them in: fsspec's memory, and a local server."""

from pathlib import Path

import numpy as np
import pytest

from tests.range_server import RangeServer
from vwkit.formats import http_ranges, write_vectors

__all__ = ["NAMES", "ROWS", "content_of", "memory", "rows_of", "server"]

ROWS = 2000
NAMES = {
    "a.bvecs": np.uint8,
    "a.fvecs": np.float32,
    "a.ivecs": np.int32,
    "a.npy": np.float64,
    "a.u8bin": np.uint8,
    "a.fbin": np.float32,
    "b.bvecs.gz": np.uint8,
    "c_sift.bin": np.uint8,
}


def rows_of(name, rows=ROWS, seed=0):
    dtype = NAMES[name]
    dim = 128 if name == "c_sift.bin" else 9
    return np.random.default_rng(seed).integers(0, 255, (rows, dim)).astype(dtype)


def content_of(name, rows=ROWS, seed=0, folder=None):
    """Return the bytes of a descriptor file."""
    vectors = rows_of(name, rows, seed)
    if name == "c_sift.bin":
        return vectors.tobytes() + bytes(12)
    path = Path(folder) / name
    write_vectors(path, [vectors], dim=vectors.shape[1], dtype=vectors.dtype)
    return path.read_bytes()


@pytest.fixture
def memory():
    """Give a function that puts content under a name and returns its URL."""
    fsspec = pytest.importorskip(
        "fsspec", reason="fsspec is not installed: pip install '.[remote]'"
    )
    files = fsspec.filesystem("memory")

    def put(name, content):
        files.pipe_file(f"/bucket/{name}", content)
        return f"memory://bucket/{name}"

    yield put
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def server(monkeypatch):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install '.[remote]'")
    from fsspec.asyn import sync
    from fsspec.implementations.http import HTTPFileSystem

    monkeypatch.setattr(http_ranges, "RETRIES", (0.0, 0.0))
    HTTPFileSystem.clear_instance_cache()
    running = RangeServer()
    yield running
    for files in list(HTTPFileSystem._cache.values()):
        if files._session is not None:
            sync(files.loop, files._session.close)
    HTTPFileSystem.clear_instance_cache()
    running.close()
