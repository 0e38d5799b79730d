"""Approximate k-means: `lloyd` with every index as `assign`, beside the exact assignment."""

import time

import numpy as np

import vwkit
import vwkit.kernels
from benchmarks.common import machine, table, vectors

ROWS, WORDS, ITERATIONS = 200_000, 4_096, 3

INDEXES = {
    "exact": None,
    "faiss Flat": {"use": "faiss"},
    "faiss IVF64,Flat": {"use": "faiss", "factory": "IVF64,Flat", "nprobe": 8},
    "faiss HNSW32": {"use": "faiss", "factory": "HNSW32"},
    "hnsw": {"use": "hnsw", "ef": 32},
    "flann, 128 checks": {"use": "flann", "trees": 4, "checks": 128},
    "annoy, 20 trees": {"use": "annoy", "n_trees": 20, "search_k": 400},
    "usearch": {"use": "usearch", "expansion_search": 32},
}


def main(options):
    rows = (options.rows or [ROWS])[0]
    words = options.words or WORDS
    base = vectors(rows, path=options.data)
    start = vwkit.create("clusterer", "lloyd", k=words, init="random", iterations=1).fit(base)
    known = vwkit.backends()["index"]
    lines, exact = [], None
    with vwkit.use_job(vwkit.Job(threads=options.threads)):
        for name, assign in INDEXES.items():
            if options.only and options.only not in name and assign is not None:
                continue
            if assign is not None and assign["use"] not in known:
                lines.append([name, "not installed", "", "", "", ""])
                continue
            begun = time.perf_counter()
            fit = vwkit.create(
                "clusterer",
                "lloyd",
                k=words,
                init=start.centers,
                iterations=ITERATIONS,
                tolerance=0.0,
                assign=assign,
            ).fit(base)
            took = (time.perf_counter() - begun) / len(fit.objective)
            if exact is None:
                exact = took
            nearest = vwkit.kernels.nearest_rows(base[:10_000], fit.centers)
            share = float(np.mean(nearest == fit.labels[:10_000]))
            lines.append(
                [name, took, took / exact, 1e6 * took / len(base), share, fit.objective[-1]]
            )
    head = ["assign", "s per pass", "of exact", "us per row", "labels nearest", "objective"]
    title = (
        f"Approximate k-means, {len(base):,} × {base.shape[1]}, k = {words:,}, {ITERATIONS} "
        f"iterations from the same centers ({machine(options.threads)})"
    )
    table(title, head, lines)
