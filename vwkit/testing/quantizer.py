"""The suite of the quantizer role."""

from __future__ import annotations

import functools
import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from vwkit.errors import DataError, FewDistinctRows, ShapeError, VwkitError
from vwkit.quantizer import Quantizer, code_dtype
from vwkit.reference import pq as reference
from vwkit.reference.distances import distances
from vwkit.stream import Stream
from vwkit.testing.data import numbers
from vwkit.testing.strategies import vectors
from vwkit.testing.suite import Answer, VectorSuite, _takes_floats, examples
from vwkit.types import Array

__all__ = ["QuantizerTests"]

_ALTERNATIVES = 64


class QuantizerTests(VectorSuite, suite=True):
    """The conformance suite of a quantizer; see `vwkit.testing`.

    Attributes
    ----------
    distortion_factor : float
        The mean squared error may be this many times that of the reference product quantizer of
        equally many codes (1.2).
    code_agreement : float
        Share of the codes that must be the nearest codeword's: 1, less where the lookup is
        approximate.
    dim_step, min_rows : int
        As for `vwkit.testing.IndexTests`; a parameter ``m`` sets `dim_step` by itself.

    Examples
    --------
    >>> from vwkit.builtin.pq import PQ
    >>> from vwkit.testing import QuantizerTests
    >>> class TestPQ(QuantizerTests):
    ...     backend = PQ
    ...     params = {"m": 2, "ks": 16}
    """

    role = Quantizer

    distortion_factor: ClassVar[float] = 1.2
    code_agreement: ClassVar[float] = 1.0

    # What the tests are made of

    def _step(self) -> int:
        m = {**self._defaults(), **self.params}.get("m", 1)
        return int(np.lcm(self.dim_step, m if isinstance(m, int) else 1))

    def _dim(self, about: int = 6) -> int:
        return max(1, round(about / self._step())) * self._step()

    def _count(self, about: int = 60) -> int:
        ks = getattr(self._make(), "ks", 1)
        return max(about, self.min_rows, 2 * ks if isinstance(ks, int) else 1)

    def _fit(self, backend: Any, data: Any) -> Any:
        return backend.fit(data)

    def _use(self, fitted: Any, data: Any) -> Answer:
        codes = fitted.encode(data)
        codes = codes.toarray() if isinstance(codes, Stream) else codes
        return codes, fitted.decode(codes), np.asarray(fitted.codebook)

    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        for before, after in zip(first, second, strict=True):
            assert before.dtype == after.dtype
            assert before.shape == after.shape
        if exact:
            for name, before, after in zip(
                ("codes", "vectors", "codebook"), first, second, strict=True
            ):
                assert np.array_equal(before, after), f"other {name} {why}"
            return
        limit = 1e-4 * max(1.0, float(np.abs(first[1]).max(initial=0)))
        for name, before, after in zip(("vectors", "codebook"), first[1:], second[1:], strict=True):
            off = np.abs(before.astype(np.float64) - after).max(initial=0)
            assert off <= limit, f"other {name} {why}, by up to {off}"

    def _verify(self, fitted: Any, data: Array) -> None:
        codes = self._checked_codes(fitted, data)
        self._checked_vectors(fitted, codes)
        self._check_nearest(fitted, data[:20], codes[:20])

    def _limit(self, fitted: Any) -> int:
        """Return the number of codewords."""
        return int(np.asarray(fitted.codebook).shape[1])

    def _checked_codes(self, fitted: Any, rows: Array) -> Array:
        codes: Array = fitted.encode(rows)
        book = np.asarray(fitted.codebook)
        assert book.ndim == 3, f"codebook is (m, ks, width); got {book.shape}"
        assert book.dtype == np.float32
        assert np.isfinite(book).all(), "NaN or infinity in the codebook"
        assert codes.shape == (len(rows), len(book))
        assert fitted.m == len(book)
        assert codes.dtype == code_dtype(book.shape[1]), f"codes of {codes.dtype}"
        assert codes.size == 0 or int(codes.max()) < book.shape[1], "a code is not in the codebook"
        width = rows.shape[1] // len(book) if fitted.structure == "product" else rows.shape[1]
        assert book.shape[2] == width, f"codewords of {book.shape[2]} numbers, not {width}"
        return codes

    def _checked_vectors(self, fitted: Any, codes: Array) -> Array:
        found: Array = fitted.decode(codes)
        book = np.asarray(fitted.codebook)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        wide = book.shape[2] * (len(book) if fitted.structure == "product" else 1)
        assert found.shape == (len(codes), wide)
        if getattr(fitted, "rotation", None) is None and len(codes):
            if fitted.structure == "product":
                wanted = reference.decode(codes, book)
            else:
                wanted = sum(book[j].astype(np.float64)[codes[:, j]] for j in range(len(book)))
            slack = 1e-5 * max(1.0, float(np.abs(wanted).max()))
            assert np.abs(found - wanted).max() <= slack, "decode does not follow the codebook"
        return found

    def _check_nearest(self, fitted: Any, rows: Array, codes: Array) -> None:
        """Check that no other codeword of a slice would be nearer."""
        if fitted.structure != "product" or len(rows) == 0:
            return
        book = np.asarray(fitted.codebook)
        right = []
        x = rows.astype(np.float64)
        size = (x * x).sum(axis=1) + float((book.astype(np.float64) ** 2).sum(axis=2).max())
        for j in range(len(book)):
            if getattr(fitted, "rotation", None) is None:
                width = book.shape[2]
                table = distances(x[:, j * width : (j + 1) * width], book[j], "l2")
                own, best = table[np.arange(len(x)), codes[:, j]], table.min(axis=1)
            else:
                own = ((x - fitted.decode(codes)) ** 2).sum(axis=1)
                best = own.copy()
                for other in range(min(book.shape[1], _ALTERNATIVES)):
                    changed = codes.copy()
                    changed[:, j] = other
                    best = np.minimum(best, ((x - fitted.decode(changed)) ** 2).sum(axis=1))
            right.append(own <= best + 1e-5 * size)
        share = float(np.mean(right))
        assert share >= self.code_agreement, (
            f"only {share:.3f} of the codes are the nearest codeword's; {self.code_agreement} was declared"
        )

    # Tests

    @examples(8, drawn=vectors(rows=(40, 60)), seed=st.integers(0, 2**16 - 1))
    def test_codes(self, drawn: NDArray[np.float32], seed: int) -> None:
        """Codes are of the right range, dtype and shape, and the nearest codewords'.

        If this fails, check the dtype (uint8 up to 256 codewords, uint16 up to 65,536), and that
        each slice of a vector is compared with its own codewords.
        """
        made = self._make()
        data = self._fitting(made, drawn)
        rows = self._fitting(made, numbers(seed, 10, data.shape[1]))[:10]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewDistinctRows)
            fitted = made.fit(data)
        for asked in (data, rows, rows[:1], rows[:0]):
            codes = self._checked_codes(fitted, asked)
            self._checked_vectors(fitted, codes)
            self._check_nearest(fitted, asked, codes)

    def _fitting(self, made: Any, drawn: NDArray[np.float32]) -> Array:
        step, rows = self._step(), self._count(len(drawn))
        columns = -(-drawn.shape[1] // step) * step
        times = -(-rows // len(drawn)), -(-columns // drawn.shape[1])
        drawn = np.ascontiguousarray(np.tile(drawn, times)[:, :columns])
        return drawn if _takes_floats(made) else np.clip(np.abs(np.floor(drawn)), 0, 255)

    def test_round_trip(self) -> None:
        """``encode(decode(codes))`` is ``codes`` again, but for equal codewords.

        If this fails, check that encode and decode use the same codebook, slices and rotation.
        """
        fitted = self._ready()
        rng = np.random.default_rng(4)
        codes = rng.integers(0, self._limit(fitted), (40, fitted.m)).astype(
            code_dtype(self._limit(fitted))
        )
        if fitted.structure != "product":
            # Sums of codewords may have several codes: only what was encoded must stay as good.
            rows = self._rows(2, rows=40)
            codes = fitted.encode(rows)
            once = fitted.decode(codes)
            twice = fitted.decode(fitted.encode(once))
            error = ((once - twice) ** 2).sum(axis=1).mean()
            assert error <= ((rows - once) ** 2).sum(axis=1).mean() + 1e-6
            return
        once = fitted.decode(codes)
        twice = fitted.decode(fitted.encode(once))
        limit = 1e-4 * max(1.0, float(np.abs(once).max()))
        same = (np.abs(once - twice) <= limit).all(axis=1)
        assert same.mean() >= self.code_agreement, f"codes {codes[~same][:1]} do not come back"

    def test_distortion(self) -> None:
        """The mean squared error is within a factor of the reference's.

        If this fails, check the training: seeds, iterations, and that all rows are used.
        """
        made = self._make()
        rows = max(240, self._count())
        dim = self._dim(8)
        own = best = 0.0
        for seed in (0, 1):
            # Measured on rows that it was not fitted on, as it will be used.
            data = _correlated(seed, 2 * rows, dim, _takes_floats(made))
            fitted = self._make(seed=seed).fit(np.ascontiguousarray(data[::2]))
            m, ks = np.asarray(fitted.codebook).shape[:2]
            error = data[1::2].astype(np.float64) - fitted.decode(fitted.encode(data[1::2]))
            own += float((error**2).sum(axis=1).mean())
            best += _reference_distortion(seed, 2 * rows, dim, m, ks, _takes_floats(made))
        limit = self.distortion_factor * best + 1e-9
        assert own <= limit, f"distortion {own / 2:.4f}; the reference's is {best / 2:.4f}"

    def test_encoding_does_not_depend_on_other_rows(self) -> None:
        """A row alone gets the code that it gets among others; a Stream is encoded lazily.

        If this fails, check for values that are taken over the batch.
        """
        fitted = self._ready()
        rows = self._rows(2, rows=23)
        every = fitted.decode(fitted.encode(rows))
        limit = 1e-4 * max(1.0, float(np.abs(every).max()))
        alone = np.concatenate([fitted.decode(fitted.encode(rows[i : i + 1])) for i in range(23)])
        assert np.abs(every - alone).max() <= limit, "a row alone gets another code"
        passes = []

        def chunks() -> Any:
            passes.append(1)
            return iter([rows[:10], rows[10:20], rows[20:]])

        offsets = np.array([0, 5, 23])
        source = Stream(chunks, dim=rows.shape[1], dtype=rows.dtype, offsets=offsets)
        codes = fitted.encode(source)
        assert isinstance(codes, Stream)
        assert not passes, "the Stream was read before anybody asked for its codes"
        assert codes.dim == fitted.m
        assert codes.dtype == code_dtype(self._limit(fitted))
        whole = np.concatenate(list(codes))
        assert np.abs(every - fitted.decode(whole)).max() <= limit, "other codes from a Stream"
        assert np.abs(every - fitted.decode(codes).toarray()).max() <= limit
        assert codes.offsets is not None, "the items' offsets were lost"
        assert np.array_equal(codes.offsets, offsets), "the items' offsets were changed"

    def test_bad_codes_are_refused(self) -> None:
        """Codes out of range, of another width or with fractions are refused.

        If this fails, check that ``decode`` is the inherited one.
        """
        fitted = self._ready()
        codes = fitted.encode(self._rows(2, rows=5)).astype(np.int64)
        beyond, negative = codes.copy(), codes.copy()
        beyond[3, 0], negative[3, 0] = self._limit(fitted), -1
        for bad in (beyond, negative):
            with pytest.raises(DataError, match="row 3"):
                fitted.decode(bad)
        with pytest.raises(DataError):
            fitted.decode(codes + 0.5)
        with pytest.raises(ShapeError):
            fitted.decode(np.hstack([codes, codes]))
        assert fitted.decode(codes[:0]).shape == (0, fitted.decode(codes).shape[1])

    def test_few_rows(self) -> None:
        """Too few rows, or too few distinct ones, give a clear error or a codebook that works.

        If this fails, check for empty clusters: NaN comes from their means.
        """
        kind = "normal" if _takes_floats(self._make()) else "bytes"
        few = numbers(1, 3, self._dim(), kind)
        for data in (
            few[:1],
            np.repeat(few, self._count(), axis=0),
            np.repeat(few[:1], self._count(), axis=0),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FewDistinctRows)
                try:
                    fitted = self._make().fit(data)
                except VwkitError:
                    assert len(data) == 1, "equal rows are no reason to fail"
                    continue
            codes = self._checked_codes(fitted, data)
            found = self._checked_vectors(fitted, codes)
            if fitted.structure == "product" and self._limit(fitted) >= 3:
                limit = 1e-3 * max(1.0, float(np.abs(data).max()))
                assert np.abs(found - data).max() <= limit, "three distinct rows are not kept"

    def test_deterministic_encoding(self) -> None:
        """Encoding the same rows twice gives the same codes.

        If this fails, check for a lookup that draws random numbers.
        """
        fitted = self._ready()
        rows = self._rows(2, rows=30)
        assert np.array_equal(fitted.encode(rows), fitted.encode(rows.copy()))


@functools.cache
def _correlated(seed: int, rows: int, dim: int, floats: bool) -> Array:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(0, 1, (rows, dim)) @ rng.normal(0, 1, (dim, dim))
    if floats:
        return mixed.astype(np.float32)
    return np.clip(mixed * 20 + 128, 0, 255).astype(np.uint8)


@functools.cache
def _reference_distortion(seed: int, rows: int, dim: int, m: int, ks: int, floats: bool) -> float:
    data = _correlated(seed, rows, dim, floats)
    if dim % m:  # an additive quantizer may have more codes than slices would divide
        m = 1
    return reference.distortion(data[1::2], reference.train(data[::2], m, ks, seed, 10))
