"""The parts of graph k-means by themselves: what a pass and the upkeep of the graph cost; lookups.

Both yield a dict for each row of a table, with its `label`.
"""

import time

import numpy as np

from benchmarks.memory import Peak
from benchmarks.rivals import distances, nearest

RUNS, ENOUGH = 5, 20  # of each part: so many runs, or fewer once so many seconds have passed
CHECKED = 20_000  # rows whose nearest centers are looked for exactly
LISTS = 2_000  # centers whose lists are checked


def _clocked(call, runs=RUNS):
    """Return the result, and what to tell: the median seconds of a few runs, CPU and memory."""
    took, used = [], []
    with Peak() as peak:
        while len(took) < runs and sum(took) < ENOUGH:
            start, cpu = time.perf_counter(), time.process_time()
            made = call()
            took.append(time.perf_counter() - start)
            used.append(time.process_time() - cpu)
    return made, {
        "runs": len(took),
        "wall": float(np.median(took)),
        "cpu": float(np.median(used)),
        "anonymous": peak.anonymous,
        "mapped": peak.mapped,
    }


def upkeep(task):
    """Yield what groups, building and renewing the graph, and the two passes cost."""
    import faiss

    rows = np.load(task["rows"], mmap_mode="r")
    start = time.perf_counter()
    for _ in _upkeep(rows[:8192], 2048, task, 1):  # compiles, and begins threads
        pass
    first = time.perf_counter() - start
    if task.get("compile"):
        yield {"first": first}
        return
    yield from ({**one, "first": first} for one in _upkeep(rows, task["k"], task, RUNS))
    faiss.omp_set_num_threads(task["threads"])
    index = faiss.IndexFlatL2(rows.shape[1])
    centers = np.load(task["rows"] + ".centers.npy")
    index.add(centers)
    wide = np.asarray(rows, np.float32)
    label = "exact assignment by faiss.IndexFlatL2"
    faiss.TimeoutCallback.reset(float(task["limit"]))
    try:
        (_, found), line = _clocked(lambda: index.search(wide, 1), 1)
    except RuntimeError as error:
        if "computation interrupted" not in str(error):
            raise
        yield {"label": label, "note": f"stopped after {task['limit']} s, before its end"}
        return
    line["objective"] = float(distances(rows[:CHECKED], centers, found[:CHECKED, 0]).mean())
    yield {"label": label, **line}


def _upkeep(rows, k, task, runs):
    from vwkit_numba.coarse import group_centers
    from vwkit_numba.frames import frame_of
    from vwkit_numba.graph import build, renew
    from vwkit_numba.passes import Passes, Totals, inner
    from vwkit_numba.start import start

    import vwkit

    job = vwkit.Job(threads=task["threads"])
    stream = vwkit.Stream.from_array(rows)
    passes = Passes(stream, None, frame_of(stream, False, None), job, 0)
    labels, runners = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.int32)
    gaps = np.zeros(len(rows), np.float32)

    def begin():
        return start(passes, k, labels, gaps)[0]

    try:
        centers, line = _clocked(begin, runs)
        yield {"label": "start", **line}
        moved, half = inner(centers, passes.frame)
        coarse, line = _clocked(lambda: group_centers(moved[:-1], job, 0), runs)
        yield {"label": "grouping the centers", **line}
        graph, line = _clocked(lambda: build(passes, moved, half, coarse, 64), runs)
        truth = _true_lists(moved[:-1], graph.lists.shape[1], task["threads"])
        yield {"label": "building the graph", **line, "recall": _found(graph.lists, truth)}
        groups, totals = labels.copy(), Totals.zeros(k, rows.shape[1])
        every = np.ones(k, np.bool_)

        def assign():
            return passes.assign(groups, k, graph.as_lists(), moved, half, labels, gaps, runners)

        _, line = _clocked(assign, runs)
        line["objective"] = float(distances(rows[:CHECKED], centers, labels[:CHECKED]).mean())
        near = nearest(rows[:CHECKED], centers, task["threads"])
        line["recall"] = float((near == labels[:CHECKED]).mean())
        yield {"label": "one assignment along the graph", **line}

        def accumulate():
            passes.accumulate(labels, moved, gaps, totals, every, 0)

        yield {"label": "adding up all rows", **_clocked(accumulate, runs)[1]}
        np.save(task["rows"] + ".centers.npy", centers)
        fresh, line = _clocked(lambda: passes.means(totals, centers), runs)
        yield {"label": "means", **line}
        moved, half = inner(fresh, passes.frame)
        none = np.zeros((0, 2), np.int64)
        graph, line = _clocked(lambda: renew(passes, graph, moved, half, none, every), runs)
        truth = _true_lists(moved[:-1], graph.lists.shape[1], task["threads"])
        yield {"label": "renewing the graph", **line, "recall": _found(graph.lists, truth)}
    finally:
        passes.close()


