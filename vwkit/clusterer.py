"""The clusterer role: vectors or codes → centers and labels."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Backend
from vwkit.data import as_weights, dim_of, prepare, rows_of
from vwkit.errors import (
    ArtifactError,
    BackendError,
    DataError,
    FewDistinctRows,
    UnsupportedError,
    VwkitError,
)
from vwkit.jobs import job
from vwkit.kernels import nearest_rows
from vwkit.quantizer import Quantizer
from vwkit.restoring import check_array
from vwkit.stream import Stream
from vwkit.types import Array

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Clusterer", "size_table", "warn_few_distinct"]


def warn_few_distinct(distinct: int, k: int) -> None:
    """Say once that the data hold fewer distinct rows than the clusters asked for."""
    warnings.warn(
        f"the data hold {distinct} distinct rows for k = {k} clusters: "
        f"{k - distinct} words repeat the last one and stay empty",
        FewDistinctRows,
        stacklevel=3,
    )


_LINES = 24  # of a table of sizes


def size_table(labels: NDArray[np.int32], what: str = "rows") -> str:
    """Return how many clusters there are of each size, as text.

    Examples
    --------
    >>> print(size_table(np.array([0, 0, 0, 1, 1, 2, 2, -1], np.int32), "images"))
    #images : #clusters
    2 : 2
    3 : 1
    #images in clusters: 7 of 8
    """
    counts = np.bincount(labels[labels >= 0])
    sizes, clusters = np.unique(counts[counts > 0], return_counts=True)
    lines = [f"{size} : {several}" for size, several in zip(sizes, clusters, strict=True)]
    if len(lines) > _LINES:  # the smallest and the largest
        lines = [*lines[: _LINES // 2], "…", *lines[-_LINES // 2 + 1 :]]
    total = f"#{what} in clusters: {counts.sum():,} of {len(labels):,}"
    return "\n".join([f"#{what} : #clusters", *lines, total])


class Clusterer(Backend):
    """Groups vectors (or codes).

    An author writes `_fit`, which sets `centers`, `labels` and `objective`, and `_predict` if it
    is not the nearest center.
    """

    role: ClassVar[str] = "clusterer"
    #: ``vectors``, or ``codes`` of a product quantizer.
    consumes: ClassVar[str] = "vectors"
    supports_predict: ClassVar[bool] = True
    supports_weights: ClassVar[bool] = False
    has_centers: ClassVar[bool] = True
    #: Whether there are exactly `k` clusters.
    fixed_k: ClassVar[bool] = True
    #: Whether it also has `tree`, an (n − 1, 4) linkage.
    hierarchical: ClassVar[bool] = False
    #: Share of rows whose `predict` equals their label: 1 for an exact clusterer.
    label_agreement: ClassVar[float] = 1.0

    seed: int = 0

    centers: Array
    labels: NDArray[np.int32]
    objective: list[float]

    _quantizer: Quantizer | None = None

    @classmethod
    def _adapt_fields(cls, annotations: dict[str, Any], defaults: dict[str, Any]) -> None:
        for name in ("centers", "labels", "objective"):
            annotations.pop(name, None)

    def _fit(self, data: Any, weights: NDArray[np.float64] | None) -> None:
        """Set `centers`, `labels` (n,) int32 and `objective`."""
        raise NotImplementedError(f"{type(self).__name__} must define _fit")

    def _predict(self, data: Any) -> NDArray[np.int32]:
        """Return the label of each row: the nearest center, the lowest id on ties."""
        return nearest_rows(data, self.centers).astype(np.int32)

    def summary(self, what: str = "rows") -> str:
        """Return how many clusters there are of each size, a line ``size : clusters`` for each.

        Parameters
        ----------
        what : str
            What the rows are, such as ``images``.

        Raises
        ------
        NotFittedError
        """
        self._need_fitted()
        return size_table(self.labels, what)

    @property
    def quantizer(self) -> Quantizer | None:
        """The product quantizer whose codes were clustered."""
        return self._quantizer

    def fit(self, data: Any, weights: Any = None, *, quantizer: Quantizer | None = None) -> Self:
        """Cluster the rows; a second call replaces the first.

        Parameters
        ----------
        data : (n, d) array or Stream
            Vectors, or codes (n, m) for a clusterer that consumes codes.
        weights : (n,) float64, optional
            How many times each row counts.
        quantizer : Quantizer, optional
            Needed with codes: the fitted product quantizer that made them. It is kept and saved.

        Returns
        -------
        Clusterer
            This clusterer, with `centers`, `labels` and `objective`.

        Raises
        ------
        ShapeError, DataError
            No rows, NaN, a wrong shape, k larger than the rows.
        UnsupportedError
            Weights for a backend that takes none, or a wrong kind of quantizer.
        """
        self._check_quantizer(quantizer)
        if quantizer is not None:
            quantizer.check_codes(data)
        prepared = self._prepare(data, streams=self.streams, quantizer=quantizer)
        rows = rows_of(prepared)
        if weights is not None and not self.supports_weights:
            raise UnsupportedError(
                f"{self.name} takes no weights (it does not declare supports_weights)"
            )
        checked = as_weights(weights, rows)
        k = getattr(self, "k", None)
        if self.fixed_k and isinstance(k, int) and k > rows:
            raise DataError(
                f"{self.name}: k = {k} clusters need at least {k} rows; got {rows}. "
                "Give more data or a smaller k"
            )
        self._fitted = False
        self._quantizer = quantizer
        self._dim = dim_of(prepared)
        self._kind = getattr(data, "kind", None)
        self._fit(prepared, checked)
        self._check_fit(rows)
        self._fitted = True
        return self

    def predict(self, data: Any) -> Any:
        """Return the label of each row, (n,) int32: an array, or a lazy (n, 1) Stream for a Stream.

        It depends on the row and the fitted state alone, not on what else is in the batch.

        Raises
        ------
        NotFittedError, ShapeError, DataError
        UnsupportedError
            This backend only labels the rows that it was fitted on.
        """
        self._need_fitted()
        if not self.supports_predict:
            raise UnsupportedError(f"{self.name} cannot label new rows; it only has `labels`")
        if self._quantizer is not None:
            self._quantizer.check_codes(data)
        if not isinstance(data, Stream):
            prepared = self._prepare(data, dim=self._dim, empty=True)
            return self._checked_labels(self._predict(prepared), len(prepared))
        stream = self._prepare(data, dim=self._dim, empty=True, streams=True)

        light = self._light()

        def one(chunk: Array) -> Array:
            return light._checked_labels(light._predict(chunk), len(chunk))[:, None]

        return stream.map(one, dim=1, dtype=np.int32, kind="labels")

    def _light(self) -> Self:
        """Return a copy that labels new rows, and has forgotten those that it was fitted on.

        So it travels to other machines without a number for each of these.
        """
        other = copy.copy(self)
        if isinstance(vars(self).get("labels"), np.ndarray):
            other.labels = np.zeros(0, np.int32)
        return other

    def _check_quantizer(self, quantizer: Quantizer | None) -> None:
        if self.consumes != "codes":
            if quantizer is not None:
                raise UnsupportedError(f"{self.name} clusters vectors and takes no quantizer")
            return
        if quantizer is None:
            raise UnsupportedError(
                f"{self.name} clusters codes; pass the quantizer that made them: "
                "fit(codes, quantizer=pq)"
            )
        quantizer._need_fitted()
        if quantizer.structure != "product":
            raise UnsupportedError(
                f"{self.name} needs the codes of a product quantizer; "
                f"{quantizer.name} has an {quantizer.structure} codebook"
            )

    def _check_fit(self, rows: int) -> None:
        labels = getattr(self, "labels", None)
        shape, dtype = getattr(labels, "shape", None), getattr(labels, "dtype", None)
        if shape != (rows,) or dtype != np.int32:
            raise BackendError(
                f"{self.name}._fit must set labels of shape ({rows},) and dtype int32; "
                f"got {shape} {dtype}"
            )
        if self.has_centers and getattr(self, "centers", None) is None:
            raise BackendError(f"{self.name}._fit must set centers")

    def _checked_labels(self, labels: Any, rows: int) -> NDArray[np.int32]:
        if getattr(labels, "shape", None) != (rows,):
            raise BackendError(
                f"{self.name}._predict must return labels of shape ({rows},); "
                f"got {getattr(labels, 'shape', None)}"
            )
        return np.asarray(labels, np.int32)

    def _prepare(
        self,
        data: Any,
        dim: int | None = None,
        empty: bool = False,
        streams: bool = False,
        quantizer: Quantizer | None = None,
    ) -> Any:
        codes = self.consumes == "codes"
        quantizer = quantizer or self._quantizer
        # Codes of another integer type become those of the quantizer that made them.
        wide = quantizer is not None and quantizer._code_limit() > 1 << 8
        code_dtypes = ("uint16", "uint8") if wide else ("uint8", "uint16")
        return prepare(
            data,
            dtypes=code_dtypes if codes else self.dtypes,
            streams=streams,
            dim=dim,
            empty=empty,
            what="codes" if codes else "data",
            who=self.name,
        )

    def _children(self) -> dict[str, Backend]:
        children = super()._children()
        if self._quantizer is not None:
            children["quantizer"] = self._quantizer
        return children

    def _state(self) -> dict[str, Array]:
        kept = self.__dict__.pop("_quantizer", None)
        try:
            return super()._state()
        finally:
            if kept is not None:
                self._quantizer = kept

    def _restore(self, state: dict[str, Array]) -> None:
        super()._restore(state)
        if "objective" in state:
            self.objective = [float(value) for value in state["objective"]]

    def _check_restored(self) -> None:
        held = vars(self)
        needed = ["centers"] if self.has_centers and self.supports_predict else []
        for name in [*needed, "labels", "objective"]:
            if name not in held and not isinstance(getattr(type(self), name, None), property):
                raise ArtifactError(f"it lost its {name}; damaged, make it again")
        if "labels" in held:
            check_array("labels", self.labels, (None,), "int32", low=-1)
        objective = held.get("objective", [])
        if not isinstance(objective, list):
            check_array("objective", objective, (None,), "fiu")
        quantizer = held.get("_quantizer")
        if quantizer is not None:
            try:
                self._check_quantizer(quantizer if isinstance(quantizer, Quantizer) else None)
            except VwkitError as error:
                raise ArtifactError(f"its quantizer does not fit: {error}") from None
        elif self.consumes == "codes" and self.supports_predict:
            raise ArtifactError("it lost its quantizer; damaged, make it again")
        centers = held.get("centers")
        if centers is None:
            return
        if self.consumes == "codes" and quantizer is not None:
            limit, wide = quantizer._code_limit() - 1, quantizer._code_columns()
            check_array("centers", centers, (None, wide), "iu", low=0, high=limit)
        else:
            check_array("centers", centers, (None, self._dim), "f", finite=True)
        k = getattr(self, "k", None)
        if len(centers) < 1 or (isinstance(k, int) and len(centers) != k):
            raise ArtifactError(f"it holds {len(centers)} centers for k = {k}; damaged")
        if "labels" in held and len(self.labels) and int(self.labels.max()) >= len(centers):
            raise ArtifactError(f"its labels go beyond its {len(centers)} centers; damaged")


def threads() -> int:
    """Return the current job's threads."""
    return job().threads
