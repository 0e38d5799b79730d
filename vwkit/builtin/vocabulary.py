"""A vocabulary: the quantizer whose codewords are a clusterer's centers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, Nested, backend
from vwkit.clusterer import Clusterer
from vwkit.data import prepare
from vwkit.errors import ArtifactError, NotFittedError, ParameterError, UnsupportedError
from vwkit.estimates import Estimate
from vwkit.index import Index
from vwkit.kernels import nearest_rows
from vwkit.quantizer import Quantizer, code_dtype
from vwkit.types import Array

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Vocabulary"]


@backend("vocabulary")
class Vocabulary(Quantizer):
    """Visual words: the word of a descriptor is the number of its nearest center.

    With a fitted clusterer it is ready at once. Centers that are codes are looked up by symmetric
    distance in the code domain, which gives exactly the training labels.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).integers(0, 255, (200, 8)).astype(np.uint8)
    >>> lloyd = vwkit.create("clusterer", "lloyd", k=10).fit(rows)
    >>> vocabulary = vwkit.create("quantizer", "vocabulary", clusterer=lloyd)
    >>> vocabulary.encode(rows).shape
    (200, 1)
    >>> bool((vocabulary.encode(rows)[:, 0] == lloyd.labels).all())
    True
    """

    choose = "whenever clusters are to be used as visual words."

    streams = True
    dtypes = ("uint8", "float32")

    clusterer: Nested[Clusterer] = Field(doc="What makes the centers, or a fitted one.")
    lookup: Nested[Index] | None = Field(
        default=None,
        doc="An index over the centers for the lookup; without it the clusterer's own predict.",
    )

    def __post_init__(self) -> None:
        if not self.clusterer.has_centers:
            raise ParameterError.of(
                "clusterer", f"{self.clusterer.name} has no centers to make words of"
            )
        if self.lookup is not None and self.lookup.metric != "l2":
            raise ParameterError.of(
                "lookup",
                f"words are the nearest in metric l2; {self.lookup.name} has {self.lookup.metric}",
            )
        if self.clusterer._fitted:
            self._adopt()

    @property
    def deterministic(self) -> bool:
        """True when clusterer and lookup are."""
        return self.clusterer.deterministic and (self.lookup is None or self.lookup.deterministic)

    @property
    def codebook(self) -> NDArray[np.float32]:  # type: ignore[override]
        """The words' centers, (1, k, d) float32."""
        if not self.clusterer._fitted:
            raise NotFittedError("this vocabulary is not fitted yet: call fit() first")
        centers = self.clusterer.centers
        if self.clusterer.quantizer is not None:
            centers = self.clusterer.quantizer.decode(centers)
        book: NDArray[np.float32] = np.asarray(centers, np.float32)[None]
        return book

    @property
    def k(self) -> int:
        """Number of words."""
        return len(self.clusterer.centers)

    def _fit(self, vectors: Any) -> None:
        if self.clusterer.consumes == "codes":
            raise UnsupportedError(
                f"{self.clusterer.name} clusters codes: fit it with its quantizer first, then "
                "make a vocabulary of it"
            )
        self.clusterer.fit(vectors)
        if self.lookup is not None:
            self.lookup.build(self.codebook[0])  # an earlier one is of other centers
        self._adopt()

    def _adopt(self) -> None:
        quantizer = self.clusterer.quantizer
        self._dim = self.clusterer._dim if quantizer is None else quantizer._dim
        self._kind = self.clusterer._kind if quantizer is None else quantizer._kind
        if self.lookup is not None and not self.lookup._fitted:
            self.lookup.build(self.codebook[0])
        self._fitted = True

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate | None:
        return self.clusterer._estimate(rows, dim, itemsize)

    def _row_work(self, dim: int) -> float:
        return self.clusterer._row_work(dim)

    def _encode(self, vectors: Any) -> Array:
        clusterer, quantizer = self.clusterer, self.clusterer.quantizer
        words: Array
        if self.lookup is not None:
            words = self.lookup.search(vectors, 1).ids[:, 0]
            lost = np.flatnonzero(words < 0)  # an approximate index may come back with nothing
            words[lost] = nearest_rows(vectors[lost], self.codebook[0])
        elif quantizer is not None:
            words = clusterer.predict(quantizer.encode(vectors))
        else:
            fitting = prepare(vectors, dtypes=clusterer.dtypes, empty=True, who=clusterer.name)
            words = clusterer._predict(fitting)
        return words[:, None].astype(code_dtype(self.k))

    def _light(self) -> Self:
        other = copy.copy(self)
        # It is the same one, though it was fitted: no parameter is changed.
        vars(other)["clusterer"] = self.clusterer._light()
        return other

    def _decode(self, codes: Array) -> Array:
        decoded: Array = self.codebook[0][codes[:, 0]]
        return decoded

    def _check_restored(self) -> None:
        lookup, words = self.lookup, self.clusterer
        if not words._fitted or not words.has_centers or words.consumes not in ("vectors", "codes"):
            raise ArtifactError("its clusterer has no centers; damaged, make it again")
        quantizer = words.quantizer
        dim = words._dim if quantizer is None else quantizer._dim
        if self._dim != dim:
            raise ArtifactError(f"its words are of {dim} dimensions, not {self._dim}; damaged")
        if lookup is not None and (
            not lookup._fitted or lookup._dim != dim or len(lookup) != self.k
        ):
            raise ArtifactError("its lookup is not one of its words; damaged, make it again")

    def _code_columns(self) -> int:
        return 1

    def _code_limit(self) -> int:
        return self.k

    def _decoding(self) -> dict[str, Array]:
        return {"codebook": self.codebook}

    def _state(self) -> dict[str, Array]:
        return {}  # the clusterer, saved with it, holds everything
