"""`vwkit serve`: requests a second and latency with 1, 8 and 64 clients; a soak with `--soak`."""

import http.client
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

from benchmarks.common import machine, table

CLIENTS = (1, 8, 64)
SECONDS = 6
LIBRARIES = ("numpy", "fastapi", "uvicorn", "vwkit")


def main(options):
    """Serve the demo's run, or the run folder in `--data`, and ask it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(options.data) if options.data else _demo(Path(folder))
        process, address = _started(run, options.threads)
        try:
            if options.soak:
                _soak(process, address, run, options.soak)
            else:
                _measure(process, address, run, options.threads)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(30)
    if status:
        sys.exit(f"the server ended with status {status}")


def _demo(folder):
    from vwkit.demo import prepare
    from vwkit.pipeline import Pipeline

    os.environ["VWKIT_CACHE"] = str(folder / "cache")
    return Pipeline.from_file(prepare(folder / "photos")).run(folder / "run").folder


def _started(run, threads):
    command = [sys.executable, "-m", "vwkit", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--param", f"threads={threads}"], stdout=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    if " at http" not in line:
        sys.exit("the server did not start")
    return process, urlsplit(line.split(" at ")[1].split()[0]).netloc


def _paths(run):
    """Return the ids of a run's items, and the files that are there."""
    from vwkit.run import Run

    kept = Run.open(run).kept
    files = [
        Path(item.path).read_bytes() for item in kept if item.path and Path(item.path).exists()
    ]
    return [item.id for item in kept], [item.row for item in kept], files


# How fast ------------------------------------------------------------------------------------------


def _measure(process, address, run, threads):
    ids, rows, files = _paths(run)
    jobs = {
        "search by item": [("GET", f"/api/search?item={quote(one, safe='')}", None) for one in ids],
        "search by upload": [("POST", "/api/search", one) for one in files],
        "matches of two items": [
            ("GET", f"/api/matches?query={quote(one, safe='')}&row={row}", None)
            for one, row in zip(ids, rows[1:] + rows[:1], strict=True)
        ],
        "thumbnail, kept": [("GET", f"/api/items/{row}/thumbnail?size=320", None) for row in rows],
    }
    told = []
    for name, requests in jobs.items():
        for request in requests[: 2 * len(rows)]:
            _ask(http.client.HTTPConnection(address, timeout=60), *request)  # once, to be warm
        for clients in CLIENTS:
            took, refused, seconds = _load(address, requests, clients)
            cuts = statistics.quantiles(took, n=20)
            row = [name, clients, len(took) / seconds, 1000 * statistics.median(took)]
            told.append([*row, 1000 * cuts[18], refused, _memory(process.pid)[0]])
            print(".", end="", flush=True, file=sys.stderr)
    head = ["work", "clients", "requests/s", "p50 ms", "p95 ms", "refused", "server's MiB"]
    table(f"Serving {len(ids)} pictures ({machine(threads, LIBRARIES)})", head, told)


def _load(address, requests, clients):
    """Ask with so many connections at once; return the seconds of each, and of all."""
    took, refused = [], []
    stop = threading.Event()
    start = threading.Barrier(clients + 1)

    def client(number):
        connection = http.client.HTTPConnection(address, timeout=60)
        mine = itertools.cycle(
            requests[number % len(requests) :] + requests[: number % len(requests)]
        )
        start.wait()
        while not stop.is_set():
            begin = time.perf_counter()
            status = _ask(connection, *next(mine))
            (took if status == 200 else refused).append(time.perf_counter() - begin)
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    return took, len(refused), time.perf_counter() - begin


def _ask(connection, method, path, body):
    connection.request(method, path, body)
    answer = connection.getresponse()
    answer.read()
    return answer.status


# How long --------------------------------------------------------------------------------------------


def _soak(process, address, run, minutes):
    """Ask for everything, well and badly, and print the server's memory over time."""
    ids, rows, files = _paths(run)
    counts = {}
    stop = threading.Event()
    threads = [
        threading.Thread(target=_nag, args=(address, ids, rows, files, seed, counts, stop))
        for seed in range(8)
    ]
    for thread in threads:
        thread.start()
    begin, told = time.monotonic(), []
    every = max(5.0, min(30.0, minutes * 3))
    print(f"{machine(2, LIBRARIES)}\n\n minutes  requests  MiB  files  threads", flush=True)
    while time.monotonic() - begin < 60 * minutes:
        time.sleep(every)
        passed = (time.monotonic() - begin) / 60
        mib, files_open, running = _memory(process.pid)
        told.append((passed, mib))
        asked = sum(counts.values())
        print(f"{passed:8.1f} {asked:9,} {mib:4.0f} {files_open:6} {running:8}", flush=True)
    stop.set()
    for thread in threads:
        thread.join()
    last = told[len(told) // 2 :]  # caches fill in the first half
    slope = statistics.linear_regression(*zip(*last, strict=True)).slope if len(last) > 2 else 0.0
    print(f"\nanswers by status: {json.dumps(dict(sorted(counts.items())))}")
    print(f"in the second half: {slope:+.2f} MiB a minute")


def _nag(address, ids, rows, files, seed, counts, stop):
    rng = random.Random(seed)
    while not stop.is_set():
        connection = http.client.HTTPConnection(address, timeout=60)
        for _ in range(50):
            if stop.is_set():
                break
            name, row = quote(rng.choice(ids), safe=""), rng.choice(rows)
            body = rng.choice(files)
            request = rng.choice(
                [
                    ("GET", f"/api/search?item={name}", None),
                    ("POST", "/api/search", body),
                    ("GET", f"/api/items/{row}/thumbnail?size={rng.randint(16, 640)}", None),
                    ("GET", f"/api/matches?query={name}&row={row}", None),
                    ("POST", f"/api/matches?row={row}", body),
                    ("GET", f"/api/words/{rng.randint(0, 900)}/patches", None),
                    ("GET", f"/api/items?offset={row}&q=e", None),
                    ("GET", "/api/run", None),
                    ("POST", "/api/search", body[: len(body) // 2]),  # cut short
                    ("POST", "/api/search", b"no picture"),
                    ("GET", "/api/items/999999999", None),
                ]
            )
            status = _ask(connection, *request)
            counts[status] = counts.get(status, 0) + 1
        connection.close()
        _hang_up(address, rng.choice(files))


def _hang_up(address, body):
    """Send half an upload and go away."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port))) as sock:
        head = (
            f"POST /api/search HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        sock.sendall(head.encode() + body[: len(body) // 2])


def _memory(pid):
    """Return a process's own memory in MiB, its open files and its threads."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return int(found["RssAnon"]) / 1024, files, int(found["Threads"])
