"""The quantizer `sq`: FAISS's scalar quantizer, a few bits for each dimension."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.errors import DataError
from vwkit.jobs import job
from vwkit.stream import Stream, row_spans
from vwkit.types import Array
from vwkit_faiss.library import frame_of, load_faiss, omp_threads, told
from vwkit_faiss.product import check_book, training_sample

__all__ = ["SQ"]

_ROWS_PER_LEVEL = 1000
_CELLS = 1 << 20


@vwkit.backend("sq")
class SQ(vwkit.Quantizer):
    """Scalar quantizer: each number of a vector becomes one of 16, 64 or 256 levels.

    The levels of a dimension are evenly spread from its smallest to its largest training value, as
    in FAISS's ScalarQuantizer; what lies outside gets the first or the last. It is a product
    quantizer with one code for each dimension: nothing to tune, little lost, 4 or 8 times smaller.
    Codes are the nearest levels, the lowest on ties; here each takes a byte, not `bits`.

    Attributes
    ----------
    codebook : (d, levels, 1) float32
        FAISS's own reconstruction of each code, ascending.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    >>> sq = vwkit.create("quantizer", "sq").fit(rows)
    >>> sq.encode(rows).shape, bool(np.abs(sq.decode(sq.encode(rows)) - rows).max() < 0.02)
    ((300, 8), True)
    """

    library = "faiss-cpu"
    requires = ("faiss",)
    license = "MIT"
    choose = "a quarter of the bytes of float vectors, with next to nothing lost or learnt."
    streams = True
    dtypes = ("uint8", "float32")

    bits: Literal[4, 6, 8] = vwkit.Field(default=8, doc="Bits of a code: 16, 64 or 256 levels.")
    train_rows: vwkit.Positive | None = vwkit.Field(
        default=None,
        doc="Rows whose range counts, drawn at random; 1,000 for each level by default.",
    )

    def _fit(self, vectors: Any) -> None:
        faiss, levels = load_faiss("quantizer sq"), 1 << self.bits
        stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
        sample = training_sample(
            "sq", stream, 1, self.train_rows or _ROWS_PER_LEVEL * levels, self.seed
        )
        frame = frame_of(Stream.from_array(sample))
        rows = sample.astype(np.float32) if frame is None else frame.into(sample)
        kind = getattr(faiss.ScalarQuantizer, f"QT_{self.bits}bit")
        quantizer = faiss.ScalarQuantizer(stream.dim, kind)
        with omp_threads(faiss, job().threads), told(DataError, "sq"):
            quantizer.train(rows)
            book = quantizer.decode(
                _every_level(levels, self.bits, stream.dim, quantizer.code_size)
            )
        if frame is not None:
            book = frame.back(book)
        self.codebook = np.ascontiguousarray(book.T[:, :, None])

    def _encode(self, vectors: Any) -> Array:
        book = np.ascontiguousarray(self.codebook[:, :, 0].T).astype(np.float64)
        low, last = book[0], len(book) - 1
        step = (book[last] - low) / last
        codes = np.empty(vectors.shape, np.uint8)
        columns = np.arange(vectors.shape[1])
        for start, stop in row_spans(len(vectors), max(1, _CELLS // vectors.shape[1])):
            rows = vectors[start:stop].astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                place = np.where(step > 0, (rows - low) / step, 0)
            # Levels are even but for rounding: the nearest is this one or a neighbour.
            guess = np.clip(np.rint(place), 0, last).astype(np.int64)
            best = np.full(rows.shape, np.inf)
            for near in (guess - 1, guess, guess + 1):
                near = np.clip(near, 0, last)
                distance = np.abs(rows - book[near, columns])
                better = distance < best
                best[better] = distance[better]
                codes[start:stop][better] = near[better]
        constant = np.flatnonzero(step <= 0)
        codes[:, constant] = 0
        return codes

    def _restore(self, state: dict[str, Array]) -> None:
        check_book(self, state, (self._dim or 0, 1 << self.bits, 1), {"codebook"})
        super()._restore(state)


def _every_level(levels: int, bits: int, dim: int, code_size: int) -> NDArray[np.uint8]:
    """Return each level as FAISS packs a vector of it: (levels, code_size) uint8."""
    packed = np.zeros((levels, code_size), np.uint8)
    for level in range(levels):
        every = np.full(dim, level)
        # Lowest bits first, without gaps between the dimensions.
        flags = (every[:, None] >> np.arange(bits)) & 1
        line = np.packbits(flags.astype(np.uint8).ravel(), bitorder="little")
        packed[level, : len(line)] = line
    return packed
