"""What `vwkit plan` says, beside what the run then takes: the documented specs, and large jobs.

    python -m benchmarks plan
    python -m benchmarks plan --only lloyd

Each is planned and run in processes of their own, from an empty cache: nothing is remembered. The seconds are
those of the stages, by the clock and of the processors, the memory is the largest of theirs as the run notes it. On
a machine that is busy (the column says how many processes want a processor, for each that there is) the clock tells
of others, too, and the plan does not: there the processors' time is what to compare.
"""

import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import vwkit
from benchmarks.common import append, lines_of, machine, pinned, table, vectors

ROOT = Path(__file__).parents[1]
ROWS = 1_000_000
DOCUMENTED_ROWS, PHOTOS = 50_000, 60
# What less than the data of a spec need to be told.
SMALLER = {"oxford5k": ["clusterer.k=2000", "clusterer.train_rows=40000", "clusterer.iterations=5"]}
# As somebody would change them.
VARIED = {
    "vocabulary, k 100": ("vocabulary", ["clusterer.k=100"]),
    "vocabulary, k 5000, 3 iterations": (
        "vocabulary", ["clusterer.k=5000", "clusterer.iterations=3"],
    ),
    "vocabulary of a .gz": ("vocabulary", ["vectors.path=base.bvecs.gz", "clusterer.k=300"]),
    "billion, m 16, k 8000": ("billion", ["quantizer.m=16", "clusterer.k=8000"]),
    "billion without train, 200MB": (
        "billion", ["quantizer={use: fast-pq, m: 8}", "run.memory=200MB"],
    ),
    "pq-vocabulary, m 16, ks 64": (
        "pq-vocabulary", ["quantizer.m=16", "quantizer.ks=64", "clusterer.k=300"],
    ),
    "codes by opq": (
        "codes", ["quantizer={use: opq, m: 8, train_rows: 10000, rotations: 10}"],
    ),
    "large-index of annoy": (
        "large-index", ["index.index={use: annoy, n_trees: 20}", "index.rows_per_shard=20000"],
    ),
    "large-index, hnsw": ("large-index", ["index={use: hnsw, M: 8, ef_construction: 60}"]),
    "search, k 2000, exact": ("search", ["featurizer.vocabulary.k=2000", "index={use: exact}"]),
    "vlad-search, k 16": ("vlad-search", ["featurizer.vocabulary.k=16"]),
    "palette, k 64, lloyd, rgb": (
        "palette", ["clusterer={use: lloyd, k: 64}", "featurizer.space=rgb"],
    ),
}  # fmt: skip
# A tenth of a second more or less is not worth a ratio.
LEAST_SECONDS = 0.1
FAR = 2.0

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


