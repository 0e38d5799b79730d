"""K-means over the graph of its centers: the cost of a pass does not grow with k.

Each row is compared with its center's neighbours only (Deng and Zhao 2017, "Fast k-means based on
k-NN graph"; Agustsson, Timofte, Van Gool 2017, "k2-means for fast and accurate large scale
clustering"); centers that are worth little move into clusters that are worth splitting (related:
Fritzke 2020, "The k-means-u* algorithm: non-local jumps and greedy retries improve k-means++
clustering").
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.estimates import Estimate
from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.artifacts import check_arrays

if TYPE_CHECKING:
    from vwkit_numba.coarse import Coarse
    from vwkit_numba.fitting import Fit
    from vwkit_numba.passes import Frame

__all__ = ["GraphClusterer", "GraphKMeans"]


# From so many neighbours on, most rows meet the center that is nearest.
_ENOUGH = 16


class GraphClusterer(vwkit.Clusterer):
    """What graph k-means of vectors and of codes have in common."""

    library = "numba"
    requires = ("numba",)
    license = "BSD-2-Clause"
    streams = True
    supports_weights = True
    deterministic = True
    late = frozenset({"probes"})

    k: vwkit.Positive = vwkit.Field(doc="Number of clusters.")
    iterations: vwkit.Positive = vwkit.Field(
        default=25, doc="At most this many updates of the centers."
    )
    tolerance: Annotated[float, annotated_types.Ge(0)] = vwkit.Field(
        default=1e-4,
        doc="Stop when the objective improves by less than this share of itself.",
    )
    neighbours: Annotated[int, annotated_types.Ge(4)] = vwkit.Field(
        default=64,
        doc="Centers that a row is compared with: its own and the nearest to that.",
    )
    relocate: Annotated[float, annotated_types.Ge(0), annotated_types.Le(0.5)] = vwkit.Field(
        default=0.1,
        doc="Share of the centers that may move into other clusters, in the first iterations.",
    )
    probes: vwkit.Positive = vwkit.Field(
        default=16,
        doc="For `predict`: of about √k groups of centers, those that a row is compared with.",
    )

    finish: Literal["graph", "exact"] = vwkit.Field(
        default="graph",
        doc="Whether rows are compared with all centers in the end (exact); `corrected` tells how "
        "many labels that changed.",
    )
    fold: bool = vwkit.Field(
        default=False,
        doc="Whether to count equal rows once, with a weight: for data with many duplicates.",
    )

    # What `predict` needs besides the centers: their graph and groups.
    _lists: NDArray[np.int32]
    _coarse: NDArray[np.float32]
    _members: NDArray[np.int32]
    _starts: NDArray[np.int64]
    _ready: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @property
    def label_agreement(self) -> float:  # type: ignore[override]
        """The share of labels that are the nearest center's, at least."""
        return 0.9 if self.neighbours >= _ENOUGH else 0.75

    def take_over(self, fit: Fit, coarse: Coarse) -> None:
        """Set the attributes of a finished fit."""
        self.labels, self.objective = fit.labels, fit.objective
        self.changed, self.moved, self.corrected = fit.changed, fit.moved, fit.corrected
        self._lists, self._ready = fit.graph.lists, fit.ready
        self._coarse, self._members, self._starts = coarse.centers, coarse.members, coarse.starts

    def _fit(self, data: Any, weights: NDArray[np.float64] | None) -> None:
        from vwkit_numba.fitting import Fit
        from vwkit_numba.folding import folded

        stream = data if isinstance(data, Stream) else Stream.from_array(data)
        places = None
        if self.fold:
            stream, weights, places = folded(stream, weights, self.k)
        init: Path | Array | None = getattr(self, "init", None)
        Fit(self, stream, weights, self._frame_of(stream, weights), init).run()
        if places is not None:
            self.labels = self.labels[places]

    def _frame_of(self, stream: Stream, weights: NDArray[np.float64] | None) -> Frame:
        """Choose the coordinates for a fit."""
        raise NotImplementedError

    def _frame(self) -> Frame:
        """Return the coordinates of the fit."""
        raise NotImplementedError

    def _predict(self, data: Any) -> NDArray[np.int32]:
        from vwkit_numba.predicting import predict

        return predict(self, data)

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        from vwkit_numba.fitting import per_row

        quantizer = self._quantizer
        wide = dim if quantizer is None else quantizer._dim or dim
        k, root = self.k, math.sqrt(self.k)
        # Its centers in three forms, int64 sums, lists of neighbours and what is counted.
        centers = k * (28 * wide + 12 * self.neighbours + 100)
        sample = min(rows, max(60 * root, 1 << 14)) * dim * itemsize
        lists = k * (self.neighbours + root) * wide
        exact = rows * k * wide if self.finish == "exact" else 0
        return Estimate(
            work=4 * rows * root * wide + lists * 16 + exact,
            each_pass=rows * self._row_work(wide) + lists * 4,
            passes=self.iterations + 1,
            memory=per_row(rows) + centers + sample + (16 << 20),
            least=(8 if self.consumes == "codes" else 20) * k * wide,
            disk=4 * rows + k * (4 * dim + 4 * self.neighbours + 4),
            # Twice, while chunks are joined to blocks.
            block=2 * min(rows * dim * itemsize, job().memory / 4),
            reads=4,
            reads_each=2,
        )

    def _row_work(self, dim: int) -> float:
        return (self.neighbours + 20.0) * dim

    def _state(self) -> dict[str, Array]:
        ready = self.__dict__.pop("_ready", None)  # made again from the centers
        try:
            return super()._state()
        finally:
            if ready is not None:
                self._ready = ready

    def _restore(self, state: dict[str, Array]) -> None:
        super()._restore(state)
        self.changed = [int(value) for value in state["changed"]]
        self.moved = [int(value) for value in state["moved"]]
        self.corrected = int(state["corrected"])
        check_arrays(self)


