"""The clusterer `pqkmeans`: k-means of product-quantized codes whose centers are codes too."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import annotated_types
import numpy as np
import vwkit_pqkmeans_fit as fitting
from numpy.typing import NDArray
from vwkit_pqkmeans_library import Library, checked_codebook, checked_codes

import vwkit
from vwkit.errors import DataError, VwkitError
from vwkit.estimates import Estimate
from vwkit.jobs import available_memory, job
from vwkit.stream import Stream, row_spans
from vwkit.types import Array

__all__ = ["PQKMeans", "memory_need", "vwkit_backends"]

_log = logging.getLogger("vwkit")


def memory_need(rows: int, m: int, k: int, ks: int = 256) -> int:
    """Return the bytes of memory that a fit needs at most, besides the codes themselves.

    Parameters
    ----------
    rows, m : int
        Number of codes, and bytes of each.
    k : int
        Clusters.
    ks : int
        Codewords per slice of the quantizer.

    Examples
    --------
    >>> memory_need(16_334_970, 4, 131_072) < 2**31
    True
    """
    return fitting.memory_need(rows, m, k, ks, memory=job().memory)


@vwkit.backend("pqkmeans")
class PQKMeans(vwkit.Clusterer):
    """PQk-means: k-means of product-quantized codes, which never become vectors again.

    Matsui, Ogaki, Yamasaki, Aizawa 2017, "PQk-means: Billion-scale Clustering for Product-quantized
    Codes", by the authors' library (https://github.com/DwangoMediaVillage/pqkmeans). A center is a
    code, and the distance is that of what codes stand for. The library assigns the codes, by far
    the most work; rounds, sums, repair of empty clusters and checkpoints are vwkit's.

    Attributes
    ----------
    centers : (k, m) uint8
    labels : (n,) int32
        The nearest center, the lowest on ties; the library compares distances in float32.
    objective : list of float
        Mean symmetric distance at each iteration's assignment; the last is of `centers`.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> vectors = np.random.default_rng(0).integers(0, 255, (300, 8)).astype(np.uint8)
    >>> pq = vwkit.create("quantizer", "pq", m=4, ks=16).fit(vectors)
    >>> codes = pq.encode(vectors)
    >>> clusterer = vwkit.create("clusterer", "pqkmeans", k=10).fit(codes, quantizer=pq)
    >>> clusterer.centers.shape, clusterer.centers.dtype
    ((10, 4), dtype('uint8'))
    >>> bool((clusterer.predict(codes) == clusterer.labels).all())
    True
    """

    library = "pqkmeans"
    requires = ("pqkmeans",)
    license = "MIT"
    compiled = True
    choose = (
        "codes of a product quantizer, and up to some ten thousand clusters (every code is compared "
        "with every center)."
    )
    consumes = "codes"
    streams = True
    dtypes = ("uint8",)
    supports_weights = True
    deterministic = True

    _library: Library | None = None

    k: vwkit.Positive = vwkit.Field(doc="Number of clusters.")
    iterations: vwkit.Positive = vwkit.Field(
        default=25, doc="At most this many updates of the centers."
    )
    tolerance: Annotated[float, annotated_types.Ge(0)] = vwkit.Field(
        default=1e-4, doc="Stop when the objective improves by no more than this share of itself."
    )
    init: Literal["k-means++", "random"] | Path | np.ndarray[Any, Any] = vwkit.Field(
        default="k-means++",
        doc="How to start: k-means++, random codes, or given centers (codes, array or .npy file).",
    )

    @classmethod
    def from_centers(cls, centers: Any, codebook: Any) -> PQKMeans:
        """Return a clusterer that can predict and be saved, from centers that are there already.

        Such as those of the plain library: ``from_centers(engine.cluster_centers_,
        encoder.codewords)``. It has no `labels` and no `objective`.

        Parameters
        ----------
        centers : (k, m) whole numbers
        codebook : (m, ks, d/m) numbers, or Quantizer
            What the codes stand for: codewords, or a fitted product quantizer.

        Raises
        ------
        ShapeError, DataError, UnsupportedError

        Examples
        --------
        >>> PQKMeans.from_centers([[0, 1], [1, 0]], [[[0], [9]], [[0], [9]]]).predict([[0, 0]])
        array([0], dtype=int32)
        """
        if isinstance(codebook, vwkit.Quantizer):
            quantizer = codebook
        else:
            book = checked_codebook(codebook)
            m, ks, width = book.shape
            quantizer = cast("vwkit.Quantizer", vwkit.create("quantizer", "pq", m=m, ks=ks))
            quantizer._restore({"codebook": book})
            quantizer._dim = m * width
            quantizer._fitted = True
        cls(k=1)._check_quantizer(quantizer)
        book = checked_codebook(quantizer.codebook)
        codes = checked_codes(centers, book, "centers")
        if not len(codes):
            raise DataError("centers: at least one is needed")
        made: PQKMeans = cls(k=len(codes))
        made.centers = codes.copy()
        made.labels = np.zeros(0, np.int32)
        made.objective = []
        made._quantizer = quantizer
        made._dim = len(book)
        made._fitted = True
        return made

    # Fitting

    def _fit(self, data: Any, weights: NDArray[np.float64] | None) -> None:
        stream = data if isinstance(data, Stream) else Stream.from_array(data)
        library = self._opened(fresh=True)
        self._check_memory(stream.count(), library.m)
        settings = fitting.Settings(self.k, self.iterations, self.tolerance, self.init, self.seed)
        fit = fitting.Fit(stream, weights, settings, library, job())
        fit.run()
        self.centers, self.labels, self.objective = fit.centers, fit.labels, fit.objective

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        start = fitting.start_work(rows, dim, self.k) if self.init == "k-means++" else 0.0
        return Estimate(
            work=start,
            each_pass=rows * self._row_work(dim) + fitting.medoid_work(dim, self.k, self._ks()),
            passes=self.iterations + 1,
            memory=self._memory_need(rows, dim) - fitting.spare(rows, dim),
            # It refuses to begin with less.
            least=self._memory_need(rows, dim),
            disk=4 * rows + self.k * dim,
            reads=3,
        )

    def _row_work(self, dim: int) -> float:
        return fitting.row_work(dim, self.k)

    def _ks(self) -> int:
        return 256 if self._quantizer is None else int(self._quantizer.codebook.shape[1])

    def _memory_need(self, rows: int, dim: int) -> int:
        """Return the bytes that a fit of (rows, dim) codes needs at most, besides the codes."""
        return memory_need(rows, dim, self.k, self._ks())

    def _check_memory(self, rows: int, m: int) -> None:
        need, budget, free = self._memory_need(rows, m), job().memory, _free_memory()
        _log.info(
            "pqkmeans: %s codes of %d bytes in %s clusters need up to %s MiB beside themselves",
            *(f"{rows:,}", m, f"{self.k:,}", f"{-(-need >> 20):,}"),
        )
        if need <= min(budget, free):
            return
        limit = (
            f"the job may use {budget >> 20:,}" if budget <= free else f"{free >> 20:,} are free"
        )
        raise DataError(
            f"pqkmeans: {rows:,} codes of {m} bytes in {self.k:,} clusters need "
            f"{-(-need >> 20):,} MiB of memory, and {limit}: "
            "take a smaller k, fewer rows, or more memory (run: memory)"
        )

    # Prediction

    def _predict(self, data: Any) -> NDArray[np.int32]:
        library, current = self._opened(), job()
        centers = checked_codes(self.centers, library.codebook, "centers")
        labels = np.empty(len(data), np.int32)
        for start, stop in row_spans(len(data), library.rows):
            current.check()
            codes = checked_codes(data[start:stop], library.codebook, "codes", start)
            labels[start:stop] = library.nearest(codes, centers, current.threads)[0]
        return labels

    def _opened(self, fresh: bool = False) -> Library:
        """Return the library with the quantizer's codebook."""
        if fresh or self._library is None:
            quantizer: Any = self._quantizer
            self._library = Library(quantizer.codebook)
        return self._library

    # Saving

    def _state(self) -> dict[str, Array]:
        objective = np.asarray(self.objective, np.float64)
        return {"centers": self.centers, "labels": self.labels, "objective": objective}

    def _restore(self, state: dict[str, Array]) -> None:
        try:
            self._check_quantizer(self._quantizer)
            book = checked_codebook(cast("vwkit.Quantizer", self._quantizer).codebook)
            centers = checked_codes(state["centers"], book, "centers")
        except VwkitError as error:
            raise ValueError(str(error)) from None  # who reads the artifact says where it lies
        labels, objective = state["labels"], state["objective"]
        if len(centers) != self.k or centers.shape[1] != self._dim:
            raise ValueError(f"centers of shape {centers.shape} for k = {self.k}")
        if labels.ndim != 1 or labels.dtype != np.int32 or objective.ndim != 1:
            raise ValueError(f"labels of shape {labels.shape} and dtype {labels.dtype}")
        super()._restore({"labels": labels, "objective": objective})
        self.centers = centers


def _free_memory() -> int:
    """Return the bytes that are free now, as far as the system tells."""
    total = available_memory()
    with contextlib.suppress(OSError, ValueError, IndexError):  # there is no such file on macOS
        told = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()
        return min(total, int(told[0]) << 10)
    return total


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `pqkmeans`."""
    return [PQKMeans]
