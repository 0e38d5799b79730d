"""The clusterer `faiss-kmeans`: FAISS's own loop, one iteration at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.builtin.seeding import plus_plus
from vwkit.data import given_centers
from vwkit.errors import DataError
from vwkit.estimates import MAPPED_LABELS, Estimate
from vwkit.hashing import sample_rows
from vwkit.jobs import Job, job
from vwkit.stream import Stream, row_spans
from vwkit.types import Array
from vwkit_faiss.closing import block_rows, close, moderate
from vwkit_faiss.library import frame_of, load_faiss, omp_threads, seeded, told

__all__ = ["FaissKMeans", "Tolerance"]

Tolerance = Annotated[float, annotated_types.Ge(0)]

# FAISS adds the distances in one float32: behind so many, small ones no longer count.
_FLOAT_SUM = 1 << 22
# It counts the rows of a cluster in float32 and numbers rows with 32 bits.
_FLOAT_COUNT = 1 << 24
_LARGEST_INT = (1 << 31) - 1


@vwkit.backend("faiss-kmeans")
class FaissKMeans(vwkit.Clusterer):
    """Lloyd's k-means by FAISS: what ``faiss.Kmeans`` gives, finished by an exact assignment.

    Douze et al. 2024, "The Faiss library". Each iteration is one of ``faiss.Clustering``, from the
    centers of the one before, which gives the same centers as one call. All rows are used: FAISS
    itself would take no more than 256 for each center (``train_rows: N`` draws some). uint8 data
    stay uint8 and an array or memory map is used where it lies; a Stream is gathered in memory.

    Attributes
    ----------
    centers : (k, d) float32
    labels : (n,) int32
    objective : list of float
        Mean squared distance at each iteration's assignment (of the training rows), the last of all
        rows to `centers`. Up to 4,194,304 rows without weights FAISS says it; else another
        assignment is made for it in each iteration, since FAISS adds in float32 and without weights.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.array([[0, 0], [0, 1], [9, 9], [9, 8]], np.uint8)
    >>> kmeans = vwkit.create("clusterer", "faiss-kmeans", k=2).fit(rows)
    >>> kmeans.objective[-1]
    0.25
    """

    library = "faiss-cpu"
    requires = ("faiss",)
    license = "MIT"
    choose = "exact k-means with the kernels of FAISS, or to compare with what others report of it."
    streams = True
    dtypes = ("uint8", "float32")
    supports_weights = True

    k: vwkit.Positive = vwkit.Field(doc="Number of clusters.")
    iterations: vwkit.Positive = vwkit.Field(
        default=25, doc="At most this many updates of the centers."
    )
    tolerance: Tolerance = vwkit.Field(
        default=1e-4, doc="Stop when the objective improves by less than this share of itself."
    )
    init: Literal["random", "k-means++"] | Path | np.ndarray[Any, Any] = vwkit.Field(
        default="random",
        doc="How to start: FAISS's random rows, k-means++, or given centers (array or .npy file).",
    )
    train_rows: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Rows to learn from, drawn at random; all by default."
    )

    def _fit(self, data: Any, weights: NDArray[np.float64] | None) -> None:
        current = job()
        stream = data if isinstance(data, Stream) else Stream.from_array(data)
        if weights is not None:
            weights = moderate(weights)
        fit = _Fit(load_faiss("clusterer faiss-kmeans"), self, stream, weights, current)
        with (
            omp_threads(fit.faiss, current.threads),
            told(DataError, f"faiss-kmeans, k = {self.k}"),
        ):
            centers = fit.run()
        closed = close(stream, centers, weights, current)
        self.centers, self.labels = closed.centers, closed.labels
        self.objective = [*fit.objective, closed.objective]

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        taken = min(rows, max(self.k, self.train_rows or rows))
        drawn = taken * dim * itemsize if taken < rows else 0
        framed = 0 if itemsize == 1 else 4 * taken * dim
        held = 4 * rows + drawn if 4 * rows <= MAPPED_LABELS else drawn
        return Estimate(
            # The closing pass looks at all rows.
            work=rows * self._row_work(dim),
            each_pass=taken * self._row_work(dim),
            passes=self.iterations,
            memory=held + framed + 24 * self.k * dim + (32 << 20),
            least=held + 12 * self.k * dim,
            disk=4 * rows + 4 * self.k * dim,
            reads=3,
            reads_each=0,
        )

    def _row_work(self, dim: int) -> float:
        return (self.k + 100.0) * dim


class _Fit:
    """One running fit: the training rows as FAISS takes them, and the centers."""

    def __init__(
        self,
        faiss: Any,
        params: FaissKMeans,
        stream: Stream,
        weights: NDArray[np.float64] | None,
        current: Job,
    ) -> None:
        self.faiss, self.params, self.job = faiss, params, current
        self.k, self.dim = params.k, stream.dim
        self.rows, self.weights = _training(stream, weights, params, current)
        self.frame = frame_of(Stream.from_array(self.rows))
        if self.frame is not None:
            framed = np.empty(self.rows.shape, np.float32)
            for start, stop in row_spans(len(framed), block_rows(self.dim)):
                framed[start:stop] = self.frame.into(self.rows[start:stop])
            self.rows = framed
        self.objective: list[float] = []
        self.codec = None
        if self.rows.dtype == np.uint8:
            # It decodes block by block: no float copy of the data.
            self.codec = faiss.IndexScalarQuantizer(
                self.dim, faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_L2
            )
        self.index = faiss.IndexFlatL2(self.dim)

    def run(self) -> NDArray[np.float32]:
        """Return the centers, in the data's own numbers."""
        if len(self.rows) < self.k:  # of the others, none has any weight
            few = np.asarray(self.rows, np.float32)
            few = few if self.frame is None else self.frame.back(few)
            return np.concatenate([few, np.repeat(few[-1:], self.k - len(few), axis=0)])
        step, centers = self._taken_up()
        total = self.params.iterations * len(self.rows)
        while step < self.params.iterations and not self._settled():
            shown = {"iteration": float(step + 1)}
            if self.objective:
                shown["objective"] = self.objective[-1]
            self.job.progress(step * len(self.rows), total, "rows", **shown)
            known = None
            if self.weights is not None or len(self.rows) > _FLOAT_SUM:
                known = self._mean_distance(centers)
            centers, said = self._iterate(centers)
            scale = 1.0 if self.frame is None else self.frame.scale
            self.objective.append((said if known is None else known) / scale**2)
            step += 1
            self.job.checkpoint(
                step, {"centers": centers, "objective": np.array(self.objective, np.float64)}
            )
        self.job.progress(total, total, "rows")
        return centers if self.frame is None else self.frame.back(centers)

    def _taken_up(self) -> tuple[int, NDArray[np.float32]]:
        saved = self.job.resume()
        if saved is not None:
            step, state = saved
            if state.keys() == {"centers", "objective"} and state["centers"].shape == (
                self.k,
                self.dim,
            ):
                self.objective = [float(value) for value in state["objective"]]
                return step, np.ascontiguousarray(state["centers"], np.float32)
        return 0, self._start()

    def _start(self) -> NDArray[np.float32]:
        init = self.params.init
        if isinstance(init, (Path, np.ndarray)):
            centers = given_centers(init, self.k, self.dim)
            return centers if self.frame is None else self.frame.into(centers)
        if init == "k-means++":
            stream = Stream.from_array(self.rows)
            return plus_plus(stream, self.k, self.params.seed, self.weights, self.job)
        # As FAISS itself draws them.
        order = np.empty(len(self.rows), np.int32)
        seed = self.params.seed % (1 << 31) + 1
        self.faiss.rand_perm(self.faiss.swig_ptr(order), len(order), seed)
        return np.ascontiguousarray(self.rows[order[: self.k]], np.float32)

    def _settled(self) -> bool:
        if len(self.objective) < 2:
            return False
        before, now = self.objective[-2:]
        # Where empty clusters were split, it may have risen: that is no reason to stop.
        return now == before or 0 <= before - now < self.params.tolerance * before

    def _iterate(self, centers: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """Return the next centers, and the mean distance to these as FAISS has added it."""
        faiss = self.faiss
        params = faiss.ClusteringParameters()
        seeded(params, self.params.seed)
        params.niter = 1
        params.check_input_data_for_NaNs = False  # the core has looked
        clustering = faiss.Clustering(self.dim, self.k, params)
        faiss.copy_array_to_vector(centers.ravel(), clustering.centroids)
        weights = None if self.weights is None else self.weights.astype(np.float32)
        if self.codec is None:
            clustering.train(self.rows, self.index, weights)
        else:
            clustering.train_encoded(self.rows, self.codec, self.index, weights)
        moved = faiss.vector_to_array(clustering.centroids).reshape(self.k, self.dim)
        return moved, clustering.iteration_stats.at(0).obj / len(self.rows)

    def _mean_distance(self, centers: NDArray[np.float32]) -> float:
        """Assign once more, with FAISS, and add up in float64, with the weights."""
        self.index.reset()
        self.index.add(centers)
        total = 0.0
        for start, stop in row_spans(len(self.rows), block_rows(self.dim)):
            self.job.check()
            block = np.ascontiguousarray(self.rows[start:stop], np.float32)
            distances = self.index.search(block, 1)[0][:, 0].astype(np.float64)
            if self.weights is not None:
                distances *= self.weights[start:stop]
            total += float(distances.sum())
        return total / (len(self.rows) if self.weights is None else float(self.weights.sum()))


def _training(
    stream: Stream, weights: NDArray[np.float64] | None, params: FaissKMeans, current: Job
) -> tuple[Array, NDArray[np.float64] | None]:
    """Return the rows to learn from, and their weights: mean 1, none of them 0."""
    rows = stream.count()
    # A row without weight may not become a center.
    useful = np.arange(rows) if weights is None else np.flatnonzero(weights > 0)
    wanted = max(params.k, params.train_rows or rows)
    if wanted < len(useful):
        useful = useful[sample_rows(len(useful), wanted, params.seed)]
    if len(useful) > _LARGEST_INT or len(useful) // params.k > _FLOAT_COUNT // 2:
        raise DataError(
            f"faiss-kmeans: {len(useful):,} rows for k = {params.k}: FAISS numbers rows with 31 bits "
            f"and counts those of a cluster up to {_FLOAT_COUNT:,}; give train_rows"
        )
    if len(useful) == rows and stream.array is not None:
        chosen = stream.array
    else:
        needed = len(useful) * stream.dim * stream.dtype.itemsize
        if needed > current.memory:
            raise DataError(
                f"faiss-kmeans: FAISS needs its {len(useful):,} training rows in memory, "
                f"{needed / 2**30:.1f} GiB of the {current.memory / 2**30:.1f} GiB that the job may "
                "use; give train_rows, or a file that can be memory-mapped (.npy)"
            )
        chosen = stream.toarray() if len(useful) == rows else stream.take(useful)
    if weights is None:
        return chosen, None
    own = weights[useful]
    return chosen, own * (len(own) / own.sum())
