"""An index in shards beside the same index in one piece: memory, recall and speed.

Every case is built in a process of its own, given no more memory than `MEMORY`, and then opened and
searched by another one. Memory is what the process had at its peak beyond what it had after a small
index of the same kind was built, or opened, in it: RssAnon + RssShmem, looked at every 50 ms.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import LIBRARIES, child, drawn, machine, pinned, table
from benchmarks.memory import Peak

QUERIES, K, SHARDS = 1_000, 10, 8
LIMIT = 30 * 60
MEMORY = 256 << 20
SMALL = 2_000


def cases(rows):
    """Return {label: (backend, params)}."""
    lists = 256 if rows >= 50_000 else 16
    ivf = {"factory": f"IVF{lists},Flat", "nprobe": 8, "on_disk": True}
    # As many centroids for all rows, and as many vectors looked at.
    part = {"factory": f"IVF{max(1, lists // SHARDS)},Flat", "nprobe": 1, "on_disk": True}
    return {
        "exact": ("exact", {}, {}),
        "hnsw": ("hnsw", {}, {}),
        "faiss IVF on disk": ("faiss", ivf, part),
        "annoy": ("annoy", {"n_trees": 20}, {"n_trees": 20}),
        "usearch": ("usearch", {}, {}),
    }


def made(task):
    """Return the index of a task, not built yet."""
    import vwkit

    if not task["sharded"]:
        return vwkit.create("index", task["backend"], **task["params"])
    nested = {"use": task["backend"], **task["params"]}
    return vwkit.create("index", "sharded", index=nested, shards=SHARDS)


def measure(task):
    """Yield what one step took: a build, or opening and searching."""
    import vwkit
    from vwkit.stages import anonymous_memory

    folder = Path(task["folder"])
    saved = folder / "saved"
    rows = np.load(folder / "base.npy", mmap_mode="r")
    queries = np.load(folder / "queries.npy")
    with vwkit.use_job(vwkit.Job(threads=task["threads"], memory=MEMORY, folder=folder / "work")):
        small = made({**task, "sharded": False}).build(rows[:SMALL])
        small.save(folder / "small")
        vwkit.load(folder / "small").search(queries[:10], K)
        del small
        before = anonymous_memory()
        start = time.perf_counter()
        with Peak() as peak:
            if task["step"] == "build":
                index = made(task).build(rows)
                index.save(saved)
            else:
                index = vwkit.load(saved)
                index.search(queries[:1], K)
                first = time.perf_counter() - start
                start = time.perf_counter()
                found = index.search(queries, K)
        seconds = time.perf_counter() - start
        yield {"seconds": seconds, "memory": peak.anonymous - before, "mapped": peak.mapped}
    if task["step"] == "search":
        truth = np.load(folder / "truth.npy")
        shared = [len(np.intersect1d(a, b)) for a, b in zip(found.ids.tolist(), truth, strict=True)]
        size = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
        yield {"first": first, "recall": float(np.mean(shared)) / K, "bytes": size}


def main(options):
    """Print a table: each index in one piece, and in shards."""
    rows = min(options.rows or [200_000])
    lines = []
    with tempfile.TemporaryDirectory(prefix="vwkit-shards-") as name:
        folder = Path(name)
        _prepare(folder, options.data, rows)
        for label, (backend, params, part) in cases(rows).items():
            if options.only and options.only not in label:
                continue
            for sharded in (False, True):
                shown = f"{label}, {SHARDS} shards" if sharded else label
                given = part if sharded else params
                task = {"backend": backend, "params": given, "sharded": sharded}
                lines.append([shown, *_measured(folder, task, options.threads)])
    data = Path(options.data).name if options.data else "made vectors"
    title = f"{rows:,} × 128 of {data}, {MEMORY >> 20} MiB given ({machine(options.threads, LIBRARIES)})"
    head = ["index", "build s", "build MB", "files MB", "open + first s", "search MB"]
    table(title, [*head, f"recall@{K}", "queries/s"], lines)


def _measured(folder, task, threads):
    found = {}
    for step in ("build", "search"):
        place = folder / "case"
        place.mkdir(exist_ok=True)
        given = {**task, "step": step, "folder": str(folder), "threads": threads}
        told, failure = child("shards", given, place, LIMIT, pinned(threads))
        if failure:
            return [failure, *[""] * 6]
        found[step] = {key: value for line in told for key, value in line.items()}
    build, search = found["build"], found["search"]
    _clear(folder)
    return [
        build["seconds"],
        build["memory"] / 1e6,
        search["bytes"] / 1e6,
        search["first"],
        search["memory"] / 1e6,
        search["recall"],
        f"{QUERIES / search['seconds']:,.0f}",
    ]


def _clear(folder):
    import shutil

    for name in ("saved", "work", "small"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _prepare(folder, path, rows):
    every = drawn(rows + QUERIES, path)
    chosen = np.zeros(len(every), bool)
    chosen[np.random.default_rng(0).choice(len(every), QUERIES, replace=False)] = True
    base, queries = every[~chosen], every[chosen].astype(np.float32)
    np.save(folder / "base.npy", base)
    np.save(folder / "queries.npy", queries)
    import vwkit

    found = vwkit.create("index", "exact").build(base).search(queries, K)
    np.save(folder / "truth.npy", found.ids)


if __name__ == "__main__":
    for line in measure(json.loads(sys.argv[1])):
        print(json.dumps(line), flush=True)
