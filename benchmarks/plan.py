"""What `vwkit plan` says, beside what the run then takes: the documented specs, and large jobs.

    python -m benchmarks plan
    python -m benchmarks plan --only lloyd

On a machine that is busy (the column says how many processes want a processor, for each that there is) times
tell nothing. Each is planned and run in processes of their own, from an empty cache: nothing is remembered. The
seconds are those of the stages, the memory is the largest of theirs as the run notes it.
"""

import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import append, lines_of, machine, pinned, table, vectors

ROOT = Path(__file__).parents[1]
ROWS = 1_000_000
# What the small data of the documentation need to be told.
SMALLER = {"oxford5k": ["clusterer.k=60", "clusterer.train_rows=800"]}
# A tenth of a second more or less is not worth a ratio.
LEAST_SECONDS = 0.1

LARGE = {
    "lloyd k 1024": {"clusterer": {"use": "lloyd", "k": 1024, "iterations": 10}},
    "graph-kmeans k 16384": {"clusterer": {"use": "graph-kmeans", "k": 16_384, "iterations": 15}},
    "root-sift, pca, graph-kmeans": {
        "limit": 100_000,
        "transform": [{"use": "root-sift"}, {"use": "pca", "dim": 64}],
        "clusterer": {"use": "graph-kmeans", "k": 2048, "iterations": 10},
    },
    "pq, pqkmeans k 1000": {
        "quantizer": {"use": "pq", "m": 4, "train_rows": 100_000},
        "clusterer": {"use": "pqkmeans", "k": 1000, "iterations": 5},
    },
    "fast-pq, graph-pqkmeans k 16384": {
        "quantizer": {"use": "fast-pq", "m": 8},
        "clusterer": {"use": "graph-pqkmeans", "k": 16_384, "iterations": 10},
    },
    "hnsw of 100,000": {"limit": 100_000, "index": {"use": "hnsw"}},
    "faiss Flat": {"index": {"use": "faiss"}},
}


def small(folder):
    """Write the example data of the documentation, and yield its specs."""
    found = importlib.util.spec_from_file_location("make_data", ROOT / "docs/make_data.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.make(folder)
    for path in sorted((ROOT / "docs/specs").glob("*.yaml")):
        (folder / path.name).write_text(path.read_text())
        yield path.stem, folder / path.name, SMALLER.get(path.stem, [])


def large(folder, rows, data):
    """Write rows, and yield specs for them."""
    path = Path(data).resolve() if data else folder / "x.npy"
    if not data:
        made = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, 128))
        for start in range(0, rows, 100_000):
            stop = min(rows, start + 100_000)
            made[start:stop] = vectors(stop - start, seed=0)
        del made
    for name, slots in LARGE.items():
        slots = dict(slots)
        source = {"path": str(path), "limit": min(rows, slots.pop("limit", rows))}
        spec = folder / f"{re.sub('[^a-z0-9]+', '-', name)}.yaml"
        spec.write_text(json.dumps({"vwkit": 1, "vectors": source, **slots}))
        yield name, spec, []


def command(words, folder, cache, threads):
    """Return what a command prints as JSON, or None and why not."""
    environment = {**os.environ, **pinned(threads), "VWKIT_CACHE": str(cache)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "vwkit", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1][:200]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout), "processors": spent}, None