@vwkit.backend("graph-kmeans")
class GraphKMeans(GraphClusterer):
    """K-means for large k: rows are compared with the neighbours of their center alone.

    The same seed gives the same bytes for any number of threads and any chunk size: sums are exact,
    and what a row is compared with depends on the row and the centers alone.

    Attributes
    ----------
    centers : (k, d) float32
    labels : (n,) int32
    objective : list of float
        Mean squared distance (spherical: mean 1 − cos) at each iteration's assignment; the last is
        of `centers`.
    changed : list of int
        Labels that each assignment changed.
    moved : list of int
        Centers that were moved into other clusters before each iteration.
    corrected : int
        Labels that the last exact pass changed, if there was one.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).integers(0, 255, (2000, 16)).astype(np.uint8)
    >>> words = vwkit.create("clusterer", "graph-kmeans", k=100).fit(rows)
    >>> words.centers.shape, len(np.unique(words.labels))
    ((100, 16), 100)
    """

    choose = "vocabularies of a thousand words and more: minutes where others take hours."
    dtypes = ("uint8", "float32")

    spherical: bool = vwkit.Field(
        default=False,
        doc="Cluster by cosine: rows and centers are divided by their lengths.",
    )
    init: Path | np.ndarray[Any, Any] | None = vwkit.Field(
        default=None, doc="Centers to start from, an array or a .npy file."
    )

    _shift: NDArray[np.float32]
    _scale: float

    def _frame_of(self, stream: Stream, weights: NDArray[np.float64] | None) -> Frame:
        from vwkit_numba.frames import frame_of

        return frame_of(stream, self.spherical, weights)

    def take_over(self, fit: Fit, coarse: Coarse) -> None:
        """Set the attributes of a finished fit."""
        super().take_over(fit, coarse)
        self.centers = fit.centers
        self._shift, self._scale = fit.passes.frame.shift, fit.passes.frame.scale

    def _frame(self) -> Frame:
        from vwkit_numba.passes import Frame

        return Frame(self._shift, float(self._scale), self.spherical)

    @property
    def metric(self) -> str:
        """``cosine`` if spherical, else ``l2``."""
        return "cosine" if self.spherical else "l2"
