"""Timing in pairs, tables, and the machine."""

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

LIBRARIES = ("numpy", "faiss-cpu", "hnswlib", "annoy", "pyflann-ibeis", "usearch", "vwkit")


def machine(threads, libraries=("numpy", "faiss-cpu", "hnswlib", "vwkit")):
    """One line that says where and when."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
            break
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in libraries if _installed(name)
    )
    return f"{datetime.date.today()}, {model}, {threads} threads, {versions}"


def _installed(name):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def paired(ours, theirs, repeats, seconds=None):
    """Run both sides in turn; return the median seconds of each and the median ratio.

    These machines are noisy: neighbours in time are compared with each other, not averages. With
    `seconds` no more pairs are run, beyond the second, once so many have passed.
    """
    runs = []
    begin = time.perf_counter()
    for i in range(repeats):
        if seconds and i > 1 and time.perf_counter() - begin > seconds:
            break
        sides = [("ours", ours), ("theirs", theirs)]
        took = {}
        for name, side in sides if i % 2 else reversed(sides):
            start = time.perf_counter()
            side()
            took[name] = time.perf_counter() - start
        runs.append(took)
    return (
        statistics.median(took["ours"] for took in runs),
        statistics.median(took["theirs"] for took in runs),
        statistics.median(took["ours"] / took["theirs"] for took in runs),
    )


def table(title, head, rows):
    """Print a Markdown table."""
    cells = [head, *[[_text(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    print(f"\n{title}\n")
    for i, row in enumerate(cells):
        print(
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            + " |"
        )
        if i == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _text(cell):
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def vectors(rows, dim=128, seed=0, path=None):
    """Real vectors from a file, or uint8 around a thousand points."""
    if path:
        import vwkit

        stream = vwkit.read(path)
        return np.ascontiguousarray(stream.take(np.arange(min(rows, stream.count()))))
    rng = np.random.default_rng(seed)
    centers = rng.gamma(0.6, 40, (1000, dim))
    values = centers[rng.integers(0, 1000, rows)] + rng.normal(0, 15, (rows, dim))
    return np.clip(values, 0, 255).astype(np.uint8)


def drawn(rows, path=None):
    """Return rows drawn at random from a file, in its order, or made ones."""
    if not path:
        return vectors(rows)
    import vwkit

    stream = vwkit.read(path)
    count = stream.count()
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(count, min(count, rows), replace=False))
    return np.ascontiguousarray(stream.take(chosen))


# Cases in processes of their own, kept in a file of JSON lines -------------------------------------


def pinned(threads):
    """Return the environment that gives a process's libraries so many threads from the beginning."""
    names = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "NUMBA")
    return {f"{name}_NUM_THREADS": str(threads) for name in names}


def child(case, task, folder, limit, env=None):
    """Run ``python -m benchmarks.CASE TASK``; return the dicts it printed, and why it failed.

    Whoever runs out of time (`limit`, seconds) or dies has told what was known before. What `env`
    holds is added to the environment.
    """
    command = [sys.executable, "-m", f"benchmarks.{case}", json.dumps(task)]
    out, err, failure = folder / "told", folder / "errors", None
    with out.open("w") as stdout, err.open("w") as stderr:
        try:
            done = subprocess.run(
                command,
                cwd=Path(__file__).parents[1],
                stdout=stdout,
                stderr=stderr,
                timeout=limit,
                check=False,
                env={**os.environ, **(env or {})},
            )
        except subprocess.TimeoutExpired:
            failure = f"over {limit // 60} minutes"
        else:
            if done.returncode:
                last = err.read_text().strip().splitlines()[-1:]
                failure = " ".join(last) or f"exit status {done.returncode}"
    told = [json.loads(line) for line in out.read_text().splitlines() if line.startswith("{")]
    return told, failure


def lines_of(results):
    """Return what a file of JSON lines holds."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def append(results, line):
    """Add one line, with the time."""
    line["when"] = datetime.datetime.now().isoformat(timespec="seconds")
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")
