"""The quantizers `faiss-pq` and `opq`: FAISS's product quantizer, without and with a rotation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.errors import ArtifactError, DataError, ParameterError
from vwkit.estimates import Estimate
from vwkit.hashing import derive_seed, sample_rows
from vwkit.jobs import job
from vwkit.quantizer import check_slices
from vwkit.stream import Stream, row_spans
from vwkit.types import Array
from vwkit_faiss.closing import close
from vwkit_faiss.library import (
    Frame,
    frame_of,
    load_faiss,
    omp_threads,
    quiet_job,
    seeded,
    told,
)

__all__ = ["OPQ", "Codewords", "FaissPQ", "bits_of", "check_book", "training_sample"]

Codewords = Annotated[int, annotated_types.Ge(2), annotated_types.Le(65_536)]

# Always products of the same shape, so that a row's do not depend on how many it comes with.
_PRODUCT_ROWS = 1024
# As FAISS has them: k-means iterations for each rotation, and more for the first.
_FIRST_ITERATIONS, _ITERATIONS = 40, 4
# What a pass over very few rows takes in any case, where a product of two numbers is 1.
_CALL_WORK = 1e6
_LIBRARY_BYTES = 8 << 20
# FAISS learns a rotation from 256 rows a codeword, and codebooks from more.
_ROTATION_ROWS = 256
_MANY_ITERATIONS = 10_000


@vwkit.backend("faiss-pq")
class FaissPQ(vwkit.Quantizer):
    """Product quantizer whose codebooks FAISS learns: m codes a vector, each one of ks.

    Jégou, Douze, Schmid 2011, "Product quantization for nearest neighbor search"; codebooks are
    those of ``faiss.ProductQuantizer`` from the same rows. Codes are the nearest codewords, settled
    in float64: FAISS's own kernels let them depend on how many rows come together.

    Attributes
    ----------
    codebook : (m, ks, d/m) float32

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).integers(0, 255, (300, 8)).astype(np.uint8)
    >>> pq = vwkit.create("quantizer", "faiss-pq", m=4, ks=16).fit(rows)
    >>> pq.encode(rows).shape, pq.encode(rows).dtype
    ((300, 4), dtype('uint8'))
    """

    library = "faiss-cpu"
    requires = ("faiss",)
    license = "MIT"
    choose = "codebooks learnt faster than by pq, of equal quality."
    streams = True
    dtypes = ("uint8", "float32")

    m: vwkit.Positive = vwkit.Field(doc="Codes per vector; it must divide the dimensions.")
    ks: Codewords = vwkit.Field(
        default=256, doc="Codewords per slice, a power of two; up to 256 a code takes one byte."
    )
    train_rows: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Rows to learn from, drawn at random; 1,000 × ks by default."
    )
    iterations: vwkit.Positive = vwkit.Field(default=25, doc="K-means iterations per slice.")

    def __post_init__(self) -> None:
        bits_of(self.ks, self.iterations)

    def _fit(self, vectors: Any) -> None:
        faiss = load_faiss("quantizer faiss-pq")
        stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
        check_slices("faiss-pq", self.m, stream.dim)
        sample = training_sample(
            "faiss-pq", stream, self.ks, self.train_rows or 1000 * self.ks, self.seed
        )
        frame = frame_of(Stream.from_array(sample))
        width = stream.dim // self.m
        book = np.empty((self.m, self.ks, width), np.float32)
        with omp_threads(faiss, job().threads), told(DataError, "faiss-pq"):
            for j in range(self.m):
                job().progress(j, self.m, "subspaces")
                columns = slice(j * width, (j + 1) * width)
                own = None if frame is None else Frame(frame.shift[columns], frame.scale)
                part = np.ascontiguousarray(sample[:, columns])
                part = part.astype(np.float32) if own is None else own.into(part)
                words = _words(faiss, part, self.ks, self.iterations, self.seed)
                book[j] = words if own is None else own.back(words)
        job().progress(self.m, self.m, "subspaces")
        self.codebook = book

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        taken = min(rows, max(self.ks, self.train_rows or 1000 * self.ks))
        return Estimate(
            work=self.iterations * (taken * (self.ks + 300.0) * dim + self.m * _CALL_WORK),
            memory=taken * (dim * (itemsize + 4.0) + 4.0 * dim / self.m) + _LIBRARY_BYTES,
            disk=4 * self.ks * dim,
        )

    def _restore(self, state: dict[str, Array]) -> None:
        check_book(self, state, (self.m, self.ks, (self._dim or 0) // self.m), {"codebook"})
        super()._restore(state)


@vwkit.backend("opq")
class OPQ(vwkit.Quantizer):
    """Optimized product quantizer: vectors are turned first, so that slices depend less on each other.

    Ge, He, Ke, Sun 2013, "Optimized product quantization", by FAISS's OPQMatrix and
    ProductQuantizer. The rotation and the codebooks are improved in turns, each turn with a fit of
    the other; then the codebooks are fitted once more, to all training rows. Codes are the nearest
    codewords of the turned vector, settled in float64.

    Attributes
    ----------
    codebook : (m, ks, d/m) float32
        Of the turned vectors.
    rotation : (d, d) float32
        Orthonormal: a vector x is turned to ``rotation @ x``, and back by the transpose. Distances
        between codes are those of the codebook alone.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    >>> opq = vwkit.create("quantizer", "opq", m=2, ks=16, rotations=5).fit(rows)
    >>> opq.encode(rows).shape, opq.rotation.shape
    ((300, 2), (8, 8))
    """

    library = "faiss-cpu"
    requires = ("faiss",)
    license = "MIT"
    choose = (
        "better codes than pq for vectors whose dimensions depend on each other; it learns longer."
    )
    streams = True
    dtypes = ("uint8", "float32")

    m: vwkit.Positive = vwkit.Field(doc="Codes per vector; it must divide the dimensions.")
    ks: Codewords = vwkit.Field(
        default=256, doc="Codewords per slice, a power of two; up to 256 a code takes one byte."
    )
    train_rows: vwkit.Positive | None = vwkit.Field(
        default=None,
        doc="Rows to learn from, drawn at random; 1,000 × ks by default, 256 × ks of them for the rotation.",
    )
    iterations: vwkit.Positive = vwkit.Field(
        default=25, doc="K-means iterations per slice with the last rotation."
    )
    rotations: vwkit.Positive = vwkit.Field(
        default=50, doc="Turns of improving the rotation and the codebooks."
    )
    start: Literal["order", "random"] = vwkit.Field(
        default="order",
        doc="Where the rotation starts: order, the dimensions as they are (for SIFT by far the better), "
        "or random, as FAISS does by itself.",
    )

    rotation: NDArray[np.float32]

    @classmethod
    def _adapt_fields(cls, annotations: dict[str, Any], defaults: dict[str, Any]) -> None:
        super()._adapt_fields(annotations, defaults)
        annotations.pop("rotation", None)

    def __post_init__(self) -> None:
        bits_of(self.ks, self.iterations)

    def _fit(self, vectors: Any) -> None:
        faiss, current = load_faiss("quantizer opq"), job()
        stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
        check_slices("opq", self.m, stream.dim)
        sample = training_sample(
            "opq", stream, self.ks, self.train_rows or 1000 * self.ks, self.seed
        )
        frame = _centred(sample)
        framed = frame.into(sample)
        with omp_threads(faiss, current.threads), told(DataError, "opq"):
            turn, book = self._turned(faiss, framed)
            turned = _product(framed, turn.T)
            width = stream.dim // self.m
            for j in range(self.m):
                current.progress(self.rotations + j, self.rotations + self.m, "turns and subspaces")
                part = np.ascontiguousarray(turned[:, j * width : (j + 1) * width])
                book[j] = _words(faiss, part, self.ks, self.iterations, self.seed, book[j])
        # What was taken from the vectors before turning comes back to the codewords after it.
        origin = (turn @ frame.shift.astype(np.float64)).reshape(self.m, 1, width)
        self.codebook = (book.astype(np.float64) / frame.scale + origin).astype(np.float32)
        self.rotation = turn.astype(np.float32)
        current.progress(self.rotations + self.m, self.rotations + self.m, "turns and subspaces")

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        taken = min(rows, max(self.ks, self.train_rows or 1000 * self.ks))
        turning = min(taken, _ROTATION_ROWS * self.ks)
        passes = self.rotations * _ITERATIONS + _FIRST_ITERATIONS
        assigned = (self.ks + 300.0) * dim
        return Estimate(
            work=passes * (turning * assigned + self.m * _CALL_WORK)
            + self.rotations * (2.0 * turning * dim**2 + 20.0 * dim**3)
            + self.iterations * taken * assigned,
            memory=taken * dim * (itemsize + 8.0) + 12.0 * turning * dim + _LIBRARY_BYTES,
            disk=4 * (self.ks * dim + dim**2),
        )

    def _turned(
        self, faiss: Any, framed: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return the rotation, (d, d), and the codebooks that go with it."""
        current, dim = job(), framed.shape[1]
        chosen = sample_rows(len(framed), _ROTATION_ROWS * self.ks, derive_seed(self.seed, "turn"))
        rows = framed if len(chosen) == len(framed) else framed[chosen]
        matrix = faiss.OPQMatrix(dim, self.m)
        if self.start == "random":
            start = faiss.RandomRotationMatrix(dim, dim)
            start.init(self.seed % (1 << 31))
            matrix.A = start.A
        else:
            faiss.copy_array_to_vector(np.eye(dim, dtype=np.float32).ravel(), matrix.A)
        matrix.max_train_points = len(rows)
        # One turn at a time: what goes on from turn to turn is in the matrix and in the quantizer.
        matrix.niter, matrix.niter_pq, matrix.niter_pq_0 = 1, _ITERATIONS, _FIRST_ITERATIONS
        quantizer = faiss.ProductQuantizer(dim, self.m, bits_of(self.ks, 1))
        seeded(quantizer.cp, self.seed)
        step = self._taken_up(faiss, matrix, quantizer)
        matrix.pq = quantizer
        try:
            for turn in range(step, self.rotations):
                current.progress(turn, self.rotations + self.m, "turns and subspaces")
                if turn:
                    matrix.niter_pq_0 = _ITERATIONS
                matrix.train(rows)
                state = {
                    "rotation": faiss.vector_to_array(matrix.A),
                    "book": faiss.vector_to_array(quantizer.centroids),
                }
                current.checkpoint(turn + 1, state)
        finally:
            matrix.pq = None  # it would point at freed memory
        rough = faiss.vector_to_array(matrix.A).reshape(dim, dim).astype(np.float64)
        if not np.isfinite(rough).all():
            raise DataError("opq: FAISS finds no rotation for these vectors; take pq")
        # Orthonormal to the last digit, so that distances stay.
        left, _, right = np.linalg.svd(rough)
        book = faiss.vector_to_array(quantizer.centroids)
        return left @ right, book.reshape(self.m, self.ks, dim // self.m).copy()

    def _taken_up(self, faiss: Any, matrix: Any, quantizer: Any) -> int:
        saved = job().resume()
        if saved is None:
            return 0
        step, state = saved
        sizes = {"rotation": matrix.A.size(), "book": quantizer.centroids.size()}
        if {name: array.size for name, array in state.items()} != sizes:
            return 0
        faiss.copy_array_to_vector(np.asarray(state["rotation"], np.float32), matrix.A)
        faiss.copy_array_to_vector(np.asarray(state["book"], np.float32), quantizer.centroids)
        quantizer.train_type = faiss.ProductQuantizer.Train_hot_start
        return step

    def _encode(self, vectors: Any) -> Array:
        turned = self.rotation.T.astype(np.float64)
        codes = np.empty((len(vectors), self.m), self._code_dtype())
        for start, stop in row_spans(len(vectors), 16 * _PRODUCT_ROWS):
            codes[start:stop] = super()._encode(_product(vectors[start:stop], turned))
        return codes

    def _decode(self, codes: Array) -> Array:
        turned = self.rotation.astype(np.float64)
        vectors = np.empty((len(codes), len(turned)), np.float32)
        for start, stop in row_spans(len(codes), 16 * _PRODUCT_ROWS):
            vectors[start:stop] = _product(super()._decode(codes[start:stop]), turned)
        return vectors

    def _restore(self, state: dict[str, Array]) -> None:
        dim = self._dim or 0
        check_book(self, state, (self.m, self.ks, dim // self.m), {"codebook", "rotation"})
        turn = state["rotation"]
        fine = turn.shape == (dim, dim) and turn.dtype == np.float32
        if not fine or not np.allclose(turn @ turn.T, np.eye(dim), atol=1e-3):
            raise ArtifactError(
                f"opq: its rotation {turn.shape} {turn.dtype} is no orthonormal ({dim}, {dim}) "
                "matrix of float32; damaged, make it again"
            )
        super()._restore(state)


# Training --------------------------------------------------------------------------------------


def bits_of(ks: int, iterations: int) -> int:
    """Return the bits of a code.

    Raises
    ------
    ParameterError
        FAISS has no such codebooks.
    """
    bits = ks.bit_length() - 1
    if 1 << bits != ks:
        raise ParameterError.of(
            "ks", f"FAISS has codebooks of 2, 4, 8 … 65536 codewords; got {ks}, near is {1 << bits}"
        )
    if iterations > _MANY_ITERATIONS:
        raise ParameterError.of("iterations", f"at most {_MANY_ITERATIONS}; got {iterations}")
    return bits


def training_sample(who: str, stream: Stream, ks: int, wanted: int, seed: int) -> Array:
    """Return the rows to learn from, at least ks.

    Raises
    ------
    DataError
        There are fewer.
    """
    rows = stream.count()
    if rows < ks:
        raise DataError(
            f"{who}: ks = {ks} codewords need at least {ks} rows to learn from; got {rows}. "
            "Give more data or a smaller ks"
        )
    return stream.take(sample_rows(rows, max(ks, wanted), seed))


def check_book(who: Any, state: dict[str, Array], shape: tuple[int, ...], names: set[str]) -> None:
    """Look at a saved codebook before it is used.

    Raises
    ------
    ArtifactError
    """
    book = state.get("codebook")
    if (
        state.keys() != names
        or book is None
        or book.shape != shape
        or book.dtype != np.float32
        or not np.isfinite(book).all()
    ):
        found = "none" if book is None else f"{book.shape} {book.dtype}"
        raise ArtifactError(
            f"{who.name}: codebook {shape} of finite float32 is needed, with {sorted(names)}; "
            f"found {found} and {sorted(state)}; damaged, make it again"
        )


def _words(
    faiss: Any,
    part: NDArray[np.float32],
    ks: int,
    iterations: int,
    seed: int,
    start: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return the codewords of one slice, (ks, width), from given ones or FAISS's random rows."""
    quantizer = faiss.ProductQuantizer(part.shape[1], 1, bits_of(ks, iterations))
    seeded(quantizer.cp, seed)
    quantizer.cp.niter = iterations
    if start is not None:
        faiss.copy_array_to_vector(np.ascontiguousarray(start).ravel(), quantizer.centroids)
        quantizer.train_type = faiss.ProductQuantizer.Train_hot_start
    quantizer.train(part)
    words = faiss.vector_to_array(quantizer.centroids).reshape(ks, part.shape[1])
    # FAISS does not look whether those that it split apart are used.
    return close(Stream.from_array(part), words, None, quiet_job("words")).centers


def _centred(sample: Array) -> Frame:
    """Return a frame about the mean; its scale is 1 unless numbers are odd."""
    found = frame_of(Stream.from_array(sample))
    return found or Frame(sample.mean(axis=0, dtype=np.float64).astype(np.float32), 1.0)


def _product(rows: Array, matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return rows @ matrix as float32, each row as if it came alone."""
    out = np.empty((len(rows), matrix.shape[1]), np.float32)
    block = np.zeros((_PRODUCT_ROWS, matrix.shape[0]))
    for start, stop in row_spans(len(rows), _PRODUCT_ROWS):
        block[: stop - start] = rows[start:stop]
        block[stop - start :] = 0
        with np.errstate(over="ignore"):
            out[start:stop] = (block @ matrix)[: stop - start]
    return out
