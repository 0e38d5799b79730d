"""RootSIFT, L2 normalisation and PCA."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, backend
from vwkit.errors import ArtifactError, ParameterError
from vwkit.estimates import Estimate
from vwkit.jobs import Job, job, one_blas_thread
from vwkit.metrics import normalised, squared_norms
from vwkit.restoring import check_array
from vwkit.stream import Stream, row_spans
from vwkit.transform import Transform
from vwkit.types import Array, Positive

__all__ = ["PCA", "L2Norm", "RootSift"]


@backend("l2-norm")
class L2Norm(Transform):
    """Divide each vector by its length; zero vectors stay zero.

    Examples
    --------
    >>> import vwkit
    >>> vwkit.create("transform", "l2-norm").transform([[3.0, 4.0]])
    array([[0.6, 0.8]], dtype=float32)
    """

    choose = "vectors whose length says nothing, before an index with metric l2."

    streams = True
    dtypes = ("uint8", "float32")
    deterministic = True

    def _transform(self, vectors: Any) -> Array:
        return _in_blocks(normalised, vectors, vectors.shape[1])

    def _out_dim(self, dim: int) -> int:
        return dim


@backend("root-sift")
class RootSift(Transform):
    """Hellinger kernel for SIFT: divide by the sum of magnitudes, then take signed square roots.

    Arandjelović and Zisserman 2012, "Three things everyone should know to improve object
    retrieval". Euclidean distance between the results compares the SIFT histograms far better.
    Zero vectors stay zero.
    """

    choose = "almost always for SIFT: better matches at no cost."

    streams = True
    dtypes = ("uint8", "float32")
    deterministic = True

    def _transform(self, vectors: Any) -> Array:
        return _in_blocks(_rooted, vectors, vectors.shape[1])

    def _out_dim(self, dim: int) -> int:
        return dim


@backend("pca")
class PCA(Transform):
    """Principal components: fewer dimensions that keep the most variance, optionally whitened.

    Give `dim`, or `variance` (the share to keep); without either all components are kept.
    Jolliffe 2002, "Principal component analysis". Each component's sign is chosen so that its
    largest entry is positive.

    Attributes
    ----------
    mean : (d,) float32
    components : (dim, d) float32
        Rows are orthonormal.
    explained : (dim,) float64
        Variance along each component.
    """

    choose = "network fingerprints and other long vectors, before an index or a clusterer."

    revision = 2
    streams = True
    deterministic = True

    dim: Positive | None = Field(default=None, doc="Number of components to keep.")
    variance: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] | None = Field(
        default=None, doc="Share of the variance to keep, instead of a number of components."
    )
    whiten: bool = Field(
        default=False, doc="Whether to divide each component by its standard deviation."
    )

    def __post_init__(self) -> None:
        if self.dim is not None and self.variance is not None:
            raise ParameterError("pca takes dim or variance, not both")

    def _fit(self, vectors: Any) -> None:
        stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
        if self.dim is not None and self.dim > stream.dim:
            raise ParameterError(
                f"pca.dim: at most the {stream.dim} dimensions of the data; got {self.dim}"
            )
        current = job()
        rows = stream.count()
        # A fixed block, added in order: the same sums for any threads.
        sums = _Sums(current, stream)
        mean = (sums.total() / rows).astype(np.float32)
        few = self._of_few_rows(stream, mean) if rows < stream.dim else None
        if few is not None:
            self.mean = mean
            self.components, self.explained = few
            return
        values, axes = np.linalg.eigh(sums.scatter(mean) / max(1, rows - 1))
        values, axes = np.maximum(values[::-1], 0), _with_signs(axes[:, ::-1].T)
        keep = self._kept(values, stream.dim)
        self.mean = mean
        self.components = np.ascontiguousarray(axes[:keep], np.float32)
        self.explained = values[:keep]

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        side = min(rows, dim)
        block = 12 * min(rows, _BLOCK) * dim * (job().threads + 1)
        # Few rows are all held, and their products with each other are taken apart.
        held = 16.0 * rows * dim if rows < dim else 8.0 * dim * dim
        return Estimate(
            work=float(rows * dim * side + 20 * side**3),
            memory=held + 32 * side * side + block,
            least=held,
            disk=4.0 * dim * min(side, self.dim or side),
            reads=2,
        )

    def _row_work(self, dim: int) -> float:
        # How many components a share of the variance takes is not known before: not counted then.
        return dim * float(self.dim or 1)

    def _kept(self, values: NDArray[np.float64], dim: int) -> int:
        """Return how many components to keep, of which the first have these variances."""
        if self.variance is None or values.sum() <= 0:
            return self.dim or dim
        share = np.cumsum(values) / values.sum()
        return min(dim, int(np.searchsorted(share, self.variance - 1e-12)) + 1)

    def _of_few_rows(
        self, stream: Stream, mean: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
        """Return components and variances by way of the rows' products with each other.

        There are fewer of those than products of columns: with 2,000 rows of 8,192 numbers it takes
        a hundredth of the time. None where components are wanted that these rows do not determine.
        """
        moved = np.concatenate([chunk.astype(np.float64) for chunk in stream]) - mean
        with one_blas_thread():
            values, axes = np.linalg.eigh(moved @ moved.T)
            values, axes = np.maximum(values[::-1], 0), axes[:, ::-1].T
            keep = self._kept(values, stream.dim)
            if keep > (values > _LEAST * values[0]).sum():
                return None
            found = (axes[:keep] / np.sqrt(values[:keep])[:, None]) @ moved
        found = np.ascontiguousarray(_with_signs(found), np.float32)
        return found, values[:keep] / max(1, len(moved) - 1)

    def _transform(self, vectors: Any) -> Array:
        axes = self.components.astype(np.float64)
        if self.whiten:
            # Below a trillionth of the largest variance there is only rounding.
            real = self.explained > 1e-12 * self.explained.max()
            axes *= np.where(real, 1 / np.sqrt(np.where(real, self.explained, 1)), 0)[:, None]
        lengths = np.sqrt(squared_norms(axes))

        def rotated(block: Array) -> NDArray[np.float32]:
            moved = block.astype(np.float64, order="C") - self.mean
            product = moved @ axes.T
            # The last bits of a product change with the size of the block. Where they could
            # change the float32 result, it is summed in a fixed order.
            slack = (axes.shape[1] + 8) * 2.0**-53
            error = slack * np.sqrt(squared_norms(moved))[:, None] * lengths
            out: NDArray[np.float32] = (product - error).astype(np.float32)
            row, axis = np.nonzero(out != (product + error).astype(np.float32))
            out[row, axis] = np.add.reduce(moved[row] * axes[axis], axis=1)
            return out

        return _in_blocks(rotated, vectors, len(axes))

    def _check_restored(self) -> None:
        held = vars(self)
        check_array("components", held.get("components"), (None, self._dim), "f", finite=True)
        check_array("mean", held.get("mean"), (self._dim,), "f", finite=True)
        kept = len(self.components)
        check_array("explained", held.get("explained"), (kept,), "f", low=0, finite=True)
        if not 0 < kept <= (self._dim or 0):
            raise ArtifactError(f"it keeps {kept} of {self._dim} dimensions; damaged")

    def _out_dim(self, dim: int) -> int:
        return len(self.components)


_BLOCK = 8192
_WORTH_KEEPING = 1.0  # seconds of work
# Of the largest variance: what is less is too near to rounding to give a direction.
_LEAST = 1e-9


class _Sums:
    """The two sums of a PCA over all rows; a killed process leaves them to the next."""

    def __init__(self, current: Job, stream: Stream) -> None:
        self.job, self.stream, self.rows = current, stream, stream.count()
        self._kept = time.monotonic()
        # How many rows of each sum are done.
        self._done = np.zeros(2, np.int64)
        self._sums = np.zeros(stream.dim), np.zeros((stream.dim, stream.dim))
        saved = current.resume()
        if saved is not None and self._fits(saved[1]):
            self._done = saved[1]["done"]
            self._sums = saved[1]["total"], saved[1]["scatter"]

    def total(self) -> NDArray[np.float64]:
        """Return the sum of the rows, (d,)."""
        return self._summed(0, _sum, {})

    def scatter(self, mean: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the sum of their products about the mean, (d, d)."""
        return self._summed(1, _scatter, {"mean": mean})

    def _summed(self, which: int, kernel: Any, arrays: dict[str, Array]) -> NDArray[np.float64]:
        rest = self.stream.from_row(int(self._done[which]))
        for part in self.job.map(kernel, rest, arrays, rows=_BLOCK):
            self._sums[which][...] += part
            self._done[which] = min(self.rows, self._done[which] + _BLOCK)
            self.job.progress(int(self._done.sum()), 2 * self.rows, "rows")
            if time.monotonic() - self._kept >= _WORTH_KEEPING:
                self._kept = time.monotonic()
                total, scatter = self._sums
                state = {"done": self._done, "total": total, "scatter": scatter}
                self.job.checkpoint(int(self._done.sum()), state)
        return self._sums[which]

    def _fits(self, saved: dict[str, Array]) -> bool:
        dim = self.stream.dim
        own = {"done": ((2,), "<i8"), "total": ((dim,), "<f8"), "scatter": ((dim, dim), "<f8")}
        if {name: (array.shape, array.dtype.str) for name, array in saved.items()} != own:
            return False
        done = saved["done"]
        return bool(((done == self.rows) | ((done % _BLOCK == 0) & (done < self.rows))).all())


