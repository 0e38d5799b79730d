"""The suite of the quantizer role."""

from __future__ import annotations

import functools
import warnings
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from vwkit.errors import DataError, FewDistinctRows, ParameterError, ShapeError, VwkitError
from vwkit.quantizer import Quantizer, code_dtype
from vwkit.reference import lloyd
from vwkit.reference import pq as reference
from vwkit.reference.distances import distances
from vwkit.stream import Stream
from vwkit.testing.asking import Answer
from vwkit.testing.checks import examples, statistical
from vwkit.testing.comparing import all_finite, same_form, same_numbers
from vwkit.testing.data import Rows, ascending
from vwkit.testing.long_work import LongWork
from vwkit.testing.strategies import recipes
from vwkit.testing.vector_suite import takes_floats
from vwkit.types import Array

__all__ = ["QuantizerTests"]

_ALTERNATIVES = 64
# One more than a byte can number.
_WIDE = 257
# Codewords that the reference draws with care.
_CAREFUL = 64
# So much of a row's own distance may be lost to rounding: of float32, and of float64.
_NEAR, _EXACT = 1e-5, 1e-12


class QuantizerTests(LongWork, suite=True):
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

    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        __tracebackhide__ = True
        names = ("codebook", "codes", "vectors")
        for name, before, after in zip(names, first, second, strict=True):
            same_form(before, after, f"as {name} {why}")
            if exact or name != "codes":
                limit = 0.0 if exact else 1e-4 * max(1.0, float(np.abs(first[2]).max(initial=0)))
                same_numbers(before, after, limit, f"other {name} {why}")

    def _assert_same_rows(self, first: Answer, second: Answer, why: str) -> None:
        __tracebackhide__ = True
        nothing = np.empty(0, np.float32)
        self._assert_same((nothing, *first), (nothing, *second), False, why)

    def _verify(self, fitted: Any, data: Array) -> None:
        __tracebackhide__ = True
        codes = self._checked_codes(fitted, data)
        self._checked_vectors(fitted, codes)
        self._check_nearest(fitted, data[:20], codes[:20])

    def _limit(self, fitted: Any) -> int:
        """Return the number of codewords."""
        return int(np.asarray(fitted.codebook).shape[1])

    def _checked_codes(self, fitted: Any, rows: Array) -> Array:
        __tracebackhide__ = True
        codes: Array = fitted.encode(rows)
        book = np.asarray(fitted.codebook)
        assert book.ndim == 3, f"codebook is (m, ks, width); got shape {book.shape}"
        assert book.dtype == np.float32, f"codebook is float32; got {book.dtype}"
        all_finite(book, "codebook")
        assert fitted.m == len(book), f"m is {fitted.m}; the codebook has {len(book)} parts"
        same_form(np.empty((len(rows), len(book)), code_dtype(book.shape[1])), codes, "as codes")
        most = int(codes.max(initial=0))
        assert most < book.shape[1], f"code {most}; the codebook ends at {book.shape[1] - 1}"
        width = rows.shape[1] // len(book) if fitted.structure == "product" else rows.shape[1]
        assert book.shape[2] == width, f"codewords of {book.shape[2]} numbers, not {width}"
        return codes

    def _checked_vectors(self, fitted: Any, codes: Array) -> Array:
        __tracebackhide__ = True
        found: Array = fitted.decode(codes)
        book = np.asarray(fitted.codebook)
        wide = book.shape[2] * (len(book) if fitted.structure == "product" else 1)
        same_form(np.empty((len(codes), wide), np.float32), found, "as decoded vectors")
        all_finite(found, "decoded vectors")
        if getattr(fitted, "rotation", None) is None and len(codes):
            if fitted.structure == "product":
                wanted = reference.decode(codes, book)
            else:
                wanted = sum(book[j].astype(np.float64)[codes[:, j]] for j in range(len(book)))
            limit = 1e-5 * max(1.0, float(np.abs(wanted).max()))
            same_numbers(found, wanted, limit, "decode does not follow the codebook")
        return found

    def _check_nearest(self, fitted: Any, rows: Array, codes: Array, near: float = _NEAR) -> None:
        """Check that no other codeword of a slice would be nearer, where all are looked at."""
        __tracebackhide__ = True
        if self.code_agreement < 1:
            return  # a share of few rows says nothing; see test_codes_of_the_nearest_codewords
        share = self._nearest_share(fitted, rows, codes, near)
        assert share == 1, (
            f"only {share:.3f} of the codes are the nearest codeword's (an approximate lookup "
            "declares `code_agreement`)"
        )

    def _nearest_share(self, fitted: Any, rows: Array, codes: Array, near: float = _NEAR) -> float:
        """Return the share of the codes than which no other codeword of their slice is nearer."""
        if fitted.structure != "product" or len(rows) == 0:
            return 1.0
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
            right.append(own <= best + near * size)
        return float(np.mean(right))

    # Tests

    @examples(8, drawn=recipes(rows=(40, 60)), seed=st.integers(0, 2**16 - 1))
    def test_codes(self, drawn: Rows, seed: int) -> None:
        """Codes are of the right range, dtype and shape, and the nearest codewords'.

        If this fails, check the dtype (uint8 up to 256 codewords, uint16 up to 65,536), and that
        each slice of a vector is compared with its own codewords.
        """
        made = self._make()
        data = self._fitting(made, drawn.make())
        rows = self._fitting(made, self._numbers(seed, 10, data.shape[1]))[:10]
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
        return drawn if takes_floats(made) else np.clip(np.abs(np.floor(drawn)), 0, 255)

    @statistical
    def test_codes_of_the_nearest_codewords(self) -> None:
        """So many codes as declared are those of the nearest codewords.

        If this fails, check that the search among codewords looks at enough of them, or declare
        `code_agreement`.
        """
        fitted = self._ready()
        rows = self._rows(7, rows=200)
        share = self._nearest_share(fitted, rows, fitted.encode(rows))
        self._judge("codes of the nearest codeword", share, at_least=self.code_agreement)

    def test_wide_codes(self) -> None:
        """Where more than 256 codewords can be asked for, codes of two bytes are whole.

        If this fails, check the dtype of the codes: ``vwkit.quantizer.code_dtype(ks)``.
        """
        if not self._offers("ks") or self._make_or_none(ks=_WIDE) is None:
            pytest.skip("it takes no more than 256 codewords")
        rows = self._numbers(4, max(self.min_rows, 2 * _WIDE), self._dim())
        if not takes_floats(self._make()):
            rows = np.clip(np.abs(np.floor(rows)), 0, 255)
        try:
            fitted = self._make(ks=_WIDE).fit(rows)
        except (ParameterError, DataError) as error:
            pytest.skip(f"it takes no {_WIDE} codewords: {error}")
        codes = self._checked_codes(fitted, rows)
        self._checked_vectors(fitted, codes)
        self._check_nearest(fitted, rows, codes)

    def test_far_from_the_origin(self) -> None:
        """Rows far from 0 and near each other get their nearest codewords, where that is promised.

        It is by a quantizer of slices that looks at all codewords (`code_agreement` 1) and declares
        `deterministic`: its codes are those of float64 distances, for any chunk size.

        If this fails, check for ``x² - 2·x·c + c²`` in float32, which loses most digits here:
        subtract first, or look again at all codewords that are about as near.
        """
        made = self._make()
        promised = made.deterministic and self.code_agreement == 1 and takes_floats(made)
        if not promised or made.structure != "product":
            pytest.skip("it promises no exact codes of floating-point vectors")
        rows = self._far_away(6, self._count(), self._dim())
        fitted = made.fit(rows)
        codes = self._checked_codes(fitted, rows)
        turned = getattr(fitted, "rotation", None) is not None
        self._check_nearest(fitted, rows, codes, _NEAR if turned else _EXACT)

    @statistical
    def test_round_trip(self) -> None:
        """``encode(decode(codes))`` is ``codes`` again, but for equal codewords.

        If this fails, check that encode and decode use the same codebook, slices and rotation.
        """
        fitted = self._ready()
        rng = np.random.default_rng(self._seed(4))
        codes = rng.integers(0, self._limit(fitted), (40, fitted.m)).astype(
            code_dtype(self._limit(fitted))
        )
        if fitted.structure != "product":
            # Sums of codewords may have several codes: only what was encoded must stay as good.
            rows = self._rows(2, rows=40)
            codes = fitted.encode(rows)
            once = fitted.decode(codes)
            twice = fitted.decode(fitted.encode(once))
            error = float(((once - twice) ** 2).sum(axis=1).mean())
            limit = float(((rows - once) ** 2).sum(axis=1).mean()) + 1e-6
            said = " (the error of encoding the vectors themselves)"
            self._judge("error of encoding again", error, at_most=limit, said=said)
            return
        once = fitted.decode(codes)
        twice = fitted.decode(fitted.encode(once))
        limit = 1e-4 * max(1.0, float(np.abs(once).max()))
        same = (np.abs(once - twice) <= limit).all(axis=1)
        said = f": the codes {codes[~same][:1]} do not come back" if not same.all() else ""
        share = float(same.mean())
        self._judge("codes that come back", share, at_least=self.code_agreement, said=said)

    @statistical
    def test_distortion(self) -> None:
        """The mean squared error is within a factor of the reference's.

        The rows to learn from are sorted by their first number, so that the first ones say little
        of the last.

        If this fails, check the training: seeds, iterations, and that all rows are used; or declare
        `distortion_factor`.
        """
        made = self._make()
        rows = max(240, self._count())
        dim = self._dim(8)
        own = best = 0.0
        for turn in (0, 1):
            # Measured on rows that it was not fitted on, as it will be used.
            seed = self._seed(turn)
            fitted_on, others = _halves(seed, 2 * rows, dim, takes_floats(made))
            fitted = self._make(seed=turn + 2 * self.data_seed).fit(fitted_on)
            m, ks = np.asarray(fitted.codebook).shape[:2]
            error = others.astype(np.float64) - fitted.decode(fitted.encode(others))
            own += float((error**2).sum(axis=1).mean())
            best += _reference_distortion(seed, 2 * rows, dim, m, ks, takes_floats(made))
        factor = own / best if best > 1e-9 else 1 + own
        self._judge("distortion / the reference's", factor, at_most=self.distortion_factor)

    def test_encoding_does_not_depend_on_other_rows(self) -> None:
        """A row alone gets the code that it gets among others; a Stream is encoded lazily.

        If this fails, check for values that are taken over the batch.
        """
        fitted = self._ready()
        rows = self._rows(2, rows=23)
        every = fitted.decode(fitted.encode(rows))
        limit = 1e-4 * max(1.0, float(np.abs(every).max()))
        alone = np.concatenate([fitted.decode(fitted.encode(rows[i : i + 1])) for i in range(23)])
        same_numbers(every, alone, limit, "a row alone gets another code; decoded")
        passes = []

        def chunks() -> Any:
            passes.append(1)
            return iter([rows[:10], rows[10:20], rows[20:]])

        offsets = np.array([0, 5, 23])
        source = Stream(chunks, dim=rows.shape[1], dtype=rows.dtype, offsets=offsets)
        codes = fitted.encode(source)
        assert isinstance(codes, Stream), f"a Stream is needed; got {type(codes).__name__}"
        assert not passes, "the Stream was read before anybody asked for its codes"
        assert codes.dim == fitted.m, f"a Stream of {codes.dim} columns for m = {fitted.m}"
        wanted = code_dtype(self._limit(fitted))
        assert codes.dtype == wanted, f"a Stream of {codes.dtype}, not {wanted}"
        for found in (
            fitted.decode(np.concatenate(list(codes))),
            fitted.decode(codes).toarray(),
        ):
            same_numbers(every, found, limit, "other codes from a Stream; decoded")
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
        nothing, wide = fitted.decode(codes[:0]), fitted.decode(codes).shape[1]
        assert nothing.shape == (0, wide), f"no codes become {nothing.shape}, not {(0, wide)}"

    def test_dimensions_that_do_not_divide(self) -> None:
        """Where dimensions cannot be cut into m equal slices, none is lost: an error, or all are kept.

        If this fails, check ``dim % m`` in ``_fit``, and raise `ParameterError`.
        """
        step = self._step()
        if step == 1:
            pytest.skip("any number of dimensions is fine")
        kind = "normal" if takes_floats(self._make()) else "bytes"
        data = self._numbers(1, self._count(), 2 * step + 1, kind)
        try:
            fitted = self._make().fit(data)
        except VwkitError:
            return
        found = fitted.decode(fitted.encode(data)).shape
        assert found == data.shape, f"vectors of shape {data.shape} come back as {found}"

    def test_few_rows(self) -> None:
        """Too few rows, or too few distinct ones, give a clear error or a codebook that works.

        If this fails, check for empty clusters: NaN comes from their means.
        """
        kind = "normal" if takes_floats(self._make()) else "bytes"
        few = self._numbers(1, 3, self._dim(), kind)
        for data in (
            few[:1],
            np.repeat(few, self._count(), axis=0),
            np.repeat(few[:1], self._count(), axis=0),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FewDistinctRows)
                try:
                    fitted = self._make().fit(data)
                except VwkitError as error:
                    if len(data) == 1:
                        continue
                    raise AssertionError(f"equal rows are no reason to fail: {error}") from error
            codes = self._checked_codes(fitted, data)
            found = self._checked_vectors(fitted, codes)
            if fitted.structure == "product" and self._limit(fitted) >= 3:
                # Equal steps between the smallest and the largest number are the least there is.
                steps = float(np.ptp(data, axis=0).max()) / (self._limit(fitted) - 1)
                limit = 1e-3 * max(1.0, float(np.abs(data).max())) + steps
                off = float(np.abs(found - data).max())
                assert off <= limit, f"of three distinct rows, one is off by {off:.4g}"

    def test_deterministic_encoding(self) -> None:
        """Encoding the same rows twice gives the same codes.

        If this fails, check for a lookup that draws random numbers.
        """
        fitted = self._ready()
        rows = self._rows(2, rows=30)
        first, second = fitted.encode(rows), fitted.encode(rows.copy())
        same_numbers(first, second, 0.0, "other codes the second time")


