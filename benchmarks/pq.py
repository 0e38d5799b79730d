"""Product quantizers: how long they learn and encode, and how far their codes are from the vectors.

Each case runs in a process of its own; the machine may be shared, so CPU seconds stand beside those
of the clock. Half of the rows is learned from, the other half encoded. Results are appended to a
file of JSON lines; what it holds already is not measured again.
"""

import json
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.common import LIBRARIES, append, child, lines_of, machine, table, vectors

ROWS, KS = 1_000_000, 256
LIMIT = 30 * 60
NAMES = ("faiss", "fast-pq", "fast-opq", "opq", "faiss-pq", "pq", "pqkmeans")
SLOW = ("opq", "faiss-pq", "pq", "pqkmeans")
ROTATED = ("fast-opq", "opq")


def _cases():
    """Yield label and task. `whole` says whether all rows are learned from, or as is default."""
    for m in (4, 8, 16):
        for whole in (True, False):
            for name in NAMES:
                # Only vwkit takes bytes; others get floats, and the time to make them is not counted.
                kinds = ("uint8", "float32") if name == "fast-pq" else ("uint8",)
                for dtype in kinds:
                    if (name in SLOW and m > 4) or (name == "pqkmeans" and not whole):
                        continue
                    if name in ROTATED and whole:  # neither learns its rotation from all rows
                        continue
                    shown = f"{name} {dtype}" if len(kinds) > 1 else name
                    learned = "all rows" if whole else "default"
                    task = {"name": name, "m": m, "whole": whole, "dtype": dtype}
                    yield f"m = {m}, {learned}: {shown}", task


CASES = dict(_cases())


def measure(task):
    """Yield seconds of training and encoding, the mean squared error, and memory on top."""
    train, other = (np.load(task[part]) for part in ("train", "other"))
    library = task["name"] in ("faiss", "pqkmeans")
    if library or task["dtype"] == "float32":
        train, other = train.astype(np.float32), other.astype(np.float32)
    learn, encode, decode = (_bare if library else _ours)(task, len(train))
    # Libraries are imported, threads begin and kernels are compiled before the clock runs.
    start = time.perf_counter()
    learn(train[: 4 * KS], warm=True)
    encode(other[:100])
    line = {"first": time.perf_counter() - start}
    with _Memory() as memory:
        for what, function, rows in (("train", learn, train), ("encode", encode, other)):
            start, cpu = time.perf_counter(), time.process_time()
            codes = function(rows)
            line[what] = time.perf_counter() - start
            line[what + "_cpu"] = time.process_time() - cpu
    total = 0.0
    for first in range(0, len(other), 50_000):
        part = slice(first, first + 50_000)
        error = other[part].astype(np.float32) - decode(np.asarray(codes[part]))
        total += float((error**2).sum(dtype=np.float64))
    yield {**line, "memory": memory.peak, "distortion": total / len(other)}


def _ours(task, rows):
    import vwkit

    job = vwkit.Job(threads=task["threads"])
    params = {"train_rows": rows} if task["whole"] else {}
    made = vwkit.create("quantizer", task["name"], m=task["m"], ks=KS, **params)
    few = vwkit.create("quantizer", task["name"], m=task["m"], ks=KS, iterations=1)
    held = [made]

    def learn(rows, warm=False):
        held[0] = few if warm else made
        with vwkit.use_job(job):
            held[0].fit(rows)

    def encode(rows):
        with vwkit.use_job(job):
            return held[0].encode(rows)

    return learn, encode, made.decode


def _bare(task, rows):
    if task["name"] == "pqkmeans":
        import pqkmeans

        held = []

        def learn(rows, warm=False):
            own = pqkmeans.encoder.PQEncoder(1 if warm else 20, num_subdim=task["m"], Ks=KS)
            own.fit(rows)
            held[:] = [own]

        return (
            learn,
            lambda rows: held[0].transform(rows),
            lambda codes: held[0].inverse_transform(codes),
        )
    import faiss

    faiss.omp_set_num_threads(task["threads"])
    held = []

    def learn(rows, warm=False):
        own = faiss.ProductQuantizer(rows.shape[1], task["m"], 8)
        own.cp.min_points_per_centroid = 1  # no word about the few rows of the first call
        if task["whole"]:
            own.cp.max_points_per_centroid = len(rows)
        own.train(rows)
        held[:] = [own]

    return learn, lambda rows: held[0].compute_codes(rows), lambda codes: held[0].decode(codes)


class _Memory:
    """Looks at the process's own memory (RssAnon) now and then; `peak` is in MB, on top."""

    def __enter__(self):
        self.peak, self.begin, self.stop = 0, self._now(), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def _watch(self):
        while not self.stop.wait(0.02):
            self.peak = max(self.peak, self._now() - self.begin)

    @staticmethod
    def _now():
        return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024


def main(options):
    results = Path(options.results or Path(tempfile.gettempdir()) / "vwkit-pq.jsonl")
    data = Path(options.data).name if options.data else "made data"
    rows = (options.rows or [ROWS])[0]
    own = {"data": data, "rows": rows, "threads": options.threads}
    known = {line["case"] for line in _lines(results, own)}
    with tempfile.TemporaryDirectory(prefix="vwkit-pq-") as name:
        folder, ready = Path(name), False
        for label, case in CASES.items():
            if (options.only or "") not in label or (label in known and not options.only):
                continue
            if not ready:
                found = vectors(2 * rows, path=options.data)
                np.save(folder / "train.npy", found[: len(found) // 2])
                np.save(folder / "other.npy", found[len(found) // 2 :])
                ready = True
            files = {part: str(folder / f"{part}.npy") for part in ("train", "other")}
            told, failure = child("pq", {**own, **case, **files}, folder, LIMIT)
            line = {**own, **case, "case": label, "failure": failure}
            for one in told:
                line.update(one)
            libraries = (*LIBRARIES, "numba", "scipy", "pqkmeans")
            append(results, {**line, "machine": machine(options.threads, libraries)})
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
    base = {(line["m"], line["whole"]): line for line in lines if line["name"] == "faiss"}
    cells = []
    for line in lines:
        if line["failure"]:
            cells.append([line["case"], line["failure"], *[""] * 11])
            continue
        faiss = base.get((line["m"], line["whole"]))
        cells.append(
            [
                line["case"],
                *(f"{line[what]:.2f}" for what in ("train", "train_cpu", "encode", "encode_cpu")),
                *(_times(faiss, line, end) for end in ("", "_cpu")),
                *(_times(faiss, line, "", (what,)) for what in ("train", "encode")),
                f"{line['distortion']:,.1f}",
                f"{line['distortion'] / faiss['distortion']:.4f}" if faiss else "–",
                line["memory"],
                f"{line['first']:.1f}",
            ]
        )
    head = ["learned from: by", "train s", "CPU s", "encode s", "CPU s", "× faiss", "× CPU"]
    head += ["× train", "× encode", "error", "÷ faiss", "MB", "first s"]
    title = (
        f"Product quantizers of {KS} codewords, {own['rows']:,} rows to learn from and as many to "
        f"encode, of {own['data']} ({lines[-1]['machine']})"
    )
    table(title, head, cells)


def _times(faiss, line, end, what=("train", "encode")):
    """Return how many times as fast as FAISS."""
    if not faiss or faiss["failure"]:
        return "–"
    own, other = (sum(one[part + end] for part in what) for one in (line, faiss))
    return f"{other / own:.2f}"


if __name__ == "__main__":
    for step in measure(json.loads(sys.argv[1])):
        print(json.dumps(step), flush=True)
