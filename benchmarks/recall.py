"""What each index finds, how fast, in how much memory, and what vwkit adds to its library.

Each index is built in a process of its own, by vwkit and by the bare library in turn, and then opened
from its folder by another process, whose memory is that of a searcher. Results are appended to a file
of JSON lines, from which the table is printed; what the file holds already is not measured again.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import (
    LIBRARIES,
    append,
    child,
    drawn,
    lines_of,
    machine,
    paired,
    table,
)

QUERIES, K = 1_000, 10
LIMIT = 20 * 60  # seconds for a case
# Up to here one thread builds, which makes all but FLANN repeatable: the bare library must then find
# the very same neighbours.
ALONE = 100_000


def cases(rows):
    """Return {label: (backend, params, late settings)}."""
    lists = 1024 if rows >= 100_000 else 128
    probes = ({"nprobe": 16}, {"nprobe": 64})
    return {
        "exact": ("exact", {}, ({},)),
        "faiss Flat": ("faiss", {}, ({},)),
        "faiss HNSW32": ("faiss", {"factory": "HNSW32"}, ({}, {"efSearch": 64})),
        f"faiss IVF{lists},Flat": ("faiss", {"factory": f"IVF{lists},Flat"}, probes),
        # np: without the polysemous training that vwkit leaves out, and FAISS does not.
        f"faiss IVF{lists},PQ16np": ("faiss", {"factory": f"IVF{lists},PQ16np"}, probes[:1]),
        f"faiss IVF{lists},PQ64np": ("faiss", {"factory": f"IVF{lists},PQ64np"}, probes[:1]),
        "hnsw": ("hnsw", {}, ({}, {"ef": 32})),
        "annoy": ("annoy", {}, ({}, {"search_k": 20_000})),
        "annoy n_trees 20": ("annoy", {"n_trees": 20}, ({"search_k": 20_000},)),
        "flann": ("flann", {}, ({}, {"checks": 128})),
        "flann trees 4": ("flann", {"trees": 4}, ({"checks": 256},)),
        "usearch f32": ("usearch", {}, ({}, {"expansion_search": 32})),
        "usearch f16": ("usearch", {"dtype": "f16"}, ({},)),
        "usearch i8": ("usearch", {"dtype": "i8"}, ({},)),
        **others({"exact", "faiss", "hnsw", "annoy", "flann", "sharded", "usearch"}),
    }


def others(known):
    """Return the installed indexes for which nothing is chosen above."""
    import vwkit

    return {
        name: (name, {}, ({},))
        for name, cls in vwkit.backends()["index"].items()
        if name not in known and "l2" in cls.metrics
    }


# Data -------------------------------------------------------------------------------------------


def prepare(folder, path, rows):
    """Write base.npy, queries.npy and truth.npy: the distances of the true neighbours."""
    base, queries = _split(path, rows)
    np.save(folder / "base.npy", base)
    np.save(folder / "queries.npy", queries.astype(np.float32))
    np.save(folder / "truth.npy", _nearest(base, queries, K))
    return base.shape


def _split(path, rows):
    """Draw queries and a base; no query has an equal in the base."""
    found = drawn(rows + 2 * QUERIES, path)
    rng = np.random.default_rng(0)
    spare = rng.permutation(len(found))[: 2 * QUERIES]
    base = np.delete(found, spare, axis=0)[:rows]
    held = {row.tobytes() for row in base}
    queries = [row for row in found[spare] if row.tobytes() not in held][:QUERIES]
    return base, np.array(queries)


def _nearest(base, queries, k):
    """Return the k smallest squared distances of each query, ascending, in float64."""
    asked = queries.astype(np.float64)
    own = (asked**2).sum(axis=1)[:, None]
    best = np.empty((len(queries), 0))
    for start in range(0, len(base), 20_000):
        part = base[start : start + 20_000].astype(np.float64)
        found = own + (part**2).sum(axis=1) - 2 * asked @ part.T
        best = np.sort(np.concatenate([best, found], axis=1), axis=1)[:, :k]
    return best


def recall(ids, base, queries, truth, k):
    """Return the share of the k nearest found; whatever is as near as the k-th counts."""
    hits = 0
    for found, query, near in zip(ids, queries, truth, strict=True):
        own = np.unique(found[:k])
        own = own[own >= 0]
        distances = ((base[own].astype(np.float64) - query) ** 2).sum(axis=1)
        hits += (distances <= near[k - 1] * (1 + 1e-9)).sum()
    return float(hits / (k * len(ids)))


# One case, in a process of its own ----------------------------------------------------------------


def _held(folder):
    base = np.load(folder / "base.npy", mmap_mode="r")
    return base, np.load(folder / "queries.npy"), np.load(folder / "truth.npy")


def _warm(name, params):
    """Import the library and let it make its threads, before memory is taken note of."""
    import vwkit

    few = np.random.default_rng(0).integers(0, 255, (300, 128)).astype(np.uint8)
    small = {} if "factory" in params else params
    vwkit.create("index", name, **small).build(few).search(few, 2)


def measure(task):
    """Build and search by vwkit and by the bare library; yield what was measured, step by step."""
    import vwkit
    from benchmarks.bare import SIDES
    from vwkit.stages import MemoryMeter, anonymous_memory

    folder, name, params = Path(task["folder"]), task["name"], task["params"]
    base, queries, truth = _held(folder)
    _warm(name, params)
    bare = SIDES.get(name)
    job = vwkit.Job(threads=task["build_threads"])
    before = anonymous_memory()

    def ours():
        with vwkit.use_job(job):
            return vwkit.create("index", name, **params).build(base)

    def theirs():
        return bare(base, params, task["build_threads"])

    with MemoryMeter(0.02) as meter:
        index, seconds, cpu = _timed(ours)
    yield {"build": seconds, "peak": meter.peak - before}
    saved = folder / "index"
    index.save(saved)
    yield {"file": sum(file.stat().st_size for file in saved.rglob("*") if file.is_file())}
    other = None
    if bare:
        other, bare_seconds, bare_cpu = _timed(theirs)
        ratios = [seconds / bare_seconds]
        cpu_ratios = [cpu / bare_cpu]
        total = seconds + bare_seconds
        while total < 20 and len(ratios) < task["repeats"]:
            _, seconds, cpu = _timed(ours)
            _, bare_seconds, bare_cpu = _timed(theirs)
            ratios.append(seconds / bare_seconds)
            cpu_ratios.append(cpu / bare_cpu)
            total += seconds + bare_seconds
        yield {"build_ratio": float(np.median(ratios)), "cpu_ratio": float(np.median(cpu_ratios))}
    for late in task["late"]:
        found = {"late": late}
        with vwkit.use_job(vwkit.Job(threads=1)):
            ids = index.search(queries, K, **late).ids
        found["recall"] = [recall(ids, base, queries, truth, k) for k in (1, K)]
        if other:
            bare_ids = other(queries, K, 1, **late)
            found["bare_recall"] = [recall(bare_ids, base, queries, truth, k) for k in (1, K)]
            found["same"] = float((ids == bare_ids).mean())
        for threads in (1, 2):
            one_job, took = vwkit.Job(threads=threads), []

            def search(late=late, one_job=one_job, took=took):
                with vwkit.use_job(one_job):
                    took.append(_timed(lambda: index.search(queries, K, **late))[1])

            def search_bare(late=late, threads=threads):
                other(queries, K, threads, **late)

            *_, ratio = paired(
                search, search_bare if other else search, task["repeats"], seconds=30
            )
            # The fastest run: what others do on the machine only ever adds.
            found[f"qps{threads}"] = len(queries) / min(took)
            found[f"ratio{threads}"] = ratio if other else None
        yield found


def _timed(call):
    start, cpu = time.perf_counter(), time.process_time()
    made = call()
    return made, time.perf_counter() - start, time.process_time() - cpu


def reopen(task):
    """Open the saved index and search it: the memory of a searcher."""
    import vwkit
    from vwkit.stages import anonymous_memory

    folder = Path(task["folder"])
    base, queries, truth = _held(folder)
    _warm(task["name"], task["params"])
    before = anonymous_memory()
    with vwkit.use_job(vwkit.Job(threads=1)):
        start = time.perf_counter()
        index = vwkit.load(folder / "index")
        index.search(queries[:1], K, **task["late"][0])
        seconds = time.perf_counter() - start
        ids = index.search(queries, K, **task["late"][0]).ids
    yield {
        "load": seconds,
        "memory": anonymous_memory() - before,
        "mapped": _mapped(folder / "index"),
        "loaded_recall": recall(ids, base, queries, truth, K),
    }


def _mapped(folder):
    """Return the resident bytes of the files below a folder that are mapped into this process."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = str(folder) in line
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total