@functools.lru_cache(16)
def _halves(seed: int, rows: int, dim: int, floats: bool) -> tuple[Array, Array]:
    """Return correlated rows: half of them, in order, to learn from; the others to measure on."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(0, 1, (rows, dim)) @ rng.normal(0, 1, (dim, dim))
    found: Array
    if floats:
        found = mixed.astype(np.float32)
    else:
        found = np.clip(mixed * 20 + 128, 0, 255).astype(np.uint8)
    return ascending(found[::2]), np.ascontiguousarray(found[1::2])


@functools.lru_cache(64)
def _reference_distortion(seed: int, rows: int, dim: int, m: int, ks: int, floats: bool) -> float:
    fitted_on, others = _halves(seed, rows, dim, floats)
    if dim % m:  # an additive quantizer may have more codes than slices would divide
        m = 1
    if ks <= _CAREFUL:
        return reference.distortion(others, reference.train(fitted_on, m, ks, seed, 10))
    # Drawing many codewords by k-means++ takes seconds, and random rows are about as good a start.
    drawn = np.random.default_rng(seed).permutation(len(fitted_on))[:ks]
    pieces = np.split(np.asarray(fitted_on, np.float64), m, axis=1)
    book = [lloyd.lloyd(piece, piece[drawn], 10)[0] for piece in pieces]
    return reference.distortion(others, np.stack(book))