def _true_lists(centers, width, threads):
    """Return some centers and the exact lists of theirs."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(centers.shape[1])
    index.add(centers)
    chosen = np.random.default_rng(0).choice(len(centers), min(LISTS, len(centers)), replace=False)
    return chosen, index.search(centers[chosen], min(width, len(centers)))[1]


def _found(lists, truth):
    chosen, true = truth
    hits = sum(np.isin(mine, own).sum() for mine, own in zip(lists[chosen], true, strict=True))
    return float(hits / true.size)


def fit_for_lookups(task):
    """Fit graph k-means with a few iterations and save it: what the lookups share."""
    import vwkit

    rows = np.load(task["rows"], mmap_mode="r")
    with vwkit.use_job(vwkit.Job(threads=task["threads"])):
        words = vwkit.create(
            "clusterer", "graph-kmeans", k=task["k"], iterations=task["iterations"]
        )
        words.fit(rows).save(task["words"])
    np.save(task["words"] + ".centers.npy", words.centers)
    yield {"ready": True}


def lookup(task):
    """Yield rate and recall of one library, for each of its settings."""
    asked = np.load(task["asked"], mmap_mode="r")
    centers = np.load(task["words"] + ".centers.npy")
    start = time.perf_counter()
    for _ in LOOKUPS[task["library"]](centers[:2048], asked[:4096], task, True):
        pass
    first = time.perf_counter() - start
    if task.get("compile"):
        yield {"first": first}
        return
    truth = None
    for label, build, search in LOOKUPS[task["library"]](centers, asked, task, False):
        some = asked[: task.get("most", len(asked))]
        labels, line = _clocked(lambda search=search, some=some: search(some), 3)
        found = np.asarray(labels).reshape(-1)[:CHECKED]
        if truth is None:
            held = asked[:CHECKED]
            truth = distances(held, centers, nearest(held, centers, task["threads"]))
        own = distances(asked[: len(found)], centers, found)
        line["recall"] = float((own <= truth[: len(found)] * (1 + 1e-9)).mean())
        line["objective"] = float(own.mean())
        yield {"label": label, "looked_up": len(some), "build": build, "first": first, **line}


def _graph(centers, asked, task, warm):
    import vwkit

    start = time.perf_counter()
    words = vwkit.load(task["words"])
    opened = time.perf_counter() - start
    job = vwkit.Job(threads=task["threads"])
    for probes in task["settings"][:1] if warm else task["settings"]:
        words.probes = probes

        def search(rows):
            with vwkit.use_job(job):
                return words.predict(rows)

        search(asked[:1])  # what it makes ready for the first call belongs to opening
        yield f"graph-kmeans, probes {probes}", opened, search


def _flat(centers, asked, task, warm):
    import faiss

    faiss.omp_set_num_threads(task["threads"])
    start = time.perf_counter()
    index = faiss.IndexFlatL2(centers.shape[1])
    index.add(centers)
    built = time.perf_counter() - start
    wide = np.asarray(asked, np.float32)
    yield "faiss.IndexFlatL2", built, lambda rows: index.search(wide[: len(rows)], 1)[1]


def _faiss_hnsw(centers, asked, task, warm):
    import faiss

    faiss.omp_set_num_threads(task["threads"])
    start = time.perf_counter()
    index = faiss.IndexHNSWFlat(centers.shape[1], 32)
    index.add(centers)
    built = time.perf_counter() - start
    wide = np.asarray(asked, np.float32)
    for breadth in task["settings"]:
        index.hnsw.efSearch = breadth
        label = f"faiss HNSW32, efSearch {breadth}"
        yield label, built, lambda rows: index.search(wide[: len(rows)], 1)[1]


def _hnswlib(centers, asked, task, warm):
    import hnswlib

    start = time.perf_counter()
    index = hnswlib.Index("l2", centers.shape[1])
    index.init_index(len(centers), M=16, ef_construction=200, random_seed=0)
    index.add_items(centers, np.arange(len(centers)), num_threads=task["threads"])
    built = time.perf_counter() - start
    wide = np.asarray(asked, np.float32)
    for breadth in task["settings"]:
        index.set_ef(breadth)

        def search(rows):
            return index.knn_query(wide[: len(rows)], 1, num_threads=task["threads"])[0]

        yield f"hnswlib, ef {breadth}", built, search


LOOKUPS = {"graph": _graph, "flat": _flat, "faiss_hnsw": _faiss_hnsw, "hnswlib": _hnswlib}