def _with_signs(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the components with their largest entries positive."""
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    signed: NDArray[np.float64] = axes * np.where(largest < 0, -1, 1)[:, None]
    return signed


def _in_blocks(
    function: Callable[[Array], NDArray[np.float32]], vectors: Array, dim: int
) -> NDArray[np.float32]:
    """Compute row by row in little memory, however many rows come at once."""
    out = np.empty((len(vectors), dim), np.float32)
    for start, stop in row_spans(len(vectors), _BLOCK):
        out[start:stop] = function(vectors[start:stop])
    return out


def _rooted(vectors: Array) -> NDArray[np.float32]:
    wide = vectors.astype(np.float64, order="C")
    total = np.abs(wide).sum(axis=1, keepdims=True)
    total[total == 0] = 1
    wide /= total
    roots: NDArray[np.float32] = (np.sign(wide) * np.sqrt(np.abs(wide))).astype(np.float32)
    return roots


def _sum(chunk: Array) -> NDArray[np.float64]:
    total: NDArray[np.float64] = chunk.astype(np.float64).sum(axis=0)
    return total


def _scatter(chunk: Array, *, mean: Array) -> NDArray[np.float64]:
    moved = chunk.astype(np.float64) - mean
    product: NDArray[np.float64] = moved.T @ moved
    return product