# All of it ----------------------------------------------------------------------------------------


def _known(results):
    return {(line["data"], line["rows"], line["case"]): line for line in lines_of(results)}


def main(options):
    results = Path(options.results or Path(tempfile.gettempdir()) / "vwkit-recall.jsonl")
    data = Path(options.data).name if options.data else "made data"
    for rows in options.rows or [10_000]:
        with tempfile.TemporaryDirectory(prefix="vwkit-recall-") as name:
            _fill(results, data, Path(name), rows, options)
        _print(results, data, rows)


def _fill(results, data, folder, rows, options):
    """Measure the cases that the file does not hold."""
    known = _known(results)
    threads = 1 if rows <= ALONE else options.threads
    shape = None
    for label, (backend, params, late) in cases(rows).items():
        if options.only:
            if options.only not in label:
                continue
        elif (data, rows, label) in known:
            continue
        shape = shape or prepare(folder, options.data, rows)
        task = {
            "folder": str(folder),
            "name": backend,
            "params": params,
            "late": late,
            "build_threads": threads,
            "repeats": options.repeats,
        }
        told, failure = child("recall", {"step": "measure", **task}, folder, LIMIT)
        line = {
            "data": data,
            "rows": rows,
            "base": shape,
            "case": label,
            "build_threads": threads,
            "searches": [one for one in told if "late" in one],
        }
        for one in told:
            line.update({} if "late" in one else one)
        if "file" in line:
            more, other_failure = child("recall", {"step": "reopen", **task}, folder, LIMIT)
            for one in more:
                line.update(one)
            failure = failure or other_failure
        line.update(failure=failure, machine=machine(options.threads, LIBRARIES))
        append(results, line)


