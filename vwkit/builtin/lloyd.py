"""Lloyd's k-means: exact, in chunks, with any index for the assignment if asked.

Lloyd 1982, "Least squares quantization in PCM"; with an approximate index it is the approximate
k-means of Philbin et al. 2007, "Object retrieval with large vocabularies and fast spatial matching".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, Nested, backend
from vwkit.builtin.lloyd_fit import Fit
from vwkit.builtin.lloyd_kernels import search_labels
from vwkit.builtin.seeding import CALL_WORK, sample_size, start_work
from vwkit.clusterer import Clusterer
from vwkit.errors import ParameterError
from vwkit.estimates import Estimate, labels_bytes
from vwkit.index import Index
from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit.types import Array, Positive

__all__ = ["Lloyd"]


@backend("lloyd")
class Lloyd(Clusterer):
    """Exact k-means; approximate k-means with ``assign: {use: any index}``.

    uint8 data stay uint8. The same seed gives the same bytes for any number of threads and any
    chunk size: labels are settled in float64 and sums are exact.

    Attributes
    ----------
    centers : (k, d) float32
    labels : (n,) int32
    objective : list of float
        Mean squared distance at each iteration's assignment; the last is of `centers`.
    changed : list of int
        Labels that each assignment changed.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.array([[0, 0], [0, 1], [9, 9], [9, 8]], np.uint8)
    >>> lloyd = vwkit.create("clusterer", "lloyd", k=2).fit(rows)
    >>> lloyd.predict(rows)[:2].tolist() == lloyd.labels[:2].tolist()
    True
    >>> lloyd.objective[-1]
    0.25
    """

    choose = (
        "up to some thousand clusters, or as the exact answer that others are measured against."
    )

    streams = True
    dtypes = ("uint8", "float32")
    supports_weights = True

    k: Positive = Field(doc="Number of clusters.")
    iterations: Positive = Field(default=25, doc="At most this many updates of the centers.")
    tolerance: Annotated[float, annotated_types.Ge(0)] = Field(
        default=1e-4, doc="Stop when the objective improves by less than this share of itself."
    )
    init: Literal["k-means++", "random"] | Path | np.ndarray[Any, Any] = Field(
        default="k-means++",
        doc="How to start: k-means++, random rows, or given centers (array or .npy file).",
    )
    assign: Nested[Index] | None = Field(
        default=None,
        doc="An index over the centers that assigns the rows; without it assignment is exact.",
    )

    def __post_init__(self) -> None:
        if self.assign is not None and self.assign.metric != "l2":
            raise ParameterError.of(
                "assign",
                "the means of k-means belong to metric l2; "
                f"{self.assign.name} has {self.assign.metric}",
            )

    @property
    def deterministic(self) -> bool:
        """True unless the index of the assignment is not."""
        return self.assign is None or self.assign.deterministic

    def _fit(self, data: Any, weights: NDArray[np.float64] | None) -> None:
        current = job()
        stream = data if isinstance(data, Stream) else Stream.from_array(data)
        fit = Fit(stream, weights, self, current)
        fit.run()
        self.centers, self.labels = fit.centers, fit.labels
        self.objective, self.changed = fit.objective, fit.changed

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        k, current = self.k, job()
        sample = min(rows, sample_size(k))
        held = labels_bytes(rows, current.memory) + 20 * k * dim
        start = 0 if isinstance(self.init, (Path, np.ndarray)) else sample * dim * (itemsize + 4)
        blocks = (current.threads + 1) * min(current.memory // 8, 12 << 20, 16 * rows * dim)
        index = 0 if self.assign is None else 8 * k * (dim + 64)
        return Estimate(
            work=start_work(sample, k, dim) if self.init == "k-means++" else 0,
            each_pass=rows * self._row_work(dim) + k * self._center_work(dim) + CALL_WORK,
            passes=self.iterations + 1,
            memory=held + max(start, blocks + index),
            least=held + (start if self.init == "k-means++" else 0),
            disk=4 * rows + 4 * k * dim,
            reads=3,
        )

    def _row_work(self, dim: int) -> float:
        if self.assign is None or self.assign.exact:
            return (self.k + 300.0) * dim
        return _sought(self.k, dim)

    def _center_work(self, dim: int) -> float:
        """Return the work of putting one center into the index."""
        if self.assign is None:
            return 0.0
        return float(dim) if self.assign.exact else 2 * _sought(self.k, dim)

    def _predict(self, data: Any) -> NDArray[np.int32]:
        if self.assign is None:
            return super()._predict(data)
        return search_labels(self.assign, data, self.centers).astype(np.int32)

    def _restore(self, state: dict[str, Array]) -> None:
        super()._restore(state)
        self.changed = [int(value) for value in state["changed"]]


def _sought(k: int, dim: int) -> float:
    """Return the work of finding a row in an index of k, where a product within a matrix product is 1.

    Searching goes from place to place in memory: tens of microseconds, as measured with HNSW, k-d trees
    and Annoy, and far more than as many products take.
    """
    return (60_000.0 + 400.0 * dim) * math.log2(k + 1)
