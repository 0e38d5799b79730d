"""The bare libraries, called as their own pages tell, with the settings that vwkit gives them.

Each function takes the base (uint8 or float32, perhaps memory-mapped), the parameters of vwkit's
backend and the threads; it builds and returns ``search(queries, k, threads, **late) -> ids``.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np


def exact(base, params, threads):
    """Compare with everything, by faiss.knn: there is no library below vwkit's own `exact`."""
    import faiss

    rows = np.asarray(base, np.float32)

    def search(queries, k, threads):
        faiss.omp_set_num_threads(threads)
        return faiss.knn(queries, rows, k)[1]

    return search


def faiss(base, params, threads):
    import faiss

    from vwkit.hashing import sample_rows

    faiss.omp_set_num_threads(threads)
    rows = np.asarray(base, np.float32)
    index = faiss.index_factory(rows.shape[1], params.get("factory", "Flat"))
    if not index.is_trained:
        # The same rows and the same seed as vwkit draws, so that answers can be compared.
        lists = getattr(index, "nlist", 0)
        wanted = max(65_536, 256 * lists)
        for owner in (index, getattr(index, "pq", None)):
            if hasattr(owner, "cp"):
                owner.cp.seed = params.get("seed", 0)
                owner.cp.min_points_per_centroid = 1
        sample = rows if wanted >= len(rows) else rows[sample_rows(len(rows), wanted, 0)]
        index.train(sample)
    index.add(rows)

    def search(queries, k, threads, nprobe=None, efSearch=None):
        faiss.omp_set_num_threads(threads)
        if hasattr(index, "nprobe"):
            index.nprobe = nprobe or 1
        if hasattr(index, "hnsw"):
            index.hnsw.efSearch = efSearch or 16
        return index.search(queries, k)[1]

    return search


def hnsw(base, params, threads):
    import hnswlib

    index = hnswlib.Index("l2", base.shape[1])
    index.init_index(
        len(base),
        M=params.get("M", 16),
        ef_construction=params.get("ef_construction", 200),
        random_seed=params.get("seed", 0),
    )
    index.add_items(np.asarray(base, np.float32), np.arange(len(base)), num_threads=threads)

    def search(queries, k, threads, ef=100):
        index.set_ef(max(ef, k))
        return index.knn_query(queries, k, num_threads=threads)[0]

    return search


def annoy(base, params, threads):
    import annoy

    trees = params.get("n_trees", 100)
    index = annoy.AnnoyIndex(base.shape[1], "euclidean")
    index.set_seed(params.get("seed", 0))
    for row, vector in enumerate(base):
        index.add_item(row, vector.tolist())
    index.build(trees, threads)

    def search(queries, k, threads, search_k=-1):
        candidates = 2 * trees * k if search_k < 0 else search_k

        def part(vectors):
            return [index.get_nns_by_vector(one, k, candidates) for one in vectors.tolist()]

        if threads == 1:
            found = part(queries)
        else:
            with ThreadPoolExecutor(threads) as pool:
                parts = pool.map(part, np.array_split(queries, threads))
                found = [one for answers in parts for one in answers]
        return np.array([one + [-1] * (k - len(one)) for one in found])

    return search


def flann(base, params, threads):
    import pyflann_ibeis

    index = pyflann_ibeis.FLANN()
    rows = np.asarray(base, np.float32)
    index.build_index(
        rows,
        algorithm="kdtree",
        trees=params.get("trees", 8),
        random_seed=params.get("seed", 0) + 1,
        log_level="none",
    )

    def search(queries, k, threads, checks=1024):
        return index.nn_index(queries, k, checks=checks, cores=threads)[0]

    search.keep = rows  # the library points into them
    return search


def usearch(base, params, threads):
    from usearch.index import Index

    dtype = params.get("dtype", "f32")
    index = Index(
        ndim=base.shape[1],
        metric="l2sq",
        dtype=dtype,
        connectivity=params.get("connectivity", 16),
        expansion_add=params.get("expansion_add", 128),
        expansion_search=100,
    )

    def stored(rows):
        # i8 takes whole numbers from -128 to 127: bytes, moved.
        wide = np.asarray(rows, np.float32)
        return np.clip(np.rint(wide) - 128, -128, 127).astype(np.int8) if dtype == "i8" else wide

    index.add(np.arange(len(base), dtype=np.uint64), stored(base), threads=threads)

    def search(queries, k, threads, expansion_search=100):
        index.expansion_search = expansion_search
        return index.search(stored(queries), k, threads=threads).keys.astype(np.int64)

    return search


SIDES = {
    "exact": exact,
    "faiss": faiss,
    "hnsw": hnsw,
    "annoy": annoy,
    "flann": flann,
    "usearch": usearch,
}
