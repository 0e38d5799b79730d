"""Pictures a second from a server on this machine: fetched in parallel, beside a loop of urllib.

The server is a process of its own and waits before each answer, as the network would. Each side fetches the
same pictures into a new folder; the loop writes them to files, too, but checks and remembers nothing.
"""

import asyncio
import functools
import io
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
import PIL.Image

from benchmarks.common import machine, paired, table

PICTURES = 600
CONNECTIONS = (1, 8, 32)
LATENCIES = (0, 20, 100)


def main(options):
    """Measure and print."""
    pictures = options.rows[0] if options.rows else PICTURES
    rows = []
    for latency in LATENCIES:
        command = [sys.executable, "-m", "benchmarks.fetching", str(latency)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                base = f"http://127.0.0.1:{int(server.stdout.readline())}"
                # A slow loop says the same with fewer pictures.
                few = max(50, pictures // (1 + latency // 10))
                urls = [f"{base}/{i}.jpg" for i in range(pictures)]
                for connections in CONNECTIONS:
                    asked = urls[:few] if connections == 1 else urls
                    ours, loop, _ = paired(
                        functools.partial(fetch, asked, connections),
                        functools.partial(loop_of, urls[:few]),
                        min(3, options.repeats),
                    )
                    rate, other = len(asked) / ours, few / loop
                    rows.append([latency, connections, rate, other, rate / other])
            finally:
                server.terminate()
    head = ["ms per answer", "connections", "vwkit pictures/s", "urllib loop", "ratio"]
    size = len(picture())
    table(f"Fetching pictures of {size:,} bytes ({machine(1, ('vwkit',))})", head, rows)


def fetch(urls, connections):
    """Fetch with so many connections."""
    from vwkit.downloading import Limits, fetch_pictures

    limits = Limits(parallel=connections, per_host=connections, allow_private=True)
    with tempfile.TemporaryDirectory() as folder:
        found = fetch_pictures(urls, Path(folder), limits)
        wrong = [one.reason for one in found.values() if one.path is None]
        if wrong:
            raise SystemExit(f"{len(wrong)} pictures failed: {wrong[0]}")


def loop_of(urls):
    """Fetch one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        for i, url in enumerate(urls):
            with urllib.request.urlopen(url, timeout=30) as answer:
                (Path(folder) / f"{i}.jpg").write_bytes(answer.read())


def picture():
    """Return a JPEG of the size that shops' small pictures have."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(small).resize((300, 300), 3).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


async def serve(latency):
    """Answer every request with the same picture after `latency` seconds."""
    body = picture()
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def answer(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if latency:
                    await asyncio.sleep(latency)
                writer.write(whole)
                await writer.drain()
                if b"connection: close" in head.lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]) / 1000))
