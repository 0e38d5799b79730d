"""K-means by vwkit and by other libraries, stopped at a limit with what is done by then.

Each function takes the rows (bytes for vwkit, float32 for the others, since they take nothing else),
k, the task and the limit in seconds, and returns a `Fitted`. It is called on a few rows first.
"""

import os
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Fitted:
    """What a fit has come to.

    Attributes
    ----------
    centers : (k, d), or None where the library does not hand out what it has
    iterations : int or None
        Updates of the centers that are done.
    ends : list of float
        Seconds at which iterations ended, as far as the library tells.
    own : float or None
        The last mean squared distance that the library itself tells.
    stopped : bool
        The limit was reached before the end.
    """

    centers: np.ndarray | None
    iterations: int | None = None
    ends: list = field(default_factory=list)
    own: float | None = None
    stopped: bool = False
    note: str = ""


class _Stopped(Exception):
    """The limit is reached."""


def vwkit(rows, k, task, limit):
    """Any clusterer of vwkit, `use` with `params`; `passes`: stop after so many updates."""
    import vwkit

    class Clock(vwkit.Job):
        """Sees every iteration end, and ends the fit where it may be ended."""

        state, ends, rows_done = None, (), 0

        def checkpoint(self, step, arrays):
            if "at" in arrays:  # lloyd also keeps how far a pass is: that is no iteration
                step, row = int(arrays["at"][0]), int(arrays["at"][1])
                if row:
                    self._look(False)
                    return
            self.state = step, dict(arrays)
            self.ends = [*self.ends, time.perf_counter() - start]
            self._look(step >= task.get("passes", sys.maxsize))

        def progress(self, done, total=None, unit="rows", **values):
            super().progress(done, total, unit, **values)
            self.rows_done = done if unit == "rows" else 0
            self._look(False)

        def _look(self, enough):
            if enough or time.perf_counter() - start > limit:
                raise _Stopped

    params = dict(task.get("params", {}))
    if task["use"] == "tree":
        params["branch"] = max(2, round(k ** (1 / params["depth"])))
    else:
        params["k"] = k
    if task.get("init"):
        whole = len(rows) == task["rows_count"]
        params["init"] = task["init"] if whole else rows[:k].astype(np.float32)
    more = {}
    if task.get("quantizer"):
        more["quantizer"] = vwkit.load(task["quantizer"])
    clusterer = vwkit.create("clusterer", task["use"], **params)
    clock = Clock(threads=task["threads"])
    start = time.perf_counter()
    try:
        with vwkit.use_job(clock):
            clusterer.fit(rows, **more)
    except _Stopped:
        step, state = clock.state or (0, {})
        planned = step >= task.get("passes", sys.maxsize)
        note = "" if planned or step else f"{clock.rows_done / len(rows):.2f} of a pass"
        own = state.get("objective", [None])[-1:]
        return Fitted(
            state.get("centers"),
            step,
            clock.ends,
            float(own[0]) if len(own) and own[0] is not None else None,
            not planned,
            note,
        )
    # What follows the last iteration: empty clusters are filled, labels made better.
    done, note = len(clock.ends), ""
    more = len(clusterer.objective) - 1 - done
    if done and more > 0 and task["use"] != "tree":
        note = f"and {more} assignments more at the end"
    return Fitted(clusterer.centers, done, clock.ends, float(clusterer.objective[-1]), note=note)


def plus_plus(rows, k, task, limit):
    """The start of `lloyd`: k-means++ on a sample."""
    import vwkit
    from vwkit.builtin.seeding import plus_plus

    job = vwkit.Job(threads=task["threads"])
    return Fitted(plus_plus(vwkit.Stream.from_array(rows), k, 0, None, job), 0)


def random_rows(rows, k, task, limit):
    """Rows drawn at random."""
    from vwkit.hashing import sample_rows

    return Fitted(rows[sample_rows(len(rows), k, 0)].astype(np.float32), 0)


def graph_start(rows, k, task, limit):
    """The start of `graph-kmeans` alone."""
    from vwkit_numba.frames import frame_of
    from vwkit_numba.passes import Passes
    from vwkit_numba.start import start

    import vwkit

    stream = vwkit.Stream.from_array(rows)
    job = vwkit.Job(threads=task["threads"])
    passes = Passes(stream, None, frame_of(stream, False, None), job, 0)
    try:
        labels, gaps = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.float32)
        return Fitted(start(passes, k, labels, gaps)[0], 0)
    finally:
        passes.close()


def faiss_kmeans(rows, k, task, limit):
    """What ``faiss.Kmeans(d, k, niter=…, max_points_per_centroid=n).train`` calls, all on all rows."""
    import faiss

    faiss.omp_set_num_threads(task["threads"])
    settings = faiss.ClusteringParameters()
    settings.niter = task["iterations"]
    settings.max_points_per_centroid = len(rows)
    settings.min_points_per_centroid = 1  # no word about few rows
    clustering = faiss.Clustering(rows.shape[1], k, settings)
    stopped = _until(limit, lambda: clustering.train(rows, faiss.IndexFlatL2(rows.shape[1])))
    return _of_faiss(clustering, rows, k, stopped)


def faiss_superkmeans(rows, k, task, limit):
    import faiss

    if not hasattr(faiss, "SuperKMeans"):
        raise ImportError("faiss.SuperKMeans")
    faiss.omp_set_num_threads(task["threads"])
    clustering = faiss.SuperKMeans(rows.shape[1], k)
    clustering.cp.niter = task["iterations"]
    clustering.cp.max_points_per_centroid = len(rows)
    clustering.cp.min_points_per_centroid = 1
    # It seldom looks whether it shall stop.
    stopped = _until(limit, lambda: clustering.train(rows))
    fitted = _of_faiss(clustering, rows, k, stopped)
    fitted.ends = np.cumsum(fitted.ends).tolist()  # it tells the seconds of each
    return fitted


