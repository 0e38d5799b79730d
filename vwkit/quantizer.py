"""The quantizer role: vectors → codes → vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Backend
from vwkit.codes import Codes, arrays_identity, kind_of, made_by
from vwkit.data import as_data, dim_of, prepare
from vwkit.errors import ArtifactError, BackendError, DataError, ParameterError, ShapeError
from vwkit.jobs import job
from vwkit.kernels import nearest_rows
from vwkit.restoring import about, check_array
from vwkit.stream import Stream, row_spans
from vwkit.types import Array

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Quantizer", "check_slices", "code_dtype"]

_ROWS_OF_A_THREAD = 2048  # that a thread encodes at a time


def code_dtype(ks: int) -> np.dtype[Any]:
    """Return the smallest dtype for codes 0…ks − 1: uint8, uint16 or uint32."""
    return np.dtype(np.uint8 if ks <= 1 << 8 else np.uint16 if ks <= 1 << 16 else np.uint32)


def check_slices(who: str, m: int, dim: int) -> None:
    """Check that m slices of equal width make up the dimensions.

    Raises
    ------
    ParameterError
        Which names every m that does.
    """
    if dim % m:
        allowed = ", ".join(str(n) for n in range(1, dim + 1) if dim % n == 0)
        raise ParameterError(
            f"{who}.m: {m} does not divide the {dim} dimensions of the data; allowed: {allowed}"
        )


class Quantizer(Backend):
    """Turns vectors into short codes and back.

    An author writes `_fit`, which sets `codebook`: (m, ks, d/m) float32 where `structure` is
    ``product``, (m, ks, d) where it is ``additive``. `_encode` and `_decode` have defaults.
    """

    role: ClassVar[str] = "quantizer"
    #: ``product``: each code stands for a slice of the vector; ``additive``: codes sum up.
    structure: ClassVar[str] = "product"

    seed: int = 0

    codebook: NDArray[np.float32]

    #: Of what was fitted last, once it was asked for.
    _identity: str | None = None

    @classmethod
    def _adapt_fields(cls, annotations: dict[str, Any], defaults: dict[str, Any]) -> None:
        annotations.pop("codebook", None)

    def _fit(self, vectors: Any) -> None:
        """Learn `codebook` from (n, d) vectors."""
        raise NotImplementedError(f"{type(self).__name__} must define _fit")

    def _encode(self, vectors: Any) -> Array:
        """Return (n, m) codes: in each slice the nearest codeword, the lowest code on ties."""
        if self.structure != "product":
            raise BackendError(f"{self.name} has an additive codebook and must define _encode")
        m, ks, width = self.codebook.shape
        codes = np.empty((len(vectors), m), code_dtype(ks))

        def encode(first: int, last: int) -> None:
            for j in range(m):
                part = np.ascontiguousarray(vectors[first:last, j * width : (j + 1) * width])
                codes[first:last, j] = nearest_rows(part, self.codebook[j])

        if len(vectors) < 2 * _ROWS_OF_A_THREAD:
            encode(0, len(vectors))
        else:
            for _ in job().here().each(encode, row_spans(len(vectors), _ROWS_OF_A_THREAD)):
                pass
        return codes

    def _decode(self, codes: Array) -> Array:
        """Return the (n, d) float32 vectors that the codes stand for."""
        m = self.codebook.shape[0]
        parts = [self.codebook[j][codes[:, j]] for j in range(m)]
        if self.structure == "product":
            return np.concatenate(parts, axis=1)
        total: Array = np.zeros_like(parts[0])
        for part in parts:
            total += part
        return total

    @property
    def m(self) -> int:
        """Codes per vector."""
        self._need_fitted()
        return int(self.codebook.shape[0])

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that name what was fitted: equal ones decode alike.

        It is the same after saving and loading. Codes carry it, see `vwkit.codes`.

        Raises
        ------
        NotFittedError
        """
        self._need_fitted()
        if self._identity is None:
            self._identity = arrays_identity(self._decoding())
        return self._identity

    def _decoding(self) -> dict[str, Array]:
        """Return the arrays that say what codes mean; they make the `identity`."""
        return {"codebook": self.codebook, **self._state()}

    def check_codes(self, codes: Any) -> None:
        """Refuse codes that carry the identity of another quantizer.

        Raises
        ------
        DataError
        """
        maker = made_by(codes)
        if maker is not None and maker != self.identity:
            raise DataError(
                f"codes: made by the quantizer {maker}, and this {self.name} is {self.identity}: "
                "other centers, other meaning. Load the artifact of the one that made them, or "
                "encode again (np.asarray(codes) drops the mark)"
            )

    def fit(self, vectors: Any) -> Self:
        """Learn a codebook from (n, d) vectors; a second call replaces the first.

        Raises
        ------
        ShapeError, DataError, ParameterError
        """
        prepared = self._prepare(vectors, streams=self.streams)
        self._fitted = False
        self._identity = None
        self._dim = dim_of(prepared)
        self._kind = getattr(vectors, "kind", None)
        self._fit(prepared)
        self._fitted = True
        return self

    def encode(self, vectors: Any) -> Any:
        """Return codes (n, m), uint8 or wider: an array, or a lazy Stream for a Stream.

        They carry this quantizer's `identity`, so that another one refuses to decode them.

        Raises
        ------
        NotFittedError, ShapeError, DataError
        """
        self._need_fitted()
        self._check_kind(vectors)
        if not isinstance(vectors, Stream):
            prepared = self._prepare(vectors, dim=self._dim, empty=True)
            codes = self._checked_codes(self._encode(prepared), len(prepared))
            return Codes.of(codes, self.identity)
        stream = self._prepare(vectors, dim=self._dim, empty=True, streams=True)

        light = self._light()

        def one(chunk: Array) -> Array:
            return light._checked_codes(light._encode(chunk), len(chunk))

        return stream.map(
            one, dim=self._code_columns(), dtype=self._code_dtype(), kind=self.codes_kind
        )

    def _light(self) -> Self:
        """Return what encodes as this does, and travels without what that does not need."""
        return self

    def decode(self, codes: Any) -> Any:
        """Return the (n, d) float32 vectors that codes (n, m) stand for.

        Raises
        ------
        NotFittedError
        ShapeError
            Not m columns.
        DataError
            A code is not in the codebook, or the codes are of another quantizer.
        """
        self._need_fitted()
        self.check_codes(codes)
        if isinstance(codes, Stream):
            return codes.map(self.decode, dim=self._dim or 0, dtype=np.float32)
        array: Any = as_data(codes, "codes")
        columns = self._code_columns()
        if array.shape[1] != columns:
            raise ShapeError(f"codes: {self.name} has {columns} per vector; got {array.shape}")
        if array.dtype.kind not in "iu":
            raise DataError(f"codes: whole numbers are needed; got dtype {array.dtype}")
        limit = self._code_limit()
        if array.size and (int(array.max()) >= limit or int(array.min()) < 0):
            row = int(np.argwhere((array >= limit) | (array < 0))[0][0])
            raise DataError(f"codes: row {row} holds a code outside 0…{limit - 1}")
        return np.ascontiguousarray(self._decode(array), np.float32)

    @property
    def codes_kind(self) -> str:
        """What a Stream of its codes has as `kind`."""
        return kind_of(self.identity)

    def _check_restored(self) -> None:
        if isinstance(getattr(type(self), "codebook", None), property):
            return  # made of something else
        if "codebook" not in vars(self):
            raise ArtifactError("it lost its codebook; damaged, make it again")
        book, dim = self.codebook, self._dim
        product = self.structure == "product"
        m, ks = (one if isinstance(one := vars(self).get(n), int) else None for n in ("m", "ks"))
        parts = m if product else 1
        width = dim // parts if dim is not None and parts and not dim % parts else None
        extents = "(m, ks, d/m)" if product else "(m, ks, d)"
        check_array("codebook", book, (m, ks, width), "float32", finite=True, extents=extents)
        m, ks, width = book.shape
        if not (m and 0 < ks <= 1 << 16) or dim != (m * width if product else width):
            raise about(
                "codebook",
                f"its codebook of shape {book.shape}, {extents}, does not fit {dim} dimensions; "
                "damaged, make it again",
            )

    def _code_columns(self) -> int:
        return int(self.codebook.shape[0])

    def _code_limit(self) -> int:
        return int(self.codebook.shape[1])

    def _code_dtype(self) -> np.dtype[Any]:
        return code_dtype(self._code_limit())

    def _checked_codes(self, codes: Any, rows: int) -> Array:
        wanted = (rows, self._code_columns()), self._code_dtype()
        if getattr(codes, "shape", None) != wanted[0] or codes.dtype != wanted[1]:
            raise BackendError(
                f"{self.name}._encode must return codes of shape {wanted[0]} and dtype "
                f"{wanted[1]}; got {getattr(codes, 'shape', None)} and "
                f"{getattr(codes, 'dtype', None)}"
            )
        array: Array = codes
        return array

    def _check_kind(self, vectors: Any) -> None:
        kind = getattr(vectors, "kind", None)
        if kind is not None and self._kind is not None and kind != self._kind:
            raise DataError(
                f"{self.name} was fitted on {self._kind} descriptors and refuses {kind} ones; "
                "use the same featurizer and transforms, or fit again"
            )

    def _prepare(
        self, vectors: Any, dim: int | None = None, empty: bool = False, streams: bool = False
    ) -> Any:
        return prepare(
            vectors, dtypes=self.dtypes, streams=streams, dim=dim, empty=empty, who=self.name
        )
