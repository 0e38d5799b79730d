"""What an executor of processes costs and brings: rows a second, and bytes that travel.

Each stage is run on threads of this process and on Dask workers of this machine, on the same file.
Bytes are those that any process writes to a socket, the scheduler's among them; what workers hand
to each other is counted apart. The last table is arithmetic: what one pass would take on more
workers, from what was measured here.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import machine, table

DIM = 128
ROWS, WORDS = 200_000, 256
LINK = 1.25e9  # bytes a second of a 10 Gbit/s link
BILLION, MILLION, NEIGHBOURS = 10**9, 10**6, 64


def count_bytes():
    """Count what this process writes to sockets from now on."""
    from distributed.comm.tcp import TCP

    if hasattr(TCP, "vwkit_written"):
        return
    plain = TCP.write

    async def write(self, *args, **kwargs):
        written = await plain(self, *args, **kwargs)
        TCP.vwkit_written += int(written)
        return written

    TCP.vwkit_written, TCP.write = 0, write


def counted(dask_worker=None):
    """Return the bytes written so far, and those that a worker took from others."""
    from distributed.comm.tcp import TCP

    log = getattr(dask_worker, "transfer_incoming_log", ())
    return TCP.vwkit_written, sum(one["total"] for one in log)


class Traffic:
    """Bytes between two looks."""

    def __init__(self, executor):
        self.client = executor._cluster.client if executor.distributed else None
        if self.client is not None:
            self.client.run(count_bytes)
            count_bytes()
        self.before = self.now()

    def now(self):
        if self.client is None:
            return np.zeros(2)
        return np.sum([counted(), *self.client.run(counted).values()], axis=0)

    def since(self):
        return self.now() - self.before


def stages(folder, data, words):
    """Yield name, rows, and what runs it once."""
    import vwkit
    from vwkit.stage_arrays import write_stream

    rows = np.load(data, mmap_mode="r")
    pq = vwkit.create("quantizer", "pq", m=16, ks=256, iterations=4, train_rows=20_000)
    pq.fit(np.array(rows[:20_000]))
    start = np.array(rows[:: len(rows) // words][:words], np.float32)

    def encode():
        write_stream(Path(folder) / "codes", "codes", pq.encode(vwkit.Stream.from_array(rows)))

    def lloyd():
        vwkit.create("clusterer", "lloyd", k=words, iterations=1, init=start).fit(rows)

    yield "encode (pq, m = 16)", len(rows), encode
    yield f"lloyd, k = {words:,}", 2 * len(rows), lloyd  # one update, one more assignment
    if ("clusterer", "graph-kmeans") not in vwkit.plugins.registry().entries:
        return
    # Two fits of other lengths: what lies between them are passes, without the start.
    few = len(rows) // 20
    for iterations in (2, 6):

        def graph(iterations=iterations):
            vwkit.create(
                "clusterer", "graph-kmeans", k=few, iterations=iterations, tolerance=0.0
            ).fit(rows)

        yield f"graph-kmeans, k = {few:,}, {iterations} iterations", iterations * len(rows), graph


def executors(most):
    """Yield a name and a backend."""
    import vwkit

    for count in (1, most):
        yield f"{count} thread{'s' * (count > 1)}", count, vwkit.create("executor", "threads")
    for count in (1, most):
        name = f"{count} worker{'s' * (count > 1)}"
        yield name, count, vwkit.create("executor", "dask", workers=count)


def measured(options, folder):
    """Return seconds and bytes by stage and executor."""
    import vwkit

    count = (options.rows or [ROWS])[-1]
    data = options.data
    if data is None:
        rng = np.random.default_rng(0)
        middles = rng.integers(0, 160, (2000, DIM))
        made = np.lib.format.open_memmap(f"{folder}/x.npy", "w+", np.uint8, (count, DIM))
        for first in range(0, count, 50_000):
            last = min(count, first + 50_000)
            near = middles[rng.integers(0, len(middles), last - first)]
            made[first:last] = near + rng.integers(0, 90, (last - first, DIM))
        made.flush()
        data = f"{folder}/x.npy"
    found = {}
    for name, threads, executor in executors(options.threads):
        job = vwkit.Job(threads=threads)
        with executor.ready(job), vwkit.use_job(job.using(executor)):
            for stage, rows, run in stages(folder, data, options.words or WORDS):
                run()  # files read, code compiled
                seconds = []
                for _ in range(options.repeats):
                    traffic = Traffic(executor)
                    start = time.perf_counter()
                    run()
                    seconds.append(time.perf_counter() - start)
                    told = traffic.since()
                found[stage, name] = (rows, float(np.median(seconds)), *told)
                print(f"{stage}, {name}: {seconds[-1]:.2f} s", file=sys.stderr)
    return found


def paper(rows_a_second, workers):
    """Return the seconds of the parts of one pass of graph k-means over SIFT1B, k = 10^6.

    The client and the scheduler share one link of 10 Gbit/s, and every worker has such a link.
    Workers hand centers and sums on in a tree, of which a level takes as long as one transfer.

    Parameters
    ----------
    rows_a_second : float
        Of one worker, measured.
    """
    levels = int(np.ceil(np.log2(workers)))
    center = 4 * (DIM + NEIGHBOURS) + 14
    cluster = 8 * DIM + 52
    # A label and half a runner to the worker; a gap, half a runner and some labels back.
    row = 4 + 2 + 4 + 2 + 1
    return {
        "compute": BILLION / workers / rows_a_second,
        "rows": BILLION * row / LINK,
        "centers": MILLION * center * (1 + levels) / LINK,
        "sums": MILLION * cluster * (levels + 1) / LINK,
    }


def on_paper(rows_a_second):
    """Print what more workers would bring."""
    lines = []
    for workers in (1, 2, 16, 256):
        parts = paper(rows_a_second, workers)
        lines.append(
            [workers, *(round(value, 1) for value in (*parts.values(), sum(parts.values())))]
        )
    table(
        f"On paper: seconds of a pass of graph-kmeans over 10^9 x {DIM}, k = 10^6, "
        f"{rows_a_second:,.0f} rows a second and worker, links of 10 Gbit/s",
        ["workers", *parts, "together"],
        lines,
    )


def main(options):
    os.environ.setdefault("VWKIT_CACHE", tempfile.mkdtemp(prefix="vwkit-scaling-cache-"))
    with tempfile.TemporaryDirectory(prefix="vwkit-scaling-") as folder:
        found = measured(options, folder)
    names = list(dict.fromkeys(name for _, name in found))
    kinds = list(dict.fromkeys(stage for stage, _ in found))
    print(machine(options.threads, ("numpy", "distributed", "vwkit")))
    table(
        "Rows a second",
        ["stage", *names],
        [
            [kind, *(found[kind, name][0] / found[kind, name][1] for name in names)]
            for kind in kinds
        ],
    )
    away = [name for name in names if "worker" in name]
    table(
        "Bytes a row and pass: written to sockets by all processes; of them from worker to worker",
        ["stage", *(f"{name}: {what}" for name in away for what in ("all", "between workers"))],
        [
            [kind, *(found[kind, name][i] / found[kind, name][0] for name in away for i in (2, 3))]
            for kind in kinds
        ],
    )
    graph = [kind for kind in kinds if kind.startswith("graph")]
    if not graph:
        return
    (few, short), (many, long) = ([found[kind, away[0]][i] for i in (0, 1)] for kind in graph)
    on_paper((many - few) / (long - short))
