"""Approximate k-means: what each index costs as `assign`, and how well it assigns.

Each fit runs in a process of its own, from the same given centers, through as many passes. Results
are appended to a file of JSON lines; what it holds already is not measured again.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import LIBRARIES, append, child, drawn, lines_of, machine, table

ROWS, WORDS, ITERATIONS = 200_000, 4_096, 5
LIMIT = 20 * 60

CASES = {
    "none: exact": None,
    "exact": {"use": "exact"},
    "faiss Flat": {"use": "faiss"},
    "faiss IVF64,Flat nprobe 8": {"use": "faiss", "factory": "IVF64,Flat", "nprobe": 8},
    "faiss HNSW32": {"use": "faiss", "factory": "HNSW32"},
    "faiss HNSW32 efSearch 64": {"use": "faiss", "factory": "HNSW32", "efSearch": 64},
    "hnsw": {"use": "hnsw"},
    "hnsw ef 16": {"use": "hnsw", "ef": 16},
    "usearch": {"use": "usearch"},
    "usearch expansion_search 16": {"use": "usearch", "expansion_search": 16},
    "usearch i8": {"use": "usearch", "dtype": "i8"},
    "annoy": {"use": "annoy"},
    "annoy n_trees 10 search_k 400": {"use": "annoy", "n_trees": 10, "search_k": 400},
    "flann": {"use": "flann"},
    "flann trees 4 checks 128": {"use": "flann", "trees": 4, "checks": 128},
}


def measure(task):
    """Fit, and yield times, objective and the share of labels that are those of the nearest."""
    import vwkit
    from vwkit import kernels

    rows = np.load(task["rows"], mmap_mode="r")
    job = vwkit.Job(threads=task["threads"])
    params = {"k": task["k"], "iterations": task["iterations"], "tolerance": 0.0}
    lloyd = vwkit.create("clusterer", "lloyd", assign=task["assign"], init=task["init"], **params)
    spent = {"building": 0.0, "searching": 0.0}
    if lloyd.assign is not None:
        # The library is imported, and its threads begin, before the clock runs.
        few = np.array(rows[:300])
        warm = {key: value for key, value in task["assign"].items() if key in ("use", "dtype")}
        name = warm.pop("use")
        with vwkit.use_job(job):
            vwkit.create("index", name, **warm).build(few).search(few, 1)
        for what, method in (("building", "build"), ("searching", "search")):
            setattr(lloyd.assign, method, _clocked(getattr(lloyd.assign, method), spent, what))
    with vwkit.use_job(job):
        start, cpu = time.perf_counter(), time.process_time()
        lloyd.fit(rows)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        passes = len(lloyd.objective)
        equal = 0
        for part in range(0, len(rows), 20_000):
            near = kernels.nearest_rows(rows[part : part + 20_000], lloyd.centers)
            equal += int((near == lloyd.labels[part : part + 20_000]).sum())
    yield {
        "passes": passes,
        "pass": seconds / passes,
        "pass_cpu": cpu / passes,
        **{what: total / passes for what, total in spent.items()},
        "equal": equal / len(rows),
        "objective": lloyd.objective[-1],
    }


def _clocked(method, spent, what):
    def clocked(*args, **params):
        start = time.perf_counter()
        try:
            return method(*args, **params)
        finally:
            spent[what] += time.perf_counter() - start

    return clocked


def main(options):
    results = Path(options.results or Path(tempfile.gettempdir()) / "vwkit-assign.jsonl")
    data = Path(options.data).name if options.data else "made data"
    rows, words = (options.rows or [ROWS])[0], options.words or WORDS
    own = {"data": data, "rows": rows, "k": words, "threads": options.threads}
    known = {line["case"] for line in _lines(results, own)}
    with tempfile.TemporaryDirectory(prefix="vwkit-assign-") as name:
        folder, ready = Path(name), False
        for label, assign in CASES.items():
            if (options.only or "") not in label or (label in known and not options.only):
                continue
            if not ready:
                found = drawn(rows, options.data)
                np.save(folder / "rows.npy", found)
                start = np.random.default_rng(1).choice(len(found), words, replace=False)
                np.save(folder / "init.npy", found[np.sort(start)].astype(np.float32))
                ready = True
            task = {
                **own,
                "rows": str(folder / "rows.npy"),
                "init": str(folder / "init.npy"),
                "iterations": ITERATIONS,
                "assign": assign,
            }
            told, failure = child("assign", task, folder, LIMIT)
            line = {**own, "case": label, "failure": failure}
            for one in told:
                line.update(one)
            append(results, {**line, "machine": machine(options.threads, LIBRARIES)})
    _print(_lines(results, own), own)


def _lines(results, own):
    """Return the last line of each case that was measured for these numbers."""
    lines = [line for line in lines_of(results) if own.items() <= line.items()]
    return list({line["case"]: line for line in lines}.values())


def _print(lines, own):
    if not lines:
        return
    order = {label: place for place, label in enumerate(CASES)}
    lines.sort(key=lambda line: order.get(line["case"], len(order)))
    exact = next((line for line in lines if CASES.get(line["case"], 0) is None), {})
    cells = []
    for line in lines:
        if line["failure"]:
            cells.append([line["case"], line["failure"], *[""] * 8])
            continue
        cells.append(
            [
                line["case"],
                line["pass"],
                line["building"],
                line["searching"],
                line["pass"] - line["building"] - line["searching"],
                f"{1e6 * line['pass'] / own['rows']:.1f}",
                f"{line['pass'] / exact['pass']:.2f}" if "pass" in exact else "–",
                f"{line['equal']:.4f}",
                f"{line['objective']:,.0f}",
                f"{line['objective'] / exact['objective']:.4f}" if "pass" in exact else "–",
            ]
        )
    head = ["assign", "pass s", "build", "search", "rest", "µs a row", "÷ exact"]
    head += ["labels equal", "objective", "÷ exact"]
    title = (
        f"Assignment, {own['rows']:,} × 128 of {own['data']}, k = {own['k']:,}, "
        f"{ITERATIONS} iterations ({lines[-1]['machine']})"
    )
    table(title, head, cells)


if __name__ == "__main__":
    for step in measure(json.loads(sys.argv[1])):
        print(json.dumps(step), flush=True)
