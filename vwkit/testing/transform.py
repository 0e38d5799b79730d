"""The suite of the transform role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from vwkit.errors import VwkitError
from vwkit.stream import Stream
from vwkit.testing.asking import Answer
from vwkit.testing.checks import examples
from vwkit.testing.comparing import same_form, same_numbers
from vwkit.testing.data import Rows, cut
from vwkit.testing.long_work import LongWork
from vwkit.testing.strategies import recipes
from vwkit.testing.vector_suite import takes_floats
from vwkit.transform import Transform
from vwkit.types import Array

__all__ = ["TransformTests"]


class TransformTests(LongWork, suite=True):
    """The conformance suite of a transform; see `vwkit.testing`.

    Attributes
    ----------
    reference : callable, optional
        ``reference(fitted_on, rows)``: the same result in slow, obvious NumPy, (n, d') float64. Give
        it as a ``staticmethod``.
    reference_error : float
        How far a result may be off, as a share of the largest one (1e-5).
    dim_step, min_rows : int
        As for `vwkit.testing.IndexTests`.

    Examples
    --------
    >>> from vwkit.builtin.transforms import L2Norm
    >>> from vwkit.reference.transforms import l2_norm
    >>> from vwkit.testing import TransformTests
    >>> class TestL2Norm(TransformTests):
    ...     backend = L2Norm
    ...     reference = staticmethod(lambda fitted_on, rows: l2_norm(rows))
    """

    role = Transform

    reference: ClassVar[Callable[[Array, Array], Any] | None] = None
    reference_error: ClassVar[float] = 1e-5

    # What the tests are made of

    def _fit(self, backend: Any, data: Any) -> Any:
        return backend.fit(data)

    def _verify(self, fitted: Any, data: Array) -> None:
        __tracebackhide__ = True
        rows = data[:20]
        found = self._transformed(fitted, rows)
        if type(self).reference is not None:
            self._compare_reference(found, data, rows)

    def _transformed(self, fitted: Any, rows: Array) -> Array:
        __tracebackhide__ = True
        found: Array = fitted.transform(rows)
        assert isinstance(found, np.ndarray), f"an array is needed; got {type(found).__name__}"
        assert found.ndim == 2, f"{rows.shape} became {found.shape}, which is not (n, d')"
        assert len(found) == len(rows), f"{len(rows)} rows became {len(found)}"
        assert found.dtype.kind in "fui", f"numbers are needed; got {found.dtype}"
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        assert not len(bad), (
            f"row {bad[0]}, which is {rows[bad[0]]}, became {found[bad[0]]}: NaN or infinity"
        )
        return found

    def _compare_reference(self, found: Array, fitted_on: Array, rows: Array) -> None:
        __tracebackhide__ = True
        make = type(self).reference
        if make is None:
            return
        wanted = np.asarray(make(fitted_on, rows), np.float64)
        assert found.shape == wanted.shape, f"shape {found.shape}; the reference's {wanted.shape}"
        limit = self.reference_error * max(1.0, float(np.abs(wanted).max(initial=0)))
        same_numbers(found, wanted, limit, "not what `reference` gives")

    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        __tracebackhide__ = True
        one, other = first[0], second[0]
        same_form(one, other, why)
        limit = 0.0 if exact else 1e-5 * max(1.0, float(np.abs(one).max(initial=0)))
        same_numbers(one, other, limit, f"another result {why}")

    def _in_dtypes_of(self, expected: Answer, found: Answer) -> Answer:
        # What is given as bytes may stay bytes.
        return tuple(
            after.astype(before.dtype) for before, after in zip(expected, found, strict=True)
        )

    # Tests

    @examples(12, drawn=recipes(rows=(21, 60)), seed=st.integers(0, 2**16 - 1))
    def test_values(self, drawn: Rows, seed: int) -> None:
        """Results are finite, one row for each row, and equal to `reference` where that is given.

        If this fails, check divisions by the length or the spread of zero or equal rows.
        """
        made = self._make()
        data = self._fitting(made, drawn.make())
        rows = self._fitting(made, self._numbers(seed, 12, drawn.dim, "zeros"))
        fitted = made.fit(data)
        self._transformed(fitted, data)
        found = self._transformed(fitted, rows)
        self._compare_reference(found, data, rows)

    def test_far_from_the_origin(self) -> None:
        """Rows far from 0 and near each other become what `reference` makes of them.

        If this fails, check for a variance that is made as the difference of two large sums:
        subtract the mean first, and sum in float64.
        """
        made = self._make()
        if not takes_floats(made):
            pytest.skip("it takes no floating-point vectors")
        rows = self._far_away(6, self._count(), self._dim())
        fitted = made.fit(rows)
        self._compare_reference(self._transformed(fitted, rows), rows, rows)

    def _fitting(self, made: Any, drawn: NDArray[np.float32]) -> Array:
        step = self._step()
        columns = -(-drawn.shape[1] // step) * step
        times = -(-max(self.min_rows, len(drawn)) // len(drawn)), -(-columns // drawn.shape[1])
        drawn = np.ascontiguousarray(np.tile(drawn, times)[:, :columns])
        return drawn if takes_floats(made) else np.clip(np.abs(np.floor(drawn)), 0, 255)

    def test_rows_do_not_depend_on_each_other(self) -> None:
        """A row alone becomes what it becomes among others.

        If this fails, check for means, maxima or lengths that are taken over the batch.
        """
        fitted = self._ready()
        rows = self._rows(2, rows=9)
        every = self._use(fitted, rows)[0]
        for i in range(len(rows)):
            alone = self._use(fitted, rows[i : i + 1])
            self._assert_same(
                (every[i : i + 1],), alone, fitted.deterministic, f"for row {i} alone"
            )
        equal = self._use(fitted, np.ascontiguousarray(np.repeat(rows[:1], 4, axis=0)))[0]
        among = np.repeat(every[:1], 4, axis=0)
        self._assert_same((among,), (equal,), fitted.deterministic, "for row 0 four times")
        backwards = self._use(fitted, np.ascontiguousarray(rows[::-1]))[0]
        self._assert_same((every[::-1],), (backwards,), fitted.deterministic, "in another order")

    def test_streams_are_lazy(self) -> None:
        """A Stream becomes a Stream that reads nothing before it is read, and can be read again.

        If this fails, check that ``transform`` is the inherited one, and ``_out_dim``.
        """
        fitted = self._ready()
        rows = self._rows(2, rows=23)
        expected = self._use(fitted, rows)
        passes = []

        def chunks() -> Any:
            passes.append(1)
            return iter([rows[:10], rows[10:20], rows[20:]])

        offsets = np.array([0, 5, 23])
        source = Stream(chunks, dim=rows.shape[1], dtype=rows.dtype, offsets=offsets, kind="thing")
        found = fitted.transform(source)
        assert isinstance(found, Stream), f"a Stream is needed; got {type(found).__name__}"
        assert not passes, "the Stream was read before anybody asked for its rows"
        wide = expected[0].shape[1]
        assert found.dim == wide, f"a Stream of {found.dim} columns; its rows have {wide}"
        dtype = expected[0].dtype
        assert found.dtype == dtype, f"a Stream of {found.dtype}; its rows are {dtype}"
        for _ in range(2):
            whole = np.concatenate(list(found))
            self._assert_same(expected, (whole,), fitted.deterministic, "from a Stream")
        assert found.offsets is not None, "the items' offsets were lost"
        assert np.array_equal(found.offsets, offsets), "the items' offsets were changed"

    def test_no_rows(self) -> None:
        """No rows become no rows of the right width.

        If this fails, check for a maximum or mean over rows.
        """
        fitted = self._ready()
        rows = self._rows(2, rows=9)
        width = fitted.transform(rows).shape[1]
        found = fitted.transform(rows[:0]).shape
        assert found == (0, width), f"no rows became {found}, not {(0, width)}"

    def test_odd_data(self) -> None:
        """Equal rows, a single row and a single dimension give finite results or a clear error.

        If this fails, check for divisions by a spread of zero.
        """
        made = self._make()
        kind = "normal" if takes_floats(made) else "bytes"
        step = self._step()
        tables = (
            np.repeat(self._numbers(1, 1, self._dim(4), kind), self._count(30), axis=0),
            np.zeros((self._count(30), self._dim(4)), np.float32),
            self._numbers(1, 1, self._dim(4), kind),
            self._numbers(1, self._count(30), step, kind),
        )
        for data in tables:
            try:
                fitted = self._make().fit(data)
            except VwkitError:
                continue
            self._transformed(fitted, data)
            self._transformed(fitted, self._fitting(made, self._numbers(3, 5, data.shape[1], kind)))

    def test_without_a_fit(self) -> None:
        """What learns nothing works at once and is the same after `fit`.

        If this fails, check that ``_fit`` is only written where there is something to learn.
        """
        made = self._make()
        if made._needs_fit():
            pytest.skip("it learns from data")
        rows = self._rows(2, rows=9)
        before = self._use(made, rows)
        self._assert_same(before, self._use(self._ready(), rows), made.deterministic, "after fit")
        with self._saved(self._make()) as loaded:
            self._assert_same(before, self._use(loaded, rows), made.deterministic, "after loading")

    def test_kind_of_the_rows(self) -> None:
        """Transformed descriptors say that they were transformed.

        If this fails, check that ``transform`` is the inherited one.
        """
        rows = self._rows(2, rows=9)
        source = cut(rows, [5])
        source.kind = "thing"
        found = self._ready().transform(source)
        wanted = f"thing+{self.backend.name}"
        assert found.kind == wanted, f"kind is {found.kind!r}; {wanted!r} is needed"
