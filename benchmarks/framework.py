"""What the checks and the bookkeeping of the core cost, measured against bare library calls."""

import numpy as np

import vwkit
from benchmarks.common import machine, paired, table, vectors

ROWS, QUERIES, K = 100_000, 1_000, 10


def main(options):
    import faiss
    import hnswlib

    base = vectors(ROWS, path=options.data).astype(np.float32)
    queries = vectors(QUERIES, seed=1, path=options.data).astype(np.float32)
    dim, threads = base.shape[1], options.threads
    faiss.omp_set_num_threads(threads)
    rows = []

    def flat():
        index = faiss.IndexFlatL2(dim)
        index.add(base)
        return index

    def hnsw_faiss():
        index = faiss.index_factory(dim, "HNSW16")
        index.add(base)
        return index

    def hnsw():
        index = hnswlib.Index("l2", dim)
        index.init_index(ROWS, M=16, ef_construction=200, random_seed=0)
        index.set_num_threads(threads)
        index.add_items(base, np.arange(ROWS))
        index.set_ef(100)
        return index

    cases = [
        ("faiss Flat", {"name": "faiss"}, flat, lambda i: i.search(queries, K), options.repeats),
        (
            "faiss HNSW16",
            {"name": "faiss", "factory": "HNSW16"},
            hnsw_faiss,
            lambda i: i.search(queries, K),
            max(3, options.repeats // 2),
        ),
        (
            "hnswlib",
            {"name": "hnsw"},
            hnsw,
            lambda i: i.knn_query(queries, K),
            max(3, options.repeats // 2),
        ),
    ]
    with vwkit.use_job(vwkit.Job(threads=threads)):
        for title, params, bare, search, repeats in cases:
            name = params.pop("name")

            def build(name=name, params=params):
                return vwkit.create("index", name, **params).build(base)

            rows.append([title, f"build {ROWS:,}", *paired(build, bare, repeats)])
            ours, theirs = build(), bare()
            rows.append(
                [
                    title,
                    f"search {QUERIES:,}",
                    *paired(
                        lambda ours=ours: ours.search(queries, K),
                        lambda theirs=theirs, search=search: search(theirs),
                        options.repeats * 3,
                    ),
                ]
            )
    head = ["index", "work", "vwkit s", "bare s", "ratio"]
    table(f"Framework cost ({machine(threads)}; {dim} dimensions, k = {K})", head, rows)
