"""The tests of the roles that take rows of numbers."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import vwkit
from vwkit.errors import DataError, ShapeError, UnsupportedError
from vwkit.jobs import Job, use_job
from vwkit.testing.asking import Answer, ask, row_by_row
from vwkit.testing.comparing import same_form
from vwkit.testing.data import ascending, cut, far_away, layouts, mixture, noise, numbers
from vwkit.testing.every_role import EveryRole
from vwkit.types import Array

__all__ = ["VectorSuite", "takes_floats"]

# More rows than a library is likely to take as one block.
_MANY = 210


class VectorSuite(EveryRole, suite=True):
    """Tests of the roles that take rows of numbers."""

    #: Every dimension in the tests is a multiple of this; raise it for parameters that need it.
    dim_step: ClassVar[int] = 1
    #: Rows that these parameters need to be fitted.
    min_rows: ClassVar[int] = 1

    # What the tests are made of

    def _dim(self, about: int = 6) -> int:
        return max(1, about // self._step()) * self._step()

    def _step(self) -> int:
        return self.dim_step

    def _count(self, about: int = 60) -> int:
        return max(about, self.min_rows)

    def _numbers(
        self, seed: int, rows: int, dim: int, kind: str = "normal", scale: float = 100.0
    ) -> NDArray[np.float32]:
        return numbers(self._seed(seed), rows, dim, kind, scale)

    def _noise(self, seed: int, rows: int, dim: int) -> NDArray[np.float32]:
        return noise(self._seed(seed), rows, dim)

    def _mixture(self, seed: int, rows: int, dim: int, groups: int) -> NDArray[np.float32]:
        return mixture(self._seed(seed), rows, dim, groups)

    def _far_away(self, seed: int, rows: int, dim: int) -> NDArray[np.float32]:
        return far_away(self._seed(seed), rows, dim)

    def _rows(self, seed: int = 0, rows: int | None = None, dim: int | None = None) -> Array:
        """Return rows that suit the backend: floats where it takes them, else whole numbers."""
        kind = "normal" if takes_floats(self._make()) else "bytes"
        return self._numbers(seed, rows or self._count(), dim or self._dim(), kind)

    @abstractmethod
    def _fit(self, backend: Any, data: Any) -> Any:
        """Fit or build on data, and return the backend."""

    def _use(self, fitted: Any, data: Any) -> Answer:
        """Ask a fitted backend about new rows."""
        return ask(fitted, data)

    @abstractmethod
    def _verify(self, fitted: Any, data: Array) -> None:
        """Check a fitted backend against the reference; `data` are what it was fitted on."""

    def _usable(self, fitted: Any) -> bool:
        """Tell whether it can be asked about new rows."""
        return True

    def _domain_is_codes(self) -> bool:
        return False

    def _ready(self, **changes: Any) -> Any:
        return self._fit(self._make(**changes), self._rows(1))

    def _another(self) -> Any:
        fitted = self._fit(self._make(), self._rows(5))
        self._answer(fitted)
        return fitted

    def _ready_from(self, folder: Path) -> Any:
        np.save(folder / "rows.npy", self._rows(1))
        return self._fit(self._make(), np.load(folder / "rows.npy", mmap_mode="r"))

    def _verify_ready(self, fitted: Any) -> None:
        self._verify(fitted, self._rows(1))

    def _questions(self) -> list[Array]:
        return [self._rows(2, rows=9)]

    def _trained(self, made: Any) -> Any:
        return self._fit(made, self._rows(1))

    # Tests

    def test_inputs_are_left_alone(self) -> None:
        """Arrays that are handed in are the same afterwards.

        If this fails, check for operators such as ``*=`` and ``out=`` on an argument, and for a
        wrapped library that normalises in place: an array that fits is handed on without a copy.
        """
        data, asked = self._rows(1), self._rows(2, rows=9)
        kept_data, kept_asked = data.copy(), asked.copy()
        fitted = self._fit(self._make(), data)
        assert np.array_equal(data, kept_data), "the data were changed by fitting"
        for _ in range(2):
            self._use(fitted, asked)
            assert np.array_equal(asked, kept_asked), "the rows asked about were changed"
            assert np.array_equal(data, kept_data), "the data were changed after fitting"

    def test_answers_stay_as_they_were(self) -> None:
        """An answer that was given does not change when something else is asked.

        If this fails, check for work space that is kept on ``self`` and returned, or for a view of
        a wrapped library's memory: return a new array, or a copy.
        """
        fitted = self._ready()
        if not self._usable(fitted):
            pytest.skip("it cannot be asked about new rows")
        given = row_by_row(fitted, self._rows(2, rows=9))
        kept = [np.array(part) for part in given]
        row_by_row(fitted, self._rows(3, rows=9))
        for part, before in zip(given, kept, strict=True):
            same = np.array_equal(part, before, equal_nan=part.dtype.kind == "f")
            assert same, "an earlier answer was changed by the next one"

    def test_read_only_arrays_are_accepted(self) -> None:
        """Arrays that cannot be written to, such as memory maps, give the same answer.

        If this fails, check for a compiled function that insists on writable arrays.
        """
        data, asked = self._rows(1), self._rows(2, rows=9)
        fitted = self._fit(self._make(), data.copy())
        expected = self._use(fitted, asked.copy())
        data.flags.writeable = asked.flags.writeable = False
        other = self._fit(self._make(), data)
        self._verify(other, data)
        found = self._use(fitted, asked)
        self._assert_same(expected, found, fitted.deterministic, "for a read-only array")

    def test_memory_maps(self) -> None:
        """A memory map gives what the array gives, and the file stays as it was.

        If this fails, check for what is written to an argument, or done only to a memory map.
        """
        data, asked = self._rows(1), self._rows(2, rows=9)
        expected = self._use(self._fit(self._make(), data.copy()), asked)
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / "data.npy", Path(folder) / "asked.npy"]
            for path, rows in zip(files, (data, asked), strict=True):
                np.save(path, rows)
            before = [path.read_bytes() for path in files]
            mapped, questions = (np.load(path, mmap_mode="r+") for path in files)
            fitted = self._fit(self._make(), mapped)
            found = self._use(fitted, questions)
            mapped.flush()
            questions.flush()
            for path, content in zip(files, before, strict=True):
                assert path.read_bytes() == content, f"the memory-mapped {path.stem} were changed"
            self._assert_same(expected, found, fitted.deterministic, "for a memory map")
            self._verify(fitted, data)
            del fitted, mapped, questions

    def test_dtypes_and_layouts(self) -> None:
        """float64, uint8, Fortran order and strides make no difference.

        If this fails, check ``dtypes``: it names only what the underscored methods really take.
        """
        tables = [self._rows(1)]
        if not self._domain_is_codes():
            tables.append(self._numbers(1, self._count(), self._dim(), "bytes"))
        for data in tables:
            for name, variant in layouts(data):
                fitted = self._fit(self._make(), variant)
                self._verify(fitted, data)
                if self._usable(fitted):
                    expected, found = self._use(fitted, data), self._use(fitted, variant)
                    found = self._in_dtypes_of(expected, found)
                    exact = fitted.deterministic and name != "uint8"
                    self._assert_same(expected, found, exact, f"for a {name} array")

    def _in_dtypes_of(self, expected: Answer, found: Answer) -> Answer:
        """Return an answer to other dtypes as it is to be compared: it is of the same dtypes."""
        return found

    def test_many_rows(self) -> None:
        """Thousands of rows at once get the answers that they get in small numbers.

        If this fails, check work that is done in blocks: the last, shorter block, and where a
        block's results are put.
        """
        fitted = self._ready()
        if not self._usable(fitted):
            pytest.skip("it cannot be asked about new rows")
        few = self._rows(2, rows=11)
        expected = row_by_row(fitted, few)
        found = row_by_row(fitted, np.tile(few, (_MANY, 1)))
        for part, wanted in zip(found, expected, strict=True):
            same_form(
                np.empty((_MANY * 11, *wanted.shape[1:]), wanted.dtype), part, "for many rows"
            )
        for start in range(0, _MANY * 11, 11):
            among = tuple(part[start : start + 11] for part in found)
            why = f"for rows {start} to {start + 10} of {_MANY * 11:,}"
            self._assert_same_rows(expected, among, why)

    def _assert_same_rows(self, first: Answer, second: Answer, why: str) -> None:
        """Compare what `row_by_row` gave."""
        self._assert_same(first, second, False, why)

    def test_streams(self) -> None:
        """A Stream gives what the array gives, however it is cut and counted.

        If this fails, check that the last, shorter chunk is used, that a Stream is read afresh in
        every pass, and that partial results do not depend on where chunks end.
        """
        # In order, so that every chunk brings something that the others do not have.
        data, change = ascending(self._rows(1)), self._on_one_thread()
        with use_job(Job(threads=1)):
            answer = self._answer(self._fit(self._make(**change), data))
            for sizes, known in (([1000], True), ([7], False), ([1, 16, 3], True), ([0, 9], False)):
                fitted = self._fit(self._make(**change), cut(data, sizes, known))
                self._verify(fitted, data)
                why = f"for chunks of {sizes} rows"
                self._assert_same(answer, self._answer(fitted), fitted.deterministic, why)

    def test_second_fit_replaces_the_first(self) -> None:
        """Fitting again forgets the first data, of another size and dimension or of the same.

        If this fails, check that nothing kept from the first fit is used in the second: centers to
        start from, a table or a tree that is kept for the next question.
        """
        change, second = self._on_one_thread(), self._rows(1)
        other = self._rows(3, rows=self._count(70), dim=self._dim() + self._step())
        for first in (other, self._rows(3)):
            backend = self._make(**change)
            with use_job(Job(threads=1)):
                found = self._fit(backend, first)
                assert found is backend, "fit and build return the backend itself"
                self._use(backend, first[:5])
                if first.shape[1] == second.shape[1]:
                    self._answer(backend)  # the questions that are asked again
                self._fit(backend, second)
                self._verify(backend, second)
                fresh = self._fit(self._make(**change), second)
                if self._offers("seed") or fresh.deterministic:
                    one, two, exact = (
                        self._answer(fresh),
                        self._answer(backend),
                        fresh.deterministic,
                    )
                    self._assert_same(one, two, exact, "fitted twice")

    def test_generator_is_refused(self) -> None:
        """A generator is refused, with the reason.

        If this fails, check that the public method is the inherited one.
        """
        with pytest.raises(DataError, match="once"):
            self._fit(self._make(), (row for row in self._rows(1)))

    def test_wrong_shape_is_refused(self) -> None:
        """A wrong shape is refused; the message names the shape given and the one needed.

        If this fails, check that the public method is the inherited one.
        """
        data = self._rows(1)
        with pytest.raises(ShapeError, match=r"\(n, d\).*\("):
            self._fit(self._make(), data[0])
        fitted = self._fit(self._make(), data)
        if not self._usable(fitted):
            return
        wide = np.hstack([data, data[:, :1]])
        for wrong in (wide, cut(wide, [5])):
            with pytest.raises(ShapeError) as caught:
                self._use(fitted, wrong)
            for needed in (f"{data.shape[1]}", f"{wide.shape[1]}"):
                assert needed in str(caught.value), f"{caught.value} does not name {needed}"
        with pytest.raises(ShapeError):
            self._use(fitted, data[0])

    def test_nan_is_refused(self) -> None:
        """NaN and infinity are refused; the message names the row.

        If this fails, check that the public method is the inherited one.
        """
        data = self._rows(1)
        fitted = self._fit(self._make(), data)
        for bad in (np.nan, np.inf):
            spoilt = data.astype(np.float64)
            spoilt[17, 0] = bad
            # What learns nothing does not look at a Stream before it is asked to transform it.
            ways = [spoilt, cut(spoilt, [10])] if self._make()._needs_fit() else [spoilt]
            for way in ways:
                with pytest.raises(DataError, match="row 17"):
                    self._fit(self._make(), way)
            if self._usable(fitted):
                with pytest.raises(DataError, match="row 17"):
                    self._use(fitted, spoilt)

    def test_no_rows_are_refused(self) -> None:
        """Fitting on no rows is an error, not a crash.

        If this fails, check that the public method is the inherited one.
        """
        with pytest.raises(DataError, match="0 rows"):
            self._fit(self._make(), self._rows(1)[:0])

    def test_sparse_is_refused_or_taken(self) -> None:
        """Sparse vectors raise `UnsupportedError` unless the class says ``supports_sparse``.

        If this fails, check that the public method is the inherited one.
        """
        if getattr(self._make(), "supports_sparse", False):
            return
        sparse = vwkit.Sparse.from_dense(self._rows(1).astype(np.float32))
        with pytest.raises(UnsupportedError, match=r"sparse|code"):
            self._fit(self._make(), sparse)

    def _sorted_noise(self, seed: int, rows: int, dim: int) -> Array:
        """Return normally distributed rows whose first ones are unlike the last ones."""
        return ascending(self._noise(seed, rows, dim))


def takes_floats(backend: Any) -> bool:
    """Tell whether the underscored methods take floating-point numbers."""
    return any(np.dtype(name).kind == "f" for name in backend.dtypes)
