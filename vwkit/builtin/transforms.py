"""RootSIFT, L2 normalisation and PCA."""

from __future__ import annotations

from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, backend
from vwkit.errors import ParameterError
from vwkit.jobs import job
from vwkit.metrics import normalised
from vwkit.stream import Stream
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

    streams = True
    dtypes = ("uint8", "float32")
    deterministic = True

    def _transform(self, vectors: Any) -> Array:
        return normalised(vectors)

    def _out_dim(self, dim: int) -> int:
        return dim


@backend("root-sift")
class RootSift(Transform):
    """Hellinger kernel for SIFT: divide by the sum of magnitudes, then take signed square roots.

    Arandjelović and Zisserman 2012, "Three things everyone should know to improve object
    retrieval". Euclidean distance between the results compares the SIFT histograms far better.
    Zero vectors stay zero.
    """

    streams = True
    dtypes = ("uint8", "float32")
    deterministic = True

    def _transform(self, vectors: Any) -> Array:
        wide = vectors.astype(np.float64)
        total = np.abs(wide).sum(axis=1, keepdims=True)
        total[total == 0] = 1
        wide /= total
        roots: Array = (np.sign(wide) * np.sqrt(np.abs(wide))).astype(np.float32)
        return roots

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
        total = np.zeros(stream.dim)
        for part in current.map(_sum, stream, rows=_BLOCK):
            total += part
        mean = (total / rows).astype(np.float32)
        scatter = np.zeros((stream.dim, stream.dim))
        for part in current.map(_scatter, stream, {"mean": mean}, rows=_BLOCK, unit="rows"):
            scatter += part
        values, axes = np.linalg.eigh(scatter / max(1, rows - 1))
        values, axes = np.maximum(values[::-1], 0), axes[:, ::-1].T
        largest = np.abs(axes).argmax(axis=1)
        axes = axes * np.where(axes[np.arange(len(axes)), largest] < 0, -1, 1)[:, None]
        keep = self.dim or stream.dim
        if self.variance is not None and values.sum() > 0:
            share = np.cumsum(values) / values.sum()
            keep = min(stream.dim, int(np.searchsorted(share, self.variance - 1e-12)) + 1)
        self.mean = mean
        self.components = np.ascontiguousarray(axes[:keep], np.float32)
        self.explained = values[:keep]

    def _transform(self, vectors: Any) -> Array:
        out = np.empty((len(vectors), len(self.components)), np.float32)
        for start in range(0, len(vectors), _BLOCK):
            out[start : start + _BLOCK] = self._rotated(vectors[start : start + _BLOCK])
        return out

    def _rotated(self, vectors: Array) -> NDArray[np.float64]:
        # In float64, so that the last rounding hides how rows were cut into chunks.
        moved = (vectors.astype(np.float64) - self.mean) @ self.components.T.astype(np.float64)
        if self.whiten:
            # Below a trillionth of the largest variance there is only rounding.
            real = self.explained > 1e-12 * self.explained.max()
            moved = np.where(real, moved / np.sqrt(np.where(real, self.explained, 1)), 0)
        rotated: NDArray[np.float64] = moved
        return rotated

    def _out_dim(self, dim: int) -> int:
        return len(self.components)


_BLOCK = 8192


def _sum(chunk: Array) -> NDArray[np.float64]:
    total: NDArray[np.float64] = chunk.astype(np.float64).sum(axis=0)
    return total


def _scatter(chunk: Array, *, mean: Array) -> NDArray[np.float64]:
    moved = chunk.astype(np.float64) - mean
    product: NDArray[np.float64] = moved.T @ moved
    return product
