"""The quantizer `rq`: FAISS's residual quantizer, whose codewords add up."""

from __future__ import annotations

from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.errors import DataError
from vwkit.estimates import Estimate
from vwkit.jobs import job
from vwkit.stream import Stream, row_spans
from vwkit.types import Array
from vwkit_faiss.library import frame_of, load_faiss, omp_threads, seeded, told
from vwkit_faiss.product import Codewords, bits_of, check_book, training_sample

__all__ = ["RQ"]

_Beam = Annotated[int, annotated_types.Ge(1), annotated_types.Le(1024)]

# FAISS looks at no more rows for a codeword, and holds them once for each candidate.
_ROWS = 256
# Always products of the same shape, so that a row's do not depend on how many it comes with.
_PRODUCT_ROWS = 64
_CELLS = 1 << 23


@vwkit.backend("rq")
class RQ(vwkit.Quantizer):
    """Residual quantizer: each code stands for a codeword, and these add up to the vector.

    Chen, Guan, Wang 2010, "Approximate nearest neighbor search by residual vector quantization",
    with a beam (Babenko, Lempitsky 2014; Liu et al. 2015), by FAISS's ResidualQuantizer. It keeps
    more of a vector than ``pq`` with equally many codes; encoding takes longer, and codes cannot be
    clustered: distances do not add up over them. The codebooks are FAISS's, learnt in one call that
    cannot be stopped; codes are found as FAISS does, but do not depend on how many rows come
    together, as its own may.

    Attributes
    ----------
    codebook : (m, ks, d) float32

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    >>> rq = vwkit.create("quantizer", "rq", m=2, ks=16).fit(rows)
    >>> rq.encode(rows).shape, rq.codebook.shape
    ((300, 2), (2, 16, 8))
    """

    library = "faiss-cpu"
    requires = ("faiss",)
    license = "MIT"
    choose = "the most of a vector in a few bytes, if codes need not be clustered."
    structure = "additive"
    streams = True
    dtypes = ("uint8", "float32")

    m: vwkit.Positive = vwkit.Field(doc="Codes per vector.")
    ks: Codewords = vwkit.Field(
        default=256, doc="Codewords per code, a power of two; up to 256 a code takes one byte."
    )
    train_rows: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Rows to learn from, drawn at random; 256 × ks by default."
    )
    iterations: vwkit.Positive = vwkit.Field(default=25, doc="K-means iterations per code.")
    beam: _Beam = vwkit.Field(
        default=5, doc="Candidates kept from code to code; more loses less, and takes longer."
    )

    def __post_init__(self) -> None:
        bits_of(self.ks, self.iterations)

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        taken = min(rows, max(self.ks, self.train_rows or _ROWS * self.ks))
        return Estimate(
            work=self.m * taken * dim * (self.iterations * (self.ks + 300.0) + self.ks * self.beam),
            memory=8.0 * taken * dim * (1 + self.beam),
            disk=4 * self.m * self.ks * dim,
        )

    def _fit(self, vectors: Any) -> None:
        faiss, current = load_faiss("quantizer rq"), job()
        stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
        sample = training_sample(
            "rq", stream, self.ks, self.train_rows or _ROWS * self.ks, self.seed
        )
        needed = 8 * len(sample) * stream.dim * (1 + self.beam)
        if needed > current.memory:
            raise DataError(
                f"rq: learning from {len(sample):,} rows with beam {self.beam} takes about "
                f"{needed / 2**30:.1f} GiB of the {current.memory / 2**30:.1f} GiB that the job may "
                "use; give less train_rows or a smaller beam"
            )
        frame = frame_of(Stream.from_array(sample))
        rows = sample.astype(np.float32) if frame is None else frame.into(sample)
        quantizer = faiss.ResidualQuantizer(stream.dim, self.m, bits_of(self.ks, 1))
        seeded(quantizer.cp, self.seed)
        quantizer.cp.niter = self.iterations
        quantizer.max_beam_size = self.beam
        # Tables are for FAISS's own search; growing dimensions take twice the time for 0.3 % less error.
        quantizer.train_type = quantizer.Train_default | quantizer.Skip_codebook_tables
        current.progress(0, self.m, "codes")
        with omp_threads(faiss, current.threads), told(DataError, "rq"):
            quantizer.train(rows)
        current.progress(self.m, self.m, "codes")
        book = faiss.vector_to_array(quantizer.codebooks).reshape(self.m, self.ks, stream.dim)
        book = book.astype(np.float64)
        if frame is not None:
            book /= frame.scale
            book[0] += frame.shift
        if not np.isfinite(book).all():
            raise DataError("rq: FAISS learns no codebook from these vectors; take pq")
        self.codebook = book.astype(np.float32)

    def _encode(self, vectors: Any) -> Array:
        book = self.codebook.astype(np.float64)
        # With vectors about the origin, little is lost to squares.
        origin = book[0].mean(axis=0)
        book[0] -= origin
        squares = np.add.reduce(book * book, axis=2)
        step = max(1, min(_PRODUCT_ROWS, _CELLS // (self.beam * self.ks)))
        codes = np.empty((len(vectors), self.m), self._code_dtype())
        block = np.zeros((step, book.shape[2]))
        for start, stop in row_spans(len(vectors), step):
            block[: stop - start] = vectors[start:stop] - origin
            block[stop - start :] = 0
            codes[start:stop] = self._beamed(block, book, squares)[: stop - start]
        return codes

    def _beamed(
        self, rows: NDArray[np.float64], book: NDArray[np.float64], squares: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the codes of the best of `beam` candidates, (n, m)."""
        n, lines = len(rows), np.arange(len(rows))[:, None]
        # In a unit of its own, the scores of a row fit in float32, whose coarser steps hide what
        # little a product may depend on its place in the block.
        unit = 1 / (np.add.reduce(rows * rows, axis=1) + squares.max() + np.finfo(np.float64).tiny)
        rest = np.zeros((n, self.beam, rows.shape[1]))
        rest[:, 0] = rows
        held, found = 1, np.zeros((n, 1, 0), np.int64)
        for words, own in zip(book, squares, strict=True):
            # ‖r‖² − ‖r − c‖², of all candidates, in products of one shape.
            gain = (rest.reshape(-1, rows.shape[1]) @ (2 * words.T)).reshape(n, self.beam, -1)
            left = np.add.reduce(rest * rest, axis=2)
            score = (left[:, :held, None] + own - gain[:, :held]).reshape(n, -1)
            score = (score * unit[:, None]).astype(np.float32)
            kept = min(self.beam, score.shape[1])
            best = np.argpartition(score, kept - 1, axis=1)[:, :kept]
            order = np.lexsort((best, np.take_along_axis(score, best, axis=1)), axis=1)
            best = np.take_along_axis(best, order, axis=1)
            parent, code = best // self.ks, best % self.ks
            found = np.concatenate([found[lines, parent], code[:, :, None]], axis=2)
            moved = rest[lines, parent] - words[code]
            rest[:, :kept] = moved
            rest[:, kept:] = 0
            held = kept
        first: NDArray[np.int64] = found[:, 0]
        return first

    def _restore(self, state: dict[str, Array]) -> None:
        check_book(self, state, (self.m, self.ks, self._dim or 0), {"codebook"})
        super()._restore(state)
