"""Product quantization: each slice of a vector becomes the number of its nearest codeword.

Jégou, Douze, Schmid 2011, "Product quantization for nearest neighbor search".
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, cast

import annotated_types
import numpy as np

from vwkit.base import Field, backend
from vwkit.builtin.lloyd import Lloyd
from vwkit.builtin.seeding import CALL_WORK, sample_size, start_work
from vwkit.errors import DataError
from vwkit.estimates import Estimate
from vwkit.hashing import derive_seed, sample_rows
from vwkit.jobs import Job, job, use_job
from vwkit.quantizer import Quantizer, check_slices
from vwkit.stream import Stream
from vwkit.types import Array, Positive

__all__ = ["PQ"]


@backend("pq")
class PQ(Quantizer):
    """Product quantizer: m codes a vector, each one of ks.

    Attributes
    ----------
    codebook : (m, ks, d/m) float32

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).integers(0, 255, (300, 8)).astype(np.uint8)
    >>> pq = vwkit.create("quantizer", "pq", m=4, ks=16).fit(rows)
    >>> pq.encode(rows).shape, pq.encode(rows).dtype
    ((300, 4), dtype('uint8'))
    """

    choose = "vectors that have to fit in m bytes each, such as a billion SIFT."

    streams = True
    dtypes = ("uint8", "float32")
    deterministic = True

    m: Positive = Field(doc="Codes per vector; it must divide the dimensions.")
    ks: Annotated[int, annotated_types.Ge(2), annotated_types.Le(65_536)] = Field(
        default=256, doc="Codewords per slice; up to 256 a code takes one byte."
    )
    train_rows: Positive | None = Field(
        default=None, doc="Rows to learn from, drawn at random; 1,000 × ks by default."
    )
    iterations: Positive = Field(default=25, doc="At most this many k-means iterations per slice.")

    def _fit(self, vectors: Any) -> None:
        stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
        check_slices("pq", self.m, stream.dim)
        rows = stream.count()
        if rows < self.ks:
            raise DataError(
                f"pq: ks = {self.ks} codewords need at least {self.ks} rows to learn from; "
                f"got {rows}. Give more data or a smaller ks"
            )
        wanted = max(self.ks, self.train_rows or 1000 * self.ks)
        sample = stream.take(sample_rows(rows, wanted, self.seed))
        width = stream.dim // self.m
        self.codebook = np.empty((self.m, self.ks, width), np.float32)
        current = job()
        begun = self._taken_up(current)
        tasks = (
            (
                j,
                np.ascontiguousarray(sample[:, j * width : (j + 1) * width]),
                derive_seed(self.seed, f"slice {j}"),
            )
            for j in range(begun, self.m)
        )
        shared: dict[str, Any] = {"k": self.ks, "iterations": self.iterations}
        if not current.distributed:  # there each slice is learned by one that has a job of its own
            shared["current"] = current
        # Slices side by side: one has too few numbers for several threads to share.
        for j, centers in enumerate(current.each(_slice_centers, tasks, shared), begun):
            self.codebook[j] = centers
            current.checkpoint(j + 1, {"codebook": self.codebook[: j + 1]})
            current.progress(j + 1, self.m, "subspaces")

    def _taken_up(self, current: Job) -> int:
        """Take the slices that an earlier process finished; return how many."""
        saved = current.resume()
        if saved is None or saved[1].keys() != {"codebook"} or not 0 < saved[0] <= self.m:
            return 0
        found = saved[1]["codebook"]
        if found.dtype != np.float32 or found.shape != (saved[0], *self.codebook.shape[1:]):
            return 0
        self.codebook[: saved[0]] = found
        return saved[0]

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        taken = min(rows, max(self.ks, self.train_rows or 1000 * self.ks))
        width = max(1, dim // self.m)
        sample = taken * dim * itemsize
        seeds = min(taken, sample_size(self.ks)) * width * (itemsize + 4)
        beside = min(self.m, job().threads)  # slices that are learned side by side, and one waits
        slices = taken * ((beside + 1) * width * itemsize + beside * 4)
        return Estimate(
            work=self.iterations * (taken * self._row_work(dim) + self.m * CALL_WORK)
            + self.m * start_work(min(taken, sample_size(self.ks)), self.ks, width),
            memory=sample + slices + beside * max(seeds, 6 << 20),
            least=sample,
            disk=4 * self.ks * dim,
        )

    def _row_work(self, dim: int) -> float:
        return (self.ks + 300.0) * dim


def _slice_centers(
    j: int, part: Array, seed: int, *, k: int, iterations: int, current: Job | None = None
) -> Array:
    lloyd = cast("Any", Lloyd)(k=k, iterations=iterations, seed=seed)
    with use_job(current.beside(f"slice-{j}")) if current else contextlib.nullcontext():
        lloyd._fit(part, None)
    centers: Array = lloyd.centers
    return centers
