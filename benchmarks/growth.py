"""How the cost of graph k-means grows with the rows and with k, as a table and a log-log plot."""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import append, child, lines_of, machine, pinned, table

ITERATIONS = 5
BY_ROWS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
BY_WORDS = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)
WORDS, ROWS = 16_000, 3_000_000
LIMIT = 20 * 60


def measure(task):
    """Yield the seconds of one fit."""
    import vwkit

    with vwkit.use_job(vwkit.Job(threads=task["threads"])):
        rows = np.load(task["data"], mmap_mode="r")[: task["rows"]]
        few = np.array(rows[:2000])
        vwkit.create("clusterer", "graph-kmeans", k=50, iterations=2).fit(few)
        start, cpu = time.perf_counter(), time.process_time()
        made = vwkit.create(
            "clusterer", "graph-kmeans", k=task["k"], iterations=ITERATIONS, tolerance=0.0
        ).fit(rows)
        yield {
            "seconds": time.perf_counter() - start,
            "cpu": time.process_time() - cpu,
            "objective": made.objective[-1],
        }


def main(options):
    if not options.data:
        sys.exit("growth: needs --data FILE.npy with as many rows as are asked for")
    data = str(Path(options.data).resolve())
    there = len(np.load(data, mmap_mode="r"))
    most = max(options.rows or [there])
    results = Path(options.results or Path(tempfile.gettempdir()) / "vwkit-growth.jsonl")
    asked = [(rows, WORDS) for rows in BY_ROWS] + [(ROWS, k) for k in BY_WORDS]
    for rows, k in dict.fromkeys(asked):
        if rows > min(there, most) or 2 * k > rows:
            continue
        task = {"data": data, "rows": rows, "k": k, "threads": options.threads}
        if any(task.items() <= line.items() for line in lines_of(results)):
            continue
        with tempfile.TemporaryDirectory(prefix="vwkit-growth-") as name:
            told, failure = child("growth", task, Path(name), LIMIT, pinned(options.threads))
        line = {**task, "failure": failure, "machine": machine(options.threads)}
        for one in told:
            line.update(one)
        append(results, line)
    kept = [line for line in lines_of(results) if line["data"] == data and not line["failure"]]
    for what, other, fixed in (("rows", "k", WORDS), ("k", "rows", ROWS)):
        lines = sorted((line for line in kept if line[other] == fixed), key=lambda x: x[what])
        if lines:
            cells = [[f"{x[what]:,}", x["seconds"], x["cpu"], x["objective"]] for x in lines]
            title = f"{other} = {fixed:,}, {ITERATIONS} iterations ({lines[-1]['machine']})"
            table(title, [what, "wall s", "CPU s", "objective"], cells)
    _plot(kept, Path(options.plot) if options.plot else None)


def _plot(lines, path):
    if path is None:
        return
    from matplotlib.figure import Figure

    figure = Figure((9, 3.6), layout="constrained")
    sides = figure.subplots(1, 2, sharey=True)
    for side, what, other, fixed in ((sides[0], "rows", "k", WORDS), (sides[1], "k", "rows", ROWS)):
        kept = sorted((line for line in lines if line[other] == fixed), key=lambda x: x[what])
        across = [line[what] for line in kept]
        side.loglog(across, [line["cpu"] for line in kept], "o-", label="graph-kmeans")
        first = kept[0]
        one = [first["cpu"] * line[what] / first[what] for line in kept]
        side.loglog(across, one, ":", color="gray", label="in proportion")
        side.set_xlabel("rows n" if what == "rows" else "words k")
        side.set_title(f"{other} = {fixed:,}", fontsize=10)
        side.grid(True, which="both", alpha=0.2)
    sides[0].set_ylabel(f"CPU seconds, {ITERATIONS} iterations")
    sides[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    for step in measure(json.loads(sys.argv[1])):
        print(json.dumps(step), flush=True)
