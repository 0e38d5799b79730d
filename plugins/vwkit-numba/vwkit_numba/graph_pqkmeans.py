"""K-means of product-quantized codes over the graph of its centers.

A center is a code. The symmetric distance of two codes (Jégou, Douze, Schmid 2011, "Product
quantization for nearest neighbor search") is the squared distance of what they stand for, so the
passes are those of `graph-kmeans`: codes become vectors when a row is loaded, never before. After
Matsui, Ogaki, Yamasaki, Aizawa 2017, "PQk-means: Billion-scale Clustering for Product-quantized
Codes", whose best center of some codes is the code nearest to the mean of what they stand for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit_numba.graph_kmeans import GraphClusterer

if TYPE_CHECKING:
    from vwkit.stream import Stream
    from vwkit_numba.coarse import Coarse
    from vwkit_numba.fitting import Fit
    from vwkit_numba.passes import Frame

__all__ = ["GraphPQKMeans"]


@vwkit.backend("graph-pqkmeans")
class GraphPQKMeans(GraphClusterer):
    """K-means of product-quantized codes for large k: a code meets its center's neighbours alone.

    Codes of one byte, or of two where the quantizer has more than 256 codewords. The same seed gives
    the same bytes for any number of threads and any chunk size.

    Attributes
    ----------
    centers : (k, m) uint8 or uint16
    labels : (n,) int32
    objective : list of float
        Mean symmetric distance at each iteration's assignment; the last is of `centers`.
    changed : list of int
        Labels that each assignment changed.
    moved : list of int
        Centers that were moved into other clusters before each iteration.
    corrected : int
        Labels that the last exact pass changed, if there was one.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> vectors = np.random.default_rng(0).integers(0, 255, (2000, 8)).astype(np.uint8)
    >>> pq = vwkit.create("quantizer", "pq", m=4, ks=16).fit(vectors)
    >>> words = vwkit.create("clusterer", "graph-pqkmeans", k=50).fit(pq.encode(vectors), quantizer=pq)
    >>> words.centers.shape, words.centers.dtype
    ((50, 4), dtype('uint8'))
    """

    choose = "codes of a product quantizer and many clusters; a hundred times as fast as pqkmeans."
    consumes = "codes"
    dtypes = ("uint8", "uint16")

    init: Path | np.ndarray[Any, Any] | None = vwkit.Field(
        default=None, doc="Codes to start from, an array or a .npy file."
    )

    def _frame_of(self, stream: Stream, weights: NDArray[np.float64] | None) -> Frame:
        return self._frame()

    def take_over(self, fit: Fit, coarse: Coarse) -> None:
        """Set the attributes of a finished fit."""
        super().take_over(fit, coarse)
        self.centers = fit.passes.frame.codes(fit.centers)

    def _frame(self) -> Frame:
        from vwkit_numba.frames import frame_of_book

        quantizer: Any = self._quantizer
        return frame_of_book(quantizer.codebook)