def _print(results, data, rows):
    lines = [line for key, line in _known(results).items() if key[:2] == (data, rows)]
    order = {label: place for place, label in enumerate(cases(rows))}
    lines.sort(key=lambda line: order.get(line["case"], len(order)))
    if not lines:
        return
    cells = []
    for line in lines:
        for number, search in enumerate(line["searches"] or [{"late": {}}]):
            setting = " ".join(f"{key} {value}" for key, value in search["late"].items())
            cells.append(
                [
                    f"{line['case']}{', ' if setting else ''}{setting}",
                    *_shares(search.get("recall", [None, None])),
                    *_shares(search.get("bare_recall", [None, None])[1:]),
                    _whole(search.get("qps1")),
                    _whole(search.get("qps2")),
                    _ratio(search.get("ratio1")),
                    _ratio(search.get("ratio2")),
                    *(["″"] * 7 if number else _built(line)),
                ]
            )
        if line["failure"]:
            cells.append([f"{line['case']}: {line['failure']}", *[""] * 14])
    head = ["index", "recall@1", "recall@10", "bare @10", "q/s 1", "q/s 2", "÷ bare 1", "÷ bare 2"]
    head += ["build s", "÷ bare", "CPU ÷", "peak MiB", "open MiB", "mapped", "file MiB"]
    shape, threads = lines[-1]["base"], lines[-1]["build_threads"]
    title = (
        f"Recall, {shape[0]:,} × {shape[1]} of {data}, {QUERIES:,} queries, k = {K}, "
        f"{threads} thread{'s' * (threads > 1)} building ({lines[-1]['machine']})"
    )
    table(title, head, cells)


def _built(line):
    sizes = [line.get(name) for name in ("peak", "memory", "mapped", "file")]
    return [
        _number(line.get("build")),
        _ratio(line.get("build_ratio")),
        _ratio(line.get("cpu_ratio")),
        *("" if size is None else f"{size / 2**20:,.1f}" for size in sizes),
    ]


def _shares(values):
    return ["–" if value is None else f"{value:.4f}" for value in values]


def _whole(value):
    return "" if value is None else f"{value:,.0f}"


def _number(value):
    return "" if value is None else f"{value:.3g}"


def _ratio(value):
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    for step in (measure if given["step"] == "measure" else reopen)(given):
        print(json.dumps(step), flush=True)