def _until(limit, train):
    """Train; tell whether it was stopped at the limit."""
    import faiss

    faiss.TimeoutCallback.reset(float(limit))
    try:
        train()
    except RuntimeError as error:
        if "computation interrupted" not in str(error):
            raise
        return True
    finally:
        faiss.TimeoutCallback.reset(1e9)
    return False


def _of_faiss(clustering, rows, k, stopped):
    import faiss

    count = clustering.iteration_stats.size()
    stats = [clustering.iteration_stats.at(i) for i in range(count)]
    centers = faiss.vector_to_array(clustering.centroids)
    whole = len(centers) == k * rows.shape[1]
    return Fitted(
        centers.reshape(k, -1) if whole else None,
        count if whole else None,
        [one.time for one in stats],
        float(stats[-1].obj) / len(rows) if stats else None,
        stopped,
        "" if whole else "it hands out nothing before its end",
    )


def superkmeans(rows, k, task, limit):
    """The package of the authors of SuperKMeans; it cannot be stopped."""
    from superkmeans import SuperKMeans

    made = SuperKMeans(k, rows.shape[1], n_threads=task["threads"], **task["params"])
    centers = made.train(rows)
    return Fitted(centers, None if made.hierarchical_ else task["params"].get("iters"))


def sklearn_kmeans(rows, k, task, limit):
    from sklearn.cluster import KMeans

    made = KMeans(
        k,
        init="random",
        n_init=1,
        max_iter=task["iterations"],
        tol=0,
        algorithm="lloyd",
        random_state=0,
    )

    return _of_sklearn(made, rows, "lloyd_iter_chunked_dense", limit, 3)


def sklearn_minibatch(rows, k, task, limit):
    from sklearn.cluster import MiniBatchKMeans

    made = MiniBatchKMeans(k, random_state=0, compute_labels=False, **task["params"])
    fitted = _of_sklearn(made, rows, "_mini_batch_step", limit, "centers_new")
    fitted.note = f"iterations are batches of {made.batch_size:,}"
    return fitted


def _of_sklearn(made, rows, step, limit, new):
    """Fit, with a look at the clock after each step of scikit-learn's loop."""
    import sklearn.cluster._kmeans as module

    held, ends, start = {}, [], time.perf_counter()
    whole = getattr(module, step)

    def clocked(*arguments, **named):
        result = whole(*arguments, **named)
        if named.get("update_centers", True):
            ends.append(time.perf_counter() - start)
            held["centers_new"] = named[new] if isinstance(new, str) else arguments[new]
            if ends[-1] > limit:
                raise _Stopped
        return result

    setattr(module, step, clocked)
    try:
        made.fit(rows)
    except _Stopped:
        # The loop of KMeans has taken the mean off all rows.
        mean = 0 if isinstance(new, str) else rows.mean(axis=0)
        return Fitted(held["centers_new"] + mean, len(ends), ends, None, True)
    finally:
        setattr(module, step, whole)
    own = None if isinstance(new, str) else float(made.inertia_) / len(rows)
    return Fitted(made.cluster_centers_, len(ends), ends, own)


def pqkmeans(rows, k, task, limit):
    """The package itself, on codes; it cannot be stopped."""
    import _pqkmeans  # what pqkmeans.clustering.PQKMeans calls; the rest of it needs scikit-learn

    book = np.load(task["codebook"])
    engine = _pqkmeans.PQKMeans(book, k, task["iterations"], False)
    engine.fit(np.ascontiguousarray(rows).reshape(-1))
    return Fitted(np.array(engine.cluster_centers_, np.uint8), task["iterations"])


SIDES = {
    one.__name__: one
    for one in (
        vwkit,
        plus_plus,
        random_rows,
        graph_start,
        faiss_kmeans,
        faiss_superkmeans,
        superkmeans,
        sklearn_kmeans,
        sklearn_minibatch,
        pqkmeans,
    )
}
#: Those that take bytes as they are.
BYTES = ("vwkit", "plus_plus", "random_rows", "graph_start", "pqkmeans")


def compiled():
    """Return how many kernels numba has made ready in this process."""
    return sum(
        len(value.signatures)
        for name, module in list(sys.modules.items())
        if name.startswith("vwkit_numba")
        for value in vars(module).values()
        if hasattr(value, "signatures") and hasattr(value, "py_func")
    )


def nearest(rows, centers, threads):
    """Return the nearest center of each row, (n,), by exact search."""
    try:
        import faiss
    except ImportError:
        from vwkit import kernels

        return kernels.nearest_rows(rows, centers)
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(np.ascontiguousarray(centers, np.float32))
    return index.search(np.asarray(rows, np.float32), 1)[1][:, 0]


def distances(rows, centers, labels):
    """Return the squared distance of each row to the center that it has, (n,) float64."""
    return ((rows.astype(np.float64) - centers[labels]) ** 2).sum(axis=1)


def mean_distance(rows, centers, threads):
    """Return the mean squared distance of rows to their nearest centers."""
    return float(distances(rows, centers, nearest(rows, centers, threads)).mean())


def ended(process, limit):
    """Wait for a process, and kill it at the limit; return its exit status and its CPU seconds."""
    timer = threading.Timer(limit, process.kill)
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime
