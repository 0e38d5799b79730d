"""Rows a second of a descriptor file on a web server, read in parts, beside the same file on the disk.

The server is a process of its own on this machine. It waits before each answer and sends no faster than so
much a second on each connection, as an object store does. "fsspec" is one file opened by fsspec with its
read-ahead, blocks of 8 MiB, nothing checked. Whole streams are summed up, so every byte is looked at;
the random rows are read by `Stream.take`. The same file under gzip is read from the disk.
"""

import asyncio
import contextlib
import functools
import gzip
import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import vwkit
from benchmarks.common import machine, table, vectors
from vwkit.formats import gunzip

ROWS = 400_000
DRAWN = 200
# Milliseconds before an answer, MB a second on a connection (0: as fast as it goes).
NETWORKS = ((0, 0), (20, 80))


def main(options):
    """Measure and print."""
    rows = options.rows[0] if options.rows else ROWS
    repeats = min(3, options.repeats)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "base.bvecs"
        vwkit.write(local, vectors(rows, path=options.data))
        size = local.stat().st_size
        stream = vwkit.read(local)
        picked = np.sort(np.random.default_rng(0).choice(stream.count(), DRAWN, replace=False))
        expected = int(summed(stream)), int(stream.take(picked).sum())
        lines.append(["file", "", *measured(stream, picked, size, expected, repeats)])
        for name, seconds in compressed(local, expected[0], repeats).items():
            lines.append([name, "", rows / seconds, size / seconds / 1e6, "", ""])
        for latency, speed in NETWORKS:
            network = f"{latency} ms, {f'{speed} MB/s' if speed else 'no limit'}"
            command = [sys.executable, "-m", "benchmarks.remote", local, str(latency), str(speed)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                try:
                    url = f"http://127.0.0.1:{int(server.stdout.readline())}/base.bvecs"
                    found = measured(vwkit.read(url), picked, size, expected, repeats)
                    lines.append(["URL", network, *found])
                    took = best(functools.partial(plainly, url), repeats)
                    lines.append(
                        ["fsspec", network, stream.count() / took, size / took / 1e6, "", ""]
                    )
                finally:
                    server.terminate()
    head = ["from", "network", "rows/s, all", "MB/s", f"s for {DRAWN:,} rows", "rows/s, random"]
    print(machine(options.threads, ("numpy", "fsspec", "aiohttp", "vwkit")))
    table(f"{rows:,} rows of {stream.dim} uint8, {size / 1e6:.0f} MB", head, lines)


def compressed(local, expected, repeats):
    """Return the seconds of a pass over the same file under gzip, by library."""
    packed = local.with_suffix(".bvecs.gz")
    packed.write_bytes(gzip.compress(local.read_bytes(), 6))
    stream = vwkit.read(packed)
    found = {}
    for library in ("isal.isal_zlib", "zlib"):
        with contextlib.suppress(ImportError):
            chosen = importlib.import_module(library)
            gunzip._library = lambda chosen=chosen: chosen
            if summed(stream) != expected:
                raise SystemExit("other rows than in the file")
            found[f".gz, {library.partition('.')[0]}"] = best(
                functools.partial(summed, stream), repeats
            )
    return found


def measured(stream, picked, size, expected, repeats):
    """Return rows and MB a second of a pass, seconds and rows a second of random rows."""
    if (summed(stream), int(stream.take(picked).sum())) != expected:
        raise SystemExit("other rows than in the file")
    whole = best(functools.partial(summed, stream), repeats)
    some = best(functools.partial(stream.take, picked), repeats)
    return stream.rows / whole, size / whole / 1e6, some, len(picked) / some


def best(work, repeats):
    """Return the least seconds of some runs."""
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


def summed(stream):
    """Look at every row."""
    return sum(int(chunk.sum(dtype=np.int64)) for chunk in stream.chunks())


def plainly(url):
    """Read a URL by fsspec's own file, and look at every byte."""
    import fsspec

    total = 0
    with fsspec.open(url, block_size=8 << 20, cache_type="readahead") as file:
        while block := file.read(8 << 20):
            total += int(np.frombuffer(block, np.uint8).sum(dtype=np.int64))
    return total


async def serve(path, latency, speed):
    """Send parts of a file."""
    size = os.path.getsize(path)
    piece = 1 << 18

    async def answer(reader, writer):
        try:
            with open(path, "rb") as file:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    asked = re.search(rb"bytes=(\d+)-(\d+)", head)
                    first, last = (int(asked[1]), int(asked[2])) if asked else (0, size - 1)
                    last = min(last, size - 1)
                    await asyncio.sleep(latency)
                    start = time.perf_counter()
                    writer.write(
                        f"HTTP/1.1 {'206 Partial Content' if asked else '200 OK'}\r\n"
                        f'ETag: "1"\r\nContent-Range: bytes {first}-{last}/{size}\r\n'
                        f"Content-Length: {last + 1 - first}\r\n\r\n".encode()
                    )
                    if not head.startswith(b"HEAD"):
                        file.seek(first)
                        for done in range(0, last + 1 - first, piece):
                            writer.write(file.read(min(piece, last + 1 - first - done)))
                            await writer.drain()
                            if speed:
                                due = start + (done + piece) / speed
                                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2]) / 1000, float(sys.argv[3]) * 1e6))
