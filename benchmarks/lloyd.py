"""Exact Lloyd on a memory-mapped uint8 file: memory far below a float copy, time beside FAISS."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import machine, table, vectors

ROWS, WORDS, ITERATIONS = 1_000_000, 1_024, 5

# Each side runs in a process of its own, so that memory is its own.
_SIDE = """
import json, sys, time
import numpy as np
from vwkit.stages import MemoryMeter, anonymous_memory
side, path, k, iterations, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
rows = np.load(path, mmap_mode="r")
if side == "vwkit":
    import vwkit
    vwkit.backends()
    fit = lambda: vwkit.create("clusterer", "lloyd", k=k, iterations=iterations, tolerance=0.0,
                               init="random").fit(rows)
else:
    import faiss
    faiss.omp_set_num_threads(threads)
    def fit():
        made = faiss.Kmeans(rows.shape[1], k, niter=iterations, seed=0,
                            max_points_per_centroid=len(rows))
        made.train(np.asarray(rows, np.float32))
        return made
before = anonymous_memory()
with MemoryMeter(0.02) as meter:
    start = time.perf_counter()
    if side == "vwkit":
        with vwkit.use_job(vwkit.Job(threads=threads)):
            made = fit()
        objective = made.objective[-1]
    else:
        made = fit()
        objective = float(made.obj[-1]) / len(rows)
    seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "objective": objective, "memory": meter.peak - before}))
"""


def _run(side, path, threads):
    arguments = [side, str(path), str(WORDS), str(ITERATIONS), str(threads)]
    done = subprocess.run(
        [sys.executable, "-c", _SIDE, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main(options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        np.save(path, vectors(ROWS, path=options.data))
        size = path.stat().st_size
        # In turn: neighbours in time are compared with each other.
        pairs = [
            {side: _run(side, path, options.threads) for side in ("vwkit", "faiss")}
            for _ in range(max(3, options.repeats // 2))
        ]
    rows = []
    for side, name in (("vwkit", "vwkit lloyd"), ("faiss", "faiss.Kmeans")):
        memory = median(pair[side]["memory"] for pair in pairs)
        rows.append(
            [
                name,
                median(pair[side]["seconds"] for pair in pairs),
                median(pair[side]["seconds"] / pair["faiss"]["seconds"] for pair in pairs),
                pairs[0][side]["objective"],
                memory / 2**20,
                memory / (4 * size),
            ]
        )
    head = ["", "seconds", "ratio", "objective", "peak anonymous MiB", "of a float copy"]
    title = (
        f"Lloyd, {ROWS:,} × 128 uint8 memory-mapped, k = {WORDS:,}, {ITERATIONS} iterations "
        f"({machine(options.threads)})"
    )
    table(title, head, rows)