def documented(folder, rows, photos):
    """Write data like the example data of the documentation but more, and yield its specs."""
    found = importlib.util.spec_from_file_location("make_data", ROOT / "docs/make_data.py")
    make = importlib.util.module_from_spec(found)
    found.loader.exec_module(make)
    make.make(folder)
    wide = [make.scene(number, 480, 640) for number in range(photos // len(make.VIEWS))]
    for number, picture in enumerate(wide):
        views = picture, picture.crop((0, 40, 560, 440)), picture.rotate(8)
        for view, made in zip(make.VIEWS, views, strict=True):
            made.save(folder / "photos" / f"other{number}_{view}.jpg", quality=90)
    wide[0].save(folder / "picture.png")
    vwkit.write(folder / "descriptors.bvecs", vectors(rows, seed=0).astype(np.uint8))
    vwkit.write(folder / "learn.bvecs", vectors(rows // 4, seed=1).astype(np.uint8))
    with gzip.open(folder / "base.bvecs.gz", "wb", 1) as compressed:
        compressed.write((folder / "descriptors.bvecs").read_bytes())
    like_oxford(folder, make._OXFORD, rows // 2)
    for path in sorted((ROOT / "docs/specs").glob("*.yaml")):
        (folder / path.name).write_text(path.read_text())
        yield path.stem, folder / path.name, SMALLER.get(path.stem, [])
    for name, (stem, overrides) in VARIED.items():
        yield name, folder / f"{stem}.yaml", [*SMALLER.get(stem, []), *overrides]


def like_oxford(folder, names, rows):
    """Write what the archives of Oxford5k unpack to, for so many descriptors."""
    each = rows // len(names)
    data = vectors(each * len(names), seed=2).astype(np.uint8)
    (folder / "feat_oxc1_hesaff_sift.bin").write_bytes(data.tobytes() + bytes(12))
    for name in names:
        lines = "".join(f"{i + 1} {i % 90} {i // 90} 0.01 0 0.01\n" for i in range(each))
        path = folder / "word_oxc1_hesaff_sift_16M_1M" / f"{name}.txt"
        path.write_text(f"1.0\n{each}\n{lines}")


def large(folder, rows, data):
    """Write rows, and yield specs for them."""
    path = Path(data).resolve() if data else folder / "x.npy"
    if not data:
        made = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, 128))
        for start in range(0, rows, 100_000):
            stop = min(rows, start + 100_000)
            made[start:stop] = vectors(stop - start, seed=start)
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
    done = subprocess.run(
        [sys.executable, "-m", "vwkit", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1][:200]
    return json.loads(done.stdout), None


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
                "cpu": [stage["cpu_seconds"], true["cpu_seconds"]],
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
        "memory": [plan["total"]["memory"], run["peak_memory"]],
        **{
            short: [plan["total"][what], sum(one[what] for one in run["stages"].values())]
            for short, what in (("seconds", "seconds"), ("cpu", "cpu_seconds"))
        },
    }


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
    if pair[0] is None or pair[1] is None or pair[1] + more == 0:
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
        few = min(rows, DOCUMENTED_ROWS)
        jobs = [*documented(folder, few, PHOTOS), *large(folder, rows, options.data)]
        for title, spec, overrides in jobs:
            known = any(line["name"] == title for line in lines_of(results))
            if (options.only and options.only not in title) or (known and not options.only):
                continue
            line = compared(title, spec, overrides, folder, options.threads)
            append(results, {**line, "machine": machine(options.threads)})
    shown(list({line["name"]: line for line in lines_of(results)}.values()), options.threads)


def shown(lines, threads):
    """Print the table, the stages that are far off, and the largest factors of all."""
    cells, most = [], {"rows": 1.0, "memory": 1.0, "seconds": 1.0, "cpu": 1.0}
    for line in lines:
        if line["failure"]:
            cells.append([line["name"], line["failure"], *[""] * 11])
            continue
        factors = {
            "rows": worst(line, "rows"),
            "memory": ratio(line["memory"]),
            "seconds": ratio(line["seconds"], LEAST_SECONDS),
            "cpu": ratio(line["cpu"], LEAST_SECONDS),
        }
        for what, factor in factors.items():
            most[what] = max(most[what], factor or 1.0)
        memory, seconds, cpu = line["memory"], line["seconds"], line["cpu"]
        cells.append(
            [
                line["name"],
                "–" if factors["rows"] is None else f"{factors['rows']:.2f}",
                f"{memory[0] / 1e6:,.0f}", f"{memory[1] / 1e6:,.0f}", f"{factors['memory']:.2f}",
                f"{seconds[0]:,.2f}", f"{seconds[1]:,.2f}", f"{factors['seconds']:.2f}",
                f"{cpu[0]:,.2f}", f"{cpu[1]:,.2f}", f"{factors['cpu']:.2f}",
                f"{line['busy']:.1f}", f"{line['took']:.1f}",
            ]
        )  # fmt: skip
    table(
        f"Planned and then measured, from an empty cache ({machine(threads)})",
        [
            "spec", "rows ×", "memory MB", "true", "×", "seconds", "true", "×", "CPU s", "true",
            "×", "busy", "planning took s",
        ],
        cells,
    )  # fmt: skip
    off = [
        [line["name"], name, one["backend"], *_pair(one["seconds"]), *_pair(one["cpu"])]
        for line in lines
        if not line["failure"]
        for name, one in line["stages"].items()
        if (ratio(one["cpu"], LEAST_SECONDS) or 0) > FAR
    ]
    if off:
        head = ["spec", "stage", "backend", "seconds", "true", "CPU s", "true"]
        table(f"Stages whose processors' time is off by more than {FAR:g}", head, off)
    print("\nThe largest factors: " + ", ".join(f"{what} {x:.2f}" for what, x in most.items()))


def _pair(pair):
    return ["?" if one is None else f"{one:,.2f}" for one in pair]


if __name__ == "__main__":
    sys.exit("run it as: python -m benchmarks plan")