def compared(name, spec, overrides, folder, threads):
    """Plan and run a spec; return a line of figures."""
    options = [one for value in [*overrides, f"run.threads={threads}"] for one in ("--set", value)]
    with tempfile.TemporaryDirectory(prefix="vwkit-plan-") as scratch:
        cache, out = Path(scratch) / "cache", Path(scratch) / "run"
        plan, wrong = command(["plan", str(spec), "--json", *options], folder, cache, threads)
        if plan is None:
            return {"name": name, "failure": wrong}
        asked = ["run", str(spec), "--json", "--quiet", "--out", str(out), *options]
        run, wrong = command(asked, folder, cache, threads)
        if run is None:
            return {"name": name, "failure": wrong}
        rows = true_rows(out, run)
    stages = {}
    for stage in plan["stages"]:
        true = run["stages"].get(stage["name"])
        if true is not None:
            stages[stage["name"]] = {
                "backend": stage["backend"],
                "seconds": [stage["seconds"], true["seconds"]],
                "memory": [stage["memory"], true["peak_memory"]],
                "disk": [stage["disk"], true.get("bytes")],
                "rows": [stage["rows"], rows.get(stage["name"])],
            }
    return {
        "name": name,
        "failure": None,
        "stages": stages,
        "missing": sorted(run["stages"].keys() ^ {stage["name"] for stage in plan["stages"]}),
        "took": plan["calibration_seconds"],
        "busy": plan["busy"],
        "processors": run["processors"],
        "memory": [plan["total"]["memory"], run["peak_memory"]],
        "seconds": [
            plan["total"]["seconds"], sum(one["seconds"] for one in run["stages"].values())
        ],
    }  # fmt: skip


def true_rows(out, run):
    """Return the rows of stages that hold one row for each."""
    found = {}
    for name in run["stages"]:
        manifest = json.loads((out / name / "manifest.json").read_text())
        arrays = manifest.get("arrays", {})
        for kind in ("vectors", "codes", "labels", "words"):
            if kind in arrays and manifest.get("role") in ("stage", "clusterer"):
                found[name] = len(np.load(out / name / arrays[kind], mmap_mode="r"))
    return found


def ratio(pair, more=0.0):
    """Return by which factor two numbers differ, from 1 on; None if one is not known."""
    if pair[0] is None or not pair[1]:
        return None
    told, true = max(pair[0], 1e-9) + more, pair[1] + more
    return max(told, true) / min(told, true)


def worst(line, what, more=0.0):
    """Return the largest factor of the stages."""
    found = [ratio(stage[what], more) for stage in line["stages"].values()]
    return max((one for one in found if one is not None), default=None)


def main(options):
    results = Path(options.results or Path(tempfile.gettempdir()) / "vwkit-plan.jsonl")
    rows = (options.rows or [ROWS])[0]
    with tempfile.TemporaryDirectory(prefix="vwkit-plan-data-") as name:
        folder = Path(name)
        for title, spec, overrides in [*small(folder), *large(folder, rows, options.data)]:
            known = any(line["name"] == title for line in lines_of(results))
            if (options.only and options.only not in title) or (known and not options.only):
                continue
            line = compared(title, spec, overrides, folder, options.threads)
            append(results, {**line, "machine": machine(options.threads)})
    shown(list({line["name"]: line for line in lines_of(results)}.values()), options.threads)


def shown(lines, threads):
    """Print the table, and the largest factors of all."""
    cells, most = [], {"rows": 1.0, "memory": 1.0, "seconds": 1.0}
    for line in lines:
        if line["failure"]:
            cells.append([line["name"], line["failure"], *[""] * 9])
            continue
        factors = {
            "rows": worst(line, "rows"),
            "memory": ratio(line["memory"]),
            "seconds": ratio(line["seconds"], LEAST_SECONDS),
        }
        for what, factor in factors.items():
            most[what] = max(most[what], factor or 1.0)
        memory, seconds = line["memory"], line["seconds"]
        cells.append(
            [
                line["name"],
                "–" if factors["rows"] is None else f"{factors['rows']:.2f}",
                f"{memory[0] / 1e6:,.0f}", f"{memory[1] / 1e6:,.0f}", f"{factors['memory']:.2f}",
                f"{seconds[0]:,.2f}", f"{seconds[1]:,.2f}", f"{factors['seconds']:.2f}",
                f"{line['processors']:,.1f}", f"{line['busy']:.1f}", f"{line['took']:.1f}",
            ]
        )  # fmt: skip
    table(
        f"Planned and then measured, from an empty cache ({machine(threads)})",
        [
            "spec", "rows ×", "memory MB", "true", "×", "seconds", "true", "×", "CPU s of the whole run",
            "busy", "planning took s",
        ],
        cells,
    )  # fmt: skip
    print("\nThe largest factors: " + ", ".join(f"{what} {x:.2f}" for what, x in most.items()))


if __name__ == "__main__":
    sys.exit("run it as: python -m benchmarks plan")
