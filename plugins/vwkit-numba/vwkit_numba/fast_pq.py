"""The quantizer `fast-pq`: product quantization in kernels that numba compiles."""

from __future__ import annotations

from typing import Annotated, Any

import annotated_types
import numpy as np

import vwkit
from vwkit.errors import ArtifactError, DataError
from vwkit.estimates import Estimate
from vwkit.hashing import sample_rows
from vwkit.jobs import Job, job
from vwkit.quantizer import check_slices
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.compiling import compilation_told
from vwkit_numba.pq_tables import Table, reach_of
from vwkit_numba.taking import taken

__all__ = ["FastPQ", "ProductBase"]


class ProductBase(vwkit.Quantizer):
    """What `fast-pq` and `fast-opq` share: parameters, training and encoding of slices."""

    library = "numba"
    requires = ("numba",)
    license = "BSD-2-Clause"
    streams = True
    dtypes = ("uint8", "float32")
    deterministic = True

    m: vwkit.Positive = vwkit.Field(doc="Codes per vector; it must divide the dimensions.")
    ks: Annotated[int, annotated_types.Ge(2), annotated_types.Le(65_536)] = vwkit.Field(
        default=256, doc="Codewords per slice; up to 256 a code takes one byte."
    )
    train_rows: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Rows to learn from, drawn at random; 1,000 × ks by default."
    )
    iterations: vwkit.Positive = vwkit.Field(
        default=25,
        doc="At most this many k-means iterations per slice, on all training rows and on each part.",
    )

    #: The codewords as the kernels take them, for the rows that were encoded last.
    _ready: tuple[Array, tuple[Any, tuple[int, ...]], Table] | None = None

    def _fit(self, vectors: Any) -> None:
        stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
        check_slices(self.name, self.m, stream.dim)
        rows = stream.count()
        if rows < self.ks:
            raise DataError(
                f"{self.name}: ks = {self.ks} codewords need at least {self.ks} rows to learn from; "
                f"got {rows}. Give more data or a smaller ks"
            )
        wanted = max(self.ks, self.train_rows or 1000 * self.ks)
        chosen = sample_rows(rows, wanted, self.seed)
        sample = stream.array
        if sample is None or len(chosen) < rows:
            sample = taken(stream, chosen)
        with compilation_told(f"quantizer {self.name}"):
            self._learn(sample)
        self._ready = None

    def _learn(self, sample: Array) -> None:
        """Set the codebook from the rows to learn from."""
        self._train(sample, job())

    def _train(self, sample: Array, current: Job) -> None:
        from vwkit_numba.pq_training import Training

        training = Training(sample, self.m, self.ks, self.iterations, self.seed, current)
        self.codebook = training.run()

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        taken = min(rows, max(self.ks, self.train_rows or 1000 * self.ks))
        sample = taken * dim * itemsize
        return Estimate(
            # Most is learned on small parts of the rows; measured from 2,000 to 256,000.
            work=self.iterations * taken**0.6 * self.ks * dim,
            # Half the rows again for the parts that come first; labels and distances of each slice.
            memory=1.5 * sample + 12 * taken * self.m + (16 << 20),
            least=sample if taken < rows else 0,
            disk=4 * self.ks * dim,
        )

    def _row_work(self, dim: int) -> float:
        return (self.ks + 100.0) * dim

    def _encode(self, vectors: Any) -> Array:
        from vwkit_numba.pq_training import encoded

        key = vectors.dtype, reach_of(self.codebook, vectors)
        ready = self._ready
        if ready is None or ready[0] is not self.codebook or ready[1] != key:
            ready = self._ready = self.codebook, key, Table.of(self.codebook, *key)
        return encoded(ready[2], vectors, self.ks, job().threads)

    def _state(self) -> dict[str, Array]:
        return {"codebook": self.codebook}

    def _restore(self, state: dict[str, Array]) -> None:
        book, shape = state.get("codebook"), (self.m, self.ks, (self._dim or 0) // self.m)
        if (
            state.keys() != {"codebook"}
            or book is None
            or book.shape != shape
            or book.dtype != np.float32
            or not np.isfinite(book).all()
        ):
            found = "none" if book is None else f"{book.shape} {book.dtype}"
            raise ArtifactError(
                f"{self.name}: a codebook {shape} of finite float32 is needed and nothing else; "
                f"found {found} and {sorted(state)}; damaged, make it again"
            )
        super()._restore(state)


@vwkit.backend("fast-pq")
class FastPQ(ProductBase):
    """Product quantizer, trained and applied many times as fast as `pq`: m codes a vector, each one of ks.

    Jégou, Douze, Schmid 2011, "Product quantization for nearest neighbor search". Codes are the
    nearest codewords by float64 distance, lowest code on ties. The same seed gives the same bytes
    for any number of threads and any chunk size.

    Attributes
    ----------
    codebook : (m, ks, d/m) float32

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).integers(0, 255, (300, 8)).astype(np.uint8)
    >>> pq = vwkit.create("quantizer", "fast-pq", m=4, ks=16).fit(rows)
    >>> pq.encode(rows).shape, pq.encode(rows).dtype
    ((300, 4), dtype('uint8'))
    """

    choose = "the same codes as pq, many times as fast; it compiles for some seconds at first."
