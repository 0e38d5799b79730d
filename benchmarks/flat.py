"""Codes and clusters of more rows than fit into memory: speed, memory and disk.

    python -m benchmarks flat --rows 1000000 --rows 10000000
    python -m benchmarks flat --rows 100000000 --results flat.jsonl

Rows of 128 uint8 are made while they are read, so that no file of them is needed: a made-up reader brings
them. Each is run as it is and with ``run: {memory: 1GB}``.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import append, child, lines_of, machine, pinned, table
from benchmarks.memory import Peak

DIM, WORDS, ITERATIONS = 128, 1000, 10
ROWS = (1_000_000, 10_000_000)
BUDGETS = (None, "1GB")
SLOW = 1_000_000  # up to so many rows the core's own quantizer is measured, too
BLOCK = 1 << 16
LIMIT = 3 * 3600


def reader():
    """Return a reader of made rows; its files say how many."""
    import vwkit

    centers = np.random.default_rng(0).gamma(0.6, 40, (1000, DIM)).clip(0, 239).astype(np.uint8)

    @vwkit.backend("made-rows")
    class MadeRows(vwkit.Reader):
        """Rows around a thousand points, the same in every pass."""

        def _read(self, path):
            rows = json.loads(Path(path).read_text())

            def chunks():
                for block, start in enumerate(range(0, rows, BLOCK)):
                    rng = np.random.default_rng([1, block])
                    count = min(rows - start, BLOCK)
                    chunk = centers[rng.integers(0, len(centers), count)]
                    noise = np.frombuffer(rng.bytes(count * DIM), np.uint8)
                    chunk += (noise & 15).reshape(count, DIM)
                    yield chunk

            return vwkit.Stream(chunks, dim=DIM, dtype=np.uint8, rows=rows)

    return MadeRows


def measure(task):
    """Yield the figures of one run."""
    import vwkit
    from vwkit.testing import registered

    passes, seen = [], {}

    def told(stage, done, total, unit, values):
        step = values.get("iteration")
        if stage == "clusterer" and step is not None and step not in seen:
            seen[step] = time.perf_counter()
            if step - 1 in seen:
                passes.append(seen[step] - seen[step - 1])

    with tempfile.TemporaryDirectory(prefix="vwkit-flat-") as name, registered(reader()):
        folder = Path(name)
        os.environ["VWKIT_CACHE"] = str(folder / "cache")
        (folder / "rows.json").write_text(json.dumps(task["rows"]))
        spec = {
            "vwkit": 1,
            "vectors": {"path": str(folder / "rows.json"), "use": "made-rows"},
            "quantizer": {"use": task["quantizer"], "m": 4},
            "clusterer": {"use": "graph-pqkmeans", "k": WORDS, "iterations": ITERATIONS},
            "run": {"threads": task["threads"]},
        }
        if task["memory"]:
            spec["run"]["memory"] = task["memory"]
        pipeline = vwkit.Pipeline.from_dict(spec)
        before, start = disk(), time.perf_counter()
        with Peak() as peak:
            run = pipeline.run(folder / "run", progress=told)
        seconds, after = time.perf_counter() - start, disk()
        stages = run.manifest["stages"]
        yield {
            "seconds": seconds,
            "encode": task["rows"] / stages["codes"]["seconds"],
            "pass": task["rows"] / statistics.median(passes),
            "iterations": len(run.clusterer.objective) - 1,
            "objective": run.clusterer.objective[-1],
            "anonymous": peak.anonymous,
            "stages": {name: one["peak_memory"] for name, one in stages.items()},
            "stage seconds": {name: one["seconds"] for name, one in stages.items()},
            "codes": sum(path.stat().st_size for path in (folder / "run/codes").glob("codes-*")),
            "read": after[0] - before[0],
            "written": after[1] - before[1],
        }


def disk():
    """Return the bytes that this process has read from and written to disks."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"]), int(lines["write_bytes"])


def main(options):
    results = Path(options.results or Path(tempfile.gettempdir()) / "vwkit-flat.jsonl")
    tasks = [
        {"rows": rows, "quantizer": quantizer, "memory": memory, "threads": options.threads}
        for rows in options.rows or ROWS
        for quantizer in ("fast-pq", *(["pq"] if rows <= SLOW else []))
        for memory in BUDGETS
    ]
    for task in tasks:
        if options.only and options.only not in f"{task['quantizer']} {task['memory']}":
            continue
        if not options.only and any(task.items() <= line.items() for line in lines_of(results)):
            continue
        with tempfile.TemporaryDirectory(prefix="vwkit-flat-") as name:
            told, failure = child("flat", task, Path(name), LIMIT, pinned(options.threads))
        line = {**task, "failure": failure, "machine": machine(options.threads)}
        for one in told:
            line.update(one)
        append(results, line)
    kept = {}
    for line in lines_of(results):
        if not line["failure"] and line["threads"] == options.threads:
            kept[line["rows"], line["quantizer"], line["memory"] or ""] = line
    cells = [
        [
            f"{rows:,}",
            quantizer,
            memory or "–",
            f"{line['encode']:,.0f}",
            f"{line['pass']:,.0f}",
            f"{line['anonymous'] / 1e6:,.0f}",
            ", ".join(
                f"{line['stages'][n] / 1e6:,.0f}" for n in ("quantizer", "codes", "clusterer")
            ),
            f"{line['codes'] / 1e6:,.0f}",
            f"{line['read'] / 1e6:,.0f} / {line['written'] / 1e6:,.0f}",
            f"{line['seconds']:,.0f}",
        ]
        for (rows, quantizer, memory), line in sorted(kept.items())
    ]
    table(
        f"{DIM} uint8 → codes of 4 bytes → {WORDS:,} clusters, {ITERATIONS} iterations "
        f"({machine(options.threads)})",
        [
            "rows", "quantizer", "run.memory", "encoded a second", "rows a second of a pass",
            "peak anonymous MB", "of its stages", "codes MB", "disk read / written MB", "seconds",
        ],
        cells,
    )  # fmt: skip


if __name__ == "__main__":
    for step in measure(json.loads(sys.argv[1])):
        print(json.dumps(step), flush=True)
